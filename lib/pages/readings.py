"""Read the answers: what every candidate said, where they disagree, and which groups suffer."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from lib.brief.evaluation import Evaluation
from lib.brief.project import Project
from lib.evaluate.reasoning import visible
from lib.evaluate.scoring import RECORDS
from lib.pages.page import cut, environment
from lib.pages.style import number
from lib.stats import intervals as stats

__all__ = ["disagreements", "render", "worst_groups"]

MOST_ITEMS, MOST_CELLS = 2000, 20_000  # on one page
BUDGET = 6_000_000  # characters of outputs on one page
FIRST = 200  # characters of a text shown before "more"
LONGEST = 4000  # and behind it
TOLD = 400  # characters of an error or of what a scorer says
MOST_GROUPS = 200  # choices of the filter
TAGS: list[str] = Evaluation.model_fields["reasoning_tags"].default
GRADED = ("scoring", "judged", "comparison", "reranking")
Row = Mapping[Hashable, Any]


def render(
    brief: Project,
    scored: pd.DataFrame,
    items: pd.DataFrame | None,
    *,
    graded: pd.DataFrame | None = None,
) -> str:
    """Render the page of answers: a row per item, those that tell candidates apart first.

    Args:
        brief: Its name, task and evaluation.
        scored: From `scoring.score_answers`.
        items: From `items.load_items`; None where the answers have the input (Inspect).
        graded: The judge's verdicts of a comparison, shown beside the item.

    Returns:
        A self-contained page that loads nothing and runs one script, its own filters; without
        scripts it is a plain table. At most 2,000 items and 20,000 answers are on it and long
        answers are cut; the page says what is left out.
    """
    names = list(dict.fromkeys(scored["deployment"]))
    order = _order(scored)
    most = min(MOST_ITEMS, max(1, MOST_CELLS // max(len(names), 1)))
    shown = list(order.index[:most])
    limit = min(max(BUDGET // max(len(shown) * len(names), 1), FIRST), LONGEST)
    known = _known(items, scored)
    part = scored[scored["item_id"].isin(set(shown))]
    answers = {(row["item_id"], row["deployment"]): row for row in part.to_dict("records")}
    judged = _verdicts(graded, set(shown))
    groups = part.get("group", pd.Series("", part.index)).fillna("").astype(str)
    by_item = dict(zip(part["item_id"], groups, strict=True))
    choices = sorted({group for group in groups if group.strip()})[:MOST_GROUPS]
    place = {group: number for number, group in enumerate(choices)}
    rows = [
        {
            "item_id": item,
            "input": _text(_of(known, item, "input"), limit),
            "target": _text(_of(known, item, "target"), limit),
            "group": by_item[item],
            "place": place.get(by_item[item], ""),
            "disagree": bool(order.loc[item, "disagree"]),
            "judged": judged.get(item, []),
            "cells": [_cell(answers.get((item, name)), brief.evaluation, limit) for name in names],
        }
        for item in shown
    ]
    templates = environment()
    templates.filters["integrity"] = _integrity
    return templates.get_template("readings.html.j2").render(
        brief=brief,
        names=names,
        rows=rows,
        total=len(order),
        disagreements=int(order["disagree"].sum()),
        groups=choices,
        marks=list(dict.fromkeys(c["mark"] for row in rows for c in row["cells"] if c["mark"])),
        limit=limit,
    )


def disagreements(
    scored: pd.DataFrame,
    items: pd.DataFrame | None,
    *,
    limit: int = 8,
    reasoning_tags: Sequence[str] = TAGS,
) -> pd.DataFrame:
    """The items that tell the candidates apart most, with what each one said.

    Returns:
        Indexed by `item_id`: `input`, `target` and a column per deployment with its score (✓ is
        1 and ✗ is 0) or what became of the call, and the beginning of its visible output.
    """
    order = _order(scored)
    shown = list(order.index[order["disagree"]][:limit])
    known = _known(items, scored)
    names = list(dict.fromkeys(scored["deployment"]))
    part = scored[scored["item_id"].isin(shown)]
    said = {
        (row["item_id"], row["deployment"]): _line(row, reasoning_tags)
        for row in part.to_dict("records")
    }
    rows = [
        [
            *(cut(_of(known, item, column)[:1000], 80) for column in ("input", "target")),
            *(said.get((item, name), "not asked") for name in names),
        ]
        for item in shown
    ]
    index = pd.Index(shown, name="item_id", dtype="str")
    return pd.DataFrame(rows, index=index, columns=["input", "target", *names], dtype="str")


def worst_groups(
    scored: pd.DataFrame, items: pd.DataFrame | None = None, *, least: int = 5
) -> pd.DataFrame:
    """The groups of items on which a deployment does worst, the worst first.

    The worst of many groups is partly bad luck: read the interval before acting on it.

    Args:
        scored: From `scoring.score_answers`, with the items' `group`.
        items: From `items.load_items`; where the brief names no groups, but the file has a field
            `group`, it is used here: such groups say what an item is like, not that items
            depend on each other.
        least: Answers that a group needs to be listed; failed calls do not count.

    Returns:
        `group deployment n score low high`, the score a mean with its 95 % interval; no rows
        where there are no groups.
    """
    columns = ["group", "deployment", "n", "score", "low", "high"]
    if "group" not in scored:
        return pd.DataFrame(columns=columns)
    group = scored["group"].fillna("").astype(str).str.strip()
    if items is not None and "file_group" in items and (group == "").all():
        kind = items.drop_duplicates("item_id").set_index("item_id")["file_group"]
        group = scored["item_id"].map(kind).fillna("").astype(str).str.strip()
        scored = scored.assign(group=group)
    named = scored[(group != "") & scored["score"].notna()]
    rows = [
        (key, name, len(own), *stats.interval(own["score"]))
        for (key, name), own in named.groupby(["group", "deployment"], sort=False)
        if len(own) >= least
    ]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values(["score", "high"], kind="stable", ignore_index=True)


def _order(scored: pd.DataFrame) -> pd.DataFrame:
    """Items, those with the widest spread of scores first: `spread disagree`.

    Candidates disagree where their scores differ or where answers became of different kinds; a
    failed call is no opinion.
    """
    asked = scored[scored["outcome"] != "failed"].astype({"score": float})
    by_item = asked.groupby("item_id", sort=False)
    spread = by_item["score"].max() - by_item["score"].min()
    table = pd.DataFrame({"spread": spread, "outcomes": by_item["outcome"].nunique()})
    table = table.reindex(scored["item_id"].drop_duplicates()).fillna(0.0)
    table["disagree"] = (table["spread"] > 1e-9) | (table["outcomes"] > 1)
    return table.sort_values(["disagree", "spread"], ascending=False, kind="stable")


def _known(items: pd.DataFrame | None, scored: pd.DataFrame) -> pd.DataFrame:
    """Input and target of every item; those of an Inspect task come with the answers."""
    table = scored if items is None else items
    return table.drop_duplicates("item_id").set_index("item_id")


def _of(known: pd.DataFrame, item: str, column: str) -> str:
    value = known.at[item, column] if item in known.index and column in known else ""
    return value if isinstance(value, str) else ""


def _said(row: Row, kind: str, tags: Sequence[str]) -> str:
    output = row["output"] if isinstance(row.get("output"), str) else ""
    record = kind in RECORDS and output.lstrip()[:1] in ("[", "{")
    return output if record else visible(output, tags)


def _line(row: Row, tags: Sequence[str]) -> str:
    if row["outcome"] == "failed":
        return "failed"
    mark = {1.0: "✓", 0.0: "✗"}.get(float(row["score"])) or number(float(row["score"]), digits=2)
    if row["outcome"] != "answered":
        mark += f" ({row['outcome']})"
    return f"{mark} {cut(_said(row, '', tags)[:1000], 80)}".strip()


def _cell(row: Row | None, evaluation: Evaluation, limit: int) -> dict[str, Any]:
    """What the page says of one answer: its mark, its score, the text and the scorer's remark."""
    if row is None:
        return {"mark": "", "tone": "", "score": "", "text": None, "note": "not asked"}
    score: float | None = None if pd.isna(row["score"]) else float(row["score"])
    mark, tone = str(row["outcome"]), "open"
    if mark == "answered" and score is not None:
        words = ("full score", "partial score", "score 0")
        words = words if evaluation.kind in GRADED else ("right", "partly right", "wrong")
        mark = words[0] if score == 1 else words[2] if score == 0 else words[1]
        tone = "good" if score == 1 else "bad" if score == 0 else "open"
    failed = row["outcome"] == "failed"
    said = _said(row, evaluation.kind, evaluation.reasoning_tags)
    note = row.get("error") if failed and row.get("error") else row.get("detail")
    return {
        "mark": mark,
        "tone": tone,
        "score": "" if score is None else number(score),
        "text": _text(said, limit) if said or not failed else None,
        "note": cut(note[: 4 * TOLD], TOLD) if isinstance(note, str) else "",
    }


def _text(value: str, limit: int) -> dict[str, Any]:
    """A text in two parts: what is shown at once and what is folded away; bounded, drawable."""
    kept = "".join(c if c.isprintable() or c in "\n\t" else "□" for c in value[:limit])
    return {"first": kept[:FIRST], "rest": kept[FIRST:], "left": max(0, len(value) - limit)}


def _verdicts(graded: pd.DataFrame | None, shown: set[str]) -> dict[str, list[str]]:
    """What the judge said of each pair of answers to an item."""
    told: dict[str, list[str]] = {}
    if graded is None or "other" not in graded:
        return told
    for row in graded[graded["item_id"].isin(shown)].to_dict("records"):
        line = f"{cut(row['deployment'], 60)} against {cut(row['other'], 60)}: {row['result']}"
        if row["result"] == "inconsistent":
            line += f" (named the {row['forward']}, then in the other order the {row['backward']})"
        told.setdefault(row["item_id"], []).append(line)
    return {item: lines[:30] for item, lines in told.items()}


def _integrity(script: str) -> str:
    """What the page's security policy names the script by: no other one may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
