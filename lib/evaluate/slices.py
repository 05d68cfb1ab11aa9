"""Scores by slice: the items of one customer, language or length, and who is better at them."""

from collections.abc import Iterator

import pandas as pd

from lib.brief import Project
from lib.evaluate import kinds
from lib.evaluate.scoring import counts_of_calls
from lib.evaluate.steps import Gathered, non_inferiority
from lib.stats import ALPHA, holm

LEAST = 5  # items of a slice: fewer say nothing
Slices = list[tuple[str, pd.DataFrame]]


def by_slice(
    brief: Project, scores: pd.DataFrame, scored: pd.DataFrame, items: pd.DataFrame,
    checked: pd.DataFrame | None = None,
) -> pd.DataFrame:  # fmt: skip
    """The scores of `summarise`, then the primary metric of every slice, the worst first.

    Slices are the values of the fields in `evaluation.slices`, or of `group` where it names none;
    `slice` is such as `language: de`, blank for all items. A slice's row is never `primary`: no
    requirement tests it, and what a judge says there is not corrected. `against_baseline` is the
    verdict on that slice, with Holm's adjustment over the slices of a candidate; `checked` is as
    in `non_inferiority`.
    """
    kind, table = kinds.of(brief.evaluation.kind), []
    slices = list(_slices(brief, scored, items))
    verdicts = _against_baseline(brief, scored, slices, checked)
    for name, rows_of_slice in slices:
        for deployment, rows in rows_of_slice.groupby("deployment", sort=False):
            answers = rows[rows["outcome"] != "failed"]
            if len(answers) >= LEAST:
                metric = kind.metrics(brief, answers)[0]
                of_all = scores["deployment"].eq(deployment) & scores["metric"].eq(metric["metric"])
                row = scores[of_all].iloc[0].to_dict() | counts_of_calls(rows)
                row |= {"slice": name, "primary": False}
                row["against_baseline"] = verdicts.get((str(deployment), name), "")
                table.append(row | metric)
    if not table:
        return scores
    lines = pd.DataFrame(table, columns=[*scores.columns]).astype(scores.dtypes)
    lines = lines.sort_values(["value", "high"], kind="stable")
    return pd.concat([scores, lines], ignore_index=True)


def _against_baseline(
    brief: Project, scored: pd.DataFrame, slices: Slices, checked: pd.DataFrame | None
) -> dict[tuple[str, str], str]:
    """By deployment and slice, whether it is good enough there to replace the baseline."""
    baselines = [d.name for d in brief.deployments if d.baseline]
    verdicts: dict[tuple[str, str], str] = {}
    for name in scored.loc[~scored["deployment"].isin(baselines), "deployment"].unique():
        # Each slice as if it were a candidate, on items of its own: Holm then adjusts over the
        # slices, and within a cluster items stand alone for the baseline, too.
        parts = [
            both.assign(
                deployment=both["deployment"].replace(name, part),
                item_id=f"{part} " + both["item_id"],
            )
            for part, rows in slices
            if rows["item_id"].nunique() >= LEAST
            for both in [rows[rows["deployment"].isin([name, *baselines])]]
        ]
        tests = non_inferiority(brief, pd.concat(parts or [scored[:0]]), checked)
        verdicts |= {
            (name, part): verdict
            for part, verdict in zip(tests["deployment"], tests["verdict"], strict=True)
        }
    return verdicts


def slice_winners(
    brief: Project, scored: pd.DataFrame, items: pd.DataFrame, gathered: Gathered
) -> list[str]:
    """A sentence where another candidate beats the best of all in a slice that the brief names."""
    out = {*gathered.dropped, *(d.name for d in brief.deployments if d.baseline)}
    rivals = scored[~scored["deployment"].isin(out)]
    kind, graded, tests = kinds.of(brief.evaluation.kind), gathered.graded, []
    for name, rows in _slices(brief, rivals, items) if brief.evaluation.slices else ():
        if rows["item_id"].nunique() >= LEAST and rows["deployment"].nunique() > 1:
            part = None if graded is None else graded[graded["item_id"].isin(rows["item_id"])]
            tests.append(kind.compare(rows, part).assign(slice=name))
    if not tests:
        return []
    table = pd.concat(tests, ignore_index=True)
    table["p"] = [p for p, _ in holm(range(len(table)), table["p_value"])]
    best = str(rivals.groupby("deployment", sort=False)["score"].mean().idxmax())
    sentences = []
    for row in table[table["p"] < ALPHA].itertuples():
        better, worse = (row.deployment, row.other)[:: 1 if row.difference > 0 else -1]
        by = f"by {abs(row.difference):.2g} (p = {row.p:.2g}, Holm over {len(table)} tests)"
        text = f"{row.slice} ({row.n} items): {better} beats {best}, the best of all items, {by}."
        sentences += [text] * (worse == best)
    return sentences or [f"In no slice another beats {best} (Holm over {len(table)} tests)."]


def _slices(
    brief: Project, scored: pd.DataFrame, items: pd.DataFrame
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Every slice with its answers; within a value of the brief's `group` items stand alone."""
    clusters = brief.evaluation.group
    texts = (scored if items.empty else items).drop_duplicates("item_id").set_index("item_id")
    # A field `group` that is not the brief's group has another name.
    columns = {"group": "file_group" if "file_group" in texts else "group", clusters: "group"}
    for field in dict.fromkeys(brief.evaluation.slices) or [clusters or "group"]:
        values = texts.get(columns.get(field, field))
        if values is None:  # only `length` may be no field: about a third of the items each
            rank = texts["input"].str.len().rank(pct=True)
            values = pd.cut(rank, [0, 1 / 3, 2 / 3, 1], labels=["short", "medium", "long"])
        rows = scored.assign(group="") if field == clusters else scored
        names = rows["item_id"].map(values.astype("str")).fillna("")
        parts = rows.groupby(names, sort=False)
        yield from ((f"{field}: {name}", part) for name, part in parts if str(name).strip())
