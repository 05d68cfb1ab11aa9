"""Intervals and paired tests, from scipy and statsmodels: how sure a number or a difference is."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import quantile_test
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

__all__ = ["Rows", "bootstrap", "compare_pairs", "items_needed", "quantile", "tie_groups", "wilson"]

Rows = npt.NDArray[np.intp]
ALPHA = 0.05


def wilson(successes: int, n: int, *, alpha: float = ALPHA) -> tuple[float, float]:
    """The Wilson score interval of a share (Wilson 1927); nothing is known of none asked."""
    if n == 0:
        return 0.0, 1.0
    low, high = proportion_confint(successes, n, alpha=alpha, method="wilson")
    return max(0.0, float(low)), min(1.0, float(high))


def bootstrap(
    statistic: Callable[[Rows], float], n: int, *, resamples: int = 1000
) -> tuple[float, float, float]:
    """A statistic of n rows with its percentile bootstrap interval (Efron 1979), seeded."""
    rows = np.arange(n)
    if n < 2:
        return statistic(rows), float("nan"), float("nan")
    result = scipy_bootstrap(
        (rows,),
        statistic,
        vectorized=False,
        n_resamples=resamples,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    interval = result.confidence_interval
    return statistic(rows), float(interval.low), float(interval.high)


def quantile(values: npt.ArrayLike, p: float) -> tuple[float, float, float]:
    """A quantile with distribution-free bounds from order statistics, each 95 % sure by itself.

    A bound that the number of values cannot give is infinite: a p95 has no upper bound
    below 59 values.
    """
    data = np.asarray(values, dtype=float)
    if data.size == 0:
        return float("nan"), float("-inf"), float("inf")
    # One-sided each way, because a requirement looks at one bound only.
    high = quantile_test(data, p=p, alternative="less").confidence_interval(1 - ALPHA).high
    low = quantile_test(data, p=p, alternative="greater").confidence_interval(1 - ALPHA).low
    bounds = (
        float("-inf") if np.isnan(low) else float(low),
        float("inf") if np.isnan(high) else float(high),
    )
    return float(np.quantile(data, p, method="inverted_cdf")), *bounds


def compare_pairs(scored: pd.DataFrame) -> pd.DataFrame:
    """Compare all deployments on the same items: exact McNemar, Holm-adjusted.

    Args:
        scored: One row per deployment and item with `repo_id` and `score` 0 or 1, missing
            where a call failed; only items both answered are compared.

    Returns:
        One row per pair: `deployment other n only_first only_second difference low high
        p_value p_adjusted verdict`; `difference` is first minus second with a 95 % interval
        (paired, Agresti and Min 2005); verdict is `better`, `worse` or `tie`.
    """
    table = scored.pivot(index="item_id", columns="deployment", values="score").astype(float)
    order = list(dict.fromkeys(scored["deployment"]))
    rows = []
    for first, second in combinations(order, 2):
        both = table[[first, second]].dropna()
        a, b = both[first].to_numpy(), both[second].to_numpy()
        n, only_a, only_b = len(both), int((a > b).sum()), int((b > a).sum())
        exact = mcnemar([[0, only_a], [only_b, 0]], exact=True)
        low, high = _paired_interval(only_a, only_b, n)
        rows.append(
            {
                "deployment": first,
                "other": second,
                "n": n,
                "only_first": only_a,
                "only_second": only_b,
                "difference": (only_a - only_b) / n if n else float("nan"),
                "low": low,
                "high": high,
                "p_value": float(exact.pvalue) if only_a + only_b else 1.0,
            }
        )
    distinct = _distinct(table, scored)
    columns = "deployment other n only_first only_second difference low high p_value".split()
    pairs = pd.DataFrame(rows, columns=columns)
    if pairs.empty:
        return pairs.assign(p_adjusted=pd.Series(dtype=float), verdict=pd.Series(dtype=str))
    first, second = pairs["deployment"].map(distinct), pairs["other"].map(distinct)
    hypothesis = [tuple(sorted(pair)) for pair in zip(first, second, strict=True)]
    tested = {h: p for h, p in zip(hypothesis, pairs["p_value"], strict=True) if h[0] != h[1]}
    adjusted = dict.fromkeys(hypothesis, 1.0)
    if tested:
        _, holm, *_ = multipletests(list(tested.values()), alpha=ALPHA, method="holm")
        adjusted |= dict(zip(tested, holm, strict=True))
    pairs["p_adjusted"] = [adjusted[h] for h in hypothesis]
    better = np.where(pairs["difference"] > 0, "better", "worse")
    return pairs.assign(verdict=np.where(pairs["p_adjusted"] < ALPHA, better, "tie"))


def _distinct(table: pd.DataFrame, scored: pd.DataFrame) -> dict[str, str]:
    """The first deployment of the same model with the same score on every item.

    One model on one and on two threads answers alike: asking twice whether it beats another
    is one hypothesis, so Holm counts it once.
    """
    model = scored.drop_duplicates("deployment").set_index("deployment")["repo_id"]
    first: dict[tuple[str, tuple[str, ...]], str] = {}
    return {
        name: first.setdefault((str(model[name]), tuple(map(str, table[name]))), name)
        for name in table.columns
    }


def _paired_interval(only_a: int, only_b: int, n: int) -> tuple[float, float]:
    """Agresti-Min interval of a paired difference: Wald after half a count in each cell."""
    if n == 0:
        return -1.0, 1.0
    b, c, total = only_a + 0.5, only_b + 0.5, n + 2
    difference = (b - c) / total
    spread = 1.959964 * np.sqrt((b + c) - (b - c) ** 2 / total) / total
    return max(-1.0, float(difference - spread)), min(1.0, float(difference + spread))


def tie_groups(scores: pd.DataFrame, pairs: pd.DataFrame) -> dict[str, int]:
    """Number deployments by quality: equal to the best of a group means the same group.

    Group 1 is the best and all it cannot be told apart from; group 2 starts with the best
    of the others, and so on. Every deployment is in one group.
    """
    left = list(scores.sort_values("value", ascending=False, kind="stable")["deployment"])
    ties = {frozenset(p) for p in pairs.query("verdict == 'tie'")[["deployment", "other"]].values}
    groups: dict[str, int] = {}
    number = 0
    while left:
        number += 1
        leader = left[0]
        members = [n for n in left if n == leader or frozenset((leader, n)) in ties]
        groups |= dict.fromkeys(members, number)
        left = [n for n in left if n not in members]
    return groups


def items_needed(value: float, bar: float, *, n: int, limit: int = 1_000_000) -> int | None:
    """About how many items would bring a share's Wilson bound past a bar, if the share holds.

    Returns:
        The total number of items, or None where the share lies on the bar itself.
    """
    total = max(n, 1)
    while total <= limit:
        low, high = wilson(round(value * total), total)
        if low >= bar or high < bar:
            return total
        total = int(total * 1.1) + 1
    return None
