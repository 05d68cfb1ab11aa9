"""Pairs of deployments on the same items: tests, bounds, and the items it takes."""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import norm
from scipy.stats import t as student
from statsmodels.stats.contingency_tables import mcnemar

from lib.stats.intervals import ALPHA, MOST_ITEMS, group_numbers, jackknife

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
    """About how many more items tell a difference, if it holds, from a bar with 80 % power.

    `alpha` is two-sided: twice the level of a one-sided test. None where no number does.
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


PAIRS = (
    "deployment other n only_first only_second difference low high p_value p_adjusted verdict"
    " discordance detectable more_items"
).split()
MEASURED = [*PAIRS[: PAIRS.index("p_adjusted")], "discordance"]
TRIALS = "deployment baseline n difference low high margin p_value p_adjusted verdict note".split()


def compare_pairs(scored: pd.DataFrame) -> pd.DataFrame:
    """Compare all deployments on the same items, Holm-adjusted: is one better than the other?

    Scores of 0 and 1 get the exact McNemar test and Tango's score interval (1998); where items
    share a `group` that is not blank, Tango's test at their effective number with Student's t.
    Graded scores get the paired t test (on group totals). A row per pair, on the items both
    answered, with the columns `PAIRS`: `difference` is first minus second; its own 95 % interval
    holds 0 exactly when `p_value` is at least 0.05.
    """
    table, group = by_item(scored)
    couples = combinations(dict.fromkeys(scored["deployment"]), 2)
    return with_verdicts([pair_row(table, group, *couple) for couple in couples], twins(scored))


def pair_row(table: pd.DataFrame, group: pd.Series | None, first: str, second: str) -> list[Any]:
    """A pair with its own interval and p value: the columns `MEASURED`."""
    pair = pair_of(table, group, first, second)
    p, (low, high) = pair.p_value(), pair.bounds(ALPHA / 2)
    if p >= ALPHA:  # McNemar's exact test is the stricter: the interval follows it
        low, high = min(low, 0.0), max(high, 0.0)
    return [first, second, *pair[:4], low, high, p, pair.discordance]


def with_verdicts(rows: list[list[Any]], twin: Mapping[str, str]) -> pd.DataFrame:
    """Compared pairs, from `pair_row`, and what Holm's adjustment says of them.

    Pairs of the same `twins` are one hypothesis, and two twins are none. `detectable` is the
    difference that so many items show, `more_items` how many more a tie takes, if any number does.
    """
    table = pd.DataFrame(rows, columns=MEASURED)
    models = [frozenset((twin[first], twin[second])) for first, second, *_ in rows]
    tests = [two if len(two) == 2 else None for two in models]
    adjusted = np.array([p for p, _ in holm(tests, table["p_value"])], dtype=float)
    alpha = ALPHA / max(len({*tests} - {None}), 1)
    significant = adjusted < ALPHA
    sizes = table[["difference", "n", "discordance"]].to_numpy(dtype=object)
    more = [items_to_decide(*size, alpha=alpha) for size in sizes]
    return table.assign(
        p_adjusted=adjusted,
        verdict=np.where(significant, np.where(table["difference"] > 0, "better", "worse"), "tie"),
        detectable=[minimum_detectable_difference(*size[1:], alpha=alpha) for size in sizes],
        more_items=pd.Series(more, dtype="Int64").mask(significant),
    )[PAIRS]


def holm(tests: Sequence[Hashable | None], p_values: Iterable[float]) -> list[tuple[float, float]]:
    """Holm's adjusted p and level of each test; equal ones count once, and None is no test."""
    ordered = sorted(zip(tests, p_values, strict=True), key=lambda one: one[1])
    once = {test: p for test, p in ordered if test is not None}  # the greater p of equal tests
    outcome: dict[Hashable, tuple[float, float]] = {None: (1.0, ALPHA)}
    adjusted = 0.0
    # By hand: statsmodels' multipletests gives no levels, and collects garbage on every call.
    for rank, test in enumerate(sorted(once, key=lambda test: once[test])):
        n_open = len(once) - rank
        adjusted = max(adjusted, min(1.0, once[test] * n_open))
        outcome[test] = adjusted, ALPHA / n_open
    return [outcome[test] for test in tests]


def non_inferiority(scored: pd.DataFrame, *, baseline: str, margin: float) -> pd.DataFrame:
    """Is a deployment good enough to replace the baseline: at most `margin` worse?

    Scores of 0 and 1 get Tango's score test (1998), graded ones the t test of `compare_pairs`, both
    one-sided. Holm adjusts over the candidates, because whichever passes may be picked. A row per
    other deployment, with the columns `TRIALS`: `difference` is candidate minus baseline, with
    one-sided bounds at Holm's level. `low > -margin` is `good enough`, `high < -margin` `worse`.
    """
    (table, group), twin = by_item(scored), twins(scored)
    others = [name for name in twin if name != baseline] if baseline in table else []
    pairs = [pair_of(table, group, name, baseline) for name in others]
    tests = [twin[name] for name in others]
    passing = holm(tests, [pair.p_above(-margin) for pair in pairs])
    failing = holm(tests, [pair.p_below(-margin) for pair in pairs])
    rows = []
    for name, pair, (adjusted, level), (worse, worse_level) in zip(
        others, pairs, passing, failing, strict=True
    ):
        low, high = pair.bounds(level)[0], pair.bounds(worse_level)[1]
        # Where a candidate before it fails, Holm stops: the bound says so, too.
        low = low if adjusted < ALPHA else min(low, -margin)
        high = high if worse < ALPHA else max(high, -margin)
        verdict = "good enough" if adjusted < ALPHA else "worse" if worse < ALPHA else "not decided"
        note = _more(pair, margin, level) if verdict == "not decided" else ""
        measured = pair.n, pair.difference, low, high, margin, pair.p_above(-margin), adjusted
        rows.append((name, baseline, *measured, verdict, note))
    return pd.DataFrame(rows, columns=TRIALS)


def _more(pair: Pair, margin: float, level: float) -> str:
    if pair.n == 0:
        return "no item was answered by both"
    size = pair.difference, pair.n, pair.discordance
    more = items_to_decide(*size, bar=-margin, alpha=2 * level)
    if more is None:
        return "the difference lies on the margin: no number of items decides it"
    return f"about {more:,} more items would decide it, if the difference holds"


def by_item(scored: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series | None]:
    """Scores by item and deployment, and the groups of items."""
    table = scored.pivot(index="item_id", columns="deployment", values="score").astype(float)
    items = scored.drop_duplicates("item_id").set_index("item_id").reindex(table.index)
    return table, items.get("group")


def twins(scored: pd.DataFrame) -> dict[str, str]:
    """By deployment, the first of the same model with the same score on every item."""
    table, _ = by_item(scored)
    model = scored.drop_duplicates("deployment").set_index("deployment")["repo_id"]
    first: dict[tuple[str, ...], str] = {}
    return {
        name: first.setdefault((str(model[name]), *map(str, table[name])), name)
        for name in dict.fromkeys(scored["deployment"])
    }
