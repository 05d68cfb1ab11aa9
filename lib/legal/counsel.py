"""Counsel's page: what the licences ask, which facts they met, and who signs, for one sitting."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from datetime import date
from typing import Any
from urllib.parse import quote

import pandas as pd
from markupsafe import Markup

from lib.brief.project import Exemption, Project
from lib.endpoints import admission
from lib.legal import clauses, lineage
from lib.legal import licenses as texts
from lib.legal.clauses import ALLOWED, MISSING, REVIEW, VERDICTS, Finding
from lib.pages.page import MANY, cut, environment, name, records

__all__ = ["render"]

CLAUSE = 2000  # characters of a clause or reason shown: more than any text in data/licenses.csv
SOON = 90  # days before its end from which an exception counts as expiring
OUTCOMES = ["blocked", "review", "condition", "met", "notice"]
KEPT = ("not reached:", "domicile:", "territories:")  # facts that keep a clause from biting
Row = dict[str, Any]
Terms = dict[str, clauses.Terms]
Findings = dict[str, list[Finding]]


def render(
    judged: pd.DataFrame,
    found: Findings,
    licenses: pd.DataFrame,
    brief: Project,
    *,
    today: date | None = None,
) -> str:
    """Render counsel's page.

    Args:
        judged: Every model with its verdict, from `legal.judge`.
        found: Every finding about every model, from `legal.findings` with the same arguments.
        licenses: Licence texts, from `tables.licenses`.
        brief: The brief the models were judged against.
        today: The date on the page, against which exceptions run out; this day if left out.

    Returns:
        A self-contained page: no scripts, nothing loaded from elsewhere.
    """
    today = today or date.today()
    templates = environment()
    templates.filters["hub"] = _hub
    templates.filters |= {"clause": lambda value: cut(value, CLAUSE), "told": _told}
    rows = {row["repo_id"]: row for row in records(judged)}
    direct = lineage.bases(judged)
    made_of = {repo_id: lineage.ancestors(repo_id, direct) for repo_id in rows}
    deployed = list(dict.fromkeys(deployment.model for deployment in brief.deployments))
    others = [row for repo_id, row in rows.items() if repo_id not in deployed]

    def texts_of(repo_ids: Iterable[str], of_bases: bool = False) -> list[Row]:
        every = [one for r in repo_ids for one in (made_of[r] if of_bases else [r])]
        names = {str(rows[one]["license"]) for one in every if one in rows}
        words = names.union(*(re.split(r"[\s()]+", name.lower()) for name in names))
        return records(licenses[licenses["license"].isin(words)])

    templates.globals |= {"rows": rows, "found": found, "deployed": deployed, "many": MANY}
    templates.globals |= {"made_of": made_of, "texts_of": texts_of}
    return templates.get_template("review.html.j2").render(
        brief=brief,
        today=today,
        barred=lambda deployment: admission.host_objection(deployment, brief.policy),
        awaited=_rules(list(rows.values()), found, "review"),
        sections=_sections(others, found, texts.terms_by_key(licenses), brief),
        verdicts=Counter(row["verdict"] for row in others),
        rules=_rules(others, found, "blocked").most_common(),
        status=lambda entry: _status(entry, rows.get(entry.model), today),
    )


def _rules(rows: list[Row], found: Findings, verdict: str) -> Counter[str]:
    """How many models of a verdict each rule of that strictness touches."""
    count: Counter[str] = Counter()
    for own in (found[row["repo_id"]] for row in rows if row["verdict"] == verdict):
        rules = {f.rule for f in own if VERDICTS[f.level] == verdict}
        count.update({re.sub("accept licence .*", "licence not accepted", r) for r in rules})
    return count


def _sections(rows: list[Row], found: Findings, table: Terms, brief: Project) -> list[Row]:
    """One section per licence text: the clauses all its models share, and what each one adds."""
    by_license: dict[str | None, list[Row]] = {}
    for verdict in ("review", "conditional"):
        for row in rows:
            if row["verdict"] == verdict:
                by_license.setdefault(row["license"], []).append(row)
    sections = []
    for key, group in by_license.items():
        own = [found[row["repo_id"]] for row in group]
        text = set() if key else {f for f in own[0] if f.fact == "licence"}
        for kind in (None, False, True) if key else ():
            text.update(texts.assess_expression(str(key), table, brief, multimodal=kind))
        shared = [f for f in own[0] if f in text.intersection(*own)]
        rest = [[f for f in each if f not in shared] for each in own]
        models = [row | {"own": more} for row, more in zip(group, rest, strict=True)]
        counts = Counter(row["verdict"] for row in group)
        sections.append({"name": key, "shared": shared, "models": models, "verdicts": counts})
    return sorted(sections, key=lambda one: (not one["verdicts"]["review"], str(one["name"])))


def _told(findings: list[Finding]) -> list[Row]:
    """Findings as clause, fact and outcome, the strictest first."""
    rows = []
    for f in dict.fromkeys(findings):
        fact = f"{f.rule.removeprefix('give ')}: not given" if f.fact == MISSING else f.fact
        clause = f.clause.removesuffix(f": the brief does not {f.rule}")
        rows.append({"clause": clause, "fact": fact, "outcome": _outcome(f)})
    return sorted(rows, key=lambda row: OUTCOMES.index(row["outcome"]))


def _outcome(finding: Finding) -> str:
    if finding.level >= REVIEW:
        return VERDICTS[finding.level]
    if finding.fact.startswith(KEPT) or finding.fact.endswith(": no"):
        return "met"
    return "notice" if finding.level == ALLOWED else "condition"


def _status(entry: Exemption, row: Row | None, today: date) -> tuple[str, str]:
    """Whether an exception still runs, and what it does."""
    left = (entry.expires - today).days
    if left <= 0:
        return "expired", "without effect, it has run out"
    state = f"expiring: {left} days left" if left <= SOON else "running"
    told = str(row["exception"]) if row else "without effect, not in data/models.csv"
    if told.startswith("without effect"):
        return state, told.partition(":")[0]
    return state, f"lifts the verdict from {entry.lifts}"


def _hub(repo_id: object) -> Markup:
    """A repository as a link to its page on the Hub, or as text where it is no repository name."""
    known = re.fullmatch(r"[\w.-]+/[\w.-]+", str(repo_id))
    link = '<a href="https://huggingface.co/{1}" rel="noreferrer">{0}</a>' if known else "{0}"
    return Markup(link).format(name(repo_id), quote(str(repo_id)))
