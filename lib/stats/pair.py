"""One pair of deployments on the same items: its test, its bounds, and how many items it takes."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import norm
from scipy.stats import t as student
from statsmodels.stats.contingency_tables import mcnemar

from lib.stats.intervals import ALPHA, group_numbers, jackknife

POWER = 0.8
MOST_ITEMS = 10_000_000  # a larger number of items is no advice


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

    def p_value(self) -> float:
        """Two-sided: exact McNemar for simple 0/1 scores, else by Student's t."""
        if self.more + self.less == 0 or self.worth == 0:
            return 1.0
        if self.exact:
            return float(mcnemar([[0, self.more], [self.less, 0]], exact=True).pvalue)
        above = self.p_above(0.0)
        return min(1.0, 2 * min(above, 1 - above))

    def p_above(self, at: float) -> float:
        """One-sided p value of the claim that the difference is above `at`."""
        if self.worth == 0:
            return 1.0
        graded = self.worth is None
        score = (self.difference - at) / self.error if graded else _tango(*self._discordant(), at)
        return float(student.sf(score, self.freedom))

    def p_below(self, at: float) -> float:
        """One-sided p value of the claim that the difference is below `at`."""
        return 1.0 if self.worth == 0 else 1 - self.p_above(at)

    def bounds(self, side: float) -> tuple[float, float]:
        """Both bounds, each missed with chance `side`: Tango's interval (1998) of 0/1 scores."""
        if self.worth == 0:
            return -1.0, 1.0
        reach = float(student.ppf(1 - side, self.freedom))
        if self.worth is None:
            reach *= self.error
            return max(-1.0, self.difference - reach), min(1.0, self.difference + reach)
        more, less, n = self._discordant()
        estimate = (more - less) / n

        def bound(score: float, end: float) -> float:
            if abs(estimate - end) < 1e-9 or (_tango(more, less, n, end) - score) * end >= 0:
                return end
            return float(brentq(lambda at: _tango(more, less, n, at) - score, end, estimate))

        return bound(reach, -1.0), bound(-reach, 1.0)

    def _discordant(self) -> tuple[float, float, float]:
        """The counts `more` and `less` and the size, shrunk to what the items are worth."""
        worth = self.worth or 0.0
        return self.more * worth / self.n, self.less * worth / self.n, worth


def _tango(more: float, less: float, n: float, at: float) -> float:
    """Tango's score statistic (1998) of the hypothesis that the difference is `at`."""
    b = (2 * n - more + less) * at - more - less
    root = math.sqrt(max(b * b + 8 * n * less * at * (1 - at), 0.0))
    variance = n * (2 * (root - b) / (4 * n) + at * (1 - at))
    gap = more - less - n * at
    return gap / math.sqrt(variance) if variance > 1e-12 else math.copysign(1e9, gap) * (gap != 0)


def pair_of(table: pd.DataFrame, group: pd.Series | None, first: str, second: str) -> Pair:
    """Compare two columns of a table of items by deployments, `group` naming each item's group."""
    both = table[[first, second]].notna().all(axis=1).to_numpy()
    a, b = table.loc[both, [first, second]].to_numpy().T
    if (n := len(a)) == 0:
        return Pair(0, 0, 0, float("nan"), True, 0.0, 0.0, math.inf, 0.0)
    change = np.round(a - b, 12)
    difference, squared = float(change.mean()), float((change**2).mean())
    counts = n, int((change > 0).sum()), int((change < 0).sum()), difference
    binary = not change.any() or bool(np.isin([a, b], (0.0, 1.0)).all())
    numbers = None if group is None else group_numbers(group[both])
    if numbers is None and binary:
        return Pair(*counts, True, float(n), 0.0, math.inf, squared)
    variance, freedom = jackknife((change - difference) / n, numbers)
    if not math.isfinite(variance):  # a single group: nothing is known of another
        return Pair(*counts, False, 0.0, 0.0, freedom, 1.0)
    worth = None
    if numbers is not None and binary:
        # Where all items differ alike nothing tells their spread: each group counts once.
        plain = squared - difference**2
        worth = plain / variance if variance > 0 else float(numbers.max() + 1)
    error = max(math.sqrt(variance), 1e-12)
    return Pair(*counts, False, worth, error, freedom, variance * n + difference**2)


def minimum_detectable_difference(n: int, discordance: float, *, alpha: float = ALPHA) -> float:
    """The smallest difference that a two-sided paired test of n items shows with 80 % power."""

    def lacking(difference: float) -> float:
        return _size(difference, max(discordance, difference), 0.0, alpha) - n

    return 1.0 if n < 1 or lacking(1.0) > 0 else float(brentq(lacking, 1e-9, 1.0))


def items_to_decide(
    difference: float, n: int, discordance: float, *, bar: float = 0.0, alpha: float = ALPHA
) -> int | None:
    """About how many more items tell a difference on n items from a bar with 80 % power.

    The difference is supposed to hold. `alpha` is two-sided: twice the level of a one-sided test.
    None where the difference lies on the bar.
    """
    if n < 1 or math.isnan(difference) or abs(difference - bar) < 1e-9:
        return None
    total = math.ceil(_size(difference, discordance, bar, alpha))
    return max(total - n, 1) if total <= MOST_ITEMS else None


def _size(difference: float, discordance: float, bar: float, alpha: float) -> float:
    """Items until McNemar's test at the bar has the power (Connor 1987)."""
    discordance = discordance or abs(bar)  # on the bar at least so many items differ
    under = math.sqrt(max(discordance - bar**2, 0.0))
    true = math.sqrt(max(discordance - difference**2, 0.0))
    reach = float(norm.ppf(1 - alpha / 2)) * under + float(norm.ppf(POWER)) * true
    return (reach / (difference - bar)) ** 2
