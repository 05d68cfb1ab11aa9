"""Intervals of scores: how sure a share, a mean, a macro-F1 or a quantile is."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import norm, quantile_test
from scipy.stats import t as student
from statsmodels.stats.proportion import proportion_confint

Rows = npt.NDArray[np.intp]
Groups = Iterable[Any] | None  # one an item, blank for none
Bounds = tuple[float, float]
Estimate = tuple[float, float, float]  # a value and its bounds
Floats = npt.NDArray[np.float64]
ALPHA = 0.05
MOST_ITEMS = 1_000_000  # a larger number of items is no advice
RESAMPLES = 1000


def wilson(successes: float, n: float, *, alpha: float = ALPHA) -> Bounds:
    """The Wilson score interval of a share (Wilson 1927); nothing is known of none asked."""
    if n == 0:
        return 0.0, 1.0
    low, high = proportion_confint(successes, n, alpha=alpha, method="wilson")
    return max(0.0, float(low)), min(1.0, float(high))


def group_numbers(groups: Groups) -> Rows | None:
    """Number the groups of items; a blank group is the item's own. None where none is shared."""
    if groups is None:
        return None
    texts: list[str] = ["" if pd.isna(group) else str(group) for group in groups]
    names = [text if text.strip() else f"\0{place}" for place, text in enumerate(texts)]
    numbers, distinct = pd.factorize(np.array(names, dtype=object))
    return None if len(distinct) == len(names) else numbers.astype(np.intp)


def jackknife(influence: Floats, group: Rows | None = None) -> tuple[float, float]:
    """Variance and degrees of freedom of an estimate from what each item adds to its error.

    The jackknife over whole groups (Binder 1983), with Satterthwaite's degrees of freedom.
    """
    n = len(influence)
    numbers = np.arange(n) if group is None else group
    sums = np.bincount(numbers, weights=influence)
    count = len(sums)
    if count < 2:
        return float("inf"), 1.0
    squares = (sums / (1 - np.bincount(numbers) / n)) ** 2
    total, fourth = float(squares.sum()), float((squares**2).sum())
    freedom = 2 * total**2 / fourth if fourth > 0 else count - 1.0
    variance = total * (count - 1) / count
    if group is not None:  # items of a group seldom tell more together than apart
        variance = max(variance, jackknife(influence)[0])
    return variance, min(max(freedom, 1.0), count - 1.0)


def _wilson_at(value: float, influence: Floats, group: Rows | None, units: float) -> Bounds:
    """The Wilson interval at the effective sample size: that of a share as variable as this."""
    variance, freedom = jackknife(influence, group)
    if not np.isfinite(variance):
        return 0.0, 1.0
    most, size = value * (1 - value), units
    if most > 1e-12:
        little = 0.5 if group is None else 0.25  # of an item: equal scores are not certainty
        added = variance * (units - 1) + little * most / units
        size = most / max(added / (units - 1 + little), 1e-12)
    alpha = 2 * float(norm.sf(student.ppf(1 - ALPHA / 2, freedom)))
    return wilson(value * size, size, alpha=alpha)


def interval(scores: npt.ArrayLike | pd.Series, groups: Groups = None) -> Estimate:
    """The mean of scores in 0..1 with its 95 % interval; missing scores are left out.

    Scores of only 0 and 1 are a share: Wilson. Graded scores, and items that belong together
    in groups, get the Wilson interval at their effective sample size (Korn and Graubard 1998;
    Franco and others 2019). Without any score nothing is known: `(nan, 0, 1)`.
    """
    data = pd.Series(scores).astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    scored = ~np.isnan(data)
    values = data[scored]
    if values.size == 0:
        return float("nan"), 0.0, 1.0
    group = None if groups is None else group_numbers(np.array(list(groups), object)[scored])
    value = float(values.mean())
    if group is None and np.isin(values, (0.0, 1.0)).all():
        return value, *wilson(int(values.sum()), len(values))
    units = len(values) if group is None else int(group.max()) + 1
    return value, *_wilson_at(value, (values - value) / len(values), group, units)


def macro_f1_interval(
    target: Iterable[Any], predicted: Iterable[Any], labels: Iterable[str], groups: Groups = None
) -> Estimate:
    """Macro-F1 as scikit-learn defines it, with a 95 % interval from its linearisation.

    By the delta method (Takahashi and others 2022). A label with few items remains a guess.
    """
    index = np.array(labels, dtype=object)
    right, chosen = (
        np.array(list(names), dtype=object)[:, None] == index for names in (target, predicted)
    )
    n = len(right)
    both = 2.0 * (right & chosen)
    either = right.astype(float) + chosen
    total = either.sum(axis=0)
    f1 = np.divide(both.sum(axis=0), total, out=np.zeros(len(index)), where=total > 0)
    change = np.divide(both - f1 * either, total, out=np.zeros_like(either), where=total > 0)
    group = group_numbers(groups)
    # Labels count alike, so rare ones set how many items the score is worth.
    counts = right.sum(axis=0)
    counts = counts[counts > 0]
    worth = float(len(counts) ** 2 / (1 / counts).sum())
    units = worth if group is None else worth * (int(group.max()) + 1) / n
    value = float(f1.mean())
    return value, *_wilson_at(value, change.mean(axis=1), group, max(units, 1.0))


def bootstrap(statistic: Callable[[Rows], float], n: int) -> Estimate:
    """A statistic of n rows with its percentile bootstrap interval (Efron 1979), seeded."""
    rows = np.arange(n)
    if n < 2:
        return statistic(rows), float("nan"), float("nan")
    how = {"n_resamples": RESAMPLES, "method": "percentile", "rng": np.random.default_rng(0)}
    bounds = scipy_bootstrap((rows,), statistic, vectorized=False, **how).confidence_interval
    return statistic(rows), float(bounds.low), float(bounds.high)


def ratio(above: npt.ArrayLike, below: npt.ArrayLike) -> Estimate:
    """A ratio of two positive, independent estimates, by MOVER on logs (Zou and Donner 2008)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        over, under = (np.log(np.asarray(part, dtype=float)) for part in (above, below))
        value = over[0] - under[0]
        low = value - np.hypot(over[0] - over[1], under[2] - under[0])
        high = value + np.hypot(over[2] - over[0], under[0] - under[1])
        return float(np.exp(value)), float(np.exp(low)), float(np.exp(high))


def quantile(values: npt.ArrayLike, p: float) -> Estimate:
    """A quantile with distribution-free bounds from order statistics, each 95 % sure by itself.

    A bound that so few values cannot give is infinite: a p95 has none above, below 59 values.
    """
    data = np.asarray(values, dtype=float)
    if data.size == 0:
        return float("nan"), float("-inf"), float("inf")
    # One-sided each way, because a requirement looks at one bound only.
    high = quantile_test(data, p=p, alternative="less").confidence_interval(1 - ALPHA).high
    low = quantile_test(data, p=p, alternative="greater").confidence_interval(1 - ALPHA).low
    value = float(np.quantile(data, p, method="inverted_cdf"))
    return value, float(np.nan_to_num(low, nan=-np.inf)), float(np.nan_to_num(high, nan=np.inf))


def items_needed(value: float, bar: float, *, n: int, low: float, high: float) -> int | None:
    """About how many items in all would bring a score's interval past a bar, if the score holds."""
    if low >= bar or high < bar:
        return n
    if value == bar:
        return None
    # Wilson's bound lies on the bar where the score test is at its level (Wilson 1927).
    simple_low, simple_high = wilson(value * n, n)
    worth_one = ((high - low) / (simple_high - simple_low)) ** 2  # items worth one of a share
    reach = float(norm.ppf(1 - ALPHA / 2)) ** 2 * bar * (1 - bar)
    total = max(n + 1, math.ceil(reach / (value - bar) ** 2 * worth_one))
    return total if total <= MOST_ITEMS else None
