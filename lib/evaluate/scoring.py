"""Answers to scores and to a reading table: what counts, honest shares, where they disagree."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lib.brief import Project
from lib.evaluate import kinds
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


def measured(
    metric: str, values: Iterable[Any], scored: pd.DataFrame, *, primary: bool = False
) -> dict[str, Any]:
    """One metric of one deployment: the mean of some values with its 95 % interval.

    There is a value for each row of `scored`: right or wrong, or a score from 0 to 1. The rows'
    `group` clusters the interval. Given are `metric value low high n`, and `primary` if it is:
    requirements test that metric.
    """
    data = np.array([float(value) for value in values])
    value, low, high = interval(data, clusters(scored))
    row = {"metric": metric, "value": value, "low": low, "high": high, "n": len(data)}
    return row | ({"primary": True} if primary else {})


def clusters(scored: pd.DataFrame) -> npt.NDArray[Any] | None:
    """The group of every row, or None where the brief names no groups."""
    if "group" not in scored or not (groups := scored["group"].fillna("").astype(str)).any():
        return None
    return groups.to_numpy(dtype=object)


def counts_of_calls(rows: pd.DataFrame) -> dict[str, int | str]:
    """What became of the calls of one deployment, and whether its scores are `comparable`.

    With more than 2 % of calls failed they are not: the items left may not be like the others.
    """
    outcomes = rows["outcome"].value_counts().reindex(["failed", *UNUSABLE], fill_value=0)
    failed = int(outcomes["failed"])
    retries = pd.to_numeric(rows.get("retries", pd.Series(dtype=float)), errors="coerce")
    return {
        **{f"n_{outcome}": int(count) for outcome, count in outcomes.items()},
        "n": len(rows) - failed,
        "n_retried": int((retries > 0).sum()),
        "comparable": "no" if failed > MAX_FAILED_SHARE * len(rows) else "yes",
    }


def means(scored: pd.DataFrame) -> pd.DataFrame:
    """The mean score of every deployment, failed calls left out, the best first."""
    rows = [
        {"deployment": name, **measured("score", own["score"], own)}
        for name, asked in scored.groupby("deployment", sort=False)
        for own in [asked.dropna(subset=["score"])]
    ]
    ranked = pd.DataFrame(rows).sort_values("value", ascending=False, kind="stable")
    return ranked.reset_index(drop=True)


def shares(
    scored: pd.DataFrame, categories: Iterable[str], tones: Mapping[str, Any], *, title: str,
    metric: str,
) -> Figure:  # fmt: skip
    """Stacked shares of categories, one a row of the scored answers, beside the mean `metric`.

    `tones` has every category in its order with its tone, as `pages.shares` knows them.
    """
    counts = pd.crosstab(scored["deployment"], pd.Series(list(categories), index=scored.index))
    counts = counts.reindex(columns=list(tones), fill_value=0)
    title = f"{title}, by configuration"
    frames = {"counts": counts, "colours": dict(tones), "means": means(scored)}
    return "shares", {**frames, "title": title, "metric": metric}


def outcome_shares(
    scored: pd.DataFrame,
    *,
    title: str,
    metric: str,
    usable: Callable[[dict[Any, Any]], str] | None = None,
    tones: Mapping[str, Any] | None = None,
) -> Figure:
    """Shares of what became of the answers beside the mean `metric`.

    `usable` names the category of a usable answer's row (unless given: right, partly right or
    wrong), and `tones` has those categories.
    """
    tones = tones or {"right": "good", "partly right": "fair", "wrong": "bad"}
    category = usable or _marked
    categories = [
        category(row) if row["outcome"] == "answered" else str(row["outcome"])
        for row in scored.to_dict("records")
    ]
    every = {**tones, **UNUSABLE, "failed": "pale"}
    return shares(scored, categories, every, title=title, metric=metric)


def _marked(row: Mapping[Any, Any]) -> str:
    return {1: "right", 0: "wrong"}.get(row["score"], "partly right")


MOST_VERDICTS = 30  # pairs of an item
NOTE = 1600  # characters of a remark that are looked at


def side_by_side(
    brief: Project, scored: pd.DataFrame, items: pd.DataFrame | None, *,
    graded: pd.DataFrame | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Everything there is to read, the items that tell the candidates apart most first.

    `items` is None where the answers have the input (Inspect); `graded` are the judge's verdicts.

    Returns:
        A row per item and deployment, also where it was not asked: `item_id deployment outcome
        score mark text note disagree input target group verdicts`. `mark` is the outcome in
        words, `text` the output without reasoning, `note` the error or what the scorer says.
    """
    kind, tags = kinds.of(brief.evaluation.kind), brief.evaluation.reasoning_tags
    score, failed = scored["score"].astype(float), scored["outcome"] == "failed"
    output, error, detail = (_text(scored, column) for column in ("output", "error", "detail"))
    text = output.map(lambda answer: kind.visible(answer, tags))
    full, partial, none = kind.MARKS
    mark = score.map({1.0: full, 0.0: none}).fillna(partial)
    cells = scored[["item_id", "deployment", "outcome"]].assign(
        score=score,
        mark=mark.where((scored["outcome"] == "answered") & score.notna(), scored["outcome"]),
        text=text.mask(failed & (text == "")),
        note=error.where(failed & (error != ""), detail).str[:NOTE],
    )
    # What belongs to the item: its text comes with the answers where there is no file of items.
    order = _order(scored)
    texts = scored if items is None else items
    for table, columns in ((texts, ["input", "target"]), (scored, ["group"])):
        first = table.drop_duplicates("item_id").set_index("item_id").reindex(order.index)
        order = order.assign(**{column: _text(first, column) for column in columns})
    order["verdicts"] = order.index.to_series().map(_verdicts(graded))
    key, names = ["item_id", "deployment"], scored["deployment"].unique()
    every = pd.MultiIndex.from_product([order.index, names], names=key)
    cells = cells.set_index(key).reindex(every).fillna({"note": "not asked"})
    return cells.reset_index().join(order, on="item_id")


def _text(table: pd.DataFrame, column: str) -> pd.Series[str]:
    """A column of text, which may be missing, with blanks for what is not there."""
    return table.reindex(columns=[column])[column].astype("str").fillna("")


def worst_groups(
    scored: pd.DataFrame, items: pd.DataFrame | None = None, *, least: int = 5
) -> pd.DataFrame:
    """The groups of items on which a deployment does worst, the worst first.

    The worst of many groups is partly bad luck: read the interval. Where the brief names no
    groups, the field `group` of the `items` file says what an item is like.

    `group deployment n score low high`: the mean score with its 95 % interval, where a group
    has at least `least` answers; failed calls do not count.
    """
    group = _text(scored, "group").str.strip()
    if items is not None and (group == "").all():
        named = items.drop_duplicates("item_id").set_index("item_id")
        group = _text(named.reindex(scored["item_id"]), "file_group").set_axis(scored.index)
    answers = scored.assign(group=group.str.strip())[scored["score"].notna()]
    rows = [
        (*names, len(scores), *interval(scores))
        for names, scores in answers.groupby(["group", "deployment"], sort=False)["score"]
        if names[0] and len(scores) >= least
    ]
    table = pd.DataFrame(rows, columns=["group", "deployment", "n", "score", "low", "high"])
    return table.sort_values(["score", "high"], kind="stable", ignore_index=True)


def _order(scored: pd.DataFrame) -> pd.DataFrame:
    """Items, those with the widest spread of scores first, and whether candidates `disagree`.

    They do where scores or kinds of outcome differ; a failed call is no opinion.
    """
    asked = scored[scored["outcome"] != "failed"].astype({"score": float})
    by_item = asked.groupby("item_id", sort=False)
    spread = by_item["score"].max() - by_item["score"].min()
    table = pd.DataFrame({"spread": spread, "outcomes": by_item["outcome"].nunique()})
    table = table.reindex(scored["item_id"].drop_duplicates()).fillna(0.0)
    table["disagree"] = (table["spread"] > 1e-9) | (table["outcomes"] > 1)
    table = table.sort_values(["disagree", "spread"], ascending=False, kind="stable")
    return table[["disagree"]]


def _verdicts(graded: pd.DataFrame | None) -> dict[str, list[str]]:
    """What the judge said of each pair of answers to an item."""
    lines: dict[str, list[str]] = {}
    if graded is None or "other" not in graded:
        return lines
    for row in graded.to_dict("records"):
        line = f"{row['deployment']} against {row['other']}: {row['result']}"
        if row["result"] == "inconsistent":
            line += f" (named the {row['forward']}, then in the other order the {row['backward']})"
        lines.setdefault(row["item_id"], []).append(line)
    return {item: some[:MOST_VERDICTS] for item, some in lines.items()}
