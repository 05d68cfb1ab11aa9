"""Judged: a model says of every answer which label it deserves, and some labels pass."""

from typing import Any

import pandas as pd

from lib.brief import Deployment, Project
from lib.evaluate import judge as judge_model
from lib.evaluate.kinds import defaults
from lib.evaluate.kinds.defaults import GRADES, Reader, by_metric
from lib.evaluate.scoring import UNUSABLE, Figure, metric_row, outcome_shares
from lib.reading import find_label

JUDGED_BY = ("{output}",)
MARKS = GRADES
correct = judge_model.correct


def item_reader(brief: Project) -> Reader:
    """A target is text, perhaps none."""
    read = defaults.item_reader(brief)
    blank = {"target": ""}
    return lambda item, where: blank if item.get("target") in (None, "") else read(item, where)


def judge_calls(deployments: list[Deployment]) -> list[dict[str, str]]:
    """One an answer."""
    return [{"output": deployment.name} for deployment in deployments]


def read_verdicts(brief: Project, replies: pd.DataFrame) -> pd.DataFrame:
    """Add `verdict` (a label) and an empty `rating`; no label is an error of the judge."""
    judge = judge_model.judge_of(brief)
    labels = [find_label(text, judge.labels) for text in replies["said"]]
    read = replies.assign(verdict=pd.Series(labels, replies.index, object), rating=float("nan"))
    return mark_unread(read, read["verdict"].isna(), f"one of {judge.labels}")


def mark_unread(replies: pd.DataFrame, missing: pd.Series, wanted: str) -> pd.DataFrame:
    """Say in `judge_error` what was wanted where a verdict is missing, and drop spoilt verdicts."""
    unread = missing & (replies["judge_error"] == "")
    why = [f"judge: not {wanted}: {text!r:.80}" for text in replies["said"]]
    errors = replies["judge_error"].where(~unread, pd.Series(why, replies.index))
    sound = errors == ""
    return replies.assign(
        judge_error=errors,
        verdict=replies["verdict"].where(sound, None),
        rating=replies["rating"].where(sound),
    )


def grade(brief: Project, answers: pd.DataFrame, items: pd.DataFrame, **judge: Any) -> pd.DataFrame:
    """Ask the judge about every usable answer: `deployment item_id said judge_error`."""
    usable = answers.loc[answers["unusable"].isna(), ["deployment", "item_id", "output"]]
    return judge_model.ask(brief, judge_model.with_item(brief, usable, items), **judge)


def score(brief: Project, usable: pd.DataFrame, *, graded: pd.DataFrame, **_: Any) -> pd.DataFrame:
    """A label that passes is 1; `predicted` is the label.

    Where the judge gave no usable verdict the row is `failed` and has no score: that is the
    judge's failure, and says nothing about the answer. `detail` says which.
    """
    judge = judge_model.judge_of(brief)
    passes = graded["verdict"].isin(judge.pass_labels).astype(float)
    return score_verdicts(usable, graded.assign(predicted=graded["verdict"], score=passes))


def score_verdicts(usable: pd.DataFrame, graded: pd.DataFrame) -> pd.DataFrame:
    """Bring `predicted`, `score` and perhaps `detail` of every graded answer to the answers."""
    keys = ["deployment", "item_id"]
    table = graded.reindex(columns=[*keys, "predicted", "score", "detail", "judge_error"])
    rows = usable[keys].merge(table, on=keys, how="left", validate="many_to_one")
    error = rows["judge_error"].astype(object).fillna("judge: not asked")
    failed = error != ""
    return rows.assign(
        outcome=failed.map({True: "failed", False: "answered"}),
        score=rows["score"].where(~failed),
        detail=error.where(failed, rows["detail"]),
    ).set_index(usable.index)[["outcome", "predicted", "score", "detail"]]


def metrics(brief: Project, scored: pd.DataFrame) -> list[dict[str, Any]]:
    """The judge's pass rate as it is; `correct` adds what people would have said."""
    return [metric_row("pass rate", scored["score"], scored)]


def judge_notes(brief: Project, graded: Any, checked: pd.DataFrame) -> list[str]:
    """How far the judge agrees with people."""
    return [judge_model.trust(brief, checked)]


def figure(brief: Project, scored: pd.DataFrame, scores: pd.DataFrame, **_: Any) -> Figure:
    """The pass rate as judged and as people would have given it, or the labels given."""
    judge, corrected = judge_model.judge_of(brief), "pass rate (corrected)"
    if (scores["metric"] == corrected).any():
        names = {"pass rate": "as judged", corrected: "corrected for the judge's errors"}
        title = "Pass rate, by configuration"
        return "multiples", {"tables": by_metric(scores, names, corrected), "title": title}
    # A judge may well have a label "refused" of its own.
    legend = {n: f"judge: {n}" if n in {*UNUSABLE, "failed"} else n for n in judge.labels}
    tones: dict[str, tuple[str, float]] = {}
    for tone, passes in (("good", True), ("bad", False)):
        labels = [label for label in judge.labels if (label in judge.pass_labels) == passes]
        tones |= {legend[n]: (tone, 1 - place / len(labels)) for place, n in enumerate(labels)}
    verdicts, title = scored["predicted"].map(legend), "Verdicts of the uncalibrated judge"
    return outcome_shares(scored, verdicts, tones, title=title, metric="pass rate")
