"""Licences that changed on the Hub: back to review, or judged on the text that stands there."""

from __future__ import annotations

import pandas as pd

from lib.hub.facts import records, verified
from lib.legal.lineage import ancestors, bases

__all__ = ["hub_names", "relicense", "relicensed"]


def relicense(legal: pd.DataFrame, drifts: pd.DataFrame) -> pd.DataFrame:
    """A copy of step 1's table with `review` where the licence is another one on the Hub.

    What was made from such a model (`base_model`) goes back as well. A drift that `drift.mark`
    accepts is left to `legal.rejudge`. The drift is added to `reasons`; `blocked` stays so.
    """
    told = drifts[drifts["field"] == "licence"].drop_duplicates("repo_id")
    if "accepted" in told.columns:
        told = told[~told["accepted"]]
    notes = {
        repo_id: f"licence drift: {against} {old}, Hub {new}"
        for repo_id, against, old, new in told[["repo_id", "against", "old", "new"]].to_numpy()
    }
    direct = bases(legal) if notes and "base_model" in legal.columns else {}
    added = legal["repo_id"].map(lambda repo_id: _told(repo_id, notes, direct))
    hit = added != ""
    table = legal.copy()
    table.loc[hit & (table["verdict"] != "blocked"), "verdict"] = "review"
    reasons = table.loc[hit, "reasons"].fillna("").astype(str)
    table.loc[hit, "reasons"] = (reasons + "; " + added[hit].astype(str)).str.removeprefix("; ")
    return table


def _told(repo_id: str, notes: dict[str, str], direct: dict[str, list[str]]) -> str:
    """The drift of a model, or else of what it was made from."""
    if repo_id in notes:
        return notes[repo_id]
    made_of = [base for base in ancestors(repo_id, direct) if base in notes]
    return "; ".join(f"base {base}: {notes[base]}" for base in made_of)


def relicensed(
    marked: pd.DataFrame, metadata: pd.DataFrame, licenses: pd.DataFrame
) -> dict[str, str | None]:
    """The licence on the Hub of every model whose licence drift is accepted, by repository.

    Args:
        marked: From `drift.mark` or `drift.weigh`.
        metadata: From `hub.pull`.
        licenses: From `tables.licenses`.

    Returns:
        What `legal.rejudge` judges instead: a key of `licenses`, or the Hub's own text where it
        names none of them or several. A name beside the tag `other` never stands for a tag.
    """
    facts = verified(metadata)
    taken = marked.loc[(marked["field"] == "licence") & marked["accepted"], "repo_id"]
    return {
        repo_id: _key(facts[repo_id]["license_on_hub"], facts[repo_id]["license_name"], licenses)
        for repo_id in taken
        if repo_id in facts
    }


def _key(text: str | None, name: str | None, licenses: pd.DataFrame) -> str | None:
    named = text is not None and text == name
    column = licenses["hub_license_name" if named else "hub_license"]
    wanted = str(text or "").lower()
    listed = [wanted in _parts(cell) for cell in column]
    keys = [str(key) for key in licenses.loc[listed, "license"]]
    if len(keys) == 1:
        return keys[0]
    return f"other: {text}" if named else text


def hub_names(licenses: pd.DataFrame) -> dict[str, set[str]]:
    """What the Hub calls each licence, in lower case: its tags, and its names under `other`."""
    columns = ["license", "hub_license", "hub_license_name"]
    return {
        str(row["license"]).lower(): _parts(row["hub_license"]) | _parts(row["hub_license_name"])
        for row in records(licenses, columns)
    }


def _parts(cell: object) -> set[str]:
    """The texts in a cell; `other` says nothing."""
    parts = cell.lower().split(";") if isinstance(cell, str) else []
    return {part.strip() for part in parts} - {"", "other"}
