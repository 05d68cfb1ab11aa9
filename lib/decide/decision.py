"""Requirements, Pareto frontier, the pick and why: from measurements to a decision."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from lib.brief.project import Project, Requirements
from lib.decide import costs
from lib.stats import paired_tests as stats
from lib.stats.intervals import items_needed

__all__ = ["check", "choose", "frontier", "nearest_miss", "qualify", "stability", "tradeoffs"]

# requirement: (column, its low bound, its high bound, whether more is better, how to say it)
DIMENSIONS = {
    "min_quality": ("quality", "quality_low", "quality_high", True, "quality of at least {:.3g}"),
    "max_p95_s": ("p95_s", "p95_low", "p95_high", False, "p95 latency of at most {:.3g} s"),
    "min_rps": ("max_rps", "rps_low", "rps_high", True, "at least {:.3g} requests/s"),
    "max_usd_per_1k": (
        "usd_per_1k",
        "usd_per_1k_low",
        "usd_per_1k_high",
        False,
        "at most ${:.3g} per 1,000 requests",
    ),
}


def tradeoffs(
    scores: pd.DataFrame, capacity: pd.DataFrame, cost: pd.DataFrame, pairs: pd.DataFrame
) -> pd.DataFrame:
    """Join quality, speed and cost into one row per deployment, with their intervals.

    Quality is the primary metric of the kind of task. The cost of a correct answer is cost
    divided by quality; its bounds take the worst of both bounds, so they are wider than 95 %.
    `tie_group` 1 holds the best quality and all that a paired test cannot tell apart from it.
    """
    quality = scores[scores["primary"].astype(bool)].rename(
        columns={"value": "quality", "low": "quality_low", "high": "quality_high"}
    )
    quality = quality.assign(
        tie_group=quality["deployment"].map(stats.tie_groups(quality_values(quality), pairs))
    )
    speed = capacity.rename(columns={"low": "rps_low", "high": "rps_high"})
    speed = speed.drop(columns=["repo_id", "n", "basis"], errors="ignore")
    table = quality.merge(speed, on="deployment", how="left").merge(
        cost, on="deployment", how="left"
    )
    table["usd_per_1k_correct"] = table["usd_per_1k"] / table["quality"]
    table["usd_per_1k_correct_low"] = table["usd_per_1k_low"] / table["quality_high"]
    table["usd_per_1k_correct_high"] = table["usd_per_1k_high"] / table["quality_low"]
    table["dollars"] = costs.signs(table["usd_per_1k"])
    return table.assign(on_frontier=frontier(table))


def quality_values(quality: pd.DataFrame) -> pd.DataFrame:
    """The scores in the shape `stats.tie_groups` reads."""
    return quality.rename(columns={"quality": "value"})


def frontier(table: pd.DataFrame) -> pd.Series[bool]:
    """Whether no other deployment is at least as good in cost, speed and quality and better in one.

    A deployment with a figure missing is not on the frontier.
    """
    gains = np.column_stack([-table["usd_per_1k"], table["max_rps"], table["quality"]])
    whole = ~np.isnan(gains).any(axis=1)
    dominated = [
        any((other >= own).all() and (other > own).any() for other in gains[whole]) for own in gains
    ]
    return pd.Series(whole & ~np.array(dominated, dtype=bool), index=table.index)


def check(table: pd.DataFrame, requirements: Requirements) -> pd.DataFrame:
    """Test every requirement of the brief on the bound of its interval.

    Returns:
        One row per deployment and requirement: `deployment requirement wanted value low high
        verdict note`; `met` when the worse bound meets it, `not met` when the better bound
        misses it, otherwise `not decided`.
    """
    rows = []
    for _, row in table.iterrows():
        for name, (value, low, high, more, wording) in DIMENSIONS.items():
            wanted = getattr(requirements, name)
            if name == "min_quality" and row["comparable"] == "no":
                wanted = wanted or 0.0  # also without a bar, its quality counts for nothing
            if wanted is None:
                continue
            bounds = float(row[low]), float(row[high])
            verdict, note = _judge(name, row, float(row[value]), bounds, wanted, more)
            rows.append(
                {
                    "deployment": row["deployment"],
                    "requirement": name,
                    "wanted": wording.format(wanted) if wanted else "comparable quality",
                    "threshold": wanted,
                    "value": row[value],
                    "low": bounds[0],
                    "high": bounds[1],
                    "verdict": verdict,
                    "note": note,
                }
            )
    columns = "deployment requirement wanted threshold value low high verdict note".split()
    return pd.DataFrame(rows, columns=columns)


def _judge(
    name: str,
    row: pd.Series[Any],
    value: float,
    bounds: tuple[float, float],
    wanted: float,
    more: bool,
) -> tuple[str, str]:
    low, high = bounds
    if str(row["basis"]).startswith("published"):
        return "not decided", "a published figure has no interval: measure it"
    if str(row["basis"]).startswith("recorded") and name != "min_quality":
        return "not decided", "recorded answers: there is no endpoint to measure"
    if name == "max_p95_s" and row["max_rps"] == 0:
        return "not met", "no load tried stayed within it"
    if name == "max_usd_per_1k" and math.isnan(value):
        return "not decided", "no capacity, so no cost"
    if name == "min_quality" and row["comparable"] == "no":
        return "not decided", f"not comparable: {row['n_failed']} calls failed; run step 4 again"
    if name == "min_rps" and math.isnan(high):
        high = math.inf
    worse, better = (low, high) if more else (high, low)
    if (worse >= wanted) if more else (worse <= wanted):
        return "met", ""
    missed = (better < wanted) if more else (better > wanted)
    # A load that failed is itself the bound: the capacity lies below it.
    if missed or (name == "min_rps" and high <= wanted):
        return "not met", ""
    return "not decided", _more(name, value, wanted, int(row["n"]), low, high)


def _more(name: str, value: float, wanted: float, n: int, low: float, high: float) -> str:
    if name != "min_quality":
        return "the interval is too wide: more requests or probes would do"
    total = items_needed(value, wanted, n=n, low=low, high=high)
    if total is None:
        return "the measured quality lies on the bar: no number of items decides it"
    return f"about {total - n:,} more items would do, if the share holds"


def qualify(table: pd.DataFrame, checks: pd.DataFrame) -> pd.DataFrame:
    """Add `qualifies` (`yes`, `no`, `not decided`) and `why` to the tradeoff table.

    Only a `candidate` (column `standing`) can qualify: not the baseline that the others are
    compared with, nor what was dropped from a race with fewer items asked.
    """
    qualifies, why = {}, {}
    for name in table["deployment"]:
        own = checks[checks["deployment"] == name]
        missed = own[own["verdict"] == "not met"]
        undecided = own[own["verdict"] == "not decided"]
        bears = (table.loc[table["deployment"] == name, "max_rps"] > 0).all()
        decided = bears and not len(undecided)
        qualifies[name] = "no" if len(missed) else "yes" if decided else "not decided"
        told = missed if len(missed) else undecided
        lead = "misses " if len(missed) else "not shown: "
        fine = "meets every requirement" if bears else "no load tried stayed within the objective"
        why[name] = lead + "; ".join(told["wanted"]) if len(told) else fine
    for name, standing in zip(table["deployment"], table["standing"], strict=True):
        if standing != "candidate":
            qualifies[name], why[name] = "no", standing
    return table.assign(
        qualifies=table["deployment"].map(qualifies), why=table["deployment"].map(why)
    )


def choose(table: pd.DataFrame, objective: str) -> tuple[list[str], str]:
    """Rank the deployments that qualify and say which tie rule applied to the first.

    `cheapest`: overlapping cost intervals are a tie; it goes to the better quality group,
    then to the lower cost. `best`: the best quality group is a tie; `fastest`: overlapping
    capacity brackets are one; both go to the cheaper.

    Returns:
        The names in order of preference (empty where none qualifies), and the rule in words.
    """
    left = table[table["qualifies"] == "yes"]
    order: list[str] = []
    rule = ""
    while len(left):
        if objective == "best":
            tied = left[left["tie_group"] == left["tie_group"].min()]
            ranked = tied.sort_values("usd_per_1k", kind="stable")
        elif objective == "fastest":
            leader = left.sort_values("max_rps", kind="stable", na_position="first").iloc[-1]
            # Measured without a load that failed, it may bear any; published, it says what it says.
            measured = left["basis"].str.startswith("measured") & left["max_rps"].notna()
            most = left["rps_high"].fillna(np.inf).where(measured, left["max_rps"])
            tied = left[(most > leader["max_rps"]) | (left.index == leader.name)]
            ranked = tied.sort_values("usd_per_1k", kind="stable")
        else:
            leader = left.sort_values("usd_per_1k", kind="stable").iloc[0]
            overlaps = left["usd_per_1k_low"] <= leader["usd_per_1k_high"]
            tied = left[overlaps | (left.index == leader.name)]
            ranked = tied.sort_values(["tie_group", "usd_per_1k"], kind="stable")
        if not order:
            rule = _rule(objective, list(ranked["deployment"]))
        order.append(str(ranked["deployment"].iloc[0]))
        left = left[left["deployment"] != order[-1]]
    return order, rule


def _rule(objective: str, tied: list[str]) -> str:
    if len(tied) == 1:
        return f"{tied[0]} is the {objective} without a tie"
    how = {
        "cheapest": "the cost intervals overlap, so the better quality group goes first,"
        " then the lower cost",
        "best": "a paired test cannot tell their quality apart, so the cheaper goes first",
        "fastest": "the capacity brackets overlap, so the cheaper goes first",
    }[objective]
    return f"{', '.join(tied)} tie for {objective}: {how}"


def nearest_miss(checks: pd.DataFrame) -> dict[str, Any] | None:
    """The deployment that fails the fewest requirements by the least, and what must give.

    One that is only not decided is nearer than one that is known to miss.

    Returns:
        `deployment requirement wanted measured would_have_to_give`, or None where nothing
        was missed.
    """
    failing = checks[checks["verdict"] != "met"].copy()
    if failing.empty:
        return None
    more = failing["requirement"].map(lambda name: DIMENSIONS[name][3])
    bound = failing["low"].where(more, failing["high"])
    failing["gap"] = ((bound - failing["threshold"]).abs() / failing["threshold"]).fillna(np.inf)
    failing["bound"] = bound
    failing["missed"] = failing["verdict"] == "not met"
    by = failing.groupby("deployment", sort=False).agg(
        missed=("missed", "sum"), size=("gap", "size"), gap=("gap", "max")
    )
    nearest = by.sort_values(["missed", "size", "gap"], kind="stable").index[0]
    own = failing[failing["deployment"] == nearest].sort_values("gap", kind="stable")
    worst = own.iloc[-1]
    give = [
        row["note"] or f"{row['requirement']} would have to be {row['bound']:.3g}"
        for _, row in own.iloc[::-1].iterrows()
    ]
    return {
        "deployment": nearest,
        "requirement": str(worst["requirement"]),
        "wanted": worst["wanted"],
        "measured": f"{worst['value']:.3g} [{worst['low']:.3g}, {worst['high']:.3g}]".replace(
            "inf", "∞"
        ),
        "would_have_to_give": " and ".join(give),
    }


def stability(table: pd.DataFrame, brief: Project) -> pd.DataFrame:
    """Whom the same measurements would pick under another objective, bar or price.

    Returns:
        One row per change: `change pick` (`none` where nothing qualifies).
    """
    requirements = brief.requirements
    cases: list[tuple[str, pd.DataFrame, Requirements, str]] = [
        (f"objective {name}", table, requirements, name) for name in ("cheapest", "best", "fastest")
    ]
    if requirements.min_quality:
        for step in (-0.05, 0.05):
            bar = round(min(requirements.min_quality + step, 1.0), 4)
            moved = requirements.model_copy(update={"min_quality": bar})
            cases.append((f"min_quality {bar:.3g}", table, moved, brief.objective))
    for name in table["deployment"]:
        for factor in (0.5, 2.0):
            dearer = table.copy()
            columns = ["usd_per_1k", "usd_per_1k_low", "usd_per_1k_high"]
            dearer.loc[dearer["deployment"] == name, columns] *= factor
            cases.append(
                (f"{name} at {factor:g}x its price", dearer, requirements, brief.objective)
            )
    rows = []
    for change, changed, bars, objective in cases:
        order, _ = choose(qualify(changed, check(changed, bars)), objective)
        rows.append({"change": change, "pick": order[0] if order else "none"})
    return pd.DataFrame(rows)
