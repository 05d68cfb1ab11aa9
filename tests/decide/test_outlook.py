"""The sentences beside the decision, and whom to run if it must be decided today."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from briefs import brief
from test_draws import ITEMS, RIGHT, answers, measured, usd

from lib import decide
from lib.brief import Project
from lib.stats import non_inferiority

SLICES = pd.DataFrame(columns="deployment slice n value low high against_baseline".split())


def outlook(
    scored: pd.DataFrame, project: Project, scores: pd.DataFrame = SLICES, **rows: dict[str, Any]
) -> dict[str, Any]:
    table = measured(scored, **rows)
    checks = decide.check(table, project.requirements)
    return decide.outlook(decide.qualify(table, checks), checks, scores, scored, project)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return brief(tmp_path, "requirements", {"min_quality": 0.75})


def test_a_pick_with_a_cheaper_candidate_that_is_open(project: Project) -> None:
    scored = answers(good=RIGHT > 0, cheap=RIGHT > 1)
    said = outlook(scored, project, good=usd(90.0), cheap=usd(30.0))
    assert said["provisional"] is None
    text = " ".join(said["sentences"])
    assert "good is the right choice with a probability of" in text
    assert "A cheaper candidate is still not decided: cheap, 67% cheaper; about" in text
    assert "Labelling about" in text and "a month" in text
    assert "The pick holds until" in text
    sure = {row["deployment"]: row for row in said["certainty"]}
    assert sure["cheap"]["p_pick"] > 0.5  # it most probably qualifies, and costs less


def test_nobody_leaves_with_empty_hands(project: Project) -> None:
    said = outlook(answers(a=RIGHT > 1, b=RIGHT > 3), project, a=usd(90.0), b=usd(30.0))
    named = said["provisional"]
    assert (named["deployment"], named["model"]) == ("a", "org/a")
    assert 0.5 < named["p_meets"]["min_quality"] <= 1
    assert named["p_qualifies"] <= min(named["p_meets"].values())
    assert named["would_settle"].startswith("about ")
    first = said["sentences"][0]
    assert first.startswith("Provisional, if it must be decided today: a, which meets every")


def test_what_may_be_kept_is_worth_no_less_than_nothing(tmp_path: Path) -> None:
    """More items may hide that the cheaper one qualifies; nobody has to heed them."""
    project = brief(tmp_path, "requirements", {"min_quality": 0.68})
    said = outlook(answers(a=RIGHT > 1, b=RIGHT > 1), project, a=usd(30.0), b=usd(90.0))
    assert said["provisional"] is None
    assert [row["worth"] for row in said["more_items"]] == [0.0] * len(said["more_items"])
    assert "More items are not worth their labelling: stop here." in said["sentences"]


def test_where_all_miss_nobody_is_provisional(project: Project) -> None:
    said = outlook(answers(a=RIGHT > 6), project)
    assert said["provisional"] is None and said["more_items"] == []
    assert said["sentences"] == [
        "The answer holds for each price, the traffic and each bar at a tenth to ten times."
    ] or said["sentences"][0].startswith("The answer holds until the bar on quality falls to")


def test_published_figures_say_nothing_of_chances(project: Project) -> None:
    said = outlook(answers(a=RIGHT > 1), project, a={"basis": "published (article, 2026-01-08)"})
    assert said["certainty"] == [] and said["provisional"] is None


@pytest.mark.parametrize(("objective", "words"), [("best", "points of quality on average")])
def test_the_best_is_told_in_points(project: Project, objective: str, words: str) -> None:
    project = project.model_copy(update={"objective": objective})
    said = outlook(answers(a=RIGHT > 0, b=RIGHT > 1), project)
    assert any(words in sentence for sentence in said["sentences"])


@pytest.mark.parametrize(
    ("verdict", "words"),
    [("good enough", "good enough to switch"), ("not decided", "not decided whether to switch")],
)
def test_whether_to_switch_from_the_baseline(verdict: str, words: str, tmp_path: Path) -> None:
    project = brief(tmp_path, "evaluation.margin", 0.1)
    first = project.deployments[0]
    deployments = [first.model_copy(update={"name": "today", "baseline": True})]
    project = project.model_copy(update={"deployments": deployments})
    rows = {"a": {"against_baseline": verdict, "usd_per_month": 584.0}}
    rows["today"] = {"standing": "the baseline", "usd_per_month": 223.0}
    said = outlook(answers(a=RIGHT > 0, today=RIGHT > 0), project, **rows)
    assert "a costs $361 a month more than today." in said["sentences"]
    lead = "Against today, the baseline: 0 points, at least -"
    (sentence,) = [text for text in said["sentences"] if text.startswith(lead)]
    assert sentence.endswith(f" (each one-sided), with a margin of 10 points: {words}.")
    # It does not say stop where the switch is open.
    stop = any(text.endswith("stop here.") for text in said["sentences"])
    assert stop == (verdict == "good enough")


def test_the_difference_has_the_bounds_that_the_verdict_rests_on(tmp_path: Path) -> None:
    """Alone `a` would be good enough; of four candidates, as step 4 tests them, it is not."""
    project = brief(tmp_path, "evaluation.margin", 0.06)
    first = project.deployments[0]
    today = first.model_copy(update={"name": "today", "baseline": True})
    project = project.model_copy(update={"deployments": [today]})
    item = np.arange(ITEMS)
    right = {"a": item != 0, "b": item > 3, "c": item > 4, "d": item > 5, "today": item >= 0}
    scored = answers(**right)
    alone = scored[scored["deployment"].isin(["a", "today"])]
    tests = [non_inferiority(rows, baseline="today", margin=0.06) for rows in (alone, scored)]
    assert [test["verdict"].iloc[0] for test in tests] == ["good enough", "not decided"]
    rows = {n: {"against_baseline": "not decided"} for n in "abcd"}
    said = outlook(scored, project, **rows, today={"standing": "the baseline"})
    (sentence,) = [text for text in said["sentences"] if text.startswith("Against today")]
    low = tests[1]["low"].iloc[0]
    assert low <= -0.06 < tests[0]["low"].iloc[0]
    assert f"-1 points, at least {100 * low:.3g} and at most" in sentence
    assert "(each one-sided, adjusted for 4 candidates), with a margin of 6 points: not" in sentence


def test_slices_that_should_stay_with_the_baseline_are_named(tmp_path: Path) -> None:
    project = brief(tmp_path, "evaluation.margin", 0.1)
    first = project.deployments[0]
    deployments = [first.model_copy(update={"name": "today", "baseline": True})]
    project = project.model_copy(update={"deployments": deployments})
    lines = [
        ("a", "language: de", 30, 0.6, 0.42, 0.75, "worse"),
        ("a", "language: en", 90, 0.97, 0.9, 0.99, "good enough"),
        ("today", "language: de", 30, 0.9, 0.74, 0.97, ""),
        ("a", "", 120, 0.9, 0.8, 0.95, "good enough"),
    ]
    scores = pd.DataFrame(lines, columns=SLICES.columns)
    scored, standing = answers(a=RIGHT > 0, today=RIGHT > 0), {"standing": "the baseline"}
    said = outlook(scored, project, scores, today=standing)
    assert [row["slice"] for row in said["slices"]] == ["language: de", "language: en"]
    text = " ".join(said["sentences"])
    assert "Its weakest of 2 slices is language: de: 0.6 [0.42 to 0.75] on 30 items." in text
    assert "Stay with today for language: de: worse beyond the margin." in text
    assert "Slices where it is shown good enough to replace today: 1 of 2." in text
    alone = outlook(scored, project, scores.drop(1), today=standing)["sentences"]
    assert "Stay with today for language: de: worse beyond the margin." in alone
    scores["against_baseline"] = ""
    said = outlook(scored, project, scores, today=standing)
    assert "Stay with" not in " ".join(said["sentences"])
