"""What counsel's page says: what the licences ask, which facts they met, and who hosts what."""

import re
from collections import Counter
from collections.abc import Iterable
from datetime import date

import pandas as pd

from lib.brief import Deployment, Exemption, Policy, Project
from lib.legal.clauses import ALLOWED, MISSING, REVIEW, VERDICTS, Finding, Terms
from lib.legal.licenses import assess_expression, terms_by_key
from lib.legal.verdicts import ancestors, bases
from lib.tables import Row, rows

SOON = 90  # days before its end from which an exception counts as expiring
OUTCOMES = ["blocked", "review", "condition", "met", "notice"]
# Facts that keep a clause from biting.
UNBITTEN = ("not reached:", "exempt:", "domicile:", "territories:")
Findings = dict[str, list[Finding]]


def for_counsel(
    judged: pd.DataFrame,
    findings: Findings,
    licenses: pd.DataFrame,
    brief: Project,
    *,
    today: date | None = None,
) -> Row:
    """Everything counsel's page says, as plain rows for `pages.counsel_page`.

    `judged` and `findings` are of the same models; exceptions run out against `today`.
    """
    today, texts, direct = today or date.today(), terms_by_key(licenses), bases(judged)
    models = {row["repo_id"]: row for row in rows(judged)}
    # The baseline is compared with, not chosen: nobody signs for it.
    candidates = [deployment for deployment in brief.deployments if not deployment.baseline]
    deployed = dict.fromkeys(deployment.model for deployment in candidates)
    others = [row for repo_id, row in models.items() if repo_id not in deployed]

    def texts_of(*repo_ids: str) -> list[Row]:
        """The texts of some models, then those of their base models."""
        keys = _keys(models, repo_ids)
        inherited = _keys(models, [base for name in repo_ids for base in ancestors(name, direct)])
        own_texts = [text | {"of_base": False} for key, text in texts.items() if key in keys]
        rest = [text | {"of_base": True} for key, text in texts.items() if key in inherited - keys]
        return own_texts + rest

    sections = _sections(others, findings, texts, brief)
    for section in sections:
        section["texts"] = texts_of(*(row["repo_id"] for row in section["models"]))
    return brief.model_dump(include={"name", "task", "policy", "company"}) | {
        "today": today,
        "awaited": _rules(models.values(), findings, "review"),
        "deployed": [
            {
                "repo_id": repo_id,
                "row": models.get(repo_id),
                "bases": [(base, models.get(base)) for base in ancestors(repo_id, direct)],
                "texts": texts_of(repo_id),
                "clauses": _clauses(findings.get(repo_id, [])),
                "hosts": [_host(d, brief.policy) for d in candidates if d.model == repo_id],
            }
            for repo_id in deployed
        ],
        "sections": sections,
        "verdicts": Counter(row["verdict"] for row in others),
        "rules": _rules(others, findings, "blocked").most_common(),
        "exceptions": [_exception(e, models.get(e.model), today) for e in brief.exceptions],
    }


def _keys(models: dict[str, Row], repo_ids: Iterable[str]) -> set[str]:
    """The licence keys of some models, each part of an expression too."""
    keys = {str(models[repo_id]["license"]) for repo_id in repo_ids if repo_id in models}
    return keys.union(*(re.split(r"[\s()]+", key.lower()) for key in keys))


def _rules(models: Iterable[Row], findings: Findings, verdict: str) -> Counter[str]:
    """How many models of a verdict each rule of that strictness touches."""
    count: Counter[str] = Counter()
    for row in models:
        if row["verdict"] == verdict:
            rules = {f.rule for f in findings[row["repo_id"]] if VERDICTS[f.level] == verdict}
            count.update({re.sub("accept licence .*", "licence not accepted", r) for r in rules})
    return count


def _sections(
    models: list[Row], findings: Findings, table: dict[str, Terms], brief: Project
) -> list[Row]:
    """A section per licence text: the clauses all its models share, and what each one adds."""
    open_rows = [row for v in ("review", "conditional") for row in models if row["verdict"] == v]
    sections = []
    for key in dict.fromkeys(row["license"] for row in open_rows):
        group = [row for row in open_rows if row["license"] == key]
        first = findings[group[0]["repo_id"]]
        # What the text itself asks, of models of any modality: the rest is the model's own.
        text = set[Finding]()
        for multimodal in (None, False, True):
            text.update(assess_expression(key, table, brief, multimodal=multimodal))
        shared = text.intersection(*(findings[row["repo_id"]] for row in group))
        sections.append({
            "license": key,
            "verdicts": Counter(row["verdict"] for row in group),
            "shared": _clauses([f for f in first if f in shared]),
            "models": [
                row | {"adds": _clauses([f for f in findings[row["repo_id"]] if f not in shared])}
                for row in group
            ],
        })  # fmt: skip
    return sorted(sections, key=lambda one: (not one["verdicts"]["review"], str(one["license"])))


def _clauses(findings: list[Finding]) -> list[Row]:
    """Findings as clause, fact and outcome, the strictest first."""
    clauses = [
        {
            "clause": f.clause.removesuffix(f": the brief does not {f.rule}"),
            "fact": f"{f.rule.removeprefix('give ')}: not given" if f.fact == MISSING else f.fact,
            "outcome": outcome(f),
            "section": f.cites.partition(": ")[0],
            "reading": f.cites.partition(": ")[2],
        }
        for f in dict.fromkeys(findings)
    ]
    return sorted(clauses, key=lambda row: OUTCOMES.index(row["outcome"]))


def outcome(finding: Finding) -> str:
    """What a finding means for counsel, one of `OUTCOMES`."""
    if finding.level >= REVIEW:
        return VERDICTS[finding.level]
    if finding.fact.startswith(UNBITTEN) or finding.fact.endswith(": no"):
        return "met"
    return "notice" if finding.level == ALLOWED else "condition"


def _host(deployment: Deployment, policy: Policy) -> Row:
    host = deployment.host.model_dump() if deployment.host else {"provider": None}
    local = deployment.endpoint is not None and deployment.endpoint.local
    objection = host_objection(deployment, policy)
    return {"deployment": deployment.name, **host, "local": local, "objection": objection}


def _exception(entry: Exemption, row: Row | None, today: date) -> Row:
    """An exception of the brief: whether it still runs, and what it does."""
    days_left = (entry.expires - today).days
    note = row["exception"] if row else "without effect, not in data/models.csv"
    state = f"expiring: {days_left} days left" if days_left <= SOON else "running"
    idle = note.startswith("without effect")
    effect = note.partition(":")[0] if idle else f"lifts the verdict from {entry.lifts}"
    if days_left <= 0:
        state, effect = "expired", "without effect, it has run out"
    return entry.model_dump() | {"state": state, "effect": effect}


def host_objection(deployment: Deployment, policy: Policy) -> str:
    """Why a deployment's host may not be sent an item; empty where it may."""
    endpoint, host, countries = deployment.endpoint, deployment.host, policy.host_countries
    limited = countries is not None or policy.denied_countries
    if not limited or endpoint is None or endpoint.local or endpoint.recorded:
        return ""
    if host is None:
        return "its host is not in the brief: give deployments.host.provider and country"
    accepted = countries is None or host.country in countries
    if accepted and host.country not in policy.denied_countries:
        return ""
    return f"its host {host.provider} is in {host.country}, which the policy does not allow"
