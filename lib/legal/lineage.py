"""What a model was made from, whether that is known, and which texts it cannot keep together."""

import re
from collections.abc import Iterator
from itertools import permutations
from typing import Any

import pandas as pd

from lib.brief import Project
from lib.legal.clauses import (
    AGREEMENT,
    BLOCKED,
    CONDITIONAL,
    DERIVATIVES,
    DUTY,
    REVIEW,
    YES_OR_NO,
    Finding,
    Terms,
    missing,
)
from lib.tables import rows

FIRST_RELEASE = "none"  # a base model cell that is no name: built on nobody else's work
REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")
# Texts that no other terms may be added to. BY-SA works may go under GPL 3, by counsel's judgement.
NOT_TOGETHER = {("gpl-2.0", "apache-2.0")}
COUNSEL = {"cc-by-sa", "gpl-3"}


def base_names(cell: str | None) -> list[str]:
    """The names in a base model cell, which `;` separates."""
    names = [name.strip() for name in (cell or "").split(";")]
    return [name for name in names if name and name.lower() != FIRST_RELEASE]


def same_names(models: pd.DataFrame) -> dict[str, str]:
    """The repository by every name that is its own: in any case, and as it was once called."""
    ids = rows(models, ["repo_id", "former_names"])
    former = {
        name.lower(): row["repo_id"] for row in ids for name in base_names(row["former_names"])
    }
    return former | {row["repo_id"].lower(): row["repo_id"] for row in ids}


def bases(models: pd.DataFrame) -> dict[str, list[str]]:
    """The direct base models of each repository; a merge has several, a first release none.

    A repository is missing here where nobody says what it was made from.
    """
    direct, names = {}, same_names(models)
    for row in rows(models.dropna(subset=["base_model"]), ["repo_id", "base_model"]):
        made_of, parts = base_names(row["base_model"]), row["base_model"].lower().split(";")
        if made_of or FIRST_RELEASE in map(str.strip, parts):
            direct[row["repo_id"]] = [names.get(name.lower(), name) for name in made_of]
    return direct


def ancestors(repo_id: str, direct: dict[str, list[str]]) -> list[str]:
    """Everything a model builds on, nearest first; a cycle ends where it closes."""
    lineage, queue = list[str](), list(direct.get(repo_id, []))
    for base in queue:  # which grows meanwhile
        if base != repo_id and base not in lineage:
            lineage.append(base)
            queue += direct.get(base, [])
    return lineage


def untraced(repo_id: str, direct: dict[str, list[str]], known: Any) -> Iterator[Finding]:
    """Where the descent of a model is not known: no base named, none that exists, or a ring."""
    for name in [repo_id, *ancestors(repo_id, direct)]:
        party, made_of = "" if name == repo_id else f"base {name}: ", direct.get(name)
        if name not in known:
            why = f"base {name} is not in data/models.csv, so its licence is not known"
            if not REPOSITORY.fullmatch(name):
                why = f"base {name} is no repository, so its licence is not known"
        elif made_of is None:
            why = f"{party}it names no base model, and nobody calls it a first release"
        elif any(name in (base, *ancestors(base, direct)) for base in made_of):
            why = f"{party}by its base models it was made from itself"
        else:
            continue
        yield Finding(REVIEW, "record the base model", why, "lineage")


def excluded(texts: dict[str, list[Terms]], brief: Project) -> Iterator[Finding]:
    """Texts of a model and its bases, the model's first, that exclude each other if handed on."""
    publishes: bool | None = brief.company.publishes_derivatives
    shares = brief.policy.use == "redistribution" or publishes
    (repo_id, _), *of_bases = texts.items()
    # A text that lets nobody share what was made of its model, though somebody did.
    for base, terms in ((base, terms) for base, several in of_bases for terms in several):
        rule = DERIVATIVES.get(terms.get("derivatives") or "")
        if rule and repo_id.split("/")[0].lower() != base.split("/")[0].lower():
            barred = bool(shares) and terms["derivatives"] == "not-shared"
            clause = f"base {base}: {rule.format(**terms)}, and this one was"
            yield Finding(BLOCKED if barred else REVIEW, AGREEMENT, clause, "lineage")
    # A text that allows no terms beside its own, and another that sets terms.
    held = {terms["license"]: terms for several in texts.values() for terms in several}
    for one, other in permutations(held.values(), 2):
        family, others = (terms.get("derivatives") or "" for terms in (one, other))
        if not family or family in DERIVATIVES or family == others:
            continue
        free = other["license_class"] in ("permissive", "unknown")
        if free and (one["license"], other["license"]) not in NOT_TOGETHER:
            continue
        clause = f"{one['license']} allows no further terms, which {other['license']} sets"
        if shares is None:
            yield missing("publishes_derivatives", clause)
            continue
        level, rule = (BLOCKED, AGREEMENT) if shares else (CONDITIONAL, DUTY)
        level = REVIEW if shares and {family, others} == COUNSEL else level
        yield Finding(level, rule, clause, f"publishes derivatives: {YES_OR_NO[bool(shares)]}")
