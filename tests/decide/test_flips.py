"""The smallest change that flips the pick, against values worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from briefs import brief
from tradeoff_rows import table

from lib.brief import Project
from lib.decide.costs import at_traffic
from lib.decide.decision import check, choose, qualify
from lib.decide.flips import flip_points
from lib.tables import number

GOOD = {"quality": 0.95, "quality_low": 0.9, "quality_high": 0.98, "beaten_by": ""}
CHEAP = {"quality": 0.86, "quality_low": 0.82, "quality_high": 0.9, "beaten_by": "good"}


def usd(value: float) -> dict[str, float]:
    return dict.fromkeys(["usd_per_1k", "usd_per_1k_low", "usd_per_1k_high"], value)


@pytest.fixture
def measured() -> pd.DataFrame:
    return table(good=GOOD | usd(0.6), cheap=CHEAP | usd(0.45))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return brief(tmp_path, "requirements", {"min_quality": 0.8})


def test_prices_and_bars_flip_where_arithmetic_says(
    measured: pd.DataFrame, project: Project
) -> None:
    """Cheapest is `cheap`, whose bound is 0.82, until it costs as much as `good` (a tie)."""
    flips = flip_points(measured, project).set_index("change")
    assert flips["pick"].to_dict() == {
        "the bar on quality": "good",
        "price of good ($ per 1,000 requests)": "good",
        "price of cheap ($ per 1,000 requests)": "good",
        "cheap withdrawn, or its licence in review": "good",
        "objective best": "good",
        "objective fastest": "cheap",
    }
    assert flips.loc["the bar on quality", "flips_at"] == pytest.approx(0.82, rel=0.002)
    assert flips.iloc[1:3]["flips_at"].to_list() == pytest.approx([0.45, 0.6], rel=0.005)
    assert flips.iloc[1:3]["factor"].to_list() == pytest.approx([0.75, 1 / 0.75], rel=0.005)
    assert flips.index[0] == "the bar on quality"  # the nearest first: 2.5 % against 33 %


@pytest.mark.parametrize("price", [0.592, 0.58, 0.56, 0.51, 0.43, 0.31, 0.21, 0.073])
def test_a_flip_is_stated_to_a_thousandth(price: float, project: Project) -> None:
    """In every gap of the factors: each price flips where it reaches the other."""
    rows = table(good=GOOD | usd(0.6), cheap=CHEAP | usd(price))
    flips = flip_points(rows, project).set_index("change")["flips_at"]
    found = [flips[f"price of {name} ($ per 1,000 requests)"] for name in ("good", "cheap")]
    assert found == pytest.approx([price, 0.6], rel=0.001)


def test_where_it_flips_is_spelled_as_the_figure_that_it_reaches(project: Project) -> None:
    """A bar a fifth above reaches the lower bound of quality: both are 0.841."""
    low = 0.84147
    rows = table(good=GOOD | usd(0.6), cheap=CHEAP | {"quality_low": low} | usd(0.45))
    bars = project.requirements.model_copy(update={"min_quality": 0.7})
    project = project.model_copy(update={"requirements": bars})
    at = flip_points(rows, project).set_index("change").loc["the bar on quality", "flips_at"]
    assert at > low and number(at) == number(low) == "0.841"


def test_one_machine_more_flips_in_a_narrow_window(tmp_path: Path) -> None:
    """2.97 of machines that bear 5/s; at 3 a fourth is bought, which pays only from 3.08 on."""
    folder = tmp_path / "traffic"
    folder.mkdir()
    full = 5 * 86_400
    project = brief(folder, "traffic", {"requests_per_day": int(2.97 * full), "peak_factor": 1})
    api = usd(1.3 * 24_000 / full) | {"max_rps": 99.0, "rps_low": 90.0, "rps_high": 100.0}
    rows = table(api=api, own={})
    rows.loc[1, ["usd_per_hour", "rps", "rps_most"]] = 1.0, 5.0, 5.0
    flips = flip_points(at_traffic(rows, project), project).set_index("change")
    assert flips.loc["requests a day", "pick"] == "api"
    assert flips.loc["requests a day", "flips_at"] == pytest.approx(3 * full, rel=0.001)


def test_every_flip_is_one_and_nothing_nearer_is(measured: pd.DataFrame, project: Project) -> None:
    row = flip_points(measured, project).set_index("change").loc["the bar on quality"]
    for bar, pick in ((row["flips_at"], "good"), (row["flips_at"] * 0.995, "cheap")):
        bars = project.requirements.model_copy(update={"min_quality": bar})
        order, _ = choose(qualify(measured, check(measured, bars)), "cheapest")
        assert order[0] == pick


@pytest.mark.parametrize(
    ("usd_per_1k", "day", "flips_at"),
    [
        # A machine at $1/h costs $730 a month; $0.5 per 1,000 requests reach that at 48,000 a day.
        (0.5, 30_000, 48_000),
        # The API bears 4/s, 345,600 a day; of the dear machine a second one is bought.
        (0.01, 300_000, 345_600),
    ],
)
def test_traffic_flips_between_a_machine_and_a_price_by_token(
    usd_per_1k: float, day: int, flips_at: int, tmp_path: Path
) -> None:
    folder = tmp_path / "traffic"
    folder.mkdir()
    project = brief(folder, "traffic", {"requests_per_day": day, "peak_factor": 1})
    rows = table(api=usd(usd_per_1k), own={})
    rows.loc[1, ["usd_per_hour", "rps", "rps_most"]] = 1.0, 5.0, 5.0
    flips = flip_points(at_traffic(rows, project), project).set_index("change")
    assert flips.loc["requests a day", "pick"] == "own"
    assert flips.loc["requests a day", "flips_at"] == pytest.approx(flips_at, rel=0.001)


def test_nobody_qualifies_and_nothing_flips(tmp_path: Path, measured: pd.DataFrame) -> None:
    strict = brief(tmp_path, "requirements", {"max_usd_per_1k": 0.001})
    flips = flip_points(measured, strict).set_index("change")
    assert set(flips["pick"]) == {"none"}
    assert flips["flips_at"].isna().all()
    assert not flips.index.str.contains("withdrawn").any()


def test_the_table_stays_and_a_baseline_has_no_price(
    measured: pd.DataFrame, project: Project
) -> None:
    base = pd.concat([measured, table(base={"standing": "the baseline"})], ignore_index=True)
    before = base.copy()
    changes = flip_points(base, project)["change"]
    pd.testing.assert_frame_equal(base, before)
    assert changes.to_list() == flip_points(measured, project)["change"].to_list()
