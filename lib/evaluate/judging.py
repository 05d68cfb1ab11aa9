"""Answers that a judge scores: a pass or fail label, or a rating on a rubric.

The judge's own failures are never the candidate's: an answer without a usable verdict has no
score, and counts as failed beside it.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any

import pandas as pd

from lib.brief.project import Project
from lib.endpoints.budget import Budget
from lib.errors import PlaybookError
from lib.evaluate import calibration, scoring
from lib.evaluate.items import load_items
from lib.evaluate.judge import READ, as_deployment, ask, messages
from lib.evaluate.labels import find_label

__all__ = [
    "as_deployment",
    "ask",
    "calibrate",
    "find_rating",
    "grade",
    "messages",
    "metrics",
    "score",
]

NUMBER = re.compile(r"(?<![\w.,/])[-−]?[0-9]{1,9}(?:[.,][0-9]{1,9})?(?![\w/]|[.,][0-9])")
LEADING = re.compile(rf"\W{{0,9}}(?:[a-z]+\W{{1,9}})?({NUMBER.pattern})\W{{0,3}}(?:[.,;:)!\n]|$)")


def find_rating(text: str, scale: tuple[float, float]) -> float | None:
    """The one rating an answer gives, or None where it gives none, several or one off the scale.

    "4", "Rating: 4", "4/5", "4 out of 5", "4.5" and "4, because 2 of 3 facts are right" name
    one; "3 errors, so 2", "8/10" on a scale to 5 and "between 3 and 4" do not.
    """
    low, high = (f"{bound:g}" for bound in scale)
    answer = unicodedata.normalize("NFKC", text[:READ]).casefold().replace("*", "")
    ends = rf"(?<![\w.]){re.escape(low)}\s*(?:-|–|—|to|\.\.)\s*{re.escape(high)}(?![\w/]|\.[0-9])"
    answer = re.sub(ends, " ", answer)
    answer = re.sub(rf"\s*(?:/|out of)\s*{re.escape(high)}(?:\.0)?(?![\w/]|\.[0-9])", " ", answer)
    named = {match.replace(",", ".").replace("−", "-") for match in NUMBER.findall(answer)}
    if len(named) > 1:
        leading = LEADING.match(answer)
        named = {leading[1].replace(",", ".").replace("−", "-")} if leading else set()
    if len(named) != 1 or re.search(r"[0-9]\s*/\s*[0-9]", answer):
        return None
    rating = float(named.pop())
    return rating if scale[0] <= rating <= scale[1] else None


def _verdicts(brief: Project, asked: pd.DataFrame) -> pd.DataFrame:
    """Add `verdict` (a label, or the judge's words) and `rating`; neither found is an error."""
    judge = brief.evaluation.judge
    assert judge is not None
    if brief.evaluation.kind == "scoring":
        ratings = [find_rating(said, judge.scale) for said in asked["said"]]
        found = asked.assign(verdict=asked["said"], rating=pd.Series(ratings, asked.index, float))
        missing, wanted = found["rating"].isna(), f"one number from {list(judge.scale)}"
    else:
        labels = [find_label(said, judge.labels) for said in asked["said"]]
        found = asked.assign(verdict=pd.Series(labels, asked.index, object), rating=float("nan"))
        missing, wanted = found["verdict"].isna(), f"one of {judge.labels}"
    unread = missing & (asked["judge_error"] == "")
    why = [f"judge: not {wanted}: {said!r:.80}" for said in asked["said"]]
    found["judge_error"] = asked["judge_error"].where(~unread, pd.Series(why, asked.index))
    spoilt = found["judge_error"] != ""
    return found.assign(
        verdict=found["verdict"].where(~spoilt, None), rating=found["rating"].where(~spoilt)
    )


def grade(
    brief: Project,
    answers: pd.DataFrame,
    run: Path,
    *,
    items: pd.DataFrame | None = None,
    progress: bool = True,
    budget: Budget | None = None,
) -> pd.DataFrame:
    """Ask the judge about every usable answer, without its reasoning.

    An answer that failed, was cut off or refused, or is empty needs no judge and is not sent.

    Args:
        brief: Of kind `scoring` or `judged`.
        answers: From `answers.ask`.
        run: The run directory; verdicts there are not asked for again.
        items: From `items.load_items`; read again where left out.
        progress: Show a bar.
        budget: What may still be spent.

    Returns:
        One row per answer sent: `deployment item_id verdict rating judge_error`; `verdict` is
        a label or the judge's words, `rating` a number on the rubric's scale.
    """
    evaluation = brief.evaluation
    known = load_items(brief) if items is None else items
    columns = ["error", "finish_reason", "output"]
    rows = (dict(zip(columns, row, strict=True)) for row in answers[columns].to_numpy(dtype=object))
    sent = answers[[scoring.outcome_of(row, evaluation) is None for row in rows]]
    texts = sent[["deployment", "item_id", "target"]].assign(
        input=sent["item_id"].map(known.set_index("item_id")["input"]),
        target=sent["target"].fillna(""),
        output=[scoring.visible(str(o), evaluation.reasoning_tags) for o in sent["output"]],
    )
    asked = ask(brief, texts, run, progress=progress, budget=budget)
    columns = ["deployment", "item_id", "verdict", "rating", "judge_error"]
    return _verdicts(brief, asked)[columns].reset_index(drop=True)


def calibrate(
    brief: Project, run: Path, *, progress: bool = True, budget: Budget | None = None
) -> pd.DataFrame:
    """Ask the judge about the calibration items, exactly as about any answer.

    Returns:
        One row per item: `item_id input target output human said judge_error verdict rating`;
        no rows where the brief names no calibration.
    """
    labelled = calibration.load(brief)
    if labelled.empty:
        empty: dict[str, Any] = dict.fromkeys(("said", "judge_error", "verdict", "rating"), "")
        return labelled.assign(**empty)
    asked = ask(brief, labelled, run, label="calibration", progress=progress, budget=budget)
    return _verdicts(brief, asked)


def score(
    brief: Project,
    asked: pd.DataFrame,
    *,
    items: pd.DataFrame | None = None,
    graded: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Verdicts to scores: a pass label is 1, a rating its place on the scale from 0 to 1.

    Where the judge gave no usable verdict the row is `failed` and has no score: that is the
    judge's failure, and says nothing about the answer. `detail` says which.

    Raises:
        PlaybookError: The judge has not been asked.
    """
    judge = brief.evaluation.judge
    assert judge is not None
    if graded is None:
        raise PlaybookError(f"kind {brief.evaluation.kind!r}: ask the judge first, judging.grade")
    keys = ["deployment", "item_id"]
    found = asked[keys].merge(graded, on=keys, how="left", validate="many_to_one")
    found = found.set_index(asked.index)
    error = found["judge_error"].astype(object).fillna("judge: not asked")
    low, high = judge.scale
    if brief.evaluation.kind == "scoring":
        points = (found["rating"].astype(float) - low) / (high - low)
        predicted = [None if pd.isna(rating) else f"{rating:g}" for rating in found["rating"]]
        detail = found["verdict"].astype(object).where(error == "", error)
    else:
        points = found["verdict"].isin(judge.pass_labels).astype(float)
        predicted = list(found["verdict"])
        detail = error
    return pd.DataFrame(
        {
            "outcome": ["failed" if text else "answered" for text in error],
            "predicted": predicted,
            "score": points.where(error == ""),
            "detail": detail,
        },
        index=asked.index,
    )


def metrics(brief: Project, scored: pd.DataFrame) -> list[dict[str, Any]]:
    """The judge's scores as they are: "pass rate", or "mean rating" (0 to 1) and "rating".

    "rating" is the same mean on the rubric's own scale. `correction.correct` adds what people
    would have said.
    """
    judge = brief.evaluation.judge
    assert judge is not None
    if brief.evaluation.kind == "judged":
        return [scoring.measured("pass rate", scored["score"], scored)]
    mean = scoring.measured("mean rating", scored["score"], scored)
    low, high = judge.scale
    ends = {key: low + mean[key] * (high - low) for key in ("value", "low", "high")}
    return [mean, mean | ends | {"metric": "rating"}]
