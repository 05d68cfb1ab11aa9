"""Hours and tokens to dollars: per 1,000 requests and per 1,000 correct answers."""

from __future__ import annotations

import math

import pandas as pd

from lib.brief.project import Project
from lib.endpoints.price import Rate, price_of
from lib.errors import PlaybookError
from lib.stats import intervals as stats

__all__ = ["cost", "signs"]


def cost(
    brief: Project, capacity: pd.DataFrame, answers: pd.DataFrame, hardware: pd.DataFrame
) -> pd.DataFrame:
    """Dollars per 1,000 requests of every deployment that was measured.

    An hourly price is divided by the capacity, so it is the cost at full use: at half the
    load a request costs twice as much. A token price is multiplied by the tokens the
    answers used, with a bootstrap interval of their mean.

    Args:
        brief: With prices.
        capacity: From `speed.capacity`: the bracket of the capacity is the interval.
        answers: Scored answers with `prompt_tokens` and `completion_tokens`.
        hardware: From `tables.hardware`.

    Returns:
        One row per deployment: `deployment hardware price usd_per_1k usd_per_1k_low
        usd_per_1k_high`; missing where no load was within the SLO.
    """
    rows = []
    measured = capacity.set_index("deployment")
    for deployment in brief.deployments:
        if deployment.name not in measured.index:
            continue
        rate = price_of(deployment, hardware)
        if rate.usd_per_hour is not None:
            found = measured.loc[[deployment.name]].iloc[0]
            value, low, high = _hourly(rate.usd_per_hour, found["max_rps"], found["high"])
            if found["basis"] != "measured here":
                low = high = float("nan")  # a published load comes without a bracket
            price = f"${rate.usd_per_hour:.3g}/hour"
        else:
            own = answers[answers["deployment"] == deployment.name]
            value, low, high = _by_token(rate, own, deployment.name)
            price = (
                f"${rate.input_usd_per_million:.3g} in,"
                f" ${rate.output_usd_per_million:.3g} out per million tokens"
            )
        rows.append(
            {
                "deployment": deployment.name,
                "hardware": deployment.hardware or "hosted",
                "price": price,
                "price_basis": rate.basis,
                "usd_per_1k": value,
                "usd_per_1k_low": low,
                "usd_per_1k_high": high,
            }
        )
    return pd.DataFrame(rows)


def _hourly(usd_per_hour: float, rps: float, rps_high: float) -> tuple[float, float, float]:
    if not rps > 0:
        return float("nan"), float("nan"), float("nan")
    value = usd_per_hour / 3600 / rps * 1000
    # The capacity lies between the load that passed and the one that failed; where none
    # failed rps_high is missing, and nobody knows how much less a request could cost.
    return value, usd_per_hour / 3600 / rps_high * 1000, value


def _by_token(rate: Rate, answers: pd.DataFrame, name: str) -> tuple[float, float, float]:
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
    return stats.bootstrap(lambda rows: float(dollars[rows].mean()), len(dollars))


def signs(usd_per_1k: pd.Series[float]) -> pd.Series[str]:
    """`$` for the cheapest, one more `$` for each dearer configuration, at most five."""
    order = usd_per_1k.rank(method="dense")
    return order.map(lambda place: "" if math.isnan(place) else "$" * min(int(place), 5))
