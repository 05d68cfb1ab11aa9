"""Answers to scores: what the model said, whether it counts, and how often it was right.

One table, `KINDS`, names the module that scores each kind of task. Such a module offers two
functions, and is loaded when its kind is first scored:

`score(brief, asked, *, items, graded) -> DataFrame`
    `asked` holds the usable rows of the answers: no error, not truncated, refused or empty, all
    columns kept, `output` without its reasoning. An output of the kinds in `RECORDS` that is
    JSON as a whole is the runner's record of calls or documents and comes as it is: strip the
    texts inside with `visible(text, brief.evaluation.reasoning_tags)`. `items` is what
    `load_items` gives and `graded` the judge's records; either may be None, and both reach every
    module. Returned is one row per row of `asked`, with the same index, and the columns
    `outcome` (`answered`; `unparsed` where no verdict can be read from the answer; `failed` where
    the judge gave none), `predicted` (text or None), `score` (0 to 1, None where failed) and, if
    it helps a reader, `detail` (text). It is not called when nothing is usable.

`metrics(brief, scored) -> list[dict]`
    `scored` holds all rows of one deployment whose outcome is not `failed`, unusable ones with
    score 0; it may be empty. Each metric is a dict of `metric value low high`, and `n` where it
    counts other rows than `len(scored)`; `measured(name, values, scored)` makes one, with its
    interval clustered by the items' groups. The first is the primary one, the metric that
    requirements test, unless another says `primary=True`.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lib.brief.project import Deployment, Evaluation, Project
from lib.errors import PlaybookError
from lib.evaluate.reasoning import visible
from lib.stats import paired_tests as stats

__all__ = [
    "KINDS",
    "NO_LABEL",
    "clusters",
    "confusion",
    "measured",
    "outcome_of",
    "score_answers",
    "summarise",
    "visible",
]

KINDS = {
    "classification": "labels",
    "exact": "labels",
    "extraction": "extraction",
    "tool_call": "tool_calls",
    "scoring": "judging",
    "judged": "judging",
    "comparison": "comparison",
    "reranking": "reranking",
    "inspect": "inspection",
}
RECORDS = ("tool_call", "reranking")  # kinds whose output may be the runner's JSON, not prose
MAX_FAILED_SHARE = 0.02
NO_LABEL = "(no label)"
COLUMNS = """deployment repo_id metric value low high n n_failed n_truncated n_refused n_unparsed
    n_empty n_retried comparable basis primary""".split()


def outcome_of(row: Mapping[str, Any], evaluation: Evaluation) -> str | None:
    """Why an answer cannot be scored: failed, refused, truncated or empty; None if it can.

    Args:
        row: An answer: `error finish_reason output`.
        evaluation: Its kind and reasoning tags say what of the output is visible.
    """
    shown = _shown(row.get("output"), evaluation)
    return _outcome(row.get("error"), row.get("finish_reason"), shown)


def _outcome(error: Any, finish_reason: Any, shown: str) -> str | None:
    if isinstance(error, str) and error:
        return "failed"
    if finish_reason in ("content_filter", "refusal"):
        return "refused"
    if finish_reason == "length":
        return "truncated"
    return None if shown else "empty"


def _shown(output: Any, evaluation: Evaluation) -> str:
    if not isinstance(output, str):
        return ""
    if evaluation.kind in RECORDS and output.lstrip()[:1] in ("[", "{"):
        try:
            json.loads(output)
            return output
        except (ValueError, RecursionError):
            pass
    return visible(output, evaluation.reasoning_tags)


def score_answers(
    brief: Project,
    answers: pd.DataFrame,
    items: pd.DataFrame | None = None,
    *,
    graded: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Add `outcome`, `predicted` and `score` to every answer, dropping none.

    Args:
        brief: Its `evaluation` says how answers are scored.
        answers: From `answers.ask`.
        items: From `load_items`; only reranking needs them.
        graded: The judge's records; only kinds with a judge need them.

    Returns:
        The answers with `outcome` (`answered`, `truncated`, `refused`, `unparsed`, `empty` or
        `failed`), `predicted` (text or null), `score` (0 to 1) and with some kinds `detail`. A
        failed call has no score: nobody knows what the model would have said. An answer that
        was given but cannot be used scores 0.
    """
    evaluation = brief.evaluation
    if answers.empty:
        return answers.assign(outcome="", predicted="", score=pd.Series(dtype="Float64"))
    shown = [_shown(output, evaluation) for output in answers["output"]]
    causes = [
        _outcome(error, reason, text)
        for error, reason, text in zip(
            answers["error"], answers["finish_reason"], shown, strict=True
        )
    ]
    # By place, not by index: callers may hand over frames whose index repeats.
    usable = np.flatnonzero([cause is None for cause in causes])
    outcome = np.array(causes, dtype=object)
    predicted = np.full(len(answers), None, dtype=object)
    score = np.where(outcome == "failed", np.nan, 0.0)
    detail = np.full(len(answers), "", dtype=object)
    told = False
    if len(usable):
        asked = answers.assign(output=shown).iloc[usable].reset_index(drop=True)
        result = _module(evaluation.kind).score(brief, asked, items=items, graded=graded)
        result = result.reindex(range(len(usable)))
        outcome[usable] = result["outcome"].to_numpy(dtype=object)
        predicted[usable] = [
            text if isinstance(text, str) else None for text in result["predicted"]
        ]
        score[usable] = result["score"].astype("Float64").to_numpy(dtype=float, na_value=np.nan)
        if told := "detail" in result:
            detail[usable] = [t if isinstance(t, str) else "" for t in result["detail"]]
    added: dict[str, Any] = {
        "outcome": pd.Series(outcome, index=answers.index, dtype="str"),
        "predicted": pd.Series(predicted, index=answers.index, dtype="str"),
        "score": pd.Series(score, index=answers.index).astype("Float64"),
    }
    if told:
        added["detail"] = pd.Series(detail, index=answers.index, dtype="str")
    return answers.assign(**added)


def _module(kind: str) -> Any:
    if kind not in KINDS:
        raise PlaybookError(f"kind {kind!r} has no answers to score; its figures are in the brief")
    return importlib.import_module(f"lib.evaluate.{KINDS[kind]}")


def summarise(
    brief: Project, scored: pd.DataFrame, *, deployments: list[Deployment] | None = None
) -> pd.DataFrame:
    """One row per deployment and metric: value, 95 % interval, and what became of the calls.

    With more than 2 % of calls failed `comparable` is "no": the items left may not be like the
    others. Failed calls are in no metric; truncated, refused, unparsed and empty answers are,
    as wrong ones.

    Returns:
        `deployment repo_id metric value low high n n_failed n_truncated n_refused n_unparsed
        n_empty n_retried comparable basis primary`; `n` is how many answers the metric is of,
        and exactly one metric of each deployment is the primary one.
    """
    chosen = brief.deployments if deployments is None else deployments
    rows: list[dict[str, Any]] = _published(brief, chosen)
    known = {d.name: d for d in [*brief.deployments, *chosen]}
    for name, group in scored.groupby("deployment", sort=False):
        asked = group[group["outcome"] != "failed"]
        failed = len(group) - len(asked)
        retries = pd.to_numeric(group.get("retries", pd.Series(dtype=float)), errors="coerce")
        shared = {
            "deployment": name,
            "repo_id": group["repo_id"].iloc[0],
            "n": len(asked),
            "n_failed": failed,
            **{
                f"n_{outcome}": int((group["outcome"] == outcome).sum())
                for outcome in ("truncated", "refused", "unparsed", "empty")
            },
            "n_retried": int((retries.fillna(0) > 0).sum()),
            "comparable": "no" if failed > MAX_FAILED_SHARE * len(group) else "yes",
            "basis": _basis(known.get(str(name))),
        }
        metrics = _module(brief.evaluation.kind).metrics(brief, asked)
        chief = next((i for i, m in enumerate(metrics) if m.get("primary")), 0)
        rows += [{**shared, **m, "primary": i == chief} for i, m in enumerate(metrics)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _basis(deployment: Deployment | None) -> str:
    endpoint = deployment.endpoint if deployment else None
    recorded = endpoint.recorded if endpoint else None
    return f"recorded ({recorded})" if recorded else "measured here"


def _published(brief: Project, deployments: list[Deployment]) -> list[dict[str, Any]]:
    """The figures a brief quotes instead of measuring: no interval, no count."""
    return [
        {
            **dict.fromkeys([c for c in COLUMNS if c == "n" or c.startswith("n_")], 0),
            "deployment": d.name,
            "repo_id": d.model,
            "comparable": "yes",
            "basis": f"published ({d.published.source}, {d.published.checked_on})",
            "metric": "accuracy",
            "value": d.published.quality,
            "low": math.nan,
            "high": math.nan,
            "primary": True,
        }
        for d in deployments
        if d.published is not None and brief.evaluation.kind == "published"
    ]


def measured(
    metric: str, values: Iterable[Any], scored: pd.DataFrame, *, primary: bool = False
) -> dict[str, Any]:
    """One metric of one deployment: the mean of some values with its 95 % interval.

    Args:
        metric: Its name.
        values: One per row of `scored`: a right or wrong, or a score from 0 to 1.
        scored: The rows the values belong to; their `group` column clusters the interval.
        primary: Whether requirements test this metric.

    Returns:
        `metric value low high n`, and `primary` if it is; of no values nothing is known: the
        value is missing and the interval is 0 to 1.
    """
    data = np.array([float(value) for value in values])
    row: dict[str, Any] = {"metric": metric, "value": math.nan, "low": 0.0, "high": 1.0, "n": 0}
    if len(data):
        value, low, high = stats.interval(data, clusters(scored))
        row |= {"value": value, "low": low, "high": high, "n": len(data)}
    return row | ({"primary": True} if primary else {})


def clusters(scored: pd.DataFrame) -> npt.NDArray[Any] | None:
    """The group of every row, or None where the brief names no groups."""
    if "group" not in scored or not (groups := scored["group"].fillna("").astype(str)).any():
        return None
    return groups.to_numpy(dtype=object)


def confusion(scored: pd.DataFrame) -> pd.DataFrame:
    """Counts of `target` against `predicted` per deployment; failed calls are left out."""
    asked = scored[scored["outcome"] != "failed"]
    named = asked.assign(predicted=asked["predicted"].fillna(NO_LABEL))
    counts = named.groupby(["deployment", "target", "predicted"], sort=False).size()
    return counts.rename("count").reset_index()
