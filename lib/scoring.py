"""Answers to scores: what the model said, whether it counts, and how often it was right."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import pandas as pd
from sklearn.metrics import f1_score

from lib import stats
from lib.project import Deployment, Project

__all__ = ["confusion", "score_answers", "summarise"]

MAX_FAILED_SHARE = 0.02
UNPARSED = "(no label)"
NEGATED = r"(?:not|never|non|\w+n't)(?:[\s-]+(?:an?|the))?[\s-]+"


def normalise(text: str) -> str:
    """Text for exact comparison: NFKC, case folded, outer punctuation and extra space removed.

    What tells one answer from another stays: .5 is not 5, <5 is not >5, ? is not nothing.
    """
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().replace("’", "'").split())
    return folded.lstrip(" ,;:!?\"'`*()[]{}").rstrip(" .,;:!?\"'`*()[]{}") or folded


def find_label(text: str, labels: list[str]) -> str | None:
    """The one label an answer names, or None where it names none or several.

    The whole answer is compared first, then whole words, the longest label first:
    "Sentiment: positive." names positive; "positive or negative" names nothing, nor does
    "not positive" unless that is a label.
    """
    answer = normalise(text)
    by_name = {normalise(label): label for label in labels}
    if answer in by_name:
        return by_name[answer]
    words = "|".join(re.escape(name) for name in sorted(by_name, key=len, reverse=True))
    named = set(re.findall(rf"(?<!\w)({NEGATED})??({words})(?!\w)", answer))
    negation, name = named.pop() if len(named) == 1 else ("", "")
    return None if negation else by_name.get(name)


def score_answers(brief: Project, answers: pd.DataFrame) -> pd.DataFrame:
    """Add `outcome`, `predicted` and `score` to every answer, dropping none.

    `outcome` is `answered`, `truncated`, `refused`, `unparsed` or `failed`. A failed call has
    no score: nobody knows what the model would have said. The others but `answered` score 0.
    """
    labels = brief.evaluation.labels

    def judge(row: pd.Series[str]) -> tuple[str, str | None, float | None]:
        if row["error"]:
            return "failed", None, None
        if row["finish_reason"] in ("content_filter", "refusal"):
            return "refused", None, 0.0
        if row["finish_reason"] == "length":
            return "truncated", None, 0.0
        output = str(row["output"])
        if brief.evaluation.kind == "classification":
            predicted = find_label(output, labels)
            right = predicted == row["target"]
        else:
            predicted = normalise(output) or None
            right = predicted == normalise(str(row["target"]))
        return ("answered" if predicted else "unparsed"), predicted, float(right)

    if answers.empty:
        return answers.assign(outcome="", predicted="", score=pd.Series(dtype="Float64"))
    judged = answers.apply(judge, axis=1, result_type="expand")
    judged.columns = pd.Index(["outcome", "predicted", "score"])
    return answers.assign(
        outcome=judged["outcome"],
        predicted=judged["predicted"],
        score=judged["score"].astype("Float64"),
    )


def summarise(
    brief: Project, scored: pd.DataFrame, *, deployments: list[Deployment] | None = None
) -> pd.DataFrame:
    """One row per deployment and metric: value, 95 % interval, and how many calls failed.

    Accuracy carries a Wilson interval, macro-F1 (classification) a bootstrap one. With more
    than 2 % of calls failed `comparable` is "no": the items left may not be like the others.
    """
    chosen = brief.deployments if deployments is None else deployments
    rows: list[dict[str, Any]] = _published(brief, chosen)
    for name, group in scored.groupby("deployment", sort=False):
        asked = group[group["outcome"] != "failed"]
        failed = len(group) - len(asked)
        shared = {
            "deployment": name,
            "repo_id": group["repo_id"].iloc[0],
            "n": len(asked),
            "n_failed": failed,
            "n_truncated": int((group["outcome"] == "truncated").sum()),
            "n_refused": int((group["outcome"] == "refused").sum()),
            "n_unparsed": int((group["outcome"] == "unparsed").sum()),
            "comparable": "no" if failed > MAX_FAILED_SHARE * len(group) else "yes",
            "basis": "measured here",
        }
        right = int(asked["score"].sum())
        low, high = stats.wilson(right, len(asked))
        value = right / len(asked) if len(asked) else float("nan")
        rows.append({**shared, "metric": "accuracy", "value": value, "low": low, "high": high})
        if brief.evaluation.kind == "classification" and len(asked):
            rows.append({**shared, "metric": "macro-F1", **_macro_f1(brief, asked)})
    return pd.DataFrame(rows)


def _published(brief: Project, deployments: list[Deployment]) -> list[dict[str, Any]]:
    """The figures a brief quotes instead of measuring: no interval, no count."""
    nothing = {"n": 0, "n_failed": 0, "n_truncated": 0, "n_refused": 0, "n_unparsed": 0}
    return [
        {
            "deployment": d.name,
            "repo_id": d.model,
            **nothing,
            "comparable": "yes",
            "basis": f"published ({d.published.source}, {d.published.checked_on})",
            "metric": "accuracy",
            "value": d.published.quality,
            "low": float("nan"),
            "high": float("nan"),
        }
        for d in deployments
        if d.published is not None and brief.evaluation.kind == "published"
    ]


def _macro_f1(brief: Project, asked: pd.DataFrame) -> dict[str, float]:
    target = asked["target"].to_numpy()
    predicted = asked["predicted"].fillna(UNPARSED).to_numpy()

    def macro_f1(rows: stats.Rows) -> float:
        labels = brief.evaluation.labels
        return float(
            f1_score(target[rows], predicted[rows], labels=labels, average="macro", zero_division=0)
        )

    value, low, high = stats.bootstrap(macro_f1, len(asked))
    return {"value": value, "low": low, "high": high}


def confusion(scored: pd.DataFrame) -> pd.DataFrame:
    """Counts of `target` against `predicted` per deployment; failed calls are left out."""
    asked = scored[scored["outcome"] != "failed"]
    named = asked.assign(predicted=asked["predicted"].fillna(UNPARSED))
    counts = named.groupby(["deployment", "target", "predicted"], sort=False).size()
    return counts.rename("count").reset_index()
