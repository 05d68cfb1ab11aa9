"""Candidates from the whole Hub instead of the catalogue, as rows of the catalogue."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from functools import partial
from typing import Any, NamedTuple

import pandas as pd

from lib.brief.project import Project
from lib.errors import PlaybookError
from lib.hub import listing as hub_list
from lib.hub.filters import Found, Repo, filters

__all__ = ["Discovered", "candidates"]

# Nobody's lineage is longer; a chain that is stays unresolved, which step 1 calls review.
GENERATIONS = 5
MODALITY = {"text-generation": "text"} | dict.fromkeys(
    ("image-text-to-text", "any-to-any", "audio-text-to-text", "video-text-to-text"), "multimodal"
)
Row = dict[Any, Any]
Lookup = Callable[[list[str]], list[Repo]]


class Maps(NamedTuple):
    """What the tables tell about a repository: by owner, by tag, by licence name."""

    owners: dict[str, tuple[str, str | None]]
    families: list[str]
    tags: dict[str, list[str]]
    names: dict[str, list[str]]


class Discovered(NamedTuple):
    """Rows in the catalogue's columns, and in one sentence what was found and left out."""

    models: pd.DataFrame
    note: str


def candidates(
    brief: Project,
    *,
    catalogue: pd.DataFrame,
    licenses: pd.DataFrame,
    closed_models: pd.DataFrame,
    token: str | None = None,
    today: date | None = None,
) -> Discovered:
    """Search the whole Hub for what the brief wants, and describe it as the catalogue would.

    A brief whose `candidates.source` is `catalogue` gets the catalogue itself. Otherwise the
    models that `deployments` and `exceptions` name are there whether they pass or not, and so
    is, as `lineage`, what any of them was made from: step 1 needs its licence. A model that
    the catalogue knows keeps its row. Quantised copies, adapters and repositories with GGUF
    weights alone are left out and counted. Nothing here is a verdict: steps 1 to 3 judge.

    Args:
        brief: Its `candidates` section, with `policy` and `size` for what that leaves out.
        catalogue: From `tables.models`.
        licenses: From `tables.licenses`.
        closed_models: From `tables.closed_models`.
        token: Sent to the Hub's own host only.
        today: The day the Hub's list is read; this day if left out.

    Returns:
        The columns of `tables.models`, the most popular first, named models and lineage after
        them; `hub_params_b` in billions as the Hub counts, `total_params_b` blank.

    Raises:
        PlaybookError: The Hub cannot be read, or nothing passes.
    """
    if brief.candidates.source == "catalogue":
        dates = f"facts of {catalogue['checked_on'].min()} to {catalogue['checked_on'].max()}"
        return Discovered(catalogue, f"{len(catalogue)} models of data/models.csv, {dates}")
    wanted = filters(brief, catalogue, licenses, closed_models)
    found = hub_list.search(wanted, token=token, today=today)
    lookup = partial(hub_list.lookup, token=token)
    if not found.repos:
        raise PlaybookError(
            f"candidates: nothing in the {found.source} passes ({wanted});"
            " loosen candidates, or set candidates.source to catalogue"
        )
    named = [deployment.model for deployment in brief.deployments]
    named += [exception.model for exception in brief.exceptions]
    return _described(found, named, lookup, catalogue, licenses)


def _described(
    found: Found, named: list[str], lookup: Lookup, catalogue: pd.DataFrame, licenses: pd.DataFrame
) -> Discovered:
    known = _records(catalogue)
    rows: dict[str, Row] = {}
    describe = partial(_row, found=found, maps=_maps(catalogue, licenses))

    def add(names: list[str], repos: list[Repo], listed_for: str = "") -> None:
        """Rows for names, from the catalogue or else as the Hub describes them."""
        told = {one.repo_id.lower(): one for one in repos}
        for key in dict.fromkeys(name.lower() for name in names):
            if key not in rows and (row := known.get(key) or (key in told and describe(told[key]))):
                rows[key] = row | ({"listed_for": listed_for} if listed_for else {})

    def unknown(names: list[str]) -> list[str]:
        return [name for name in dict.fromkeys(names) if name.lower() not in rows | known]

    add([one.repo_id for one in found.repos], found.repos)
    listed = len(rows)
    missing = unknown(named)
    add(named, lookup(missing) if missing else [])
    candidates_ = len(rows)
    asked: set[str] = set()
    for _ in range(GENERATIONS):
        bases = [base for row in rows.values() for base in _bases(row)]
        if not (wanted := [base for base in bases if base.lower() not in rows.keys() | asked]):
            break
        asked |= {base.lower() for base in wanted}
        missing = unknown(wanted)
        add(wanted, lookup(missing) if missing else [], "lineage")
    for row in rows.values():  # lineage goes by exact names
        spelt = [rows[b.lower()]["repo_id"] if b.lower() in rows else b for b in _bases(row)]
        row["base_model"] = ";".join(spelt) or None
    table = pd.DataFrame(list(rows.values()), columns=catalogue.columns).astype(catalogue.dtypes)
    note = (
        f"{listed:,} candidates from the {found.source} of {found.as_of};"
        f" {found.copies:,} quantised copies, adapters and GGUF-only repositories left out;"
        f" {candidates_ - listed} more named in the brief, {len(rows) - candidates_} base models"
    )
    lost = [name for name in named if name.lower() not in rows]
    note += f"; not found: {', '.join(dict.fromkeys(lost))}" if lost else ""
    return Discovered(table, f"{note}; {found.remark}" if found.remark else note)


def _row(one: Repo, *, found: Found, maps: Maps) -> Row:
    """A repository that the catalogue lacks; what neither it nor the Hub says is blank."""
    owner, name = one.repo_id.split("/", 1)
    developer, country = maps.owners.get(owner.lower(), (owner, None))
    license_, hub_license = _license(one, maps)
    return {
        "repo_id": one.repo_id,
        "family": next((f for f in maps.families if _of_family(name, f)), owner),
        "developer": developer,
        "country": country,
        "license": license_,
        "hub_license": hub_license,
        "hub_params_b": one.params_b,
        "modality": MODALITY.get(one.task or ""),
        "base_model": ";".join(one.bases) or None,
        "listed_for": "choice",
        "source_url": f"https://huggingface.co/{one.repo_id}",
        "source": f"{found.source}, {found.as_of}",
        "checked_on": found.as_of,
    }


def _of_family(name: str, family: str) -> bool:
    """Qwen3-8B is a Qwen; Yijing-7B is not a Yi."""
    start, rest = name[: len(family)], name[len(family) :]
    return start.lower() == family.lower() and not rest[:1].islower()


def _license(one: Repo, maps: Maps) -> tuple[str | None, str | None]:
    """The key of the licence table, and what the Hub says; no key where that could be several."""
    if len(one.licenses) != 1:
        return None, ", ".join(one.licenses) or None
    tag = one.licenses[0].lower()
    if tag == "other":
        keys, text = maps.names.get((one.license_name or "").lower(), []), one.license_name or tag
    else:  # a standard licence that the table lacks goes by its tag
        keys, text = maps.tags.get(tag, [tag] if re.fullmatch(r"[\w.+-]+", tag) else []), tag
    return keys[0] if len(keys) == 1 else None, text


def _maps(catalogue: pd.DataFrame, licenses: pd.DataFrame) -> Maps:
    owners = catalogue["repo_id"].str.split("/").str[0].str.lower()
    pairs = {
        owner: {(row["developer"], row["country"]) for row in _records(group).values()}
        for owner, group in catalogue.groupby(owners)
    }
    tags, names = dict[str, list[str]](), dict[str, list[str]]()
    columns = licenses[["license", "hub_license", "hub_license_name"]].fillna("")
    for key, tagged, named in columns.itertuples(index=False):
        for tag in tagged.split(";"):
            tags.setdefault(tag, []).append(key)
        for name in named.lower().split(";") if "other" in tagged.split(";") else []:
            names.setdefault(name, []).append(key)
    return Maps(
        owners={owner: own.pop() for owner, own in pairs.items() if len(own) == 1},
        families=sorted(catalogue["family"].unique(), key=len, reverse=True),
        tags=tags,
        names={name: keys for name, keys in names.items() if name not in ("", "other")},
    )


def _records(models: pd.DataFrame) -> dict[str, Row]:
    plain = models.astype(object)
    rows: list[dict[Any, Any]] = plain.where(plain.notna(), None).to_dict("records")
    return {row["repo_id"].lower(): row for row in rows}


def _bases(row: Row) -> list[str]:
    return [base.strip() for base in (row["base_model"] or "").split(";") if base.strip()]
