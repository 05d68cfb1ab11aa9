"""Licence, lineage, country and exceptions against the brief: a verdict per model, with rules."""

from datetime import date
from functools import cache, partial
from typing import Any

import pandas as pd

from lib.brief import Exemption, Policy, Project
from lib.errors import PlaybookError, did_you_mean
from lib.legal.clauses import BLOCKED, CONDITIONAL, MET, REVIEW, VERDICTS, Finding
from lib.legal.licenses import CLASSES, assess_expression, class_of, terms_by_key, texts_of, worst
from lib.legal.lineage import ancestors, bases, excluded, untraced
from lib.tables import rows

# What `judge` adds to a table of models.
JUDGED = ["license_class", "verdict", "conditions", "reasons", "exception"]
USUAL = ["no condition but the usual notices", "its licence sets conditions"]

Row = dict[Any, Any]


def judge(
    models: pd.DataFrame, licenses: pd.DataFrame, brief: Project, *, today: date | None = None
) -> pd.DataFrame:
    """Give every model a verdict and the rules that gave it; no model is dropped.

    Adds `license_class verdict conditions reasons exception`: `conditions` lists every duty,
    `reasons` the findings behind the verdict. The strictest wins; what is not known is `review`.
    A model answers for everything it was made from. Exceptions run out against `today`.

    Raises:
        PlaybookError: The policy names a licence or class nobody has heard of.
    """
    by_repo, day = findings(models, licenses, brief), today or date.today()
    exceptions = {entry.model: entry for entry in brief.exceptions}
    verdicts = [
        _excepted(_verdict(by_repo[repo_id]), exceptions.get(repo_id), day)
        for repo_id in models["repo_id"]
    ]
    table = terms_by_key(licenses)
    classes = models["license"].map(lambda key: class_of(key, table), na_action="ignore")
    added = pd.DataFrame(verdicts, models.index, JUDGED[1:])
    return models.drop(columns=JUDGED, errors="ignore").assign(license_class=classes, **added)


def findings(
    models: pd.DataFrame, licenses: pd.DataFrame, brief: Project
) -> dict[str, list[Finding]]:
    """Every finding about every model, the mild ones too, by repository."""
    policy, table = brief.policy, terms_by_key(licenses)
    _check_names("policy.licenses", policy.licenses, [*CLASSES[:-1], *table])

    @cache
    def of_license(license_: str | None, modality: str | None) -> tuple[list[Finding], int]:
        multimodal = None if modality is None else modality == "multimodal"
        about = assess_expression(license_, table, brief, multimodal=multimodal)
        return about, CLASSES.index(class_of(license_, table))

    texts_by_license = cache(partial(texts_of, table=table))
    facts = rows(models, ["repo_id", "license", "country", "modality"])
    by_repo, direct = {row["repo_id"]: row for row in facts}, bases(models)
    by_model = {}
    for repo_id, row in by_repo.items():
        terms, rank = of_license(row["license"], row["modality"])
        about = terms + _country(row["country"], policy, "developer")
        line = [by_repo[base] for base in ancestors(repo_id, direct) if base in by_repo]
        for base in line:
            name = base["repo_id"]
            about += _country(base["country"], policy, f"developer of base {name}")
            if (base["license"], base["modality"]) == (row["license"], row["modality"]):
                continue
            base_terms, base_rank = of_license(base["license"], base["modality"])
            about += [f._replace(clause=f"base {name}: {f.clause}") for f in base_terms]
            if base["license"] is not None and rank < base_rank:
                clause = f"relabelled: tagged {row['license']}, but its base {name} is "
                about.append(Finding(REVIEW, "relabelled", clause + base["license"], "lineage"))
        texts = {one["repo_id"]: texts_by_license(one["license"]) for one in (row, *line)}
        by_model[repo_id] = [*about, *untraced(repo_id, direct, by_repo), *excluded(texts, brief)]
    return by_model


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


def _excepted(
    judged: tuple[str, str, str], entry: Exemption | None, today: date
) -> tuple[str, str, str, str]:
    """A verdict under an exception: it lifts what it names by one step, until it expires."""
    if entry is None:
        return *judged, ""
    verdict, conditions, reasons = judged
    signed = f"exception by {entry.approver} until {entry.expires}: {entry.reason}"
    if today >= entry.expires:
        return *judged, f"expired {signed}"
    if verdict != entry.lifts:
        why = "blocked is never lifted" if verdict == "blocked" else f"the verdict is {verdict}"
        return *judged, f"without effect, {why}: {signed}"
    lifted = "conditional" if verdict == "review" else "allowed"
    return lifted, conditions, f"{reasons} (lifted)", signed


def what_if(by_model: dict[str, list[Finding]], models: pd.DataFrame) -> pd.DataFrame:
    """How many models each rule touches, the greatest first: `rule touches alone families`.

    So many models (`alone`) of these families this rule alone keeps out.
    """
    family, pairs = models.set_index("repo_id")["family"], []
    for name, about in by_model.items():
        rules = {finding.rule for finding in about if finding.level >= REVIEW}
        alone = len(rules) == 1
        pairs += [(rule, alone, family[name] if alone else None) for rule in rules]
    touched = pd.DataFrame(pairs, columns=["rule", "alone", "family"])
    table = touched.groupby("rule").agg(
        touches=("alone", "size"),
        alone=("alone", "sum"),
        families=("family", lambda family: ", ".join(sorted(family.dropna().unique()))),
    )
    # Where both are equal the rules stay in alphabetical order.
    return table.sort_values(["alone", "touches"], ascending=False).reset_index()


def by_family(judged: pd.DataFrame) -> pd.DataFrame:
    """Count models by family and verdict, the largest families first."""
    counts = pd.crosstab(judged["family"], judged["verdict"]).reindex(
        columns=VERDICTS, fill_value=0
    )
    counts["models"] = counts.sum(axis=1)
    return counts.sort_values("models", ascending=False, kind="stable").rename_axis(columns=None)


def _check_names(key: str, names: list[str], choices: list[str]) -> None:
    for name in names:
        if name not in choices:
            hint = did_you_mean(name, choices, most=3, otherwise="see data/")
            raise PlaybookError(f"{key}: nobody here knows {name!r}; {hint}")
