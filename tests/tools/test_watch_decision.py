"""What a user's CI says: each finding from doctored records, and the workflow's own steps."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from lib.artifacts import ROOT
from tools.watch_decision import findings, main

TODAY = date(2026, 11, 26)
WORKFLOW = yaml.safe_load((ROOT / "docs" / "ci-for-your-project.yml").read_text("utf-8"))
STEPS = {s["name"]: s for s in WORKFLOW["jobs"]["decide"]["steps"] if "run" in s}
Record = dict[str, Any]


def role(name: str) -> Record:
    return {
        "deployment": f"{name}-here", "model": f"acme/{name}", "revision": "abc",
        "license": "apache-2.0", "verdict": "allowed", "conditions": "", "exception": "",
    }  # fmt: skip


@pytest.fixture
def record() -> Record:
    price, load = "price of small-here ($ per 1,000 requests)", "requests a day"
    points = [(price, 0.04, 0.08, "big-here"), (load, 20000.0, 9000.0, "none"),
              ("objective best", None, None, "big-here")]  # fmt: skip
    keys = ("change", "value", "flips_at", "pick")
    return {
        "record_version": 1, "outcome": "picked", "summary": "small-here is picked.",
        "pick": role("small"), "runner_up": role("big"), "not_asked": [],
        "flip_points": [dict(zip(keys, point, strict=True)) for point in points],
    }  # fmt: skip


def said(old: Record, new: Record, **ends: date) -> list[str]:
    names = {"small": "acme/small", "here": "small-here", "other": "acme/other"}
    return [*findings(old, new, {names[k]: end for k, end in ends.items()}, TODAY)]


def test_nothing_is_said_where_nothing_changed(record: Record) -> None:
    later = TODAY + timedelta(91)
    assert said(record, copy.deepcopy(record), small=later, other=TODAY) == []


def test_another_pick_and_none(record: Record) -> None:
    new = record | {"pick": role("big"), "runner_up": None, "summary": "big-here is picked."}
    assert said(record, new) == ["The pick was small-here, now it is big-here: big-here is picked."]
    none = record | {"pick": None, "runner_up": None, "outcome": "none qualifies", "summary": "No."}
    assert said(record, none) == ["The pick was small-here, now it is none qualifies: No."]
    assert said(none, none) == []


def test_another_revision(record: Record) -> None:
    new = record | {"pick": role("small") | {"revision": "def"}}
    assert said(record, new) == ["small-here is at revision def, it was abc."]


@pytest.mark.parametrize("key", ["license", "verdict", "conditions"])
@pytest.mark.parametrize("which", ["pick", "runner_up"])
def test_a_licence_that_drifts(record: Record, which: str, key: str) -> None:
    new = record | {which: record[which] | {key: "other\n" * 100}}
    (sentence,) = said(record, new)
    assert f"its {key} was {record[which][key]!r}, now 'other" in sentence and len(sentence) < 300


def test_a_model_that_is_barred_since(record: Record) -> None:
    barred = {"deployment": "big-here", "repo_id": "acme/big", "why": "its licence drifts"}
    new = record | {"not_asked": [barred]}
    assert said(record, new) == ["big-here is not asked any more: its licence drifts"]
    assert said(new, new) == []


@pytest.mark.parametrize(
    ("days", "when"), [(90, "in 90 days"), (0, "in 0 days"), (-3, "3 days ago")]
)
def test_a_model_that_retires(record: Record, days: int, when: str) -> None:
    end = TODAY + timedelta(days)
    (sentence,) = said(record, record, small=end)
    assert sentence.startswith(f"acme/small retires {when}, on {end}")
    assert said(record, record, here=end)[0].startswith("small-here retires")
    attested = [{"name": "small-here", "retires_on": end.isoformat()}, {"name": "big-here"}]
    new = record | {"brief": {"deployments": attested}}
    assert said(record, new)[0].startswith(f"small-here retires {when}")
    assert said(record, new, here=end + timedelta(400)) == []  # the file goes before the brief


@pytest.mark.parametrize(("change", "now", "edge"), [(0, 0.09, "0.08"), (1, 8000.0, "9000")])
def test_a_figure_beyond_its_flip_point(record: Record, change: int, now: float, edge: str) -> None:
    new = copy.deepcopy(record)
    new["flip_points"][change]["value"] = now
    (sentence,) = said(record, new)
    assert f"{now:.4g} is beyond {edge}, where the pick becomes" in sentence
    new["flip_points"][change]["value"] = (now + record["flip_points"][change]["value"] * 9) / 10
    assert said(record, new) == []
    del new["flip_points"][change]  # a deployment that has gone: other findings say so
    assert said(record, new) == []


def test_what_cannot_be_read_is_one_sentence(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad, ends = (tmp_path / name for name in ("good.json", "bad.json", "ends.csv"))
    good.write_text(json.dumps(record))
    for text in ("", "[1]", "{}", "[" * 50_000, '{"record_version": 2}'):
        bad.write_text(text)
        assert main([str(good), str(bad)]) == 2
    assert main([str(good), str(tmp_path / "absent.json")]) == 2
    for text in ("a,b\n", "model,retires_on\nx,soon\n", "model,retires_on\nx\n"):
        ends.write_text(text)
        assert main([str(good), str(good), "--retirements", str(ends)]) == 2
    ends.write_bytes(b"\xff\xfe\x00")
    assert main([str(good), str(good), "--retirements", str(ends)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 10 and all(e.startswith("error: ") and len(e) < 500 for e in errors)
    assert "ends.csv, line 2: retires_on is 'soon'" in errors[7]


def step(name: str, workspace: Path) -> subprocess.CompletedProcess[str]:
    """A step of the workflow, as a runner of GitHub has it: bash with -e and pipefail."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"GITHUB_WORKSPACE": str(workspace), "PATH": path, "PYTHONPATH": str(ROOT)}
    env |= {"GITHUB_STEP_SUMMARY": str(workspace / "summary.md")}
    assert STEPS[name]["working-directory"] == "playbook"
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", STEPS[name]["run"]]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_the_comparison_of_the_workflow_is_red_when_it_must(record: Record, tmp_path: Path) -> None:
    for folder in ("mine/decision", "run"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "mine/decision/06_decision.json").write_text(json.dumps(record))
    (tmp_path / "mine/decision/retirements.csv").write_text("model,retires_on\n")
    fresh = tmp_path / "run" / "06_decision.json"
    fresh.write_text(json.dumps(record))
    assert (done := step("compare", tmp_path)).returncode == 0, done.stderr
    fresh.write_text(json.dumps(record | {"pick": role("big")}))
    done = step("compare", tmp_path)
    assert done.returncode == 1 and "The pick was small-here" in done.stdout
    assert done.stdout in (tmp_path / "summary.md").read_text()
    fresh.write_text("")
    assert step("compare", tmp_path).returncode == 2
    fresh.write_text(json.dumps(record))
    soon = date.today() + timedelta(30)
    (tmp_path / "mine/decision/retirements.csv").write_text(
        f"model,retires_on\nacme/small,{soon}\n"
    )
    done = step("compare", tmp_path)
    assert done.returncode == 1 and "acme/small retires in" in done.stdout


def test_a_step_that_stops_is_red(tmp_path: Path) -> None:
    (tmp_path / "mine" / "decision").mkdir(parents=True)
    (tmp_path / "mine" / "decision" / "project.yaml").write_text("name: [", "utf-8")
    done = step("run", tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("error: ")


@pytest.mark.slow
def test_the_whole_workflow_on_a_shipped_project(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "decision").symlink_to(ROOT / "data" / "projects" / "article")
    assert (done := step("run", tmp_path)).returncode == 0, done.stderr
    assert (done := step("nbval", tmp_path)).returncode == 0, done.stdout[-3000:]
    assert (tmp_path / "run" / "report.html").exists()


def test_what_the_artefact_names_is_what_a_run_leaves() -> None:
    (upload,) = [s for s in WORKFLOW["jobs"]["decide"]["steps"] if "upload" in s.get("uses", "")]
    assert upload["if"] == "always()" and "run/report.html" in upload["with"]["path"]


def test_a_terminal_obeys_nothing_of_a_record(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps(record))
    new.write_text(json.dumps(record | {"pick": None, "outcome": "none \x1b[2J", "summary": "No."}))
    assert main([str(old), str(new)]) == 1
    assert "none �[2J" in capsys.readouterr().out
