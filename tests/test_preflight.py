"""Before anything is asked: all problems in one list, a call each, a project to begin with."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import openai_stub
import pytest
import yaml
from briefs import changed, load_project, write, write_items

from lib import hub, preflight, tables
from lib.__main__ import main
from lib.brief import Limits, Project
from lib.errors import PlaybookError, did_you_mean
from lib.hub import client
from lib.opening import open_project, open_run

KNOWN = {"deployments.0.model": "Qwen/Qwen3-8B", "deployments.1.model": "Qwen/Qwen3-4B"}
ITEM = {"id": "1", "input": "fine", "target": "positive"}


def project(folder: Path, where: str = "", value: Any = None, *, item: Any = ITEM) -> Path:
    """A brief of known models, in which one thing is changed."""
    raw = changed(where, value)
    for deployment in raw["deployments"]:
        deployment["model"] = deployment["model"].replace("org/a", "Qwen/Qwen3-8B")
        deployment["model"] = deployment["model"].replace("org/b", "Qwen/Qwen3-4B")
    write_items(folder, item)
    return write(folder, raw)


def test_a_project_without_problems(tmp_path: Path) -> None:
    assert preflight.problems(open_project(project(tmp_path))) == []


CLOSED = {"name": "now", "model": "openai/gpt-5-mini", "baseline": True}
PRICES = {"usd_per_hour": 1.0}


@pytest.mark.parametrize(
    ("where", "value", "sentence"),
    [
        ("policy.licenses", ["mitt"], "policy.licenses: nobody here knows 'mitt'"),
        ("size", {"replaces": "gpt-5-minni"}, "did you mean 'gpt-5-mini'"),
        ("deployments.0.model", "Qwen/Qwen3-8", "did you mean 'Qwen/Qwen3-8B' or "),
        ("models", [{"repo_id": "Qwen/Qwen3-8B"}], "is in data/models.csv already"),
        ("deployments.1.hardware", "cpu-22", "data/hardware.csv has no price for 'cpu-22'"),
        ("deployments.0.price", {"provider": "nobody"}, "genai-prices knows no price"),
        ("deployments.0.options", {"extra_body": {"n": 2}}, "may not set 'n'"),
        ("evaluation.items", "gone.jsonl", "gone.jsonl: no such file"),
        ("deployments.0", CLOSED | {"endpoint": {"recorded": "x"}, "price": PRICES}, "no such fi"),
    ],
)
def test_each_problem_is_found(tmp_path: Path, where: str, value: Any, sentence: str) -> None:
    problems = preflight.problems(open_project(project(tmp_path, where, value)))
    assert len(problems) == 1 and sentence in problems[0]


def test_all_problems_are_in_one_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PLAYBOOK_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("SOME_API_KEY", raising=False)
    path = project(tmp_path, "deployments.1.hardware", "cpu-22", item={"id": "1", "input": "x"})
    for command in ("run", "check"):
        assert main([command, str(path)]) == 1
        err = capsys.readouterr().err
        assert "project.yaml: 3 problems:" in err and err.count("\n- ") == 3
        assert "no price for 'cpu-22'" in err and "target must be text" in err
        assert "deployment 'a': the environment variable SOME_API_KEY is not set" in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("price", "sentence"),
    [
        ("$3,000", "requirements.max_usd_per_month: Input should be a valid number, "),
        ("3,000", "requirements.0: a number is no key; between braces a comma ends a value: write"),
    ],
)
def test_one_mistake_is_one_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, price: str, sentence: str
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "x")
    path = project(tmp_path)
    path.write_text(f"{path.read_text()}\nrequirements: {{max_usd_per_month: {price}}}\n")
    with pytest.raises(PlaybookError) as caught:
        open_project(path)
    assert "problems" not in str(caught.value) and sentence in str(caught.value)


def test_a_fault_of_one_layer_hides_none_of_another(tmp_path: Path) -> None:
    """Of the schema, the kind of task, the items, the names and the prices: all in one list."""
    items = [{"id": "1", "input": "x"}, {"id": 2, "input": "y", "target": "no"}]
    path = project(tmp_path, "deployments.1.hardware", "cpu-22", item=items[0])
    write_items(tmp_path, *items)
    raw = yaml.safe_load(path.read_text("utf-8"))
    raw["policy"] |= {"licenses": ["mitt"], "countrys": ["France"]}
    raw["objective"], raw["size"] = "cheap", {"replaces": "gpt-5-minni"}
    raw["evaluation"] |= {"labels": [True, False], "max_tokens": 0}
    raw["deployments"].append({"name": "c", "model": "Qwen/Qwen3-8", "endpoint": {"recorded": "x"}})
    path.write_text(yaml.safe_dump(raw), "utf-8")
    with pytest.raises(PlaybookError) as caught:
        open_project(path)
    for sentence in (
        "unknown key 'policy.countrys'; did you mean 'countries'?",
        "objective: Input should be",
        "evaluation.max_tokens: Input",
        "evaluation.labels.0: Input should be a valid string, not True; YAML reads yes, no",
        "deployments.2: 'c' needs a price",
        "policy.licenses: nobody here knows 'mitt'",
        "did you mean 'gpt-5-mini'",
        "no price for 'cpu-22'",
    ):
        assert sentence in str(caught.value), sentence


def test_all_faulty_items_are_named(tmp_path: Path) -> None:
    path = project(tmp_path)
    good = [ITEM | {"id": str(n)} for n in range(3)]
    faulty = [
        {"id": "x"},
        {"id": 7, "input": "a"},
        *[{"id": n, "input": "a"} for n in range(30, 50)],
    ]
    write_items(tmp_path, good[0], faulty[0], good[1], *faulty[1:])
    (problem,) = preflight.problems(open_project(path))
    assert problem.count("\n- ") == 9
    assert "line 2: input must be text" in problem and "line 4: id must be text, not 7" in problem
    assert problem.endswith("items.jsonl: 14 more lines are not usable")


def test_a_fault_of_many_lines_is_told_once(tmp_path: Path) -> None:
    """And a field that no line has by the names of those there are."""
    path = project(tmp_path)
    write_items(tmp_path, *[{"ticket": str(n), "text": "a", "label": "b"} for n in range(8)])
    (problem,) = preflight.problems(open_project(path))
    way = "evaluation.columns says which is yours: {id: …, input: …, target: …}"
    assert problem.endswith(
        f"items.jsonl line 1: id must be text, not None; so 7 more; no line has a field 'id',"
        f" they have label, text, ticket; {way}"
    )
    write_items(tmp_path, ITEM, *[{"id": str(n), "input": "a"} for n in range(2, 8)])
    (problem,) = preflight.problems(open_project(path))
    assert problem.endswith("items.jsonl line 2: target must be text, not None; so 5 more")


def test_notebook_1_refuses_the_same_and_only_notes_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOME_API_KEY", raising=False)
    *_, standing = open_run("01", project(tmp_path), str(tmp_path / "run"))
    assert "the environment variable SOME_API_KEY is not set" in standing
    with pytest.raises(PlaybookError, match="no price for 'cpu-22'"):
        open_run("01", project(tmp_path, "deployments.1.hardware", "cpu-22"), str(tmp_path / "r"))


def test_what_is_set_for_the_run_is_not_the_file_s_fault(tmp_path: Path) -> None:
    with pytest.raises(PlaybookError, match=r"^set for this run: policy\.use: .*, not 'intern'$"):
        load_project(project(tmp_path), policy__use="intern")


def test_recorded_answers_need_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_API_KEY", raising=False)
    recorded = {"recorded": "answers.jsonl"}
    brief = open_project(project(tmp_path, "deployments.0.endpoint", recorded))
    assert preflight.unset_keys(brief) == []


def hosted(folder: Path, url: str) -> Project:
    endpoint = {"base_url": url, "api_key_env": "SOME_API_KEY"}
    raw = changed("deployments.0.endpoint", endpoint)
    raw["deployments"] = [raw["deployments"][0] | {"model": "Qwen/Qwen3-8B"}]
    raw["deployments"][0]["price"] = {"input_usd_per_million": 1, "output_usd_per_million": 2}
    write_items(folder, ITEM, ITEM | {"id": "2", "input": "bad", "target": "negative"})
    return open_project(write(folder, raw))


def test_one_call_says_whether_an_endpoint_works_and_what_a_run_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "x")
    monkeypatch.setenv("PLAYBOOK_RUNS", str(tmp_path / "runs"))
    with openai_stub.running() as stub:
        table, problems = preflight.check(hosted(tmp_path, stub.url))
        assert (problems, len(stub.requests)) == ([], 1)
    row = tables.rows(table)[0]
    assert (row["deployment"], row["works"]) == ("a", "yes")
    assert row["calls"] >= 2 and row["usd_high"] > 0 and row["minutes"] > 0
    assert row["completion_tokens"] is not None and row["latency_s"] > 0


@pytest.mark.parametrize(
    ("limits", "delay_s", "minutes"),
    [({"requests_per_minute": 1}, 0.0, 2.0), ({}, 1.0, 1.0)],  # two items; 60 answers of step 5
)
def test_minutes_count_the_limits_and_the_slowness_of_an_endpoint(
    limits: dict[str, int], delay_s: float, minutes: float, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("SOME_API_KEY", "x")
    monkeypatch.setenv("PLAYBOOK_RUNS", str(tmp_path / "runs"))
    with openai_stub.running(openai_stub.Reply(delay_s=delay_s)) as stub:
        brief = hosted(tmp_path, stub.url)
        one = brief.deployments[0].model_copy(update={"limits": Limits.model_validate(limits)})
        table, _ = preflight.check(brief.model_copy(update={"deployments": [one]}))
    assert table["minutes"].iloc[0] >= minutes


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (openai_stub.Reply("Let me think about it"), "unparsed"),
        (openai_stub.Reply("Let me", finish_reason="length"), "truncated"),
        (openai_stub.Reply("I cannot", finish_reason="content_filter"), "refused"),
        (openai_stub.Reply("<think>so</think>"), "empty"),
    ],
)
def test_a_first_answer_that_will_not_count_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reply: openai_stub.Reply, outcome: str
) -> None:
    """Every other answer may be like it, and the whole of step 4 be asked for nothing."""
    monkeypatch.setenv("SOME_API_KEY", "x")
    monkeypatch.setenv("PLAYBOOK_RUNS", str(tmp_path / "runs"))
    with openai_stub.running(lambda _: reply) as stub:
        table, problems = preflight.check(hosted(tmp_path, stub.url))
        assert len(stub.requests) == 1
    assert table["works"].iloc[0] == f"yes, but this answer does not count: {outcome}"
    assert problems == []


def test_what_the_licence_bars_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    with openai_stub.running() as stub:
        base = "meta-llama/Llama-3.1-8B-Instruct"
        own = {"repo_id": "acme/own", "base_model": base, "country": "Germany"}
        path = project(tmp_path, "models", [own])
        raw = yaml.safe_load(path.read_text("utf-8"))
        raw["policy"]["licenses"] = ["permissive", "conditional"]
        raw["deployments"][1] |= {"model": "acme/own", "endpoint": {"base_url": stub.url}}
        raw["deployments"][0] |= {"endpoint": {"base_url": stub.url}}
        for deployment in raw["deployments"]:
            deployment["price"] = PRICES
        path.write_text(yaml.safe_dump(raw), "utf-8")
        table, problems = preflight.check(open_project(path))
        assert problems == [] and len(stub.requests) == 1
        row = table.set_index("deployment").loc["b"]
        assert row["works"].startswith("not asked, step 1: review: ")
        assert "company.monthly_active_users" in row["works"] and row["calls"] != row["calls"]
        raw["policy"]["licenses"] = ["gemma"]
        path.write_text(yaml.safe_dump(raw), "utf-8")
        _, problems = preflight.check(open_project(path))
        assert problems == ["deployments: the policy lets nobody through who could be chosen"]


def test_a_host_that_the_policy_denies_is_not_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its row says so, and the last line does not say that everything is there."""
    monkeypatch.setenv("PLAYBOOK_RUNS", str(tmp_path / "runs"))
    with openai_stub.running() as stub:
        path = project(tmp_path)
        raw = yaml.safe_load(path.read_text("utf-8"))
        raw["policy"]["host_countries"] = ["Germany"]
        for deployment, country in zip(raw["deployments"], ("Germany", "China"), strict=True):
            deployment["endpoint"], deployment["price"] = {"base_url": stub.url}, PRICES
            deployment["host"] = {"provider": "x", "country": country}
        path.write_text(yaml.safe_dump(raw), "utf-8")
        assert main(["check", str(path)]) == 0
        assert len(stub.requests) == 1
    out = capsys.readouterr().out
    assert "not asked: its host x is in China, which the policy does not allow" in out
    assert "1 of 2 deployments will not be asked, see above. next: " in out
    assert "Everything is there" not in out


def test_a_key_is_near_one_of_the_same_words_in_another_order() -> None:
    keys = ["input_usd_per_million", "output_usd_per_million", "usd_per_hour"]
    said = did_you_mean("usd_per_million_output_tokens", keys)
    assert said == "did you mean 'output_usd_per_million'?"


def test_notes_name_what_a_reader_would_miss(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = project(tmp_path, "task", "Sort tickets (replace this by your own)")
    raw = yaml.safe_load(path.read_text("utf-8"))
    raw["deployments"] = raw["deployments"][:1]
    raw["deployments"][0] |= {"endpoint": {"recorded": "old.jsonl"}, "baseline": True}
    raw["deployments"][0]["price"] = {"input_usd_per_million": 1, "output_usd_per_million": 2}
    path.write_text(yaml.safe_dump(raw), "utf-8")
    (tmp_path / "old.jsonl").write_text('{"item_id": "1", "output": "positive"}\n')
    assert main(["check", str(path)]) == 0
    out = capsys.readouterr().out
    assert "note: task: still the template's" in out
    assert "note: deployment 'a': add prompt_tokens and completion_tokens to every line" in out
    # Answers that are missing, and system turns that are replaced.
    turns = [{"role": "system", "content": "Mine."}, {"role": "user", "content": "Hello"}]
    write_items(tmp_path, ITEM, {"id": "2", "messages": turns, "target": "positive"})
    raw["evaluation"]["prompt"] = {"system": "Sort it."}
    path.write_text(yaml.safe_dump(raw), "utf-8")
    said = " ".join(preflight.notes(open_project(path)))
    assert "1 of 2 items have no recorded answer; above 2 % its score is not comparable" in said
    assert "1 conversations: evaluation.prompt.system takes the place of the system turn" in said


def test_a_dead_endpoint_is_named_by_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "x")
    monkeypatch.setenv("PLAYBOOK_RUNS", str(tmp_path / "runs"))
    brief = hosted(tmp_path, "http://127.0.0.1:9/v1")
    assert main(["check", brief.file]) == 1
    printed = capsys.readouterr()
    assert "a: no connection to http://127.0.0.1:9 (is it up?)" in printed.err
    assert "next: mend this, then python -m lib check" in printed.err
    assert "Calls and dollars are the most; minutes are about" in printed.out
    assert "--from" not in printed.out + printed.err  # nothing was run yet


def test_a_wrong_key_is_a_problem_and_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-secret-123456789")

    def refuse(request: openai_stub.Request) -> openai_stub.Reply:
        return openai_stub.error(401, f"{request.headers['authorization']} is wrong")

    with openai_stub.running(refuse) as stub:
        table, problems = preflight.check(hosted(tmp_path, stub.url))
    assert len(problems) == 1 and "401" in problems[0] and "SOME_API_KEY" in problems[0]
    assert "sk-secret" not in problems[0] + table.to_string()


class Reply:
    def __init__(self, status_code: int) -> None:
        self.status_code = status_code

    def get(self, *_: Any, **__: Any) -> Reply:
        return self


@pytest.mark.parametrize(("status", "told"), [(200, ""), (401, "wrong or expired"), (503, "")])
def test_the_hub_s_token(monkeypatch: pytest.MonkeyPatch, status: int, told: str) -> None:
    monkeypatch.setattr(client, "offline", lambda: "")
    monkeypatch.setattr(client.hf, "get_token", lambda: "hf_secret")
    monkeypatch.setattr(client.hf, "get_session", lambda: Reply(status))
    problem = hub.token_problem()
    assert told in problem and bool(told) == bool(problem) and "hf_secret" not in problem
    monkeypatch.setattr(client.hf, "get_token", lambda: None)
    assert hub.token_problem() == ""


@pytest.fixture
def projects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of projects with the template in it."""
    shutil.copytree(preflight.PROJECTS / preflight.TEMPLATE, tmp_path / preflight.TEMPLATE)
    monkeypatch.setattr(preflight, "PROJECTS", tmp_path)
    return tmp_path


def test_a_new_project_is_ready_to_run(projects: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "my-task"]) == 0
    assert capsys.readouterr().out.endswith("next: python -m lib check my-task\n")
    brief = open_project(projects / "my-task")
    assert (brief.name, preflight.problems(brief), preflight.unset_keys(brief)) == (
        "my-task",
        [],
        [],
    )
    assert len((projects / "my-task/items.jsonl").read_text().splitlines()) == 5
    assert "hosted-template" not in (projects / "my-task/README.md").read_text()
    assert main(["new", "my-task"]) == 1
    assert "is there already" in capsys.readouterr().err
    assert main(["new", "../x"]) == 1


def test_the_endpoints_that_the_template_shows_are_right(projects: Path) -> None:
    path = preflight.new("mine") / "project.yaml"
    head, _, tail = path.read_text().partition("  # - name: gpt-oss")
    hosted_ones, _, end = tail.partition("requirements: {")
    shown = re.sub(r"(?m)^  # ", "  ", f"  # - name: gpt-oss{hosted_ones}")
    path.write_text(f"{head}{shown}requirements: {{{end}")
    (path.parent / "gpt-5-mini.jsonl").write_text('{"item_id": "t1", "output": "urgent"}\n')
    brief = open_project(path)
    assert len(brief.deployments) == 6 and preflight.problems(brief) == []
    assert len(preflight.unset_keys(brief)) == 4


def test_a_copied_project_that_kept_its_name(projects: Path) -> None:
    preflight.new("one").rename(projects / "two")
    problems = preflight.problems(open_project(projects / "two"))
    assert problems[0].startswith(
        "name: one lies in the folder two: its runs would go to runs/one/"
    )
    raw = yaml.safe_load((projects / "two" / "project.yaml").read_text())
    assert raw["name"] == "one"
