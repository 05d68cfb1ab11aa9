"""Paired tests of deployments on the same items, and which of them tie."""

from collections.abc import Hashable, Iterable, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from lib.stats.intervals import ALPHA
from lib.stats.pair import Pair, items_to_decide, minimum_detectable_difference, pair_of

PAIRS = (
    "deployment other n only_first only_second difference low high p_value p_adjusted verdict"
    " discordance detectable more_items"
).split()
TRIALS = "deployment baseline n difference low high margin p_value p_adjusted verdict note".split()


def compare_pairs(scored: pd.DataFrame) -> pd.DataFrame:
    """Compare all deployments on the same items, Holm-adjusted: is one better than the other?

    Scores of 0 and 1 get the exact McNemar test and Tango's score interval (1998); where items
    share a `group` that is not blank, Tango's test at their effective number with Student's t.
    Graded scores get the paired t test (on group totals). A failed call has no score.

    Returns:
        One row per pair, on the items both answered, with the columns `PAIRS`. `difference` is
        first minus second; its own 95 % interval holds 0 exactly when `p_value` is at least 0.05.
    """
    table, group, twin = _by_item(scored)
    rows, tests = [], []
    for first, second in combinations(dict.fromkeys(scored["deployment"]), 2):
        pair = pair_of(table, group, first, second)
        p, (low, high) = pair.p_value(), pair.bounds(ALPHA / 2)
        if p >= ALPHA:  # McNemar's exact test is the stricter: the interval follows it
            low, high = min(low, 0.0), max(high, 0.0)
        counts = pair.n, pair.more, pair.less, pair.difference
        rows.append((first, second, *counts, low, high, p, pair.discordance))
        models = frozenset((twin[first], twin[second]))
        tests.append(models if len(models) == 2 else None)
    columns = [*PAIRS[: PAIRS.index("p_adjusted")], "discordance"]
    return with_verdicts(pd.DataFrame(rows, columns=columns), tests)


def with_verdicts(table: pd.DataFrame, tests: Sequence[Hashable | None]) -> pd.DataFrame:
    """Add to compared pairs what Holm's adjustment says of them.

    `tests` names the hypothesis of each row, None where two are one model and answer alike.
    `verdict` is `better`, `worse` or `tie`, `detectable` the difference that so many items show,
    `more_items` how many more a tie takes, missing where no number does.
    """
    adjusted = np.array([p for p, _ in holm(tests, table["p_value"])], dtype=float)
    alpha = ALPHA / max(len({*tests} - {None}), 1)
    shown = adjusted < ALPHA
    sizes = table[["difference", "n", "discordance"]].to_numpy(dtype=object)
    more = [items_to_decide(*size, alpha=alpha) for size in sizes]
    return table.assign(
        p_adjusted=adjusted,
        verdict=np.where(shown, np.where(table["difference"] > 0, "better", "worse"), "tie"),
        detectable=[minimum_detectable_difference(*size[1:], alpha=alpha) for size in sizes],
        more_items=pd.Series(more, dtype="Int64").mask(shown),
    )[PAIRS]


def holm(tests: Sequence[Hashable | None], p_values: Iterable[float]) -> list[tuple[float, float]]:
    """Holm's adjusted p and level of each test; equal ones count once, and None is no test."""
    once = {test: p for test, p in zip(tests, p_values, strict=True) if test is not None}
    outcome: dict[Hashable, tuple[float, float]] = {None: (1.0, ALPHA)}
    adjusted = 0.0
    # By hand: statsmodels' multipletests gives no levels, and collects garbage on every call.
    for rank, test in enumerate(sorted(once, key=lambda test: once[test])):
        left = len(once) - rank
        adjusted = max(adjusted, min(1.0, once[test] * left))
        outcome[test] = adjusted, ALPHA / left
    return [outcome[test] for test in tests]


def non_inferiority(scored: pd.DataFrame, *, baseline: str, margin: float) -> pd.DataFrame:
    """Is a deployment good enough to replace the baseline: at most `margin` worse?

    Scores of 0 and 1 get Tango's score test (1998), the standard for paired non-inferiority;
    graded ones the t test of `compare_pairs`, both one-sided. Holm adjusts over the candidates,
    because whichever passes may be picked.

    Returns:
        One row per other deployment, with the columns `TRIALS`: `difference` is candidate minus
        baseline, with one-sided bounds at the level at which Holm tests this candidate. `low >
        -margin` is `good enough`, `high < -margin` is `worse`, all else `not decided`.
    """
    table, group, twin = _by_item(scored)
    others = [name for name in dict.fromkeys(scored["deployment"]) if name != baseline]
    pairs = [pair_of(table, group, name, baseline) for name in others]
    p_values = [pair.p_above(-margin) for pair in pairs]
    tests = [twin[name] for name in others]
    passing = holm(tests, p_values)
    failing = holm(tests, [pair.p_below(-margin) for pair in pairs])
    rows = []
    for name, pair, p, (adjusted, level), (worse, worse_level) in zip(
        others, pairs, p_values, passing, failing, strict=True
    ):
        low, high = pair.bounds(level)[0], pair.bounds(worse_level)[1]
        # Where a candidate before it fails, Holm stops: the bound says so, too.
        low = low if adjusted < ALPHA else min(low, -margin)
        high = high if worse < ALPHA else max(high, -margin)
        verdict, note = "not decided", ""
        if adjusted < ALPHA or worse < ALPHA:
            verdict = "good enough" if adjusted < ALPHA else "worse"
        else:
            note = _more(pair, margin, level)
        measured = pair.n, pair.difference, low, high, margin, p, adjusted
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


def _by_item(scored: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series | None, dict[str, str]]:
    """Scores by item and deployment, the groups of items, and the twin of each deployment.

    The twin is the first of the same model with the same score on every item: to ask twice
    whether a model, on one and on two threads, beats another is one hypothesis.
    """
    table = scored.pivot(index="item_id", columns="deployment", values="score").astype(float)
    items = scored.drop_duplicates("item_id").set_index("item_id").reindex(table.index)
    model = scored.drop_duplicates("deployment").set_index("deployment")["repo_id"]
    first: dict[tuple[str, ...], str] = {}
    twin = {
        name: first.setdefault((str(model[name]), *map(str, table[name])), name)
        for name in table.columns
    }
    return table, items.get("group"), twin


def tie_groups(scores: pd.DataFrame, pairs: pd.DataFrame) -> dict[str, int]:
    """Number deployments by quality: 1 is the best and all it cannot be told apart from.

    Group 2 starts with the best of the others, and so on. Every deployment is in one group.
    """
    left = list(scores.sort_values("value", ascending=False, kind="stable")["deployment"])
    ties = {frozenset(p) for p in pairs.query("verdict == 'tie'")[["deployment", "other"]].values}
    groups: dict[str, int] = {}
    while left:
        equal = [name for name in left if name == left[0] or frozenset((left[0], name)) in ties]
        groups |= dict.fromkeys(equal, max(groups.values(), default=0) + 1)
        left = [name for name in left if name not in groups]
    return groups
