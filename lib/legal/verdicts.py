"""Licence, lineage, country and exceptions against the brief: a verdict per model, with rules."""

import re
from collections.abc import Collection, Iterator
from datetime import date
from functools import cache
from itertools import permutations

import pandas as pd

from lib.brief import Exemption, Policy, Project
from lib.errors import PlaybookError, did_you_mean

from lib.legal.clauses import (  # isort: skip
    AGREEMENT, BLOCKED, CONDITIONAL, DERIVATIVES, MET, REVIEW, VERDICTS, Finding, Terms, by_answer,
)  # fmt: skip
from lib.legal.licenses import (  # isort: skip
    CLASSES, assess_expression, class_of, rank, terms_by_key, texts_of, worst,
)  # fmt: skip
from lib.tables import parts, rows

# What `judge` adds to a table of models.
JUDGED = ["license_class", "verdict", "conditions", "reasons", "exception"]
USUAL = ["no condition but the usual notices", "its licence sets conditions"]
FIRST_RELEASE = "none"  # a base model cell that is no name: built on nobody else's work
# Texts that no other terms may be added to. BY-SA works may go under GPL 3, by counsel's judgement.
NOT_TOGETHER = {("gpl-2.0", "apache-2.0")}
COUNSEL = {"cc-by-sa", "gpl-3"}
VENDORS = {"gemma", "llama"}  # whose terms are for what is made of their own models alone


def judge(
    models: pd.DataFrame, licenses: pd.DataFrame, brief: Project, *, today: date | None = None
) -> pd.DataFrame:
    """Give every model a verdict and the rules that gave it; no model is dropped.

    Adds `license_class verdict conditions reasons exception`: `conditions` lists every duty,
    `reasons` the findings behind the verdict. The strictest wins; what is not known is `review`.
    A model answers for everything it was made from. Exceptions run out against `today`.
    """
    by_repo, day = findings(models, licenses, brief), today or date.today()
    exceptions = {entry.model: entry for entry in brief.exceptions}
    verdicts = [
        _under_exception(_verdict(by_repo[repo_id]), exceptions.get(repo_id), day)
        for repo_id in models["repo_id"]
    ]
    table = terms_by_key(licenses)
    classes = models["license"].map(lambda key: class_of(key, table), na_action="ignore")
    columns = pd.DataFrame(verdicts, models.index, JUDGED[1:])
    return models.drop(columns=JUDGED, errors="ignore").assign(license_class=classes, **columns)


def findings(
    models: pd.DataFrame, licenses: pd.DataFrame, brief: Project
) -> dict[str, list[Finding]]:
    """Every finding about every model, the mild ones too, by repository."""
    policy, table = brief.policy, terms_by_key(licenses)
    for name in policy.licenses:
        if name not in (choices := [*CLASSES[:-1], *table]):
            hint = did_you_mean(name, choices, most=3, otherwise="see data/")
            raise PlaybookError(f"policy.licenses: nobody here knows {name!r}; {hint}")

    @cache
    def read(license_: str | None, modality: str | None) -> tuple[list[Finding], list[Terms]]:
        multimodal = None if modality is None else modality == "multimodal"
        about = assess_expression(license_, table, brief, multimodal=multimodal)
        return about, texts_of(license_, table)

    facts = rows(models, ["repo_id", "license", "country", "modality"])
    by_repo, direct = {row["repo_id"]: row for row in facts}, bases(models)
    by_model = {}
    for repo_id, row in by_repo.items():
        terms, own_terms = read(row["license"], row["modality"])
        about, texts = terms + _country(row["country"], policy, "developer"), {repo_id: own_terms}
        for base in (by_repo[name] for name in ancestors(repo_id, direct) if name in by_repo):
            name = base["repo_id"]
            about += _country(base["country"], policy, f"developer of base {name}")
            base_terms, texts[name] = read(base["license"], base["modality"])
            if (base["license"], base["modality"]) == (row["license"], row["modality"]):
                continue
            about += [f._replace(clause=f"base {name}: {f.clause}") for f in base_terms]
            if base["license"] is not None and _disagree(own_terms, texts[name]):
                clause = f"relabelled: tagged {row['license']}, but its base {name} is "
                about.append(Finding(REVIEW, "relabelled", clause + base["license"], "lineage"))
        by_model[repo_id] = [*about, *descent(repo_id, direct, by_repo), *conflicts(texts, brief)]
    return by_model


def _disagree(own_terms: list[Terms], of_base: list[Terms]) -> bool:
    """Whether a tag is milder than its base's, or the terms of one vendor stand over another's."""
    families, others = ({terms["license"][:5] for terms in texts} for texts in (own_terms, of_base))
    vendors = families | others <= VENDORS and not families & others
    return rank(own_terms) < rank(of_base) or vendors


def _country(country: str | None, policy: Policy, party: str) -> list[Finding]:
    if policy.countries is None and not policy.denied_countries:
        return []
    if country is None:
        clause = f"country of the {party} unknown"
        return [Finding(REVIEW, "record the country", clause, "country")]
    if policy.countries is not None and country not in policy.countries:
        clause = f"the {party} is in {country}: not among policy.countries"
    elif country in policy.denied_countries:
        clause = f"the {party} is in {country}: denied by policy.denied_countries"
    else:
        return []
    return [Finding(BLOCKED, f"accept country {country}", clause, country)]


def _verdict(about: list[Finding]) -> tuple[str, str, str]:
    """Verdict, conditions and reasons of a model's findings."""
    level = worst(about)
    duties = dict.fromkeys(f"{f.clause} ({f.fact})" for f in about if f.level <= CONDITIONAL)
    if level <= CONDITIONAL:
        return VERDICTS[level], "; ".join(duties), USUAL[level]
    strictest = (f for f in about if f.level == level)
    reasons = (f"{f.clause} ({f.fact})" if f.rule in MET else f.clause for f in strictest)
    return VERDICTS[level], "; ".join(duties), "; ".join(dict.fromkeys(reasons))


def _under_exception(
    answer: tuple[str, str, str], entry: Exemption | None, today: date
) -> tuple[str, str, str, str]:
    """A verdict under an exception: it lifts what it names by one step, until it expires."""
    if entry is None:
        return *answer, ""
    verdict, conditions, reasons = answer
    note = f"exception by {entry.approver} until {entry.expires}: {entry.reason}"
    if today >= entry.expires:
        return *answer, f"expired {note}"
    if verdict != entry.lifts:
        why = "blocked is never lifted" if verdict == "blocked" else f"the verdict is {verdict}"
        return *answer, f"without effect, {why}: {note}"
    milder = "conditional" if verdict == "review" else "allowed"
    return milder, conditions, f"{reasons} (lifted)", note


def what_if(by_model: dict[str, list[Finding]], models: pd.DataFrame) -> pd.DataFrame:
    """How many models each rule touches and keeps out `alone`: `rule touches alone families`."""
    family, pairs = models.set_index("repo_id")["family"], []
    for name, about in by_model.items():
        rules = {finding.rule for finding in about if finding.level >= REVIEW}
        alone = len(rules) == 1
        pairs += [(rule, alone, family[name] if alone else None) for rule in rules]
    by_rule = pd.DataFrame(pairs, columns=["rule", "alone", "family"])
    table = by_rule.groupby("rule").agg(
        touches=("alone", "size"),
        alone=("alone", "sum"),
        families=("family", lambda family: ", ".join(sorted(family.dropna().unique()))),
    )
    # Where both are equal the rules stay in alphabetical order.
    return table.sort_values(["alone", "touches"], ascending=False).reset_index()


def by_family(judged: pd.DataFrame) -> pd.DataFrame:
    """Count models by family and verdict, the largest families first."""
    counts = pd.crosstab(judged["family"], judged["verdict"])
    counts = counts.reindex(columns=VERDICTS, fill_value=0)
    counts["models"] = counts.sum(axis=1)
    return counts.sort_values("models", ascending=False, kind="stable").rename_axis(columns=None)


def base_names(cell: str | None) -> list[str]:
    """The names in a base model cell, which `;` separates."""
    return [name for name in parts(cell) if name.lower() != FIRST_RELEASE]


def same_names(models: pd.DataFrame) -> dict[str, str]:
    """The repository by every name that is its own: in any case, and as it was once called."""
    ids = rows(models, ["repo_id", "former_names"])
    former = {name.lower(): row["repo_id"] for row in ids for name in parts(row["former_names"])}
    return former | {row["repo_id"].lower(): row["repo_id"] for row in ids}


def bases(models: pd.DataFrame) -> dict[str, list[str]]:
    """The direct base models of each repository, if anybody says; a first release has none."""
    names = same_names(models)
    return {
        row["repo_id"]: [names.get(name.lower(), name) for name in base_names(row["base_model"])]
        for row in rows(models, ["repo_id", "base_model"])
        if parts(row["base_model"])
    }


def ancestors(repo_id: str, direct: dict[str, list[str]]) -> list[str]:
    """Everything a model builds on, nearest first; a cycle ends where it closes."""
    lineage, queue = list[str](), list(direct.get(repo_id, []))
    for base in queue:  # which grows meanwhile
        if base != repo_id and base not in lineage:
            lineage.append(base)
            queue += direct.get(base, [])
    return lineage


def descent(
    repo_id: str, direct: dict[str, list[str]], by_repo: Collection[str]
) -> Iterator[Finding]:
    """Where the descent of a model is not known: no base named, none that exists, or a ring."""
    for name in [repo_id, *ancestors(repo_id, direct)]:
        party, made_of = "" if name == repo_id else f"base {name}: ", direct.get(name)
        if name not in by_repo:
            why = f"base {name} is not in data/models.csv, so its licence is not known"
            if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
                why = f"base {name} is no repository, so its licence is not known"
        elif made_of is None:
            why = f"{party}it names no base model, and nobody calls it a first release"
        elif any(name in (base, *ancestors(base, direct)) for base in made_of):
            why = f"{party}by its base models it was made from itself"
        else:
            continue
        yield Finding(REVIEW, "record the base model", why, "lineage")


def conflicts(texts: dict[str, list[Terms]], brief: Project) -> Iterator[Finding]:
    """Texts of a model and its bases, the model's first, that exclude each other if handed on."""
    company = brief.company
    if brief.policy.use == "redistribution":
        company = company.model_copy(update={"publishes_derivatives": True})
    (repo_id, _), *of_bases = texts.items()
    # A text that lets nobody share what was made of its model, though somebody did.
    for base, terms in ((base, terms) for base, several in of_bases for terms in several):
        rule = DERIVATIVES.get(terms.get("derivatives") or "")
        if rule and repo_id.split("/")[0].lower() != base.split("/")[0].lower():
            no_right = company.publishes_derivatives and terms["derivatives"] == "not-shared"
            clause = f"base {base}: {rule.format(**terms)}, and this one was"
            yield Finding(BLOCKED if no_right else REVIEW, AGREEMENT, clause, "lineage")
    # A text that allows no terms beside its own, and another that sets terms.
    by_key = {terms["license"]: terms for several in texts.values() for terms in several}
    for one, other in permutations(by_key.values(), 2):
        family, others = (terms.get("derivatives") or "" for terms in (one, other))
        if not family or family in DERIVATIVES or family == others:
            continue
        free = other["license_class"] in ("permissive", "unknown")
        free |= other["license"] == "mpl-2.0" and family.startswith("gpl")  # MPL 2.0, section 3.3
        if free and (one["license"], other["license"]) not in NOT_TOGETHER:
            continue
        clause = f"{one['license']} allows no further terms, which {other['license']} sets"
        level = REVIEW if {family, others} == COUNSEL else BLOCKED
        cites = one.get("sections", {}).get("together", "")
        yield by_answer(company, "publishes_derivatives", clause, level)._replace(cites=cites)
