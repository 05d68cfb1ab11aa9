"""Candidates from the whole Hub instead of the catalogue, as rows of the catalogue."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import date
from functools import partial
from typing import Any, NamedTuple

import pandas as pd

from lib.brief.project import Project
from lib.errors import PlaybookError, did_you_mean
from lib.frames import rows
from lib.hub.client import Client
from lib.hub.listing import Repo, Wanted, look_up, queries, read_list
from lib.legal.licenses import CLASSES, class_of
from lib.sizing.tiers import BOUNDS, wanted_tiers

__all__ = ["Discovered", "candidates"]

TIMEOUT_S = 30.0
# These answer text as well; the Hub lists most of today's general models under the second.
CHAT = ["text-generation", "image-text-to-text"]
# Nobody's lineage is longer; a chain that is stays unresolved, which step 1 calls review.
GENERATIONS = 5
MODALITY = {"text-generation": "text"} | dict.fromkeys(
    ("image-text-to-text", "any-to-any", "audio-text-to-text", "video-text-to-text"), "multimodal"
)
Row = dict[Any, Any]


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
    today: date | None = None,
) -> Discovered:
    """Search the whole Hub for what the brief wants, and describe it as the catalogue would.

    A brief whose `candidates.source` is `catalogue` gets the catalogue itself. Otherwise the
    models that `deployments` and `exceptions` name are there whether they pass or not, and so
    is, as `lineage`, what any of them was made from: step 1 needs its licence. A model that
    the catalogue knows keeps its row. Quantised copies, adapters and repositories with GGUF
    weights alone are left out and counted. Nothing here is a verdict: steps 1 to 3 judge.

    Args:
        brief: Its `candidates`, with `policy` and `size` for what that leaves out.
        catalogue: From `tables.models`.
        licenses: From `tables.licenses`.
        closed_models: From `tables.closed_models`.
        today: The day the Hub's list is read; this day if left out.

    Returns:
        The columns of `tables.models`, the most popular first, named models and lineage after
        them; `hub_params_b` in billions as the Hub counts, `total_params_b` blank.

    Raises:
        PlaybookError: The Hub cannot be read, or nothing passes.
    """
    if brief.candidates.source == "hub":
        texts = _texts(licenses)
        wanted = _wanted(brief, catalogue, texts, closed_models)
        return _on_hub(brief, wanted, catalogue, texts, (today or date.today()).isoformat())
    dates = f"facts of {catalogue['checked_on'].min()} to {catalogue['checked_on'].max()}"
    return Discovered(catalogue, f"{len(catalogue)} models of data/models.csv, {dates}")


def _on_hub(
    brief: Project, wanted: Wanted, catalogue: pd.DataFrame, texts: pd.DataFrame, as_of: str
) -> Discovered:
    # One list per licence, task and range of sizes, put together; the most popular first.
    hub = Client(TIMEOUT_S)
    lists = list(hub.each(partial(read_list, hub, wanted), queries(wanted)))
    repos = {repo["repo_id"].lower(): repo for passing, _ in lists for repo in passing}
    order = sorted(repos.values(), key=lambda r: (-r["score"], -r["downloads"], r["repo_id"]))
    originals = [repo["repo_id"] for repo in order if not repo["copy"]][: wanted.rest.limit]
    if not originals:
        raise PlaybookError(
            f"candidates: nothing in the Hub API passes ({wanted});"
            " loosen candidates, or set candidates.source to catalogue"
        )
    # Rows by lower-case name: the catalogue's, or else as the Hub describes a repository.
    describe = _describer(catalogue, texts, as_of)
    known: dict[str, Row | None] = {key: describe(repo) for key, repo in repos.items()}
    known |= {row["repo_id"].lower(): row for row in rows(catalogue)}
    table: dict[str, Row] = {}

    def add(names: list[str], **changes: str) -> int:
        """Add what is not there yet and is to be had; how many that were."""
        new = {name.lower(): name for name in names if name.lower() not in table}
        unknown = {key: name for key, name in new.items() if key not in known}
        answers = hub.each(partial(look_up, hub), unknown.values())
        for key, repo in zip(unknown, answers, strict=True):
            known[key] = describe(repo) if repo else None
        before = len(table)
        table.update({key: row | changes for key in new if (row := known[key])})
        return len(table) - before

    named = [deployment.model for deployment in brief.deployments]
    named += [exception.model for exception in brief.exceptions]
    counts, bases = (add(originals), add(named)), 0
    for _ in range(GENERATIONS):
        made_from = [base for row in table.values() for base in _bases(row)]
        bases += add(made_from, listed_for="lineage")
    for row in table.values():  # lineage goes by exact names
        spelt = [table.get(base.lower(), {"repo_id": base})["repo_id"] for base in _bases(row)]
        row["base_model"] = ";".join(spelt) or None
    # What was found and left out, in words.
    copies = sum(repo["copy"] for repo in order)
    note = (
        f"{counts[0]:,} candidates from the Hub API of {as_of};"
        f" {copies:,} quantised copies, adapters and GGUF-only repositories left out;"
        f" {counts[1]} more named in the brief, {bases} base models"
    )
    if lost := [name for name in dict.fromkeys(named) if name.lower() not in table]:
        note += f"; not found: {', '.join(lost)}"
    if cut := sum(not complete for _, complete in lists):
        note += f"; {cut} of {len(lists)} lists were longer than could be read: raise min_downloads"
    models = pd.DataFrame(list(table.values()), columns=catalogue.columns)
    return Discovered(models.astype(catalogue.dtypes), note)


def _bases(row: Row) -> list[str]:
    return [base.strip() for base in (row["base_model"] or "").split(";") if base.strip()]


def _wanted(
    brief: Project, catalogue: pd.DataFrame, texts: pd.DataFrame, closed_models: pd.DataFrame
) -> Wanted:
    """The brief's `candidates`, with licences and sizes derived where they are left out.

    Raises:
        PlaybookError: A licence nobody knows, or a range of sizes that is empty.
    """
    rest = brief.candidates
    keys = rest.licenses or brief.policy.licenses
    hits = texts[texts["license"].isin(keys) | texts["license_class"].isin(keys)]
    tags = [tag for tag in hits["tag"] if tag not in ("", "other")]
    for key in keys:
        if key in {*texts["license"], *texts["license_class"]}:
            continue
        if key not in set(texts["tag"]) and class_of(key, {}) == CLASSES[-1]:
            choices = sorted({*CLASSES, *texts["license"], *texts["tag"]})
            hint = did_you_mean(key, choices, most=3, otherwise="add it there")
            raise PlaybookError(f"candidates.licenses: {key!r} is not in data/licenses.csv; {hint}")
        tags.append(key.lower())
    others = hits[hits["tag"] == "other"]
    read_as_other = catalogue["license"].isin(others["license"])
    return Wanted(
        licenses=list(dict.fromkeys(tags)),
        names=set(others["name"]) - {""},
        known=set(catalogue.loc[read_as_other, "repo_id"].str.lower()),
        tasks=CHAT if rest.task == CHAT[0] else [rest.task] if rest.task else [],
        sizes=_sizes(brief, closed_models),
        rest=rest,
    )


def _sizes(brief: Project, closed_models: pd.DataFrame) -> list[tuple[float, float]]:
    """The tiers' ranges; a bound that the brief gives makes them one."""
    rest, tiers = brief.candidates, wanted_tiers(brief.size, closed_models)
    ranges = [] if "between" in tiers else [BOUNDS[tier] for tier in tiers]
    if rest.min_params_b is None and rest.max_params_b is None:
        return ranges
    low = rest.min_params_b or (ranges[0][0] if ranges else 0.0)
    high = rest.max_params_b or (ranges[-1][1] if ranges else math.inf)
    if low > high:
        raise PlaybookError(
            f"candidates: no size lies from {low:g}B to {high:g}B;"
            " give min_params_b and max_params_b, or another size.tier"
        )
    return [(low, high)]


def _texts(licenses: pd.DataFrame) -> pd.DataFrame:
    """One row per licence, its tag on the Hub, and its name there where the tag is `other`."""
    table = licenses[["license", "license_class", "hub_license", "hub_license_name"]].fillna("")
    table = table.assign(tag=table["hub_license"].str.lower().str.split(";")).explode("tag")
    names = table["hub_license_name"].where(table["tag"] == "other", "")
    table = table.assign(name=names.str.lower().str.split(";")).explode("name")
    return table.replace({"name": {"other": ""}})  # a name that says as little as the tag


def _describer(catalogue: pd.DataFrame, texts: pd.DataFrame, as_of: str) -> Callable[[Repo], Row]:
    """What makes a row of a repository that the catalogue lacks; blank where nobody says."""
    people = catalogue.assign(owner=catalogue["repo_id"].str.lower().str.partition("/")[0])
    people = people.drop_duplicates(["owner", "developer", "country"])
    by_owner = {row["owner"]: row for row in rows(people.drop_duplicates("owner", keep=False))}
    families = sorted(catalogue["family"].unique(), key=len, reverse=True)

    def row(repo: Repo) -> Row:
        repo_id, bases = repo["repo_id"], (repo["base_models"] or "").split(";")
        owner, name = repo_id.split("/", 1)
        person = by_owner.get(owner.lower(), {"developer": owner, "country": None})
        return {
            "repo_id": repo_id,
            "family": next((family for family in families if _of_family(name, family)), owner),
            "developer": person["developer"],
            "country": person["country"],
            "license": _license(repo, texts),
            "hub_license": repo["license_on_hub"],
            "hub_params_b": repo["params_b"] or repo["gguf_params_b"],
            "modality": MODALITY.get(repo["task"] or ""),
            "base_model": ";".join(b for b in bases if b.lower() != repo_id.lower()) or None,
            "listed_for": "choice",
            "source_url": f"https://huggingface.co/{repo_id}",
            "source": f"Hub API, {as_of}",
            "checked_on": as_of,
        }

    return row


def _license(repo: Repo, texts: pd.DataFrame) -> str | None:
    """The key of the licence table; none where that could be several."""
    tag, name = (repo["license_on_hub"] or "").lower(), (repo["license_name"] or "").lower()
    keys = list(texts.loc[texts["name" if name else "tag"] == (name or tag), "license"].unique())
    if not keys and not name and re.fullmatch(r"[\w.+-]+", tag):
        return tag  # a standard licence that the table lacks
    return keys[0] if len(keys) == 1 else None


def _of_family(name: str, family: str) -> bool:
    """Qwen3-8B is a Qwen; Yijing-7B is not a Yi."""
    start, rest = name[: len(family)], name[len(family) :]
    return start.lower() == family.lower() and not rest[:1].islower()
