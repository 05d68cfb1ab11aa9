"""Comparison: open-ended answers in pairs, by a judge who sees each pair in both orders."""

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from lib import stats
from lib.brief import Deployment, Project
from lib.errors import PlaybookError
from lib.evaluate import judge as judge_model
from lib.evaluate.kinds import judged
from lib.evaluate.kinds.defaults import GRADES
from lib.evaluate.scoring import Figure, metric_row
from lib.reading import find_preference

JUDGED_BY = ("{first}", "{second}")
RELATIVE = True
MARKS = GRADES
item_reader = judged.item_reader
COLUMNS = "item_id group deployment other basis forward backward result".split()
MOST_PAIRS = 15
SIDES = {"win": "first wins", "loss": "second wins", "identical": "tie"}
TONES = {"first wins": "good", "tie": "light", "inconsistent": "doubt", "second wins": "bad"}
TONES |= {"not judged": "pale"}


def matchups(deployments: list[Deployment]) -> list[tuple[str, str]]:
    """Who is compared to whom: everyone to everyone, or from five on to the baseline, if any."""
    names = [d.name for d in deployments]
    if len(names) < 2:
        way = "add one, such as a file of recorded answers, or use kind 'scoring'"
        raise PlaybookError(f"kind 'comparison' needs two deployments, not {names!r}; {way}")
    baseline = next((d.name for d in deployments if d.baseline), None)
    if baseline is not None and len(names) > 4:
        return [(name, baseline) for name in names if name != baseline]
    return list(combinations(names, 2))


def judge_calls(deployments: list[Deployment]) -> list[dict[str, str]]:
    """Two a pair, one in each order, with two answers."""
    pairs = [pair for pair in matchups(deployments) for pair in (pair, pair[::-1])]
    return [{"first": one, "second": other} for one, other in pairs]


def outcome(forward: str | None, backward: str | None) -> str:
    """The result of two verdicts, `forward` with the first deployment shown first.

    A win counts only if it survives the swap; otherwise it is `inconsistent`, scored as a tie.
    """
    if forward is None or backward is None:
        return "no verdict"
    results = {("first", "second"): "win", ("second", "first"): "loss", ("tie", "tie"): "tie"}
    return results.get((forward, backward), "inconsistent")


def grade(brief: Project, answers: pd.DataFrame, items: pd.DataFrame, **judge: Any) -> pd.DataFrame:
    """Have the judge compare the answers, each pair in both orders.

    A row with `COLUMNS` for each of the brief's `matchups` and item that both were asked. Without
    the judge (`basis`) equal answers are a tie (identical), and an answer that is truncated,
    refused or empty loses to one that is not (forfeit); where a call failed, the item is left out.
    `forward` is the verdict with `deployment` shown first, `backward` with `other`; `result` is
    win, loss, tie, inconsistent, identical, no verdict or left out, as seen by `deployment`.
    """
    pairs = _pairs(brief, answers)
    judged = pairs[pairs["basis"] == "judge"]
    about = judge_model.with_item(brief, judged[["item_id"]], items)
    one, other = judged["output"], judged["output_other"]
    both = [about.assign(first=one, second=other), about.assign(first=other, second=one)]
    replies = judge_model.ask(brief, pd.concat(both), **judge)
    verdicts = [find_preference(t) for t in replies["said"].where(replies["judge_error"] == "", "")]
    half = len(judged)
    # As objects: a missing verdict stays None and no NaN passes for one.
    orders = {"forward": verdicts[:half], "backward": verdicts[half:]}
    pairs.loc[judged.index, "result"] = [*map(outcome, *orders.values())]
    return pairs.join(pd.DataFrame(orders, judged.index, dtype=object))[COLUMNS]


def _pairs(brief: Project, answers: pd.DataFrame) -> pd.DataFrame:
    """A row per pair and item with both answers, and the result where no judge is needed."""
    texts = answers.set_index("item_id")[["deployment", "group", "unusable", "output"]]
    by_name = {str(name): part for name, part in texts.groupby("deployment", sort=False)}
    tables = []
    for name, other in matchups(brief.deployments):
        if {name, other} <= by_name.keys():  # else one was dropped from the race
            others = by_name[other][["unusable", "output"]].add_suffix("_other")
            tables.append(by_name[name].join(others, how="inner").assign(other=other))
    pairs = pd.concat(tables).reset_index(names="item_id")
    one, two = pairs["unusable"].notna(), pairs["unusable_other"].notna()
    failed = (pairs["unusable"] == "failed") | (pairs["unusable_other"] == "failed")
    same = pairs["output"] == pairs["output_other"]
    cases = [failed, one | two, same]
    forfeit = np.select([one & two, one], ["tie", "loss"], "win")
    basis = np.select(cases, ["failed", "forfeit", "identical"], "judge")
    result = np.select(cases, ["left out", forfeit, "identical"], "")
    return pairs.assign(basis=basis, result=pd.Series(result, pairs.index, object))


def score(brief: Project, usable: pd.DataFrame, *, graded: pd.DataFrame, **_: Any) -> pd.DataFrame:
    """The share of wins of each answer; one without any decided comparison counts as failed."""
    sides = stats.both_sides(graded)
    key = ["deployment", "item_id"]
    sides["detail"] = sides["result"] + " (" + sides["other"] + ")"
    by_answer = sides.groupby(key, sort=False).agg({"score": "mean", "detail": "; ".join})
    table = usable[key].join(by_answer, on=key)
    decided = table["score"].notna()
    return table.assign(
        outcome=np.where(decided, "answered", "failed"),
        predicted=table["score"].map("{:.3g}".format).where(decided, None),
    )[["outcome", "predicted", "score", "detail"]]


def metrics(brief: Project, scored: pd.DataFrame) -> list[dict[str, Any]]:
    """The win rate, the mean over items of the share of wins."""
    return [metric_row("win rate", scored["score"], scored)]


def joint_scores(brief: Project, graded: Any) -> pd.DataFrame:
    """Bradley–Terry strengths, as the chance to win against the baseline or an average opponent."""
    baseline = next((d.name for d in brief.deployments if d.baseline), None)
    rival = baseline or "an average opponent"
    strengths = stats.strengths(graded, baseline=baseline)
    return strengths.assign(metric=f"chance to win against {rival} (Bradley–Terry)")


def compare(scored: pd.DataFrame, graded: Any) -> pd.DataFrame:
    """By the judge's own verdicts."""
    return stats.pairs(graded, scored)


def judge_notes(brief: Project, graded: Any, checked: pd.DataFrame) -> list[str]:
    """Inconsistency and position lean of a judge that saw every pair in both orders."""
    results = graded.loc[graded["basis"] == "judge", "result"]
    missing = results == "no verdict"
    swapped = results[~missing] == "inconsistent"
    verdicts = graded.loc[swapped.index, ["forward", "backward"]].stack()
    first = verdicts[verdicts != "tie"] == "first"
    notes = []
    for text, hits in (
        ("the swap of places changed the verdict in {:.0%} of {} pairs", swapped),
        ("it named the first answer in {:.0%} of {} verdicts", first),
        ("it gave no verdict that can be read in {:.0%} of {} pairs", missing),
    ):
        value, low, high = stats.interval(hits)
        note = f"the judge: {text.format(value, len(hits))} ({low:.0%} to {high:.0%})"
        notes += [note] * (len(hits) > 0)
    return notes


def figure(
    brief: Project, scored: pd.DataFrame, scores: pd.DataFrame, *, graded: pd.DataFrame, **_: Any
) -> Figure:
    """Wins and losses in pairs; the stronger stands first, so that the eye looks for red."""
    strength = stats.strengths(graded).sort_values("value", ascending=False, kind="stable")
    rank = {name: place for place, name in enumerate(strength["deployment"])}
    sides = stats.both_sides(graded)
    sides = sides[sides["deployment"].map(rank) < sides["other"].map(rank)]
    categories = sides["result"].replace(SIDES)
    categories = categories.where(categories.isin([*TONES]), "not judged")
    counts = pd.crosstab([sides["deployment"], sides["other"]], categories)
    order = sorted(counts.index, key=lambda pair: (rank[pair[0]], rank[pair[1]]))
    counts = counts.reindex(index=order[:MOST_PAIRS], columns=list(TONES), fill_value=0)
    counts.index = [f"{one} against {two}" for one, two in counts.index]
    title = "Wins and losses in pairs"
    if len(order) > MOST_PAIRS:
        title += f" (the strongest {MOST_PAIRS} of {len(order)} pairs)"
    frames = {"counts": counts, "colours": TONES, "means": None}
    return "shares", {**frames, "title": title, "metric": ""}
