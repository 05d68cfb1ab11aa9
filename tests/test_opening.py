"""A run keeps what it sets differently, and no step stands on what was made from other things."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from briefs import changed, write, write_items

from lib import artifacts, opening, preflight
from lib.brief import Project
from lib.errors import PlaybookError
from lib.opening import open_run

ITEM = {"id": "1", "input": "fine", "target": "positive"}
EXEMPTION = {"model": "a/b", "lifts": "review", "approver": "Counsel", "reason": "so it is"}
EXEMPTION["expires"] = "2030-01-01"
STEPS = ("01", "02", "03", "04", "05", "06")


class Steps:
    """The six steps of one project in one run directory, each writing tables of one row."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run, self.brief = folder, folder / "run", folder / "project.yaml"
        write_items(folder, ITEM)
        self.write()

    def write(self, where: str = "", value: Any = None, **more: Any) -> None:
        write(self.folder, changed(where, value, **more))

    def open(self, step: str, **overrides: Any) -> Project:
        return open_run(step, self.brief, str(self.run), **overrides)[0]

    def save(self, step: str, content: str = "x") -> None:
        for name in (name for name in artifacts.COLUMNS if name.startswith(step)):
            columns = artifacts.COLUMNS[name].split()
            artifacts.save(pd.DataFrame({c: [content] for c in columns}), self.run, name)

    def go(self, step: str, **overrides: Any) -> Project:
        brief = self.open(step, **overrides)
        self.save(step)
        return brief

    def stale(self) -> dict[str, str]:
        """By step, what opening it says is wrong; without what it opens well."""
        problems = {}
        for step in STEPS:
            with_copy = self.folder / f"copy-{step}"
            shutil.copytree(self.run, with_copy)
            try:
                open_run(step, self.brief, str(with_copy))
            except PlaybookError as error:
                problems[step] = str(error)
            shutil.rmtree(with_copy)
        return problems


@pytest.fixture(autouse=True)
def nothing_else_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a brief may hold is tests/test_preflight.py's; these deploy models that nobody knows."""
    monkeypatch.setattr(preflight, "problems", lambda _: [])
    monkeypatch.setenv("SOME_API_KEY", "x")


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    return Steps(tmp_path)


@pytest.fixture
def done(steps: Steps) -> Steps:
    for step in STEPS:
        steps.go(step)
    return steps


def test_every_later_step_knows_what_an_earlier_one_set_differently(steps: Steps) -> None:
    steps.go("01", policy__use="internal", policy__licenses="mit, apache-2.0")
    assert steps.go("02", size__tier="medium").policy.licenses == ["mit", "apache-2.0"]
    for step in STEPS[2:]:
        brief = steps.go(step)
        assert (brief.policy.use, brief.size.tier) == ("internal", "medium")
    assert artifacts.overrides(steps.run) == {
        "01": {"policy.use": "internal", "policy.licenses": "mit, apache-2.0"},
        "02": {"size.tier": "medium"},
    }


def test_what_a_step_sets_is_not_known_before_it_and_ends_with_it(steps: Steps) -> None:
    steps.go("01")
    steps.go("02", size__tier="medium")
    steps.go("03")
    assert steps.open("01").size.tier == "low"
    steps.save("01")
    assert steps.go("02").size.tier == "low"
    assert artifacts.overrides(steps.run) == {}
    assert steps.open("03").size.tier == "low"


def test_a_step_says_what_it_stands_on(steps: Steps) -> None:
    steps.go("01", policy__use="internal")
    *_, standing = open_run("02", steps.brief, str(steps.run))
    assert standing == (
        "tiny: stands on 01_legal. Set differently for this run: policy.use: internal (step 01)."
    )
    steps.save("02")
    *_, standing = open_run("01", steps.brief, str(steps.folder / "x"))
    assert standing.endswith("Set differently for this run: nothing.")


def test_nothing_is_stale_where_nothing_changed(done: Steps) -> None:
    assert done.stale() == {}
    done.write()  # the same brief once more
    assert done.stale() == {}


@pytest.mark.parametrize(
    ("where", "value", "stale_step", "refused"),
    [
        ("policy.licenses", ["mit"], "01", STEPS[1:]),
        ("policy.use", "internal", "01", STEPS[1:]),
        ("company", {"domicile": "France"}, "01", STEPS[1:]),
        ("size.tier", "high", "02", STEPS[2:]),
        ("deployments.0.hardware", "h100-1", "02", STEPS[2:]),
        ("models", [{"repo_id": "org/a"}], "01", STEPS[1:]),
        ("require", {"safetensors": True}, "03", STEPS[3:]),
        ("deployments.0.model", "org/c", "02", STEPS[2:]),
        ("evaluation.labels", ["positive", "negative", "mixed"], "04", STEPS[5:]),
        ("deployments.1.options", {"max_tokens": 3}, "04", STEPS[5:]),
        ("speed", {"budget_s": 9.0}, "05", STEPS[5:]),
        ("requirements", {"max_p95_s": 9.0}, "05", STEPS[5:]),
        ("requirements", {"min_rps": 9.0}, "05", STEPS[5:]),
        ("exceptions", [EXEMPTION], "01", STEPS[1:]),
        ("candidates", {"limit": 7}, "01", STEPS[1:]),
        ("hub", {"max_age_hours": 9.0}, "03", STEPS[3:]),
        ("deployments.0.host", {"provider": "P", "country": "France"}, "04", STEPS[5:]),
        # What only step 6 reads, and what changes no answer.
        ("requirements", {"min_quality": 0.9, "max_usd_per_1k": 1}, "", ()),
        ("objective", "best", "", ()),
        ("deployments.0.price", {"usd_per_hour": 9.9}, "", ()),
        ("deployments.0.retires_on", "2027-03-01", "", ()),
        ("requirements", {"min_providers": 2, "not_retired_before": "2027-03-01"}, "", ()),
        ("evaluation.max_usd", 5, "", ()),
        ("evaluation.timeout_s", 9, "", ()),
        ("evaluation.concurrency", 3, "", ()),
    ],
)
def test_a_changed_brief_makes_stale_what_read_it(
    done: Steps, where: str, value: Any, stale_step: str, refused: tuple[str, ...]
) -> None:
    done.write(where, value)
    problems = done.stale()
    assert set(problems) == set(refused)
    for sentence in problems.values():
        stem = artifacts.NOTEBOOKS[stale_step]
        assert re.search(
            rf"step {stale_step} in .* was made from another .* than there is", sentence
        )
        assert f"run notebooks/{stem}.ipynb again, or --from {stale_step}" in sentence


def test_the_sentence_names_what_changed(done: Steps) -> None:
    done.write("policy.use", "internal")
    assert "another policy in the brief than" in done.stale()["06"]


@pytest.mark.parametrize(
    ("part", "value"), [("requirements", {"min_quality": 0.9}), ("objective", "best")]
)
def test_who_was_dropped_from_a_race_depends_on_the_bar(
    steps: Steps, part: str, value: Any
) -> None:
    steps.write("evaluation.strategy", "racing")
    for step in STEPS:
        steps.go(step)
    write(steps.folder, changed("evaluation.strategy", "racing") | {part: value})
    assert f"{part} in the brief" in steps.stale()["06"]


def test_candidates_from_the_hub_depend_on_sizes_and_deployments(steps: Steps) -> None:
    steps.write("candidates", {"source": "hub"})
    for step in STEPS:
        steps.go(step)
    for part, value in {"size": {"tier": "high"}, "objective": "best"}.items():
        write(steps.folder, changed("candidates", {"source": "hub"}) | {part: value})
        assert ("step 01 in" in steps.stale().get("06", "")) == (part == "size")
    deployed = changed("candidates", {"source": "hub"})
    deployed["deployments"][0]["model"] = "org/other"
    write(steps.folder, deployed)
    assert "step 01 in" in steps.stale()["02"]


@pytest.mark.parametrize("bar", ["max_p95_s", "min_rps"])
def test_step_6_does_not_decide_on_a_load_measured_for_another_bar(done: Steps, bar: str) -> None:
    with pytest.raises(PlaybookError, match=r"step 05 in .* another load in the brief"):
        done.open("06", **{f"requirements__{bar}": 9.0})
    done.go("05", **{f"requirements__{bar}": 9.0})
    assert done.open("06", requirements__min_quality=0.9).requirements.min_quality == 0.9


def test_what_scores_an_answer_makes_no_load_stale(done: Steps) -> None:
    done.write("evaluation.margin", 0.2)
    done.go("04")
    assert done.stale() == {}


def test_a_judges_price_makes_no_answer_stale(steps: Steps) -> None:
    judge = {"model": "a/b", "endpoint": {"base_url": "http://h/v1"}, "user": "{input} {output}"}
    steps.write("evaluation.judge", judge | {"price": {"usd_per_hour": 1.0}})
    for step in STEPS:
        steps.go(step)
    steps.write("evaluation.judge", judge | {"price": {"usd_per_hour": 2.0}})
    assert steps.stale() == {}


def test_a_table_that_was_replaced_meanwhile_is_no_input(done: Steps) -> None:
    done.open("06")
    done.open("04")
    done.save("04", "other")
    with pytest.raises(PlaybookError, match=r"04_\w+\.parquet was written again meanwhile"):
        artifacts.save_json({}, done.run, "06_decision.json")


def test_a_refused_step_leaves_no_older_decision_either(done: Steps) -> None:
    (done.run / "report.html").write_text("older")
    done.write("policy.use", "internal")
    with pytest.raises(PlaybookError, match="step 01 in"):
        done.open("06")
    assert (done.run / "previous" / "report.html").read_text() == "older"
    assert not (done.run / "report.html").exists()


def test_nothing_is_no_override(steps: Steps) -> None:
    steps.go("01", policy__use="", policy__licenses=None)
    steps.go("02", size__tier="", size__context_tokens=0)
    assert artifacts.overrides(steps.run) == {}


def test_a_step_run_again_with_another_result_makes_the_later_ones_stale(done: Steps) -> None:
    done.open("01", policy__use="internal")
    done.save("01", "other")
    assert "step 02 in" in done.stale()["04"] and "01_legal.parquet" in done.stale()["04"]
    done.open("01")
    done.save("01")
    assert done.stale() == {}


def test_a_step_that_was_begun_again_and_stopped_counts_no_more(done: Steps) -> None:
    done.open("03")
    artifacts.save(
        pd.DataFrame({c: ["x"] for c in artifacts.COLUMNS["03_drift"].split()}),
        done.run,
        "03_drift",
    )
    sentence = done.stale()["04"]
    assert sentence.startswith("03_metadata.parquet is missing in ")
    assert sentence.endswith("run notebooks/03_hub_metadata.ipynb first, or --from 03")


@pytest.mark.parametrize("step", STEPS)
def test_an_older_decision_stands_no_longer_as_its_own(done: Steps, step: str) -> None:
    for name in ("06_decision.json", "report.html"):
        (done.run / name).write_text("older")
    done.open(step)
    assert not (done.run / "06_decision.json").exists() and not (done.run / "report.html").exists()
    assert {p.name for p in (done.run / "previous").iterdir()} == {
        "06_decision.json",
        "report.html",
    }


def recorded(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps({"id": "1", "output": "positive"}))


def test_files_named_in_the_brief_are_inputs_by_their_path(steps: Steps) -> None:
    recorded(steps.folder, "old/items.jsonl")
    steps.write("deployments.0.endpoint", {"recorded": "old/items.jsonl"})
    for step in STEPS:
        steps.go(step)
    inputs = artifacts.inputs(steps.run)
    assert {"items.jsonl", "old/items.jsonl", "project.yaml", "data/models.csv"} <= set(inputs)
    assert inputs["items.jsonl"] != inputs["old/items.jsonl"]
    recorded(steps.folder, "old/items.jsonl")
    assert steps.stale() == {}
    (steps.folder / "old" / "items.jsonl").write_text("{}")
    assert set(steps.stale()) == {"06"} and "another old/items.jsonl" in steps.stale()["06"]


@pytest.mark.parametrize(
    ("evaluation", "names"),
    [
        ({"kind": "extraction", "schema": "s.json"}, ["items.jsonl", "s.json"]),
        ({"kind": "tool_call", "tools": "t.json"}, ["items.jsonl", "t.json"]),
        ({"kind": "inspect", "inspect": {"task": "task.py@review"}}, ["items.jsonl", "task.py"]),
        ({"deep": [{"a": "x.json"}, 3, None]}, ["items.jsonl", "x.json"]),
        ({"judge": {"calibration": "people.jsonl"}}, ["items.jsonl", "people.jsonl"]),
        ({"labels": ["positive", "missing.txt"]}, ["items.jsonl"]),
    ],
)
def test_files_of_a_kind_are_named_files(
    tmp_path: Path, evaluation: dict[str, Any], names: list[str]
) -> None:
    judge = {"model": "a/b", "endpoint": {"base_url": "http://h/v1"}, "user": "{input} {output}"}
    judge["price"] = {"usd_per_hour": 1.0}
    if "judge" in evaluation:
        evaluation = evaluation | {"judge": judge | evaluation["judge"]}
    for name in names:
        (tmp_path / name).touch()
    raw = changed()
    raw["evaluation"] |= evaluation
    assert Project(**raw, folder=tmp_path).named_files == names


def test_a_changed_table_of_facts_makes_stale(done: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    data = done.folder / "data"
    shutil.copytree(opening.DATA, data, ignore=shutil.ignore_patterns("projects"))
    monkeypatch.setattr(opening, "DATA", data)
    with (data / "licenses.csv").open("a") as stream:
        stream.write("\n")
    assert set(done.stale()) == set(STEPS[1:])
    assert "step 01 in" in done.stale()["02"] and "data/licenses.csv" in done.stale()["02"]


def test_another_project_that_asks_the_same_uses_what_is_there(done: Steps) -> None:
    """A name decides nothing; whatever else differs makes a step stale."""
    done.write("name", "other")
    assert done.stale() == {}


@pytest.mark.parametrize("content", ["{", "- 1\n:", "\x00"])
def test_damaged_overrides_are_told(done: Steps, content: str) -> None:
    (done.run / "overrides.yaml").write_text(content)
    with pytest.raises(PlaybookError, match=r"overrides\.yaml is no valid YAML; delete it"):
        done.open("02")


def test_an_override_that_is_no_key_is_told(done: Steps) -> None:
    (done.run / "overrides.yaml").write_text("'01': {policy.uze: internal}")
    with pytest.raises(PlaybookError, match=r"unknown key 'policy\.uze'"):
        done.open("02")


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ("name: a\nname: b\n", "name", 2),
        ("policy:\n  licenses: [mit]\n  use: internal\n  licenses: [gemma]\n", "licenses", 4),
        ("deployments:\n- {name: a, price: {usd_per_hour: 1}, name: b}\n", "name", 2),
    ],
)
def test_a_key_given_twice_is_refused(tmp_path: Path, text: str, key: str, line: int) -> None:
    with pytest.raises(PlaybookError, match=f"line {line}: the key '{key}' is given twice"):
        opening.open_project(write(tmp_path, text))


def test_anchors_and_merges_still_work(tmp_path: Path) -> None:
    path = write(tmp_path, changed())
    text = path.read_text().replace("size:\n", "size: &size\n") + "x: &x {tier: low}\n"
    text = text.replace("size: &size\n  tier: low\n", "size:\n  <<: {tier: low}\n  tier: high\n")
    path.write_text(text.replace("x: &x {tier: low}\n", ""))
    assert opening.open_project(path).size.tier == "high"
