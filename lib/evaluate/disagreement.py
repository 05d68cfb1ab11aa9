"""Read the answers: what every candidate said and where they disagree."""

from __future__ import annotations

import pandas as pd

from lib.brief import Project
from lib.evaluate import kinds

MOST_VERDICTS = 30  # pairs of an item
NOTE = 1600  # characters of a remark that are looked at


def side_by_side(
    brief: Project, scored: pd.DataFrame, items: pd.DataFrame, *,
    graded: pd.DataFrame | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Everything there is to read, the items that tell the candidates apart most first.

    `items` is empty where the answers have the input (Inspect); `graded` are the judge's verdicts.
    A row per item and deployment, also where it was not asked: `item_id deployment outcome score
    mark text note disagree input target group verdicts`. `mark` is the outcome in words, `text`
    the output without reasoning, `note` the error or what the scorer says.
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
    texts = scored if items.empty else items
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


def _order(scored: pd.DataFrame) -> pd.DataFrame:
    """Items, those with the widest spread first, and whether scores or outcomes `disagree`."""
    answers = scored[scored["outcome"] != "failed"].astype({"score": float})
    by_item = answers.groupby("item_id", sort=False)
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
