"""Candidates from the whole Hub instead of the catalogue, as rows of the catalogue."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
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
        brief: Its `candidates` section, with `policy` and `size` for what that leaves out.
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
    if brief.candidates.source == "catalogue":
        dates = f"facts of {catalogue['checked_on'].min()} to {catalogue['checked_on'].max()}"
        return Discovered(catalogue, f"{len(catalogue)} models of data/models.csv, {dates}")
    texts, hub = _texts(licenses), Client(TIMEOUT_S)
    # One list per licence, task and range of sizes, put together; the most popular first.
    wanted = _wanted(brief, catalogue, texts, closed_models)
    lists = list(hub.each(partial(read_list, hub, wanted), queries(wanted)))
    repos = {repo["repo_id"].lower(): repo for passing, _ in lists for repo in passing}
    order = sorted(repos.values(), key=lambda r: (-r["score"], -r["downloads"], r["repo_id"]))
    originals = [repo["repo_id"] for repo in order if not repo["copy"]][: brief.candidates.limit]
    if not originals:
        raise PlaybookError(
            f"candidates: nothing in the Hub API passes ({wanted});"
            " loosen candidates, or set candidates.source to catalogue"
        )
    # Rows of what passes, of what the brief names besides, and of what any was made from.
    as_of = (today or date.today()).isoformat()
    names = [deployment.model for deployment in brief.deployments]
    names += [exception.model for exception in brief.exceptions]
    rows_of = Describer(catalogue, texts, hub, as_of, repos).rows
    listed = rows_of(originals, {})
    named, bases = rows_of(names, listed), dict[str, Row]()
    for _ in range(GENERATIONS):
        there = listed | named | bases
        made_from = [base for row in there.values() for base in _bases(row)]
        added = rows_of(made_from, there).items()
        bases |= {key: row | {"listed_for": "lineage"} for key, row in added}
    table = listed | named | bases
    for row in table.values():  # lineage goes by exact names
        spelt = [table.get(base.lower(), {"repo_id": base})["repo_id"] for base in _bases(row)]
        row["base_model"] = ";".join(spelt) or None
    # What was found and left out, in words.
    note = (
        f"{len(listed):,} candidates from the Hub API of {as_of};"
        f" {sum(repo['copy'] for repo in order):,} quantised copies, adapters and GGUF-only"
        f" repositories left out; {len(named)} more named in the brief, {len(bases)} base models"
    )
    if lost := [name for name in dict.fromkeys(names) if name.lower() not in table]:
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


class Describer:
    """Rows of repositories: the catalogue's, or else as the Hub describes them."""

    def __init__(
        self,
        catalogue: pd.DataFrame,
        texts: pd.DataFrame,
        hub: Client,
        as_of: str,
        repos: dict[str, Repo | None],
    ) -> None:
        self._texts, self._hub, self._as_of, self._repos = texts, hub, as_of, repos
        self._known = {row["repo_id"].lower(): row for row in rows(catalogue)}
        self._families = sorted(catalogue["family"].unique(), key=len, reverse=True)
        people = catalogue.assign(owner=catalogue["repo_id"].str.lower().str.partition("/")[0])
        people = people.drop_duplicates(["owner", "developer", "country"])
        people = people.drop_duplicates("owner", keep=False)
        self._people = {row["owner"]: row for row in rows(people)}

    def rows(self, names: Iterable[str], there: dict[str, Row]) -> dict[str, Row]:
        """Rows by lower-case name, without what is there already or nowhere to see."""
        new = {name.lower(): name for name in names if name.lower() not in there}
        asked = [name for key, name in new.items() if key not in self._known | self._repos]
        answers = self._hub.each(partial(look_up, self._hub), asked)
        self._repos |= {name.lower(): repo for name, repo in zip(asked, answers, strict=True)}
        described = {key: self._row(repo) for key in new if (repo := self._repos.get(key))}
        return {key: row for key in new if (row := self._known.get(key) or described.get(key))}

    def _row(self, repo: Repo) -> Row:
        """A repository that the catalogue lacks; what neither it nor the Hub says is blank."""
        repo_id, bases = repo["repo_id"], str(repo["base_models"] or "").split(";")
        owner, name = repo_id.split("/", 1)
        person = self._people.get(owner.lower(), {"developer": owner, "country": None})
        families = (family for family in self._families if _of_family(name, family))
        return {
            "repo_id": repo_id,
            "family": next(families, owner),
            "developer": person["developer"],
            "country": person["country"],
            "license": self._license(repo),
            "hub_license": repo["license_on_hub"],
            "hub_params_b": repo["params_b"] or repo["gguf_params_b"],
            "modality": MODALITY.get(repo["task"] or ""),
            "base_model": ";".join(b for b in bases if b.lower() != repo_id.lower()) or None,
            "listed_for": "choice",
            "source_url": f"https://huggingface.co/{repo_id}",
            "source": f"Hub API, {self._as_of}",
            "checked_on": self._as_of,
        }

    def _license(self, repo: Repo) -> str | None:
        """The key of the licence table; none where that could be several."""
        tag, name = (repo["license_on_hub"] or "").lower(), (repo["license_name"] or "").lower()
        texts = self._texts[self._texts["name" if name else "tag"] == (name or tag)]
        keys = list(texts["license"].unique())
        if not keys and not name and re.fullmatch(r"[\w.+-]+", tag):
            return tag  # a standard licence that the table lacks
        return keys[0] if len(keys) == 1 else None


def _of_family(name: str, family: str) -> bool:
    """Qwen3-8B is a Qwen; Yijing-7B is not a Yi."""
    start, rest = name[: len(family)], name[len(family) :]
    return start.lower() == family.lower() and not rest[:1].islower()
