"""Paired tests of deployments on the same items, and how many items a question takes."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pandas as pd

from lib.errors import PlaybookError
from lib.stats import pair as paired
from lib.stats.intervals import (
    ALPHA,
    Rows,
    bootstrap,
    interval,
    items_needed,
    macro_f1_interval,
    quantile,
    wilson,
)
from lib.stats.pair import items_to_decide, minimum_detectable_difference, tango

__all__ = [
    "Rows",
    "bootstrap",
    "compare_pairs",
    "interval",
    "items_needed",
    "items_to_decide",
    "macro_f1_interval",
    "minimum_detectable_difference",
    "non_inferiority",
    "quantile",
    "tango",
    "tie_groups",
    "wilson",
]

PAIRS = (
    "deployment other n only_first only_second difference low high p_value p_adjusted verdict"
    " discordance detectable more_items"
)


def compare_pairs(scored: pd.DataFrame) -> pd.DataFrame:
    """Compare all deployments on the same items, Holm-adjusted: is one better than the other?

    Scores of 0 and 1 get the exact McNemar test and Tango's score interval (1998); where items
    share a `group`, Tango's test at their effective number with Student's t. Graded scores get
    the paired t test (on group totals) and its interval. Variances are jackknifed over groups,
    with Satterthwaite degrees of freedom. In simulations the intervals cover 94 to 98 % and
    false alarms stay below 6 %. Sign-flipping, which supposes that gains and losses look
    alike, gives up to 20 % where one deployment wins often by little and loses seldom by much
    (here 5 %); losses so rare that the items hold one or none deceive every test.

    Args:
        scored: One row per deployment and item with `repo_id` and `score` from 0 to 1, missing
            where a call failed; only items both answered are compared. Items with the same
            `group`, if that column is there and not blank, count as one draw.

    Returns:
        One row per pair: `deployment other n only_first only_second difference low high
        p_value p_adjusted verdict discordance detectable more_items`. `only_first` counts items
        on which the first scores higher; `difference` is first minus second with its own 95 %
        interval, which holds 0 exactly when `p_value` is at least 0.05; `verdict` is `better`,
        `worse` or `tie` by `p_adjusted`; `detectable` is the difference that this many items
        show with 80 % power after adjusting; `more_items` (ties only) about how many more would
        show the difference measured, missing where no number does.
    """
    table, group = _table(scored)
    order = list(dict.fromkeys(scored["deployment"]))
    names = list(combinations(order, 2))
    found = [paired.pair_of(table, group, first, second) for first, second in names]
    distinct = _distinct(table, scored)
    same = [tuple(sorted((distinct[first], distinct[second]))) for first, second in names]
    tests = [None if first == second else (first, second) for first, second in same]
    p_values = [paired.p_value(pair) for pair in found]
    adjusted, _ = paired.holm(tests, p_values)
    asked = ALPHA / max(len({test for test in tests if test is not None}), 1)
    rows: list[dict[str, Any]] = []
    for (first, second), pair, p_value, p_adjusted in zip(
        names, found, p_values, adjusted, strict=True
    ):
        low, high = paired.bounds(pair, ALPHA / 2)
        if p_value >= ALPHA:  # McNemar's exact test is the stricter: the interval follows it
            low, high = min(low, 0.0), max(high, 0.0)
        shown = p_adjusted < ALPHA
        side = "better" if pair.difference > 0 else "worse"
        rows.append(
            {
                "deployment": first,
                "other": second,
                "n": pair.n,
                "only_first": pair.more,
                "only_second": pair.less,
                "difference": pair.difference,
                "low": low,
                "high": high,
                "p_value": p_value,
                "p_adjusted": p_adjusted,
                "verdict": side if shown else "tie",
                "discordance": pair.discordance,
                "detectable": minimum_detectable_difference(
                    pair.n, discordance=pair.discordance, alpha=asked
                ),
                "more_items": None
                if shown
                else items_to_decide(
                    pair.difference, n=pair.n, discordance=pair.discordance, alpha=asked
                ),
            }
        )
    return pd.DataFrame(rows, columns=PAIRS.split()).astype({"more_items": "Int64"})


def non_inferiority(
    scored: pd.DataFrame, *, baseline: str, margin: float, alpha: float = ALPHA
) -> pd.DataFrame:
    """Is a deployment good enough to replace the baseline: at most `margin` worse?

    Scores of 0 and 1 get Tango's score test (1998), the standard for paired non-inferiority;
    graded ones the t test of `compare_pairs`, both one-sided; groups count as they do there.
    Holm adjusts over the candidates: whichever passes may be picked, so one false pass is
    enough to switch wrongly, and the chance of any is held at `alpha`. (Were all required to
    pass, the intersection-union principle would need no adjusting.)

    Args:
        scored: As for `compare_pairs`.
        baseline: The deployment to be replaced.
        margin: The loss of score that is accepted, between 0 and 1.
        alpha: The accepted chance of a false `good enough`, and of a false `worse`.

    Returns:
        One row per other deployment: `deployment baseline n difference low high margin p_value
        p_adjusted verdict note`; `difference` is candidate minus baseline. `low` and `high`
        are one-sided bounds at the level at which Holm tests this candidate (95 % where it is
        the only one), so `low > -margin` is `good enough`, `high < -margin` is `worse`, all
        else `not decided`, with about how many more items would decide it in `note`.

    Raises:
        PlaybookError: No such baseline, or the margin is not between 0 and 1.
    """
    order = list(dict.fromkeys(scored["deployment"]))
    if baseline not in order:
        choices = ", ".join(map(repr, order)) or "none"
        raise PlaybookError(
            f"baseline {baseline!r} has no scores; deployments with scores: {choices}"
        )
    if not 0 < margin < 1:
        raise PlaybookError(
            f"margin {margin!r}: write a loss of score between 0 and 1, such as 0.05"
        )
    table, group = _table(scored)
    others = [name for name in order if name != baseline]
    distinct = _distinct(table, scored)
    found = [paired.pair_of(table, group, name, baseline) for name in others]
    tests = [(distinct[name], "") for name in others]
    passing = [paired.p_above(pair, -margin) for pair in found]
    failing = [paired.p_below(pair, -margin) for pair in found]
    (pass_adjusted, pass_level), (fail_adjusted, fail_level) = (
        paired.holm(tests, p, alpha) for p in (passing, failing)
    )
    rows = []
    for i, (name, pair) in enumerate(zip(others, found, strict=True)):
        good, worse = pass_adjusted[i] < alpha, fail_adjusted[i] < alpha
        low, high = paired.bounds(pair, pass_level[i])[0], paired.bounds(pair, fail_level[i])[1]
        verdict = "good enough" if good else "worse" if worse else "not decided"
        rows.append(
            {
                "deployment": name,
                "baseline": baseline,
                "n": pair.n,
                "difference": pair.difference,
                # Where a candidate before it fails, Holm stops: the bound says so, too.
                "low": low if good else min(low, -margin),
                "high": high if worse else max(high, -margin),
                "margin": margin,
                "p_value": passing[i],
                "p_adjusted": pass_adjusted[i],
                "verdict": verdict,
                "note": "" if verdict != "not decided" else _more(pair, margin, pass_level[i]),
            }
        )
    columns = "deployment baseline n difference low high margin p_value p_adjusted verdict note"
    return pd.DataFrame(rows, columns=columns.split())


def _more(pair: paired.Pair, margin: float, level: float) -> str:
    if pair.n == 0:
        return "no item was answered by both"
    more = items_to_decide(
        pair.difference, n=pair.n, discordance=pair.discordance, bar=-margin, alpha=2 * level
    )
    if more is None:
        return "the difference lies on the margin: no number of items decides it"
    return f"about {more:,} more items would decide it, if the difference holds"


def _table(scored: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series | None]:
    """Items by deployments, and the group of each item where there are groups."""
    table = scored.pivot(index="item_id", columns="deployment", values="score").astype(float)
    if "group" not in scored:
        return table, None
    group = scored.drop_duplicates("item_id").set_index("item_id")["group"]
    return table, group.reindex(table.index)


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
