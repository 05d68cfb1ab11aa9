"""One pair of deployments on the same items: its test, its bounds, and how many items it takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import norm
from scipy.stats import t as student
from statsmodels.stats.contingency_tables import mcnemar

from lib.stats.intervals import ALPHA, codes, spread

__all__ = [
    "Pair",
    "bounds",
    "holm",
    "items_to_decide",
    "minimum_detectable_difference",
    "p_above",
    "p_below",
    "p_value",
    "pair_of",
    "tango",
]

POWER = 0.8


class Pair(NamedTuple):
    """First less second on the items both answered."""

    n: int
    more: int  # items on which the first scores higher
    less: int
    difference: float
    exact: bool  # 0/1 scores of items that do not belong together
    worth: float | None  # independent items the 0/1 scores are worth; None for graded scores
    error: float  # standard error of the difference
    freedom: float  # its degrees of freedom
    discordance: float  # mean squared difference an item, times the design effect


def pair_of(table: pd.DataFrame, group: pd.Series | None, first: str, second: str) -> Pair:
    """Compare two columns of a table of items by deployments, `group` naming each item's group."""
    a, b = table[first].to_numpy(), table[second].to_numpy()
    both = ~(np.isnan(a) | np.isnan(b))
    a, b = a[both], b[both]
    n = len(a)
    if n == 0:
        return Pair(0, 0, 0, float("nan"), True, 0.0, 0.0, math.inf, 0.0)
    change: npt.NDArray[np.float64] = np.round(a - b, 12)
    more, less = int((change > 0).sum()), int((change < 0).sum())
    difference, squared = float(change.mean()), float((change**2).mean())
    number = None if group is None else codes(group[both], n)
    binary = bool(np.isin(np.concatenate([a, b]), (0.0, 1.0)).all())
    if number is None and (binary or not change.any()):
        return Pair(n, more, less, difference, True, float(n), 0.0, math.inf, squared)
    variance, freedom = spread((change - difference) / n, number)
    if not math.isfinite(variance):  # a single group: nothing is known of another
        return Pair(n, more, less, difference, False, 0.0, 0.0, freedom, 1.0)
    plain = squared - difference**2
    worth = None
    if number is not None and (binary or not change.any()):
        # Where all items differ alike nothing tells their spread: each group counts once.
        worth = plain / variance if variance > 0 else float(number.max() + 1)
    error = max(math.sqrt(variance), 1e-12)
    discordance = variance * n + difference**2
    return Pair(n, more, less, difference, False, worth, error, freedom, discordance)


def p_value(pair: Pair) -> float:
    """Two-sided: exact McNemar for simple 0/1 scores, else by Student's t."""
    if pair.worth == 0:
        return 1.0
    if pair.exact:
        table = [[0, pair.more], [pair.less, 0]]
        return float(mcnemar(table, exact=True).pvalue) if pair.more + pair.less else 1.0
    above = p_above(pair, 0.0)
    return min(1.0, 2 * min(above, 1 - above))


def p_above(pair: Pair, at: float) -> float:
    """One-sided p value of the claim that the difference is above `at`."""
    if pair.worth == 0:
        return 1.0
    if pair.worth is None:
        score = (pair.difference - at) / pair.error
    else:
        score = _tango_z(*_counts(pair), at)
    return float(student.sf(score, pair.freedom))


def p_below(pair: Pair, at: float) -> float:
    """One-sided p value of the claim that the difference is below `at`."""
    return 1.0 if pair.worth == 0 else 1 - p_above(pair, at)


def bounds(pair: Pair, side: float) -> tuple[float, float]:
    """Both bounds, each missed with chance `side`."""
    if pair.worth == 0:
        return -1.0, 1.0
    reach = float(student.ppf(1 - side, pair.freedom))
    if pair.worth is not None:
        return _tango(*_counts(pair), reach)
    reach *= pair.error
    return max(-1.0, pair.difference - reach), min(1.0, pair.difference + reach)


def _counts(pair: Pair) -> tuple[float, float, float]:
    """The discordant counts and the size, shrunk to what the items are worth."""
    worth = pair.worth or 0.0
    return pair.more * worth / pair.n, pair.less * worth / pair.n, worth


def tango(more: int, less: int, n: int, *, alpha: float = ALPHA) -> tuple[float, float]:
    """Tango's score interval (1998) of a paired difference of shares.

    Args:
        more: Items that only the first has right.
        less: Items that only the second has right.
        n: All items.
        alpha: One less the level; for a one-sided bound give twice its alpha.
    """
    return _tango(more, less, n, float(norm.ppf(1 - alpha / 2))) if n else (-1.0, 1.0)


def _tango(more: float, less: float, n: float, z: float) -> tuple[float, float]:
    estimate = (more - less) / n

    def bound(target: float, end: float) -> float:
        if abs(estimate - end) < 1e-9 or (_tango_z(more, less, n, end) - target) * end >= 0:
            return end
        return float(brentq(lambda at: _tango_z(more, less, n, at) - target, end, estimate))

    return bound(z, -1.0), bound(-z, 1.0)


def _tango_z(more: float, less: float, n: float, at: float) -> float:
    """Tango's score statistic of the hypothesis that the difference is `at`."""
    b = (2 * n - more + less) * at - more - less
    root = math.sqrt(max(b * b + 8 * n * less * at * (1 - at), 0.0))
    variance = n * (2 * (root - b) / (4 * n) + at * (1 - at))
    gap = more - less - n * at
    return gap / math.sqrt(variance) if variance > 1e-12 else math.copysign(1e9, gap) * (gap != 0)


def holm(
    tests: Sequence[tuple[str, str] | None], p_values: Sequence[float], alpha: float = ALPHA
) -> tuple[list[float], list[float]]:
    """Holm's adjusted p values, and the level at which each is tested; equal tests count once."""
    once = {test: p for test, p in zip(tests, p_values, strict=True) if test is not None}
    adjusted: dict[tuple[str, str], float] = {}
    level: dict[tuple[str, str], float] = {}
    least = 0.0
    # By hand: statsmodels' multipletests collects garbage on every call, 50 ms and more.
    for rank, test in enumerate(sorted(once, key=lambda test: once[test])):
        left = len(once) - rank
        least = max(least, min(1.0, once[test] * left))
        adjusted[test], level[test] = least, alpha / left
    return (
        [1.0 if test is None else adjusted[test] for test in tests],
        [alpha if test is None else level[test] for test in tests],
    )


def minimum_detectable_difference(
    n: int, *, discordance: float, power: float = POWER, alpha: float = ALPHA
) -> float:
    """The smallest difference that a paired test of n items shows with this power.

    Connor's formula for McNemar's test (1987), solved for the difference; graded scores take
    the mean squared difference an item for the share of items that differ.

    Args:
        n: Items both deployments answer.
        discordance: Share of items on which they differ, as `compare_pairs` gives it.
        power: Chance of showing it.
        alpha: Level of the two-sided test; divide it by the number of pairs.
    """
    if n < 1:
        return 1.0

    def lacking(difference: float) -> float:
        return _size(difference, max(discordance, difference), 0.0, power, alpha) - n

    return 1.0 if lacking(1.0) > 0 else float(brentq(lacking, 1e-9, 1.0))


def items_to_decide(
    difference: float,
    *,
    n: int,
    discordance: float,
    bar: float = 0.0,
    power: float = POWER,
    alpha: float = ALPHA,
    limit: int = 10_000_000,
) -> int | None:
    """About how many more items would tell a paired difference from a bar, if it holds.

    Args:
        difference: The difference measured.
        n: The items it was measured on.
        discordance: As `compare_pairs` gives it.
        bar: 0 to show a difference, minus the margin to show non-inferiority.
        power: Chance that so many items decide it.
        alpha: Level of the two-sided test; twice that of a one-sided one.
        limit: No answer above it.

    Returns:
        Items beyond the n at hand, or None where the difference lies on the bar.
    """
    if n < 1 or math.isnan(difference) or abs(difference - bar) < 1e-9:
        return None
    total = math.ceil(_size(difference, discordance, bar, power, alpha))
    return max(total - n, 1) if total <= limit else None


def _size(difference: float, discordance: float, bar: float, power: float, alpha: float) -> float:
    """Items until the test at the bar has the power (Connor 1987)."""
    if discordance == 0:
        discordance = abs(bar)  # on the bar at least so many items differ
    under = math.sqrt(max(discordance - bar**2, 0.0))
    true = math.sqrt(max(discordance - difference**2, 0.0))
    reach = float(norm.ppf(1 - alpha / 2)) * under + float(norm.ppf(power)) * true
    return (reach / (difference - bar)) ** 2
