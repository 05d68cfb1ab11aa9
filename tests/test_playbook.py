"""The main job: the shipped example, headless, on real models; its files and its decision."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from lib import artifacts
from lib.__main__ import STATUS
from lib.endpoints import read_records


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whole run from another folder, in the runs folder that nbval uses afterwards."""
    folder = tmp_path_factory.mktemp("elsewhere")
    command = [sys.executable, "-m", "lib", "run", "review-sentiment"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    # Whether anything qualifies is this machine's business: 0, 20 or 21, and never an error.
    assert done.returncode in STATUS.values(), done.stderr[-2000:]
    assert list(folder.iterdir()) == []
    return Path(os.environ["PLAYBOOK_RUNS"]) / "review-sentiment"


def test_leaves_every_file(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    expected = {f"{name}.parquet" for name in artifacts.COLUMNS}
    expected |= {f"{stem}.ipynb" for stem in artifacts.NOTEBOOKS.values()}
    expected |= {"06_decision.json", "report.html", "manifest.json"}
    expected |= {"04_answers.jsonl", "05_probes.jsonl"}
    assert expected <= names
    assert {p.name for p in (run / "figures").iterdir()} >= {"cost_quality.png", "latency.png"}


def test_every_item_was_answered_by_every_deployment(run: Path) -> None:
    answers = artifacts.load(run, "04_answers")
    assert answers.groupby("deployment").size().to_dict() == dict.fromkeys(
        ("gemma-3-270m-1cpu", "gemma-3-270m-2cpu", "smollm2-135m-1cpu"), 160
    )
    assert not (answers["outcome"] == "failed").any()
    assert answers["completion_tokens"].gt(0).all()


def test_models_are_better_than_guessing_and_differ(run: Path) -> None:
    scores = artifacts.load(run, "04_scores").query("metric == 'accuracy'")
    by_model = scores.groupby("repo_id")["value"].max()
    assert by_model["google/gemma-3-270m"] > 0.75
    assert by_model["HuggingFaceTB/SmolLM2-135M-Instruct"] > 0.6
    assert by_model.nunique() == 2
    low, value, high = scores["low"], scores["value"], scores["high"]  # a slice may be all right
    assert (low < value).all() and ((value < high) | (value.eq(1) & high.eq(1))).all()


def test_load_was_really_offered(run: Path) -> None:
    speed, capacity = artifacts.load(run, "05_speed"), artifacts.load(run, "05_capacity")
    # How much each bears is the machine's business; that it was asked is ours.
    assert set(speed["deployment"]) == set(capacity["deployment"]) and len(capacity) == 3
    assert speed["n"].gt(0).all() and speed["p50_s"].gt(0).all()
    probes = read_records(run / "05_probes.jsonl").values()
    sent = [len(probe["requests"]) for probe in probes if probe["purpose"] != "warm-up"]
    assert sum(sent) == speed["n"].sum()
    assert any(request["outcome"] == "ok" for probe in probes for request in probe["requests"])


def test_decision_follows_from_the_measurements(run: Path) -> None:
    decision = json.loads((run / "06_decision.json").read_text(encoding="utf-8"))
    table = artifacts.load(run, "06_tradeoffs")
    qualified = table[table["qualifies"] == "yes"]
    assert decision["outcome"] == ("picked" if len(qualified) else decision["outcome"])
    if len(qualified):
        pick = table[table["pick"]].iloc[0]
        assert pick["deployment"] == decision["pick"]["deployment"]
        assert pick["usd_per_1k_low"] <= qualified["usd_per_1k_high"].min()
    out = {entry["what"] for entry in decision["rejected"]}
    legal = artifacts.load(run, "01_legal")
    assert set(legal.loc[legal["verdict"] == "blocked", "repo_id"]) <= out
    assert any("not verified against the Hub" in text for text in decision["unverified"])
    assert decision["inputs"]["items.jsonl"] and decision["versions"]["pandas"] == pd.__version__


class Page(HTMLParser):
    """What a browser would load, and the text in order."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [v or "" for k, v in attrs if k in ("src", "data", "srcset")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_report_stands_alone_and_leads_with_the_decision(run: Path) -> None:
    page = Page()
    page.feed((run / "report.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags and "link" not in page.tags
    assert page.loads == [] and page.tags.count("svg") == 6
    decision = json.loads((run / "06_decision.json").read_text(encoding="utf-8"))
    named = (decision["pick"] or decision["nearest_miss"])["deployment"]
    assert 0 < page.text.index(named) < page.text.index("Evidence")


def test_a_second_run_asks_nothing_again(run: Path) -> None:
    kept = {name: (run / name).stat().st_mtime_ns for name in ("04_answers.jsonl",)}
    before = artifacts.load(run, "04_scores")
    command = [sys.executable, "-m", "lib", "run", "review-sentiment", "--from", "04"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in STATUS.values(), done.stderr[-2000:]
    assert "01 01_legal_filter: reused" in done.stderr
    assert {name: (run / name).stat().st_mtime_ns for name in kept} == kept
    pd.testing.assert_frame_equal(before, artifacts.load(run, "04_scores"))


def test_no_machine_path_or_key_in_the_report(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"/(root|home|tmp|work)/", text)
