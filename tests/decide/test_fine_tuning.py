"""The gap one tier below, what licences make of a tuned model, and what tuning gained so far."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from briefs import brief
from test_draws import RIGHT, answers
from tradeoff_rows import NAN, table

from lib.brief import Project
from lib.decide import fine_tuning
from lib.stats import compare_pairs

PLANNED = {"tier": "medium", "fine_tuning": "planned"}
NO_PAIRS = compare_pairs(answers(a=RIGHT > 0))
TIERS = {"org/a": "low", "org/b": "low", "org/big": "medium", "org/tuned": "medium"}


def project(folder: Path, bar: float | None = 0.95, **keys: Any) -> Project:
    given = {"size": PLANNED, "requirements": {"min_quality": bar} if bar else {}} | keys
    given |= {"company": {"monthly_active_users": 1000, "outputs_train_models": False}}
    one = brief(folder, "policy.licenses", ["permissive", "conditional"])
    return Project.model_validate(one.model_dump() | given)


def models(**licences: str | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Step 2's and step 3's rows: everything is a first release under apache-2.0, if not said."""
    licence = {name: licences.get(name.removeprefix("org/"), "apache-2.0") for name in TIERS}
    short = pd.DataFrame({"repo_id": list(TIERS), "license": list(licence.values())})
    short = short.assign(base_model="none", modality="text", country="France")
    return short, short[["repo_id", "license"]].assign(tier=list(TIERS.values()))


def outcome(brief: Project, rows: pd.DataFrame, pairs: pd.DataFrame = NO_PAIRS, **of: Any) -> Any:
    return fine_tuning(brief, rows, pairs, *models(**of))


def test_the_gap_of_the_tier_below(tmp_path: Path) -> None:
    weak = {"quality": 0.8, "quality_low": 0.7, "quality_high": 0.9}
    rows = table(a=weak, b={}, big={}, today={"standing": "the baseline", "repo_id": "org/a"})
    said = outcome(project(tmp_path), rows)
    first, second = said["candidates"]
    assert [first["deployment"], second["deployment"]] == ["b", "a"]
    gap = [second["gap"], second["gap_low"], second["gap_high"]]
    assert gap == pytest.approx([0.15, 0.05, 0.25])
    assert second["derivatives"] == "allowed" and second["other"] is second["difference"] is None
    assert said["sentence"] == "b is nearest to the bar, with 5 points [0, 10] to gain."


@pytest.mark.parametrize(
    "size",
    [
        {"tier": "medium"},
        {"tier": "low", "fine_tuning": "planned"},
        {"tier": "any", "fine_tuning": "planned"},
    ],
)
def test_nothing_is_said_where_none_is_planned_or_no_tier_is_below(
    size: dict[str, str], tmp_path: Path
) -> None:
    assert outcome(project(tmp_path, size=size), table(a={}, big={})) is None


@pytest.mark.parametrize(
    ("row", "bar"), [({"comparable": "no"}, 0.95), ({"quality": NAN}, 0.95), ({}, None)]
)
def test_a_gap_that_is_not_known_is_none(row: dict[str, Any], bar: Any, tmp_path: Path) -> None:
    said = outcome(project(tmp_path, bar), table(a=row))
    assert [one["gap"] for one in said["candidates"]] == [None]
    assert said["sentence"] == "Of the tier below (low) no gap to a bar is known."
    sentence = said["sentence"]
    said = outcome(project(tmp_path, bar), table(big={}))
    assert said == {"candidates": [], "sentence": sentence}


def test_a_published_figure_has_a_gap_without_an_interval(tmp_path: Path) -> None:
    said = outcome(project(tmp_path), table(a={"quality_low": NAN, "quality_high": NAN}))
    assert said["sentence"] == "a is nearest to the bar, with 5 points to gain."


@pytest.mark.parametrize(
    ("licence", "text"),
    [
        ("mit", "allowed"),
        ("llama3.1", 'conditional: the name of a derivative must begin with "Llama"'),
        ("cc-by-nd-4.0", "blocked: cc-by-nd-4.0 lets nobody share an adapted version"),
        # Unknown, or read by nobody here: for counsel.
        ("glm-4", "review: not read on derivatives: glm-4"),
        ("k-exaone", "blocked: not read on derivatives: k-exaone; the name of a derivative must"),
        ("no-such-licence", "review: not read on derivatives: no-such-licence"),
        ("other-unnamed", "review: not read on derivatives: other-unnamed"),
        (None, "review: not read on derivatives: none on record"),
    ],
)
def test_what_the_licence_makes_of_a_published_derivative(
    licence: str | None, text: str, tmp_path: Path
) -> None:
    (row,) = outcome(project(tmp_path), table(a={}), a=licence)["candidates"]
    assert row["derivatives"].startswith(text), row["derivatives"]


def test_a_base_models_licence_and_the_hubs_count_as_well(tmp_path: Path) -> None:
    short, facts = models(b="glm-4")
    short.loc[short["repo_id"] == "org/a", "base_model"] = "org/b"
    (row,) = fine_tuning(project(tmp_path), table(a={}), NO_PAIRS, short, facts)["candidates"]  # type: ignore[index]
    assert row["derivatives"].startswith("review: not read on derivatives: glm-4")
    short, facts = models()
    facts["license"] = "llama3.1"  # as the Hub says, and somebody accepted
    (row,) = fine_tuning(project(tmp_path), table(a={}), NO_PAIRS, short, facts)["candidates"]  # type: ignore[index]
    assert row["derivatives"].startswith("conditional: the name of a derivative")


@pytest.mark.parametrize("order", [("a", "tuned"), ("tuned", "a")])
@pytest.mark.parametrize("base", ["org/a", "org/other; org/a"])
def test_before_and_after_is_the_paired_difference(
    order: tuple[str, str], base: str, tmp_path: Path
) -> None:
    """Right on 9 of 10 items before, on all after, whichever of them step 4 names first."""
    right = {"a": RIGHT > 0, "tuned": RIGHT >= 0}
    pairs = compare_pairs(answers(**{name: right[name] for name in order}))
    own = [{"repo_id": "org/tuned", "base_model": base}]
    rows = table(a={}, tuned={"quality": 1.0, "quality_low": 0.96, "quality_high": 1.0})
    said = outcome(project(tmp_path, models=own), rows, pairs)
    after, before = said["candidates"]
    assert (after["deployment"], after["other"], before["other"]) == ("tuned", "a", None)
    assert after["difference"] == pytest.approx(0.1)
    assert 0.04 < after["low"] < 0.1 < after["high"] < 0.2 and after["p_adjusted"] < 0.01
    assert said["sentence"].startswith("tuned reaches the bar as it is; tuned gained")
    assert f"; tuned gained 10 points [{100 * after['low']:.3g}, " in said["sentence"]
    assert said["sentence"].endswith("] over a.")
    # One that is tuned is shown at any tier, another's base does not make it so.
    said = outcome(project(tmp_path, models=own, size={**PLANNED, "tier": "low"}), rows, pairs)
    assert [row["deployment"] for row in said["candidates"]] == ["tuned"]
    own = [{"repo_id": "org/tuned", "base_model": "org/other"}]
    said = outcome(project(tmp_path, models=own), rows, pairs)
    assert [row["other"] for row in said["candidates"]] == [None]
