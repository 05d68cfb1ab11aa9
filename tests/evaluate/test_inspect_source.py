"""Inspect's logs as answers, by a stub of its reader; where inspect-ai is installed by itself.

Then tasks also run for real, against the stub of an endpoint.
"""

from __future__ import annotations

import importlib.util
import json
import zipfile
from pathlib import Path
from typing import Any

import briefs
import inspect_stub
import openai_stub
import pandas as pd
import pytest
from scored import score_answers, summarise

from lib.brief.deployment import Deployment
from lib.brief.project import Project
from lib.errors import PlaybookError
from lib.evaluate import inspect_source
from lib.evaluate.inspect_source import read_log
from lib.opening import open_project

INSTALLED = importlib.util.find_spec("inspect_ai") is not None
installed = pytest.mark.skipif(not INSTALLED, reason="needs inspect-ai")
A = Deployment.model_validate({"name": "a", "model": "org/a", "price": {"usd_per_hour": 1}})
KEY = 'sk-"secret"-7f3a91'
USAGE = {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}
TASK = """
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes, match
from inspect_ai.solver import generate

@task
def tiny(n: int = 4, epochs: int = 1):
    samples = [
        Sample(
            id=f"s{i}", input=f"text {i}", target="positive" if i % 2 else "negative",
            metadata={"who": f"g{i // 2}"},
        )
        for i in range(n)
    ]
    return Task(dataset=samples, solver=generate(), scorer=[match(), includes()], epochs=epochs)
"""


@pytest.fixture(autouse=True)
def reader(monkeypatch: pytest.MonkeyPatch) -> None:
    if not INSTALLED:
        inspect_stub.install(monkeypatch)


def failure(message: str) -> dict[str, str]:
    return {"message": message, "traceback": "", "traceback_ansi": ""}


def said(text: str, **choice: Any) -> dict[str, Any]:
    """What a model gave: one choice of one message."""
    return {"choices": [{"message": {"role": "assistant", "content": text}, **choice}]}


def sample(number: int, value: Any = "C", **changes: Any) -> dict[str, Any]:
    """A sample as Inspect 0.3.285 logs it, without what is not read."""
    message = {"role": "assistant", "content": "positive", "source": "generate"}
    return {
        "id": f"s{number}",
        "epoch": 1,
        "input": [{"role": "user", "content": f"text {number}"}],
        "target": "positive",
        "output": {
            "model": "m",
            "choices": [{"message": message, "stop_reason": "stop"}],
            "completion": "positive",
            "usage": {"input_tokens": 10, "output_tokens": 1, "total_tokens": 11},
            "time": 0.25,
        },
        "scores": {"match": {"value": value, "answer": "positive", "explanation": "because"}},
        "metadata": {"who": "g1"},
        "model_usage": {"openai-api/x/org/a": {"input_tokens": 7, "output_tokens": 3,
                                               "input_tokens_cache_read": 5, "total_tokens": 15}},
        "events": [],
    } | changes  # fmt: skip


def scores_of(name: str, scorer: str, *metrics: str) -> dict[str, Any]:
    figures = {metric: {"name": metric, "value": 0.5} for metric in metrics}
    return {"name": name, "scorer": scorer, "metrics": figures}


def log(*samples: Any, **changes: Any) -> dict[str, Any]:
    head = {
        "version": 2,
        "status": "success",
        "eval": {
            "task": "tiny",
            "model": "openai-api/x/org/a",
            "created": "2026-11-24T02:14:12+00:00",
            "config": {"epochs": 1},
            "dataset": {},
            "scorers": [{"name": "match"}, {"name": "quality"}],
        },
        "results": {
            "scores": [
                scores_of("match", "match", "accuracy", "stderr"),
                scores_of("style", "quality", "mean"),
            ]
        },
    }
    return head | {"samples": list(samples)} | changes


def written(folder: Path, document: Any, name: str = "a.json") -> Path:
    path = folder / name
    if name.endswith(".eval"):
        samples = document.pop("samples")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
            for one in samples:
                content = json.dumps(one)
                made.writestr(f"samples/{one['id']}_epoch_{one['epoch']}.json", content)
            made.writestr("header.json", json.dumps(document))
    else:
        text = document if isinstance(document, str) else json.dumps(document)
        path.write_text(text, encoding="utf-8")
    return path


def brief(folder: Path, endpoint: dict[str, Any] | None = None, **inspect: Any) -> Project:
    """A brief of kind inspect with two deployments."""
    raw = briefs.changed("evaluation", {"kind": "inspect", "concurrency": 3, "max_retries": 0})
    raw["evaluation"]["inspect"] = {"task": "tasks.py@tiny"} | inspect
    raw["deployments"] = [
        {"name": name, "model": f"org/{name}", "hardware": "cpu-2",
         "endpoint": endpoint or {"recorded": f"{name}.json"}}
        for name in ("a", "b")
    ]  # fmt: skip
    (folder / "tasks.py").write_text(TASK, encoding="utf-8")
    return open_project(briefs.write(folder, raw))


def scored(folder: Path, *values: Any, metric: str | None = None) -> pd.DataFrame:
    """One deployment's samples with these values of the scorer, scored."""
    made = [sample(i, value) for i, value in enumerate(values)]
    for name in ("a", "b"):
        written(folder, log(*made), f"{name}.json")
    project = brief(folder, metric=metric)
    answers = inspect_source.gather(project, project.deployments[:1], folder)
    return score_answers(project, answers)


@pytest.mark.parametrize("name", ["a.json", "a.eval"])
def test_a_log_is_read_as_answers(tmp_path: Path, name: str) -> None:
    read = read_log(written(tmp_path, log(sample(0), sample(1, "I")), name), A, group="who")
    first = read.iloc[0].to_dict()
    assert read["item_id"].tolist() == ["s0", "s1"]
    assert first["repo_id"] == "org/a" and first["group"] == "g1"
    assert (first["input"], first["target"], first["output"]) == ("text 0", "positive", "positive")
    assert (first["finish_reason"], first["error"], first["shared_with"]) == ("stop", "", "")
    assert (first["prompt_tokens"], first["completion_tokens"], first["latency_s"]) == (12, 3, 0.25)
    assert first["cached_tokens"] == 5
    assert (first["scorer"], first["graded"], first["detail"]) == ("match", "C", "because")
    assert read.attrs["task"] == "tiny"


def test_an_input_without_text_is_blank(tmp_path: Path) -> None:
    made = log(sample(0, input=[{"role": "user", "content": []}]), sample(1, input="as it is"))
    assert read_log(written(tmp_path, made), A)["input"].tolist() == ["", "as it is"]


def test_values_of_scorers_become_scores(tmp_path: Path) -> None:
    table = scored(tmp_path, "C", "P", "I", "N", True, 0.25, 1, "0.5", "yes")
    assert table["score"].tolist() == [1, 0.5, 0, 0, 1, 0.25, 1, 0.5, 1]
    assert table["outcome"].tolist() == ["answered"] * 3 + ["unparsed"] + ["answered"] * 5
    summary = summarise(brief(tmp_path), table)
    assert summary["metric"].tolist() == ["mean score"]
    assert summary["value"].tolist() == pytest.approx([5.25 / 9])


def test_right_and_wrong_is_accuracy(tmp_path: Path) -> None:
    table = scored(tmp_path, "C", "C", "I", "C")
    summary = summarise(brief(tmp_path), table).iloc[0]
    assert summary["metric"] == "accuracy" and summary["value"] == 0.75 and summary["primary"]


@pytest.mark.parametrize("value", [4, -1, "good", "inf", "nan", [1], {"a": 1}, {}])
def test_a_value_off_the_scale_is_a_sentence(tmp_path: Path, value: Any) -> None:
    with pytest.raises(PlaybookError, match=r"evaluation\.inspect\.metric"):
        scored(tmp_path, "C", value)


def test_what_failed_is_not_wrong(tmp_path: Path) -> None:
    long = "request " * 90 + "Error code: 429"
    made = [
        sample(0, error=failure(long), scores={}),
        sample(1, scores={}),
        sample(2, float("nan")),
        sample(3, output=said("po", stop_reason="max_tokens")),
        sample(4, output=said("no", stop_reason="content_filter")),
        sample(5, output={"choices": []}),
    ]
    written(tmp_path, log(*made))
    project = brief(tmp_path)
    answers = inspect_source.gather(project, project.deployments[:1], tmp_path)
    table = score_answers(project, answers)
    wanted = ["failed", "failed", "failed", "truncated", "refused", "answered"]
    assert table["outcome"].tolist() == wanted
    assert table["score"].isna().tolist() == [True] * 3 + [False] * 3
    assert answers["error"][0].endswith("Error code: 429")
    assert summarise(project, table)["comparable"].tolist() == ["no"]


def test_a_scorer_that_the_log_lacks_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(PlaybookError, match=r"metric 'matches' is no scorer; did you mean 'match'"):
        read_log(written(tmp_path, log(sample(0))), A, metric="matches")


def test_epochs_of_a_sample_belong_together(tmp_path: Path) -> None:
    document = log(sample(0), sample(0, "I", epoch=2))
    document["eval"]["config"]["epochs"] = 2
    read = read_log(written(tmp_path, document), A)
    assert read["item_id"].tolist() == ["s0/1", "s0/2"]
    assert read["group"].tolist() == ["s0", "s0"]


@pytest.mark.parametrize(
    ("metric", "score"),
    [(None, 1.0), ("match", 1.0), ("quality/style", 0.3), ("quality", None)],
)
def test_the_brief_names_the_scorer(tmp_path: Path, metric: str | None, score: float) -> None:
    both = {"match": {"value": "C"}, "quality": {"value": {"style": 0.3, "form": 0.9}}}
    written(tmp_path, log(sample(0, scores=both)))
    project = brief(tmp_path, metric=metric)
    answers = inspect_source.gather(project, project.deployments[:1], tmp_path)
    if score is None:  # its values are mappings, and no key is named
        with pytest.raises(PlaybookError, match="scorer/key"):
            score_answers(project, answers)
    else:
        assert score_answers(project, answers)["score"].tolist() == [score]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "not a readable Inspect log"),
        ("[1]", "not a readable Inspect log"),
        ('{"eval": {"task": 3}}', "not a readable Inspect log"),
        ("[" * 100_000, "not a readable Inspect log"),
        (log(status="cancelled"), "did not finish"),
        (log(status="error", error=failure("boom")), "boom"),
        (log(), "no samples"),
        (log(sample(0), sample(0)), "twice"),
    ],
)
def test_a_broken_log_is_one_sentence(tmp_path: Path, content: Any, why: str) -> None:
    with pytest.raises(PlaybookError, match=why) as raised:
        read_log(written(tmp_path, content), A)
    assert "a.json" in str(raised.value) and len(str(raised.value)) < 500


@installed
@pytest.mark.parametrize("field", ["output", "scores", "metadata", "events", "error", "target"])
def test_a_sample_of_another_shape_is_one_sentence(tmp_path: Path, field: str) -> None:
    for strange in (3, "x", [3], {"choices": 1, "a": []}):
        made = written(tmp_path, log(sample(0), sample(1, **{field: strange})))
        try:
            read = read_log(made, A, group="who")
        except PlaybookError as error:
            assert "a.json: not a readable Inspect log" in str(error) and len(str(error)) < 500
        else:
            text = read[["output", "error", "target", "group", "input"]]
            assert len(read) == 2 and text.map(type).eq(str).all().all()


def test_a_damaged_archive_is_one_sentence(tmp_path: Path) -> None:
    path = written(tmp_path, log(sample(0)), "a.eval")
    content = bytearray(path.read_bytes())
    content[60:90] = b"\xff" * 30
    path.write_bytes(content)
    with pytest.raises(PlaybookError, match="not a readable Inspect log"):
        read_log(path, A)


def test_logs_of_two_tasks_are_not_compared(tmp_path: Path) -> None:
    written(tmp_path, log(sample(0)))
    other = log(sample(0))
    other["eval"]["task"] = "another"
    written(tmp_path, other, "b.json")
    project = brief(tmp_path)
    with pytest.raises(PlaybookError, match="not of \\['another', 'tiny'\\]"):
        inspect_source.gather(project, project.deployments, tmp_path)


@pytest.mark.parametrize("endpoint", [None, {"base_url": "http://127.0.0.1:9/v1"}])
def test_without_inspect_the_sentence_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: Any
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "inspect_ai", None)
    monkeypatch.setitem(__import__("sys").modules, "inspect_ai.log", None)
    written(tmp_path, log(sample(0)))
    project = brief(tmp_path, endpoint)
    with pytest.raises(PlaybookError, match="pip install inspect-ai"):
        inspect_source.gather(project, project.deployments, tmp_path / "run")


def test_a_budget_is_refused_rather_than_ignored(tmp_path: Path) -> None:
    project = brief(tmp_path, {"base_url": "http://127.0.0.1:9/v1"})
    evaluation = project.evaluation.model_copy(update={"max_usd": 1.0})
    project = project.model_copy(update={"evaluation": evaluation})
    with pytest.raises(PlaybookError, match="max_usd"):
        inspect_source.gather(project, project.deployments, tmp_path / "run")


def behave(request: openai_stub.Request) -> openai_stub.Reply:
    """Answer; refuse one item, and say the key while at it."""
    if "text 2" in request.text:
        return openai_stub.error(400, f"bad key {KEY}")
    return openai_stub.Reply("positive", usage=USAGE)


def holding(folder: Path, text: str) -> list[str]:
    """The files below a folder that hold a text, inside archives too."""
    found = []
    for path in (p for p in folder.rglob("*") if p.is_file()):
        contents = [path.read_bytes()]
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                contents += [archive.read(name) for name in archive.namelist()]
        forms = {text.encode(), json.dumps(text)[1:-1].encode()}
        if any(form in content for form in forms for content in contents):
            found.append(path.name)
    return found


@installed
def test_a_task_runs_against_every_deployment_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("K5_TEST_KEY", KEY)
    run = tmp_path / "run"
    with openai_stub.running(openai_stub.Reply("positive", usage=USAGE)) as stub:
        endpoint = {"base_url": stub.url, "api_key_env": "K5_TEST_KEY"}
        project = brief(tmp_path, endpoint, args={"n": 3}, limit=2)
        answers = inspect_source.gather(project, project.deployments, run)
        asked = len(stub.requests)
        again = inspect_source.gather(project, project.deployments, run)
        assert len(stub.requests) == asked == 4
        (tmp_path / "tasks.py").write_text(TASK + "# another version\n", encoding="utf-8")
        inspect_source.gather(project, project.deployments[:1], run)
        assert len(stub.requests) == 6
    pd.testing.assert_frame_equal(answers, again)
    assert {r.headers["authorization"] for r in stub.requests} == {f"Bearer {KEY}"}
    assert {r.body["model"] for r in stub.requests} == {"org/a", "org/b"}
    assert all("temperature" not in r.body for r in stub.requests)
    table = score_answers(project, answers)
    assert table["item_id"].tolist() == ["s0", "s1"] * 2
    assert table["score"].tolist() == [0, 1, 0, 1]
    assert (table["prompt_tokens"] == 10).all() and table["latency_s"].notna().all()


@installed
def test_the_key_reaches_no_file_and_a_failing_log_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("K5_TEST_KEY", KEY)
    with openai_stub.running(behave) as stub:
        project = brief(tmp_path, {"base_url": stub.url, "api_key_env": "K5_TEST_KEY"})
        for _ in range(2):
            answers = inspect_source.gather(project, project.deployments[:1], tmp_path / "run")
        assert len(stub.requests) == 8
    table = score_answers(project, answers)
    assert table["outcome"].tolist() == ["answered", "answered", "failed", "answered"]
    assert "***" in answers["error"][2] and KEY not in answers["error"][2]
    assert list((tmp_path / "run").rglob("04_inspect/*.json"))
    assert holding(tmp_path, KEY) == []


@installed
def test_a_task_that_does_not_run_is_one_sentence(tmp_path: Path) -> None:
    project = brief(tmp_path, {"base_url": "http://127.0.0.1:9/v1"}, task="tasks.py@none")
    with pytest.raises(PlaybookError, match="did not run with 'a'"):
        inspect_source.gather(project, project.deployments, tmp_path / "run")
