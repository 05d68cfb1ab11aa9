"""Open-ended answers compared in pairs by a judge who sees each pair in both orders."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lib.brief.project import Deployment, Project
from lib.endpoints.budget import Budget
from lib.errors import PlaybookError
from lib.evaluate import judging, scoring
from lib.evaluate.items import load_items
from lib.evaluate.labels import find_label
from lib.evaluate.preferences import consistency, item_scores, pairs, strengths

__all__ = [
    "ALL_PAIRS",
    "consistency",
    "grade",
    "item_scores",
    "matchups",
    "metrics",
    "outcome",
    "pairs",
    "score",
    "strengths",
    "verdict",
]

ALL_PAIRS = 4  # deployments; more than that are compared to the baseline only, if there is one
VERDICTS = ["first", "second", "tie"]
TIES = {"tie": ["tied", "draw", "equal", "equally good", "neither"]}
COLUMNS = "item_id group deployment other basis forward backward result".split()
MAX_VERDICT = 20_000  # characters of a judge's answer that are read


def matchups(deployments: list[Deployment]) -> list[tuple[str, str]]:
    """Who is compared to whom: everyone to everyone, or everyone to the baseline.

    Pairs grow with the square of the candidates and each costs two calls an item, so from five
    deployments on only the baseline's pairs are judged; without a baseline, all are.

    Raises:
        PlaybookError: There is nobody to compare to.
    """
    names = [d.name for d in deployments]
    if len(names) < 2:
        raise PlaybookError(
            f"kind 'comparison' needs two deployments or more, not {names!r}; add one to"
            " deployments, such as a file of recorded answers, or use kind 'scoring'"
        )
    baseline = next((d.name for d in deployments if d.baseline), None)
    if baseline is not None and len(names) > ALL_PAIRS:
        return [(name, baseline) for name in names if name != baseline]
    return list(combinations(names, 2))


def verdict(text: str) -> str | None:
    """Which answer a judge names: `first`, `second`, `tie`, or None where that is not clear.

    A capital A or first means the answer shown first, a capital B or second the other; a small
    a or b, 1 or 2 count only as the whole answer. A judge that names two decides nothing.
    """
    said = text[:MAX_VERDICT]
    for name, letter, digit in (("first", "A", "1"), ("second", "B", "2")):
        # Before the words: to find_label a capital A is the article.
        alone = rf"^\W*(?:{letter.lower()}|{digit})\W*$"
        said = re.sub(rf"(?<!\w){letter}(?!\w)|{alone}", f" {name} ", said)
    return find_label(said, VERDICTS, TIES)


def outcome(forward: str | None, backward: str | None) -> str:
    """The result of two verdicts, `forward` with the first deployment shown first.

    A win counts only if it survives the swap; verdicts that do not agree are `inconsistent`,
    which scores as a tie. Where either verdict is missing nothing is decided: `no verdict`.
    """
    if forward is None or backward is None:
        return "no verdict"
    results = {("first", "second"): "win", ("second", "first"): "loss", ("tie", "tie"): "tie"}
    return results.get((forward, backward), "inconsistent")


def grade(
    brief: Project,
    answers: pd.DataFrame,
    run: Path,
    *,
    items: pd.DataFrame | None = None,
    progress: bool = True,
    budget: Budget | None = None,
) -> pd.DataFrame:
    """Have the judge compare the deployments' answers in pairs, each pair in both orders.

    Not asked is what needs no judge: equal answers are a tie, and an answer that is truncated,
    refused or empty loses to one that is not. Where a call of either candidate failed, the
    item is left out for that pair. Reasoning is taken out before the judge sees an answer.

    Args:
        brief: With an `evaluation.judge`.
        answers: From `answers.ask`.
        run: The run directory; the judge's answers are kept there and asked once.
        items: From `items.load_items`; read again where left out.
        progress: Show a bar.
        budget: What may still be spent; the judge's calls count.

    Returns:
        One row per pair of deployments and item: `item_id group deployment other basis forward
        backward result`. `basis` is judge, identical, forfeit or failed; `forward` is the
        judge's verdict with `deployment` shown first and `backward` with `other` shown first
        (first, second, tie or missing); `result` is win, loss, tie, inconsistent, identical,
        no verdict (the judge failed or was not clear) or left out, as seen by `deployment`.

    Raises:
        PlaybookError: There is only one deployment, or the judge cannot be reached.
    """
    known = load_items(brief) if items is None else items
    texts = _texts(brief, answers)
    asked_of = set(answers["deployment"])
    rows: list[dict[str, Any]] = []
    for one, other in matchups([d for d in brief.deployments if d.name in asked_of]):
        for name, left in texts[one].items():
            right = texts[other].get(name, FAILED)
            basis, result = _without_judge(left, right)
            row: dict[str, Any] = {"item_id": name, "group": left.group, "deployment": one}
            row |= {
                "other": other,
                "basis": basis,
                "result": result,
                "left": left.text,
                "right": right.text,
            }
            rows.append(row)
    table = pd.DataFrame(rows, columns=["left", "right", *COLUMNS])
    judged = table[table["basis"] == "judge"]
    about = known.set_index("item_id").loc[judged["item_id"], ["input", "target"]]
    about.index = judged.index
    shown = [
        about.assign(first=judged["left"], second=judged["right"], order="forward"),
        about.assign(first=judged["right"], second=judged["left"], order="backward"),
    ]
    asked = judging.ask(brief, pd.concat(shown), run, progress=progress, budget=budget)
    named = [verdict(said) for said in asked["said"].where(asked["judge_error"] == "", "")]
    for order in ("forward", "backward"):
        chosen = pd.Series(named, dtype=object)[(asked["order"] == order).to_numpy()]
        # As objects: a missing verdict stays None and no NaN passes for one.
        table[order] = pd.Series(chosen.to_numpy(), judged.index, object).reindex(table.index)
    both = table.loc[judged.index, ["forward", "backward"]].itertuples(index=False)
    table.loc[judged.index, "result"] = [outcome(*pair) for pair in both]
    return table[COLUMNS]


class _Answer(NamedTuple):
    """What the judge may see of an answer, and why it may not."""

    outcome: str | None
    text: str
    group: str = ""


FAILED = _Answer("failed", "")


def _texts(brief: Project, answers: pd.DataFrame) -> dict[str, dict[str, _Answer]]:
    evaluation = brief.evaluation
    texts: dict[str, dict[str, _Answer]] = {}
    columns = [str(name) for name in answers.columns]
    for values in answers.itertuples(index=False, name=None):
        row = dict(zip(columns, values, strict=True))
        why = scoring.outcome_of(row, evaluation)
        text = "" if why else scoring.visible(str(row["output"]), evaluation.reasoning_tags)
        answer = _Answer(why, text, str(row.get("group", "")))
        texts.setdefault(row["deployment"], {})[row["item_id"]] = answer
    return texts


def _without_judge(left: _Answer, right: _Answer) -> tuple[str, str | None]:
    """What needs no judge: (basis, result), or ("judge", None)."""
    if "failed" in (left.outcome, right.outcome):
        return "failed", "left out"
    if left.outcome or right.outcome:
        both = left.outcome and right.outcome
        return "forfeit", "tie" if both else "loss" if left.outcome else "win"
    return ("identical", "identical") if left.text == right.text else ("judge", None)


def score(
    brief: Project,
    asked: pd.DataFrame,
    *,
    items: pd.DataFrame | None = None,
    graded: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The share of wins of each answer, for `scoring.score_answers`.

    An answer without one decided comparison, because the judge gave no verdict or every
    opponent's call failed, counts as failed: nobody knows whether it would have won.

    Raises:
        PlaybookError: There are no verdicts.
    """
    if graded is None:
        raise PlaybookError("kind 'comparison' is scored with the judge's verdicts; run step 4")
    mirrored = graded.assign(
        deployment=graded["other"],
        other=graded["deployment"],
        result=graded["result"].replace({"win": "loss", "loss": "win"}),
    )
    told = pd.concat([graded, mirrored])
    told["told"] = told["result"] + " (" + told["other"] + ")"
    key = ["deployment", "item_id"]
    detail = told.groupby(key, sort=False)["told"].agg("; ".join).rename("detail")
    won = (
        asked[key].merge(item_scores(graded), how="left", on=key).merge(detail, how="left", on=key)
    )
    won.index = asked.index
    known = won["score"].notna()
    return won.assign(
        outcome=np.where(known, "answered", "failed"),
        predicted=won["score"].map("{:.3g}".format).where(known, None),
        score=won["score"].where(known, None),
    )[["outcome", "predicted", "score", "detail"]]


def metrics(brief: Project, scored: pd.DataFrame) -> list[dict[str, Any]]:
    """The win rate, the mean over items of the share of wins, for `scoring.summarise`."""
    return [scoring.measured("win rate", scored["score"], scored, primary=True)]
