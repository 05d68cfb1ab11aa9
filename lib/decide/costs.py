"""Cost, speed and quality of every deployment side by side, and the Pareto frontier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from lib.brief import Project
from lib.endpoints import Rate, price_of
from lib.errors import PlaybookError
from lib.stats import bootstrap, tie_groups

NAN = float("nan")
Bounds = tuple[float, float, float]


def cost(
    brief: Project, capacity: pd.DataFrame, answers: pd.DataFrame, hardware: pd.DataFrame
) -> pd.DataFrame:
    """Dollars per 1,000 requests of every deployment that was measured.

    An hourly price is divided by the capacity (from `speed.capacity`): the cost at full use, twice
    as much at half the load. A token price is multiplied by the tokens of the answers
    (`prompt_tokens completion_tokens`), with a bootstrap interval of their mean.

    Returns:
        `deployment hardware price price_basis usd_per_1k usd_per_1k_low usd_per_1k_high`; missing
        where no load was within the SLO.
    """
    rows = []
    loads = {row["deployment"]: row for row in capacity.to_dict("records")}
    for deployment in (d for d in brief.deployments if d.name in loads):
        name, rate = deployment.name, price_of(deployment, hardware)
        if rate.usd_per_hour is not None:
            bounds = _by_hour(rate.usd_per_hour, loads[name])
            price = f"${rate.usd_per_hour:.3g}/hour"
        else:
            bounds = _by_token(rate, answers[answers["deployment"] == name], name)
            in_, out = rate.input_usd_per_million, rate.output_usd_per_million
            price = f"${in_:.3g} in, ${out:.3g} out per million tokens"
        rows.append((name, deployment.hardware or "hosted", price, rate.basis, *bounds))
    columns = "deployment hardware price price_basis usd_per_1k usd_per_1k_low usd_per_1k_high"
    return pd.DataFrame(rows, columns=columns.split())


def _by_hour(usd_per_hour: float, load: Mapping[Any, Any]) -> Bounds:
    """The capacity lies between the load that passed and `high`, which failed or is missing."""
    if not load["max_rps"] > 0:
        return NAN, NAN, NAN
    per_1k = usd_per_hour / 3600 / load["max_rps"] * 1000
    if load["basis"] != "measured here":  # a published load has no bracket
        return per_1k, NAN, NAN
    return per_1k, usd_per_hour / 3600 / load["high"] * 1000, per_1k


def _by_token(rate: Rate, answers: pd.DataFrame, name: str) -> Bounds:
    used = answers.dropna(subset=["prompt_tokens", "completion_tokens"])
    if used.empty:
        raise PlaybookError(
            f"deployment {name!r}: the endpoint reports no token usage, so a token price gives"
            " no cost; give price.usd_per_hour instead"
        )
    dollars = (
        used["prompt_tokens"] * (rate.input_usd_per_million or 0.0)
        + used["completion_tokens"] * (rate.output_usd_per_million or 0.0)
    ).to_numpy(dtype=float) / 1000
    return bootstrap(lambda rows: float(dollars[rows].mean()), len(dollars))


def dollar_signs(usd_per_1k: pd.Series[float]) -> pd.Series[str]:
    """`$` for the cheapest, one more `$` for each dearer configuration, at most five."""
    return usd_per_1k.rank(method="dense").clip(upper=5).fillna(0).map(lambda n: "$" * int(n))


def tradeoffs(
    scores: pd.DataFrame, capacity: pd.DataFrame, cost: pd.DataFrame, pairs: pd.DataFrame
) -> pd.DataFrame:
    """Join quality, speed and cost into one row per deployment, with their intervals.

    Quality is the primary metric of the kind of task. The cost of a correct answer is cost
    divided by quality; its bounds take the worst of both bounds, so they are wider than 95 %.
    `tie_group` 1 holds the best quality and all that a paired test cannot tell apart from it.
    """
    primary = scores[scores["primary"].astype(bool)]
    primary = primary.assign(tie_group=primary["deployment"].map(tie_groups(primary, pairs)))
    quality = {"value": "quality", "low": "quality_low", "high": "quality_high"}
    speed = capacity.drop(columns=["repo_id", "n", "basis"], errors="ignore")
    speed = speed.rename(columns={"low": "rps_low", "high": "rps_high"})
    table = primary.rename(columns=quality).merge(speed, on="deployment", how="left")
    table = table.merge(cost, on="deployment", how="left")
    for end, other in {"": "", "_low": "_high", "_high": "_low"}.items():
        table[f"usd_per_1k_correct{end}"] = table[f"usd_per_1k{end}"] / table[f"quality{other}"]
    table["dollars"] = dollar_signs(table["usd_per_1k"])
    return table.assign(on_frontier=frontier(table))


def frontier(table: pd.DataFrame) -> pd.Series[bool]:
    """Whether nothing beats it in cost, speed and quality; false where one of them is missing."""
    gains = np.column_stack([-table["usd_per_1k"], table["max_rps"], table["quality"]])
    # Every row against every row: as good in all three, and better in one.
    as_good = np.all(gains[:, None] <= gains, axis=2)
    better = np.any(gains[:, None] < gains, axis=2)
    beaten = np.any(as_good & better, axis=1)
    return pd.Series(~beaten & ~np.isnan(gains).any(axis=1), index=table.index)
