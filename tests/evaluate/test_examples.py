"""The shipped examples: every kind of task, asked of the embedded models themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from briefs import load_project
from pandas.testing import assert_frame_equal
from scored import calls_of

from lib import stats, tables
from lib.brief.project import Project
from lib.endpoints.runner import STORE
from lib.evaluate import items
from lib.evaluate import steps as evaluation
from lib.evaluate.kinds import reranking

SHIPPED = sorted(path.parent.name for path in tables.DATA.glob("projects/*/project.yaml"))
EXAMPLES = [name for name in SHIPPED if name.startswith("example-")]
PRIMARY = {
    "classification": "accuracy",
    "exact": "accuracy",
    "extraction": "field accuracy",
    "tool_call": "correct calls",
    "reranking": "nDCG@5",
    "judged": "pass rate (corrected)",
    "scoring": "mean rating (corrected)",
    "comparison": "win rate",
}
SCORED = "deployment repo_id item_id group target output outcome predicted score".split()
SCORES = """deployment repo_id metric value low high n n_failed n_truncated n_refused n_unparsed
    n_empty n_retried comparable basis primary standing""".split()
PAIRS = "deployment other n difference low high p_value p_adjusted verdict".split()


class Measured(NamedTuple):
    """All tables of an example."""

    gathered: evaluation.Gathered
    checked: pd.DataFrame
    scored: pd.DataFrame
    scores: pd.DataFrame
    pairs: pd.DataFrame
    non_inferiority: pd.DataFrame


def measure(brief: Project, run: Path) -> Measured:
    table = items.load_items(brief)
    gathered = evaluation.gather(brief, brief.deployments, table, run)
    checked = evaluation.calibrate(brief, run)
    scored = evaluation.score(brief, gathered, table)
    return Measured(
        gathered,
        checked,
        scored,
        evaluation.summarise(
            brief, scored, checked, deployments=brief.deployments, gathered=gathered
        ),
        evaluation.compare(brief, scored, gathered),
        evaluation.non_inferiority(brief, scored),
    )


@pytest.fixture(scope="module", params=EXAMPLES)
def example(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Project, Path, Measured]:
    """An example, its run, and what it measured: asked once for all the tests of this file."""
    brief = load_project(request.param)
    run = tmp_path_factory.mktemp(request.param)
    return brief, run, measure(brief, run)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_project_loads(name: str) -> None:
    brief = load_project(name)
    table = items.load_items(brief)
    assert table["item_id"].is_unique
    assert len(table) > 0 or brief.evaluation.kind in ("published", "inspect")
    if name in EXAMPLES:
        assert brief.name == name
        assert len((brief.folder / "README.md").read_text(encoding="utf-8").splitlines()) <= 15


def test_every_kind_that_is_asked_has_an_example() -> None:
    asked = set(PRIMARY)
    assert {load_project(name).evaluation.kind for name in EXAMPLES} >= asked


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_placeholder_is_left_in_what_is_sent(name: str) -> None:
    brief = load_project(name)
    first = items.load_items(brief).iloc[0].to_dict()
    for deployment in brief.deployments:
        if deployment.endpoint and deployment.endpoint.recorded:
            continue
        for call in calls_of(brief, deployment, first):
            said = " ".join(message["content"] for message in call.body["messages"])
            for place in ("{input}", "{target}", "{document}", "{documents}", "{output}"):
                assert place not in said, f"{deployment.name}: {said}"


def test_tables_have_what_they_promise(example: tuple[Project, Path, Measured]) -> None:
    brief, _, measured = example
    n, names = len(items.load_items(brief)), [d.name for d in brief.deployments]
    scored, scores, pairs = measured.scored, measured.scores, measured.pairs
    assert set(SCORED) <= set(scored.columns)
    assert list(scored["deployment"].value_counts(sort=False)) == [n] * len(names)
    assert set(SCORES) <= set(scores.columns)
    primary = scores[scores["primary"].astype(bool)]
    assert list(primary["deployment"]) == names
    assert set(primary["metric"]) == {PRIMARY[brief.evaluation.kind]}
    assert primary["low"].between(0, primary["value"]).all()
    assert primary["high"].between(primary["value"], 1).all()
    assert (primary["high"] - primary["low"] > 0.01).all()  # so few items leave a doubt
    assert set(PAIRS) <= set(pairs.columns)
    assert len(pairs) == 1  # two deployments each
    assert pairs["p_adjusted"].between(0, 1).all()
    assert set(pairs["verdict"]) <= {"better", "worse", "tie"}


def test_nearly_all_answers_can_be_used(example: tuple[Project, Path, Measured]) -> None:
    _, _, measured = example
    assert (measured.gathered.answers["error"] == "").all()
    share = (measured.scored["outcome"] == "answered").groupby(measured.scored["deployment"]).mean()
    assert (share >= 0.75).all(), share
    assert measured.scored["score"].dropna().between(0, 1).all()
    # An example on which every answer is right, or none, would show nothing.
    assert measured.scored["score"].nunique() > 1


def test_judges_are_measured_and_their_kin_named(example: tuple[Project, Path, Measured]) -> None:
    brief, _, measured = example
    notes = evaluation.judge_notes(brief, measured.checked, brief.deployments, measured.gathered)
    if brief.evaluation.judge is None:
        assert notes == []
        return
    assert any("family" in note for note in notes), notes
    if brief.evaluation.kind == "comparison":
        graded = measured.gathered.graded
        assert graded is not None
        assert graded["forward"].notna().mean() >= 0.75
        assert {"win", "loss", "inconsistent"} & set(graded["result"])
        return
    assert len(measured.checked) >= 30
    assert (measured.checked["judge_error"] == "").mean() >= 0.9
    shown = {shot.output for shot in brief.evaluation.judge.shots}
    assert not shown & set(measured.checked["output"])  # a worked example is no test
    assert measured.scores["basis"].str.contains("labelled answers").all()
    if brief.evaluation.kind == "judged":
        right = (measured.checked["verdict"] == measured.checked["human"]).mean()
        assert right > 0.6  # a coin has 0.5
    else:
        ratings = measured.checked[["human", "rating"]].astype(float).dropna()
        assert ratings.corr(method="spearman").iloc[0, 1] > 0.4


def test_the_baseline_is_compared_with_and_not_chosen(
    example: tuple[Project, Path, Measured],
) -> None:
    brief, _, measured = example
    baseline = [d.name for d in brief.deployments if d.baseline]
    table = measured.non_inferiority
    assert len(table) == len(baseline)  # the one other deployment, where there is a baseline
    if not baseline:
        return
    assert table["baseline"].tolist() == baseline
    assert table["deployment"].tolist() != baseline
    assert (table["margin"] == 0.1).all()
    assert table["low"].iloc[0] < table["difference"].iloc[0] < 0
    chosen = measured.scores.set_index("deployment")["standing"] == "candidate"
    assert not chosen[baseline].any()
    told = measured.scores.set_index("deployment").loc[baseline, "basis"]
    assert told.str.startswith("recorded").all()
    if brief.evaluation.kind == "tool_call":  # it never calls a tool
        assert table["verdict"].tolist() == ["worse"]


def test_rankings_are_better_than_chance(example: tuple[Project, Path, Measured]) -> None:
    brief, _, measured = example
    if brief.evaluation.kind != "reranking":
        assert "nDCG@5" not in set(measured.scores["metric"])
        return
    chance = pd.DataFrame(
        stats.ranking_by_chance(
            json.loads(item["target"]), [name for name, _ in reranking.documents(item)], k=5
        )
        for item in items.load_items(brief).to_dict("records")
    )["nDCG@5"].mean()
    found = measured.scores.loc[measured.scores["primary"].astype(bool), "value"]
    assert (found > chance + 0.1).all(), (found, chance)


def test_asking_again_asks_nothing_and_changes_nothing(
    example: tuple[Project, Path, Measured],
) -> None:
    brief, run, measured = example
    before = (run / STORE).read_bytes()
    again = measure(brief, run)
    assert (run / STORE).read_bytes() == before
    for name in ("checked", "scored", "scores", "pairs", "non_inferiority"):
        assert_frame_equal(getattr(again, name), getattr(measured, name))
    if measured.gathered.graded is not None:
        assert again.gathered.graded is not None
        assert_frame_equal(again.gathered.graded, measured.gathered.graded)


def test_made_up_answers_follow_their_rule() -> None:
    brief = load_project("example-baseline")
    table = items.load_items(brief).set_index("item_id")
    lines = (brief.folder / "recorded.jsonl").read_text(encoding="utf-8").splitlines()
    said = pd.DataFrame([json.loads(line) for line in lines]).set_index("id")["output"]
    wrong = [n for n, name in enumerate(table.index, start=1) if said[name] != table.target[name]]
    assert wrong == [15, 30, 45, 60]
    source = load_project("review-sentiment").items_path.read_text(encoding="utf-8").splitlines()
    copied = brief.items_path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in copied] == [json.loads(line) for line in source[:60]]
