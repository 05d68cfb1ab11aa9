"""What a brief wants from the whole Hub, and one repository as either source describes it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import pandas as pd

from lib.brief.project import Project
from lib.errors import PlaybookError
from lib.hub.model_info import as_text, valid_id
from lib.legal import licenses as texts
from lib.sizing.tiers import BOUNDS, wanted_tiers

__all__ = ["COPIES", "Filters", "Found", "Repo", "filters", "repo"]

# A copy is the same model again, in other numbers or as an addition to it.
COPIES = ("quantized", "adapter")
# These answer text as well; the Hub lists most of today's general models under the second.
CHAT = ["text-generation", "image-text-to-text"]


class Filters(NamedTuple):
    """What is asked of the Hub; sizes are ranges in billions of parameters, their union counts.

    A licence tagged `other` counts where `names` holds its name or `known` the repository.
    """

    tags: list[str]
    names: list[str]
    known: list[str]
    tasks: list[str]
    sizes: list[tuple[float, float]]
    provider: str | None
    min_downloads: int
    sort: str
    limit: int

    def __str__(self) -> str:
        sizes = " or ".join(f"{low:g}-{high:g}B" for low, high in self.sizes)
        named = [tag.removeprefix("license:") for tag in self.tags] + self.names
        return (
            f"licences {', '.join(named)}; sizes {sizes or 'any'};"
            f" task {' or '.join(self.tasks) or 'any'}; provider {self.provider or 'any'};"
            f" at least {self.min_downloads:,} downloads"
        )


class Repo(NamedTuple):
    """One repository: what the Hub says, wrong types as None."""

    repo_id: str
    task: str | None
    licenses: list[str]
    license_name: str | None
    params_b: float | None
    relation: str | None
    bases: list[str]
    downloads: int
    score: float
    gguf_only: bool

    @property
    def copy(self) -> bool:
        """Whether it is a quantised copy, an adapter, or weights in GGUF alone."""
        return self.relation in COPIES or self.gguf_only


class Found(NamedTuple):
    """The repositories that pass, most popular first, and how many copies were left out."""

    repos: list[Repo]
    copies: int
    source: str
    as_of: str
    remark: str = ""


def filters(
    brief: Project, catalogue: pd.DataFrame, licenses: pd.DataFrame, closed_models: pd.DataFrame
) -> Filters:
    """The brief's `candidates`, with licences and sizes derived where they are left out.

    Raises:
        PlaybookError: A licence nobody knows, or a range of sizes that is empty.
    """
    wanted = brief.candidates
    tags, names, keys = _licenses(wanted.licenses or brief.policy.licenses, licenses)
    told = catalogue[catalogue["license"].isin(keys)]["repo_id"].str.lower()
    return Filters(
        tags=[f"license:{tag}" for tag in tags],
        names=names,
        known=sorted(told) if keys else [],
        tasks=CHAT if wanted.task == CHAT[0] else [wanted.task] if wanted.task else [],
        sizes=_sizes(brief, closed_models),
        provider=wanted.provider,
        min_downloads=wanted.min_downloads,
        sort=wanted.sort,
        limit=wanted.limit,
    )


def _licenses(given: list[str], licenses: pd.DataFrame) -> tuple[list[str], list[str], list[str]]:
    """The Hub's tags, its names for `other`, and the keys of those tagged `other`."""
    rows = licenses[["license", "license_class", "hub_license", "hub_license_name"]]
    every = {tag for cell in rows["hub_license"].dropna() for tag in cell.split(";")}
    known = {*texts.CLASSES, *rows["license"], *every}
    tags: dict[str, None] = {}
    names: dict[str, None] = {}
    keys: list[str] = []
    for name in given:
        hits = rows[(rows["license_class"] == name) | (rows["license"] == name)]
        if hits.empty:
            if name not in every and texts.class_of(name, {}) == texts.CLASSES[-1]:
                close = difflib.get_close_matches(name, sorted(known), n=3)
                hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "add it there"
                raise PlaybookError(
                    f"candidates.licenses: {name!r} is not in data/licenses.csv; {hint}"
                )
            tags[name.lower()] = None
        for key, _, tag, named in hits.astype(object).where(hits.notna(), "").to_numpy():
            tagged = str(tag).split(";")
            tags |= dict.fromkeys(one for one in tagged if one not in ("", "other"))
            if "other" in tagged:
                keys.append(key)
                names |= dict.fromkeys(one.lower() for one in str(named).split(";") if one)
    names.pop("other", None)  # a name that says as little as the tag
    return list(tags), list(names), keys


def _sizes(brief: Project, closed_models: pd.DataFrame) -> list[tuple[float, float]]:
    """The tiers' ranges; a bound that the brief gives makes them one."""
    wanted, tiers = brief.candidates, wanted_tiers(brief.size, closed_models)
    ranges = [] if "between" in tiers else [BOUNDS[tier] for tier in tiers]
    if wanted.min_params_b is None and wanted.max_params_b is None:
        return ranges
    low = wanted.min_params_b or (ranges[0][0] if ranges else 0.0)
    high = wanted.max_params_b or (ranges[-1][1] if ranges else math.inf)
    if low > high:
        raise PlaybookError(
            f"candidates: no size lies from {low:g}B to {high:g}B;"
            " give min_params_b and max_params_b, or another size.tier"
        )
    return [(low, high)]


def repo(raw: dict[str, Any]) -> Repo | None:
    """Read one repository with distrust; None where its name is not a repository's.

    Args:
        raw: `id tags pipeline_tag license_name params gguf_params relation bases downloads score`.
    """
    repo_id, tags = raw.get("id"), [tag for tag in _list(raw.get("tags")) if isinstance(tag, str)]
    if not valid_id(repo_id) or "/" not in str(repo_id):
        return None
    lineage = [tag.split(":") for tag in tags if tag.startswith("base_model:")]
    tagged = [parts[1] for parts in lineage if len(parts) == 3]
    params, gguf = _number(raw.get("params")), _number(raw.get("gguf_params"))
    size = params or gguf
    bases = _ids(raw.get("bases")) or _ids(parts[-1] for parts in lineage)
    return Repo(
        repo_id=str(repo_id),
        task=as_text(raw.get("pipeline_tag")),
        licenses=[text for tag in tags if (text := _tag(tag))],
        license_name=as_text(raw.get("license_name")),
        params_b=size and size / 1e9,
        relation=as_text(raw.get("relation")) or (tagged[0] if tagged else None),
        bases=[base for base in bases if base.lower() != str(repo_id).lower()],
        downloads=int(_number(raw.get("downloads")) or 0),
        score=_number(raw.get("score")) or 0.0,
        gguf_only=params is None and (gguf is not None or "gguf" in tags),
    )


def _tag(tag: str) -> str | None:
    return as_text(tag[8:]) if tag.startswith("license:") else None


def _ids(names: Any) -> list[str]:
    names = names if isinstance(names, Iterable) and not isinstance(names, str | dict) else []
    return list(dict.fromkeys(name for name in names if valid_id(name)))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: object) -> float | None:
    """A positive count; what is not one is not known."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value < 2**63 else None
