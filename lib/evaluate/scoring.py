"""Answers to scores: whether an answer counts, how it is graded by its kind, and honest shares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from lib.stats import interval

Figure = tuple[str, dict[str, Any]]  # a generic figure of lib.pages, and what it is drawn from
MAX_FAILED_SHARE = 0.02
NO_LABEL = "(no label)"
UNUSABLE = {"unparsed": "doubt", "truncated": "grey", "refused": "pink", "empty": "light"}
FIGURES_OF_CALLS = "n n_failed n_truncated n_refused n_unparsed n_empty n_retried".split()


def outcome_of(error: Any, finish_reason: Any, text: str) -> str | None:
    """Why an answer, visibly `text`, is failed, refused, truncated or empty; None if usable."""
    if isinstance(error, str) and error:
        return "failed"
    if finish_reason in ("content_filter", "refusal"):
        return "refused"
    if finish_reason == "length":
        return "truncated"
    return None if text else "empty"


def metric_row(metric: str, values: Iterable[Any], scored: pd.DataFrame) -> dict[str, Any]:
    """One metric of one deployment: the mean of a value a row, and its interval by `group`."""
    value, low, high = interval(pd.Series(values), scored.get("group"))
    return {"metric": metric, "value": value, "low": low, "high": high, "n": len(scored)}


def counts_of_calls(rows: pd.DataFrame) -> dict[str, int | str]:
    """What became of the calls of one deployment, and whether its scores are `comparable`."""
    outcomes = rows["outcome"].value_counts().reindex(["failed", *UNUSABLE], fill_value=0)
    failed = int(outcomes["failed"])
    models = rows["served_model"].nunique() if "served_model" in rows else 0
    retries = pd.to_numeric(rows.get("retries", pd.Series(dtype=float)), errors="coerce")
    return {
        **{f"n_{outcome}": int(count) for outcome, count in outcomes.items()},
        "n": len(rows) - failed,
        "n_retried": int((retries > 0).sum()),
        "comparable": "no" if failed > MAX_FAILED_SHARE * len(rows) or models > 1 else "yes",
    }


def model_notes(answers: pd.DataFrame) -> list[str]:
    """Whom another model answered than the one asked, or several in turn: sentences."""
    columns = ["deployment", "asked_model", "served_model"]
    names = answers.reindex(columns=columns).dropna().drop_duplicates()
    rows = names.groupby(columns[:2], sort=False)["served_model"].agg(" and ".join).reset_index()
    text = "{}: asked for {}, answered by {:.300}"
    return [text.format(*row) for row in rows.to_numpy() if row[1] != row[2]]


def shares(
    scored: pd.DataFrame, categories: Iterable[str], tones: Mapping[str, Any], *, title: str,
    metric: str,
) -> Figure:  # fmt: skip
    """Stacked shares of categories, one a row of the scored answers, beside the mean `metric`."""
    counts = pd.crosstab(scored["deployment"], pd.Series(list(categories), index=scored.index))
    counts = counts.reindex(columns=list(tones), fill_value=0)
    graded = scored.dropna(subset=["score"]).groupby("deployment", sort=False)
    rows = [{"deployment": n, **metric_row("score", part["score"], part)} for n, part in graded]
    means = pd.DataFrame(rows).sort_values("value", ascending=False, ignore_index=True)
    frames = {"counts": counts, "colours": dict(tones), "means": means}
    return "shares", {**frames, "title": f"{title}, by configuration", "metric": metric}


def outcome_shares(
    scored: pd.DataFrame, names: pd.Series[Any], tones: Mapping[str, Any], *, title: str,
    metric: str,
) -> Figure:  # fmt: skip
    """Shares of what became of the answers: of the usable ones the `names`, which have `tones`."""
    names = names.where(scored["outcome"] == "answered", scored["outcome"])
    every = {**tones, **UNUSABLE, "failed": "pale"}
    return shares(scored, names, every, title=title, metric=metric)
