"""How far the decision can be trusted, in figures and in sentences for whoever decides."""

from __future__ import annotations

import math
from typing import Any

from pandas import DataFrame as Frame

from lib.brief import Project
from lib.decide.decision import BARS, choose, nearest_miss
from lib.decide.draws import Draws, certainty, joint_draws, meets_each, regret, worth_of_items
from lib.decide.flips import flip_points
from lib.decide.steps import served_models
from lib.stats import non_inferiority
from lib.tables import Row, number, percent, rows

WORTH_A_LOOK = 0.01  # of the cost a month of the choice, or a point of a hundred of quality
ENOUGH = 0.8  # of what the most items are worth
NEAREST = 3  # flips in the sentence


def outlook(table: Frame, checks: Frame, scores: Frame, scored: Frame, brief: Project) -> Row:
    """What the record says beside the pick, from `qualify`'s table, the checks and the answers.

    Keys: `certainty` (a row per candidate), `provisional` (whom to run if it must be decided
    today though nobody is shown to qualify; else None), `regret` of the choice, `more_items`,
    `flip_points`, the `slices` of the choice, `sentences` that say these for people, and
    `served_models`.
    """
    draws = joint_draws(table, scored)
    chances = certainty(table, draws, brief)
    order, _ = choose(table, brief.objective)
    provisional = None if order else _provisional(chances, checks, draws, brief)
    choice = order[0] if order else provisional["deployment"] if provisional else ""
    worth = worth_of_items(checks, draws, brief, choice)
    flips = flip_points(table, brief)
    loss = regret(draws, brief, choice)
    leader = chances.set_index("deployment").loc[[choice]] if choice else chances[:0]
    slices = scores[(scores["slice"] != "") & (scores["deployment"] == choice)]
    sentences = [
        *_sure(leader, provisional),
        *_wrong(loss, brief.objective),
        *_switch(leader, chances, scored, brief),
        *_slices(slices, brief),
        *_more(worth, leader, brief.objective, has_pick=not provisional),
        *_cheaper(chances, checks, order),
        *_holds(flips, order),
    ]
    shares = chances[chances["p_pick"].notna()]
    return {
        "certainty": rows(shares, ["deployment", "p_pick", "p_qualifies", "p_frontier"]),
        "provisional": provisional,
        "regret": rows(Frame([loss]))[0],
        "more_items": rows(worth),
        "flip_points": rows(flips.replace([math.inf, -math.inf], math.nan)),
        "slices": rows(slices, ["slice", "n", "value", "low", "high", "against_baseline"]),
        "sentences": sentences,
        "served_models": served_models(scored),
    }


def _provisional(chances: Frame, checks: Frame, draws: Draws, brief: Project) -> Row | None:
    """Of those that are not decided, the one that most probably meets every requirement."""
    able = chances[(chances["qualifies"] == "not decided") & chances["p_qualifies"].gt(0)]
    if able.empty:
        return None
    # As good as as probable: then the objective says which.
    near = able[able["p_qualifies"] >= able["p_qualifies"].max() - 0.05]
    row = near.loc[near["p_pick"].idxmax()]
    of = checks[checks["deployment"] == row["deployment"]]
    at = draws.names.index(row["deployment"])
    met = meets_each(draws, brief.requirements)
    return {
        "deployment": row["deployment"],
        "model": row["repo_id"],
        "p_qualifies": float(row["p_qualifies"]),
        "p_meets": {name: float(met[name][:, at].mean()) for name in met if name in BARS},
        "would_settle": (nearest_miss(of) or {"would_have_to_give": ""})["would_have_to_give"],
    }


def _sure(leader: Frame, provisional: Row | None) -> list[str]:
    if leader.empty or math.isnan(leader["p_pick"].iloc[0]):
        return []
    name, row = leader.index[0], leader.iloc[0]
    if provisional:
        each = provisional["p_meets"].items()
        which, chance = min(each, key=lambda pair: pair[1], default=("", 1.0))
        bar = f", the least sure is {BARS[which].noun} ({percent(chance)})" if which else ""
        lead = f"Provisional, if it must be decided today: {name}, which meets every requirement"
        return [f"{lead} with a probability of {percent(row['p_qualifies'])}{bar}."]
    lead = f"{name} is the right choice with a probability of {percent(row['p_pick'])}"
    return [f"{lead}, and meets every requirement with {percent(row['p_qualifies'])}."]


def _dollars(row: Any) -> tuple[float, str]:
    """Dollars and what they are for: a month where its cost is known, else 1,000 requests."""
    monthly = not math.isnan(row["usd_per_month"])
    unit = "a month" if monthly else "per 1,000 requests"
    return (row["usd_per_month"] if monthly else row["usd_per_1k"]), unit


def _wrong(loss: dict[str, float], objective: str) -> list[str]:
    lead, (usd, unit) = "Against the best that qualifies it", _dollars(loss)
    if objective == "best":
        points = number(100 * loss["quality"], digits=2)
        return [f"{lead} lacks {points} points of quality on average."] * (loss["quality"] > 0)
    return [f"{lead} costs ${number(usd, digits=2)} {unit} too much on average."] * (usd > 0)


def _switch(leader: Frame, chances: Frame, scored: Frame, brief: Project) -> list[str]:
    """Whether it may replace the baseline: the verdict and bounds of step 4, and what it costs."""
    if leader.empty or not (verdict := leader["against_baseline"].iloc[0]):
        return []
    baseline = next(d.name for d in brief.deployments if d.baseline)
    margin = brief.evaluation.margin
    trials = non_inferiority(scored, baseline=baseline, margin=margin).set_index("deployment")
    row = trials.loc[leader.index[0]]
    ends = [number(100 * row[name], beside=-100 * margin) for name in ("low", "high")]
    words = "good enough to switch" if verdict == "good enough" else f"{verdict} whether to switch"
    words += f"; {row['note']}" if verdict == "not decided" and row["note"] else ""
    many = f", adjusted for {len(trials)} candidates" * (len(trials) > 1)
    lead = f"Against {baseline}, the baseline: {number(100 * row['difference'])} points"
    bounds = f"at least {ends[0]} and at most {ends[1]} (each one-sided{many})"
    sentence = f"{lead}, {bounds}, with a margin of {number(100 * margin)} points: {words}."
    usd = chances.set_index("deployment")["usd_per_month"]
    change = float(leader["usd_per_month"].iloc[0] - usd.get(baseline, math.nan))
    usd_more = f"{number(abs(change))} a month {'more' if change > 0 else 'less'} than {baseline}"
    return [sentence, *[f"{leader.index[0]} costs ${usd_more}."] * (abs(change) > 0)]


def _slices(slices: Frame, brief: Project) -> list[str]:
    """Where the choice is weakest, and where the baseline should stay."""
    sentences = list[str]()
    if len(slices) > 1:
        worst = slices.iloc[0]  # the worst is first
        interval = " to ".join(number(worst[end]) for end in ("low", "high"))
        lead = f"Its weakest of {len(slices)} slices is {worst['slice']}"
        sentences = [f"{lead}: {number(worst['value'])} [{interval}] on {worst['n']} items."]
    if slices["against_baseline"].eq("").all():
        return sentences
    baseline = next(d.name for d in brief.deployments if d.baseline)
    stay = slices.loc[slices["against_baseline"] == "worse", "slice"]
    if len(stay):
        sentences.append(f"Stay with {baseline} for {'; '.join(stay)}: worse beyond the margin.")
    switch = (slices["against_baseline"] == "good enough").sum()
    lead = f"Slices where it is shown good enough to replace {baseline}: {switch}"
    return [*sentences, f"{lead} of {len(slices)}."]


def _more(worth: Frame, leader: Frame, objective: str, *, has_pick: bool) -> list[str]:
    """Whether to label more, and how many: the least number that gives most of the gain.

    Where the choice is not settled, or not against the baseline, that says what items are for.
    """
    if worth.empty or leader.empty:
        return []
    row, most = leader.iloc[0], float(worth["worth"].max())
    cost, unit = _dollars(row)
    least = 0.01 if objective == "best" else WORTH_A_LOOK * cost
    if objective == "fastest" or not most > least:
        stop = has_pick and objective != "fastest" and row["against_baseline"] != "not decided"
        return ["More items are not worth their labelling: stop here."] * stop
    enough = worth[worth["worth"] >= ENOUGH * most].iloc[0]
    gain = f"${number(enough['worth'], digits=2)} {unit}"
    if objective == "best":
        gain = f"{number(100 * enough['worth'], digits=2)} points of quality"
    return [f"Labelling about {enough['items']:,.0f} more items is worth about {gain}."]


def _cheaper(chances: Frame, checks: Frame, order: list[str]) -> list[str]:
    """Who costs less than the pick and may qualify yet, with what would settle it."""
    if not order:
        return []
    pick = chances.set_index("deployment").loc[order[0]]
    open_ = chances[chances["qualifies"] == "not decided"].sort_values("usd_per_1k")
    if open_.empty or not (row := open_.iloc[0])["usd_per_1k"] < pick["usd_per_1k"]:
        return []
    of_row = (checks["deployment"] == row["deployment"]) & (checks["verdict"] == "not decided")
    less = 1 - row["usd_per_1k"] / pick["usd_per_1k"]
    worth = row["p_qualifies"] * (pick["usd_per_month"] - row["usd_per_month"])
    value = f", worth about ${number(worth, digits=2)} a month" if worth > 0 else ""
    lead = f"A cheaper candidate is still not decided: {row['deployment']}, {less:.0%} cheaper"
    return [f"{lead}; {'; '.join(checks.loc[of_row, 'note'])}{value}."]


def _holds(flips: Frame, order: list[str]) -> list[str]:
    near = flips.dropna(subset=["flips_at"])[:NEAREST]
    lead = f"The {'pick' if order else 'answer'} holds"
    if near.empty:
        return [f"{lead} for every price, traffic and bar from a tenth to ten times theirs."]
    turns = [
        f"{row['change']} {'rises' if row['factor'] > 1 else 'falls'} to"
        f" {number(row['flips_at'], beside=row['value'])} (then {row['pick']})"
        for row in near.to_dict("records")
    ]
    return [f"{lead} until {', or '.join(turns)}."]
