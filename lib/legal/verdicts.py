"""Licence, lineage, country and exceptions against the brief: a verdict per model, with rules."""

from __future__ import annotations

import difflib
from datetime import date
from typing import Any

import pandas as pd

from lib import places
from lib.brief.project import Exemption, Policy, Project
from lib.errors import PlaybookError
from lib.legal import licenses as texts
from lib.legal.clauses import (
    AGREEMENT,
    BLOCKED,
    CONDITIONAL,
    NON_COMMERCIAL,
    OUTPUTS,
    REVIEW,
    TERRITORY,
    UNREAD,
    VERDICTS,
    Finding,
    Terms,
)
from lib.legal.licenses import CLASSES
from lib.legal.lineage import ancestors, bases, with_hub_bases

__all__ = [
    "VERDICTS",
    "by_family",
    "findings",
    "judge",
    "rejudge",
    "what_if",
]

MET = (NON_COMMERCIAL, AGREEMENT, TERRITORY, OUTPUTS)
Row = dict[Any, Any]


def judge(
    models: pd.DataFrame, licenses: pd.DataFrame, brief: Project, *, today: date | None = None
) -> pd.DataFrame:
    """Give every model a verdict and the rules that gave it; no model is dropped.

    The strictest finding wins. What is not known is `review`, never `allowed`. A model
    answers for the licences and the countries of everything it was made from.

    Args:
        models: The catalogue, from `tables.models`.
        licenses: Licence texts, from `tables.licenses`.
        brief: Policy, company facts and exceptions.
        today: The day exceptions are held against; this day if left out.

    Returns:
        The models with `license_class verdict conditions reasons exception` added:
        `conditions` lists every duty, `reasons` the findings behind the verdict.

    Raises:
        PlaybookError: The policy names a licence, class or country nobody has heard of.
    """
    found = findings(models, licenses, brief)
    exempt = {entry.model: entry for entry in brief.exceptions}
    day = today or date.today()
    verdicts: dict[tuple[Finding, ...], list[str]] = {}
    rows = []
    for repo_id in models["repo_id"]:
        key = tuple(found[repo_id])
        if key not in verdicts:
            verdicts[key] = _verdict(found[repo_id])
        own = verdicts[key]
        rows.append(_exempted(own, exempt[repo_id], day) if repo_id in exempt else [*own, ""])
    columns = ["verdict", "conditions", "reasons", "exception"]
    classes = licenses.set_index("license")["license_class"]
    bare = models.drop(columns=[*columns, "license_class"], errors="ignore")
    judged = pd.DataFrame(rows, columns=columns, index=models.index)
    return bare.assign(license_class=bare["license"].map(classes)).join(judged)


def findings(
    models: pd.DataFrame, licenses: pd.DataFrame, brief: Project
) -> dict[str, list[Finding]]:
    """Every finding about every model, the mild ones too, by repository."""
    policy = brief.policy
    known = sorted({*models["country"].dropna(), *places.names()})
    _check_names("policy.licenses", policy.licenses, [*CLASSES[:-1], *licenses["license"]])
    _check_names("policy.countries", policy.countries or [], known)
    table = texts.table_of(licenses)
    plain = models[["repo_id", "license", "country", "modality"]].astype(object)
    rows: list[Row] = plain.where(plain.notna(), None).to_dict("records")
    facts = {row["repo_id"]: row for row in rows}
    direct = bases(models)
    licensed: dict[tuple[Any, Any], list[Finding]] = {}

    def of_license(row: Row) -> list[Finding]:
        key = (row["license"], row["modality"])
        if key not in licensed:
            licensed[key] = _license(row, table, brief)
        return licensed[key]

    result = {}
    for repo_id, row in facts.items():
        own = [*of_license(row), *_country(row["country"], policy, "developer")]
        for base in ancestors(repo_id, direct):
            own += _inherited(row, base, facts.get(base), table, of_license, policy)
        result[repo_id] = own
    return result


def _license(row: Row, table: dict[str, Terms], brief: Project) -> list[Finding]:
    if row["license"] is None:
        return [Finding(REVIEW, UNREAD, "no licence is recorded", "licence")]
    modality = row["modality"]
    multimodal = None if modality is None else modality == "multimodal"
    return texts.judge(row["license"], table, brief.company, brief.policy, multimodal=multimodal)


def _inherited(
    row: Row,
    base: str,
    facts: Row | None,
    table: dict[str, Terms],
    of_license: Any,
    policy: Policy,
) -> list[Finding]:
    """What a model takes over from one that it was made from."""
    if facts is None:
        clause = f"base {base} is not in data/models.csv, so its licence is not known"
        return [Finding(REVIEW, "record the base model", clause, "lineage")]
    found = _country(facts["country"], policy, f"developer of base {base}")
    if facts["license"] == row["license"] and facts["modality"] == row["modality"]:
        return found
    found += [f._replace(clause=f"base {base}: {f.clause}") for f in of_license(facts)]
    own, given = (CLASSES.index(texts.class_of(r["license"], table)) for r in (row, facts))
    if facts["license"] is not None and own < given:
        clause = f"relabelled: tagged {row['license']}, but its base {base} is {facts['license']}"
        found.append(Finding(REVIEW, "relabelled", clause, "lineage"))
    return found


def _country(country: str | None, policy: Policy, party: str) -> list[Finding]:
    if country is None:
        if policy.countries is None and not policy.denied_countries:
            return []
        clause = f"country of the {party} unknown"
        return [Finding(REVIEW, "record the country", clause, "country")]
    allowed = policy.countries is None or country in policy.countries
    if allowed and country not in policy.denied_countries:
        return []
    list_ = "policy.denied_countries" if allowed else "policy.countries"
    clause = f"the {party} is in {country}: {'denied by' if allowed else 'not among'} {list_}"
    return [Finding(BLOCKED, f"accept country {country}", clause, country)]


def _verdict(found: list[Finding]) -> list[str]:
    """Verdict, conditions and reasons of a model's findings."""
    level = texts.worst(found)
    duties = [f"{f.clause} ({f.fact})" for f in found if f.level <= CONDITIONAL]
    if level <= CONDITIONAL:
        told = ["no condition but the usual notices", "its licence sets conditions"][level]
        return [VERDICTS[level], "; ".join(dict.fromkeys(duties)), told]
    reasons = "; ".join(dict.fromkeys(_reason(f) for f in found if f.level == level))
    return [VERDICTS[level], "; ".join(dict.fromkeys(duties)), reasons]


def _reason(finding: Finding) -> str:
    """The clause, and the company's fact that it met."""
    return f"{finding.clause} ({finding.fact})" if finding.rule in MET else finding.clause


def _exempted(own: list[str], entry: Exemption, today: date) -> list[str]:
    """A verdict under an exception: it lifts what it names by one step, until it expires."""
    verdict, conditions, reasons = own
    signed = f"exception by {entry.approver} until {entry.expires}: {entry.reason}"
    if today >= entry.expires:
        return [*own, f"expired {signed}"]
    if verdict == "blocked":
        return [*own, f"without effect, blocked is never lifted: {signed}"]
    if verdict != entry.lifts:
        return [*own, f"without effect, the verdict is {verdict}: {signed}"]
    lifted = "conditional" if verdict == "review" else "allowed"
    return [lifted, conditions, f"{reasons} (lifted)", signed]


def rejudge(
    judged: pd.DataFrame,
    pulled: pd.DataFrame,
    licenses: pd.DataFrame,
    brief: Project,
    *,
    relicensed: dict[str, str | None] | None = None,
    today: date | None = None,
) -> pd.DataFrame:
    """Judge again the models that the Hub traces to other models or puts under other licences.

    A verdict can only become stricter: what was permitted for this run stays the measure.

    Args:
        judged: From `judge`.
        pulled: Metadata of the Hub: `repo_id base_models`.
        licenses: Licence texts, from `tables.licenses`.
        brief: Policy, company facts and exceptions.
        relicensed: Licences that replace the catalogue's, from `drift.relicensed`.
        today: The day exceptions are held against; this day if left out.

    Returns:
        `judged` with the base models of both, and the licence and verdict that were judged.
    """
    texts_now = relicensed or {}
    extended = with_hub_bases(judged, pulled)
    pairs = zip(judged["repo_id"], judged["license"].astype(object), strict=True)
    given = [texts_now.get(repo_id, text) for repo_id, text in pairs]
    extended["license"] = pd.Series(given, index=judged.index, dtype="str")
    again = judge(extended, licenses, brief, today=today)
    level = {verdict: place for place, verdict in enumerate(VERDICTS)}
    before, after = bases(judged), bases(extended)
    touched = []
    for name in judged["repo_id"]:
        made_of = ancestors(name, after)
        changed = not texts_now.keys().isdisjoint([name, *made_of])
        touched.append(changed or made_of != ancestors(name, before))
    stricter = again["verdict"].map(level) >= judged["verdict"].map(level)
    stricter &= pd.Series(touched, index=judged.index)
    result = judged.assign(base_model=extended["base_model"])
    columns = ["license", "license_class", "verdict", "conditions", "reasons", "exception"]
    result.loc[stricter, columns] = again.loc[stricter, columns]
    return result


def what_if(found: dict[str, list[Finding]], models: pd.DataFrame) -> pd.DataFrame:
    """How many models each rule touches, and how many it alone keeps out.

    Returns:
        One row per rule: `rule touches alone families`; `alone` models would be admitted if
        this one rule were relaxed, the greatest first.
    """
    family = models.set_index("repo_id")["family"].to_dict()
    touched: dict[str, list[str]] = {}
    alone: dict[str, list[str]] = {}
    for repo_id, own in found.items():
        rules = {f.rule for f in own if f.level >= REVIEW}
        for rule in rules:
            touched.setdefault(rule, []).append(repo_id)
        if len(rules) == 1:
            alone.setdefault(rules.pop(), []).append(repo_id)
    rows = []
    for rule, repo_ids in touched.items():
        single = alone.get(rule, [])
        names = sorted({family[repo_id] for repo_id in single})
        rows.append((rule, len(repo_ids), len(single), ", ".join(names)))
    table = pd.DataFrame(rows, columns=["rule", "touches", "alone", "families"])
    order = ["alone", "touches", "rule"]
    return table.sort_values(order, ascending=[False, False, True], ignore_index=True)


def by_family(judged: pd.DataFrame) -> pd.DataFrame:
    """Count models by family and verdict, the largest families first."""
    counts = pd.crosstab(judged["family"], judged["verdict"])
    counts = counts.reindex(columns=VERDICTS, fill_value=0)
    counts["models"] = counts.sum(axis=1)
    return counts.sort_values(["models"], ascending=False, kind="stable").rename_axis(columns=None)


def _check_names(key: str, given: list[str], known: list[str]) -> None:
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "see data/"
            raise PlaybookError(f"{key}: nobody here knows {name!r}; {hint}")
