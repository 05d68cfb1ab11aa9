"""Dollars: computed by hand, and an unknown price is an error, never zero."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from briefs import brief, changed, load_project, write

from lib import tables
from lib.brief.deployment import Deployment
from lib.brief.project import Project
from lib.decide import costs, decision
from lib.endpoints import price
from lib.endpoints.price import Rate, price_of
from lib.errors import PlaybookError
from lib.opening import open_project
from lib.speed import summary as speed

NAN = float("nan")
HARDWARE = pd.DataFrame(
    {
        "hardware": ["cpu-2", "gpu-x"],
        "usd_per_hour": [0.072, NAN],
        "price_basis": ["list price", None],
    }
)


def deployment(price: dict[str, Any] | None = None, **more: Any) -> Deployment:
    fields = {"name": "a", "model": "org/a", "endpoint": {"base_url": "http://h"}, "price": price}
    return Deployment.model_validate(fields | more)


def capacity(max_rps: float = 2.0, high: float = 4.0, basis: str = "measured here") -> pd.DataFrame:
    return pd.DataFrame(
        {"deployment": ["a"], "max_rps": max_rps, "low": max_rps, "high": high, "basis": basis}
    )


def answers(*tokens: tuple[float | None, float | None]) -> pd.DataFrame:
    return pd.DataFrame(
        [("a", "answered" if any(pair) else "failed", *pair) for pair in tokens],
        columns=["deployment", "outcome", "prompt_tokens", "completion_tokens"],
    )


def cost(folder: Path, price: dict[str, Any], measured: pd.DataFrame, said: pd.DataFrame) -> Any:
    project = brief(folder, "deployments.0.price", price)
    table = costs.cost(project, measured, said, HARDWARE)
    assert list(table["deployment"]) == ["a"]
    return table.iloc[0]


def bounds(row: Any) -> list[float]:
    return [row["usd_per_1k"], row["usd_per_1k_low"], row["usd_per_1k_high"]]


def test_hourly(tmp_path: Path) -> None:
    row = cost(tmp_path, {"usd_per_hour": 3.6}, capacity(), answers())
    assert bounds(row) == pytest.approx([0.5, 0.25, 0.5])  # 0.1 cents a second, 2 to 4 requests
    assert (row["hardware"], row["price"], row["price_basis"]) == ("hosted", "$3.6/hour", "assumed")


def test_a_load_that_never_failed_gives_no_lower_bound(tmp_path: Path) -> None:
    row = cost(tmp_path, {"usd_per_hour": 3.6}, capacity(high=NAN), answers())
    assert bounds(row) == pytest.approx([0.5, NAN, 0.5], nan_ok=True)


def test_no_capacity_is_missing_not_zero(tmp_path: Path) -> None:
    for rps in (0.0, NAN):
        row = cost(tmp_path, {"usd_per_hour": 3.6}, capacity(max_rps=rps), answers())
        assert all(math.isnan(value) for value in bounds(row))


def test_a_published_load_has_no_interval(tmp_path: Path) -> None:
    measured = capacity(basis="published (x, 2026-01-01)", high=NAN)
    row = cost(tmp_path, {"usd_per_hour": 3.6}, measured, answers())
    assert bounds(row) == pytest.approx([0.5, NAN, NAN], nan_ok=True)


TOKENS = {"input_usd_per_million": 1.0, "output_usd_per_million": 10.0}


def test_by_token(tmp_path: Path) -> None:
    said = answers((100, 10), (300, 10), (None, None))
    row = cost(tmp_path, TOKENS, capacity(), said)
    # 100 and 300 in at $1, 10 out at $10 per million: $0.0002 and $0.0004 a request
    assert row["usd_per_1k"] == pytest.approx(0.3)
    assert [row["usd_per_1k_low"], row["usd_per_1k_high"]] == pytest.approx([0.2, 0.4])
    assert row["price"] == "$1 in, $10 out per million tokens"


def test_equal_answers_have_a_narrow_interval(tmp_path: Path) -> None:
    row = cost(tmp_path, TOKENS, capacity(), answers(*[(100, 10)] * 30))
    assert bounds(row) == pytest.approx([0.2, 0.2, 0.2])


def test_a_token_price_does_not_need_a_capacity(tmp_path: Path) -> None:
    row = cost(tmp_path, TOKENS, capacity(max_rps=0.0), answers((100, 10), (100, 10)))
    assert row["usd_per_1k"] == pytest.approx(0.2)


def test_a_few_answers_that_count_tokens_do_not_speak_for_all(tmp_path: Path) -> None:
    for tokens in ([], [(100, None)], [(100, 10)] * 5 + [(100, None)] * 195):
        assert np.isnan(bounds(cost(tmp_path, TOKENS, capacity(), answers(*tokens)))).all()
    row = cost(tmp_path, TOKENS, capacity(), answers(*[(100, 10)] * 195, *[(100, None)] * 5))
    assert bounds(row) == pytest.approx([0.2] * 3)


def priced(folder: Path, *prices: dict[str, Any], **sections: Any) -> Project:
    raw = changed("deployments.0.price", prices[0])
    for deployment, given in zip(raw["deployments"], prices, strict=False):
        deployment["price"] = given
    return open_project(write(folder, raw | sections))


def at(folder: Path, price: dict[str, Any], measured: pd.DataFrame, **traffic: Any) -> Any:
    project = priced(folder, price, traffic=traffic)
    said = answers(*[(100, 10)] * 30)
    return costs.cost(project, measured, said, HARDWARE).iloc[0]


def months(row: Any) -> list[float]:
    return [row["usd_per_month"], row["usd_per_month_low"], row["usd_per_month_high"]]


def test_a_machine_is_paid_for_the_whole_month(tmp_path: Path) -> None:
    """An H100 at $3 bearing 10/s: $2,190 at 10,000 requests a day, though the work is worth $25."""
    measured = capacity(10.0, 12.0)
    row = at(tmp_path, {"usd_per_hour": 3}, measured, requests_per_day=10_000)
    assert row["machines"] == "1 machine at $3/hour, 1% used"
    assert months(row) == [2190.0, 2190.0, 2190.0] and row["replicas"] == 1
    assert row["utilisation"] == pytest.approx(10_000 / 86_400 / 10)
    assert row["usd_per_1k"] == pytest.approx(2190 / (10_000 * 365 / 12) * 1000)
    assert row["cost_basis"] == "at 10,000 requests a day"


def test_replicas_bear_the_peak_at_the_lower_bound(tmp_path: Path) -> None:
    busy = {"requests_per_day": 864_000, "peak_factor": 3.3}  # 10/s, 33/s at the peak
    row = at(tmp_path, {"usd_per_hour": 3}, capacity(10.0, 12.0), **busy)
    assert row["replicas"] == 4 and months(row) == pytest.approx([8760.0, 6570.0, 8760.0])
    row = at(tmp_path, {"usd_per_hour": 3}, capacity(10.0, NAN), **busy, spare=1)
    assert row["machines"] == "5 machines (1 spare) at $3/hour, 20% used"
    assert row["replicas"] == 5 and months(row) == pytest.approx([10_950.0, 4380.0, 10_950.0])
    row = at(tmp_path, {"usd_per_hour": 3}, capacity(10.0, NAN), **busy, min_replicas=0)
    assert months(row) == pytest.approx([24 * 365 / 12 * 3, 0.0, 24 * 365 / 12 * 3])
    row = at(tmp_path, {"usd_per_hour": 3}, capacity(0.0, 2.0), **busy)
    assert np.isnan(months(row)).all() and math.isnan(row["replicas"])


def test_min_rps_may_be_borne_by_several(tmp_path: Path) -> None:
    bars = {"traffic": {"requests_per_day": 100}, "requirements": {"min_rps": 25.0}}
    project = priced(tmp_path, {"usd_per_hour": 3}, **bars)
    assert costs.cost(project, capacity(10.0, 12.0), answers(), HARDWARE)["replicas"][0] == 3


def test_tokens_are_paid_by_volume(tmp_path: Path) -> None:
    row = at(tmp_path, TOKENS, capacity(), requests_per_day=12_000)
    assert months(row) == pytest.approx([12_000 * 365 / 12 * 0.0002] * 3)
    assert row["usd_per_1k"] == pytest.approx(0.2) and math.isnan(row["replicas"])


def test_a_price_by_token_has_a_peak_to_bear(tmp_path: Path) -> None:
    """A machine by the hour gets replicas for it."""
    busy = {"requests_per_day": 86_400, "peak_factor": 4}
    assert at(tmp_path, TOKENS, capacity(), **busy)["peak_rps"] == 4.0
    assert math.isnan(at(tmp_path, {"usd_per_hour": 3}, capacity(), **busy)["peak_rps"])


def crossing(
    folder: Path, usd_per_hour: float, rps: float, high: float = 0.0, **traffic: Any
) -> tuple[Project, pd.DataFrame, pd.Series[Any]]:
    hourly, bars = {"usd_per_hour": usd_per_hour}, {"min_rps": traffic.pop("min_rps", 1.0)}
    traffic = {"requests_per_day": 1, **traffic}
    project = priced(folder, hourly, TOKENS, traffic=traffic, requirements=bars)
    measured = pd.concat([capacity(rps, high or rps), capacity().assign(deployment="b")])
    said = answers(*[(100, 10)] * 30).assign(deployment="b")
    table = costs.cost(project, measured, said, HARDWARE)
    return project, table, costs.crossings(project, table).iloc[0]


def test_from_which_volume_a_machine_is_cheaper(tmp_path: Path) -> None:
    """$730 a month against $0.0002 a request: 120,000 a day; more machines are needed above."""
    row = crossing(tmp_path, 1.0, 100.0)[2]
    assert (row["machine"], row["api"]) == ("a", "b")
    assert row["requests_per_day"] == pytest.approx(120_000)
    assert row["low"] == row["high"] == row["requests_per_day"]
    dear = crossing(tmp_path, 10.0, 1.0)[2]  # $7,300 bear 657 thousand requests at most
    assert list(dear[["requests_per_day", "low", "high"]]) == ["never"] * 3
    cheap = crossing(tmp_path, 0.0001, 100.0)[2]
    assert cheap["requests_per_day"] == pytest.approx(12)  # $0.073 a month
    half = crossing(tmp_path, 1.0, 6.0, high=100.0)[2]  # it may bear more than was planned with
    assert half["low"] == pytest.approx(120_000)
    assert half["requests_per_day"] == half["high"] == pytest.approx(1_560_000)  # 13 machines
    barely = crossing(tmp_path, 1.0, 5.0, high=100.0)[2]  # a full machine: 108,000 a day
    assert list(barely[["requests_per_day", "high"]]) == ["never"] * 2
    assert barely["low"] == pytest.approx(120_000)
    project, table, open_end = crossing(tmp_path, 1.0, 6.0, high=NAN)  # no load broke it
    assert open_end["low"] == pytest.approx(120_000)
    assert costs._turn(project, table.iloc[0].to_dict(), math.inf, 0.0) == math.inf  # a free API


@pytest.mark.parametrize(
    "traffic",
    [{}, {"peak_factor": 1}, {"spare": 2}, {"min_replicas": 3}, {"min_rps": 40.0},
     {"min_replicas": 0, "spare": 1}, {"min_replicas": 0}, {"peak_factor": 3.3, "spare": 1}],
)  # fmt: skip
@pytest.mark.parametrize("rps", [5.6, 6.0, 7.3, 11.0, 60.0])
def test_the_last_crossing_is_exact(rps: float, traffic: dict[str, Any], tmp_path: Path) -> None:
    """Every step of the machine's cost is looked at on both sides, far beyond the answer."""
    project, table, row = crossing(tmp_path, 1.0, rps, **traffic)
    machine, api = table.to_dict("records")
    volume = row["requests_per_day"]

    def dearer(volumes: Any) -> Any:
        month = costs.monthly(machine, project.traffic, project.requirements, volumes)[0]
        return month - volumes * costs.DAYS * api["usd_per_request"] > 1e-6

    borne = rps * (86_400 / project.traffic.peak_factor if project.traffic.min_replicas else 3600)
    after = borne * np.arange(1, 3000) * (1 + 1e-7)  # where one more machine has just been added
    if volume == "never":
        assert dearer(after).all()
        return
    later = after[after > volume]
    assert not dearer(np.array([volume, *later, *(later - 1)])).any()
    assert dearer(np.array([volume * (1 - 1e-5)])).all() and volume < after[-100]


def test_a_recorded_baseline_with_token_counts_has_a_cost(tmp_path: Path) -> None:
    project = brief(tmp_path, "deployments.0.price", TOKENS)
    table = costs.cost(project, capacity()[:0], answers(*[(100, 10)] * 30), HARDWARE)
    assert table["usd_per_1k"].to_list() == pytest.approx([0.2])


def test_a_price_that_depends_on_the_hour_is_the_mean_of_the_day() -> None:
    """deepseek-v4-flash costs twice as much in seven hours of the day."""
    said = answers((1000, 1000)).assign(cached_tokens=[0])
    dear = deployment({"provider": "deepseek", "model": "deepseek-v4-flash"})
    rate = price_of(dear, HARDWARE)
    assert "it depends on the hour" in rate.basis
    usd = price.usd_of_answers(dear, rate, said)[0]
    assert usd == pytest.approx((rate.input_usd_per_million + rate.output_usd_per_million) / 1000)
    cached = price.usd_of_answers(dear, rate, said.assign(cached_tokens=[800]))[0]
    assert cached < usd
    beyond = price.usd_of_answers(dear, rate, said.assign(cached_tokens=[1001]))[0]
    assert math.isnan(beyond), "what was read is not known"


def test_a_deployment_nobody_measured_has_no_row(tmp_path: Path) -> None:
    both = pd.concat([capacity(), capacity().assign(deployment="b")])
    assert list(costs.cost(brief(tmp_path), both, answers(), HARDWARE)["deployment"]) == [
        "a",
        "b",
    ]
    assert list(costs.cost(brief(tmp_path), capacity(), answers(), HARDWARE)["deployment"]) == ["a"]


def test_the_machines_price() -> None:
    rate = price_of(deployment(hardware="cpu-2"), HARDWARE)
    assert rate == (0.072, None, None, "list price, data/hardware.csv")


@pytest.mark.parametrize("machine", ["gpu-x", "cpu-3"])
def test_a_machine_without_a_price(machine: str) -> None:
    message = rf"deployment 'a': data/hardware\.csv has no price for '{machine}'; .*cpu-2"
    with pytest.raises(PlaybookError, match=message):
        price_of(deployment(hardware=machine), HARDWARE)


def test_the_briefs_price_goes_first() -> None:
    price = {"usd_per_hour": 5, "basis": "list price", "source_url": "https://x"}
    rate = price_of(deployment(price, hardware="cpu-2"), HARDWARE)
    assert rate == (5.0, None, None, "list price (https://x)")
    rate = price_of(deployment({"usd_per_hour": 5, "basis": "contract"}), HARDWARE)
    assert rate.basis == "contract"


def provider(name: str, model: str) -> Rate:
    return price_of(deployment({"provider": name, "model": model}), HARDWARE)


def test_a_providers_price() -> None:
    rate = price_of(deployment({"provider": "together"}, model="openai/gpt-oss-120b"), HARDWARE)
    assert rate == (None, 0.15, 0.6, "list price of together for openai/gpt-oss-120b, genai-prices")


def test_a_tiered_price_is_that_of_a_usual_request() -> None:
    assert provider("google", "gemini-2.5-pro")[:3] == (None, 1.25, 10.0)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("together", "org/nobody-knows-it"),
        ("no-such-provider", "openai/gpt-oss-120b"),
        ("cerebras", "qwen-3-coder-480b"),  # listed without a price
        ("azure", "text-embedding-3-small"),  # a price of the input only
    ],
)
def test_an_unknown_price_is_an_error_never_zero(name: str, model: str) -> None:
    message = rf"deployment 'a': genai-prices knows no price of '{model}' at '{name}'.*; give price"
    with pytest.raises(PlaybookError, match=message):
        provider(name, model)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("openrouter", "glm-4.5-air:free"),  # such names are listed without a price
        ("mistral", "devstral-small:free"),
        ("fireworks", "org/glm-5p3x"),  # listed names are not all those it is looked up by
        ("together", "org/qwen3-4b"),
    ],
)
def test_only_names_with_a_price_are_proposed(name: str, model: str) -> None:
    with pytest.raises(PlaybookError, match="price of") as told:
        provider(name, model)
    hint = str(told.value).partition("names it (")[2].partition("), or")[0]
    proposals = re.findall("'(.*?)'", hint)
    assert proposals or hint == "none is near it"
    for proposal in proposals:
        assert provider(name, proposal).input_usd_per_million


def test_every_price_of_the_shipped_briefs_is_known() -> None:
    for name in ("article", "hosted-template", "review-sentiment"):
        for configuration in load_project(name).deployments:
            rate = price_of(configuration, tables.hardware())
            assert any(price and price > 0 for price in rate[:3]), configuration.name


def article() -> tuple[Project, pd.DataFrame]:
    project = load_project("article")
    requests = pd.DataFrame(columns=["deployment", "offered_rps", "latency_s"])
    table = speed.capacity(project, requests.assign(outcome="", ttft_s=0.0, planned=0, repo_id=""))
    return project, costs.cost(project, table, answers(), tables.hardware())


def test_the_articles_order() -> None:
    _, table = article()
    assert decision.dollar_signs(table["usd_per_1k"]).to_list() == ["$$$", "$$", "$"]
    # 84, 18.36 and 7.98 dollars an hour at 2, 10 and 20 requests a second: 4.63/s at the peak
    assert table["replicas"].to_list() == [3, 1, 1]
    assert table["usd_per_month"].to_list() == pytest.approx([183_960, 13_402.8, 5825.4])
    assert table["usd_per_1k"].to_list() == pytest.approx([60.48, 4.4064, 1.9152])


def test_signs() -> None:
    values = pd.Series([3.0, 1.0, NAN, 1.0, 7.0])
    assert decision.dollar_signs(values).to_list() == ["$$", "$", "", "$", "$$$"]
    assert (
        decision.dollar_signs(pd.Series(range(1, 8), dtype=float)).to_list()[-3:] == ["$$$$$"] * 3
    )
    assert decision.dollar_signs(pd.Series([NAN, NAN])).to_list() == ["", ""]
