"""The clauses of one licence text, each tested against one fact of the company."""

from __future__ import annotations

from typing import Any, NamedTuple

from lib import places
from lib.brief.project import Company, Policy, Revenue

__all__ = ["ALLOWED", "BLOCKED", "CONDITIONAL", "REVIEW", "VERDICTS", "Finding", "Terms", "assess"]

VERDICTS = ["allowed", "conditional", "review", "blocked"]
ALLOWED, CONDITIONAL, REVIEW, BLOCKED = range(4)
UNREAD, NON_COMMERCIAL, AGREEMENT = "read the licence text", "non-commercial", "agreement"
DUTY, OUTPUTS, TERRITORY, MISSING = "duty", "outputs", "territory", "missing"
ANY_SIZE, IN_SHORT = "applies at any size", "the text in short"

Terms = dict[str, Any]


class Finding(NamedTuple):
    """One rule tested against one fact: how strict, which rule, what it says, what it met."""

    level: int
    rule: str
    clause: str
    fact: str


def assess(
    terms: Terms, company: Company, policy: Policy, *, multimodal: bool | None
) -> list[Finding]:
    """All findings of one licence text for a company, the mild ones too.

    Args:
        terms: A row of `tables.licenses`, blanks as None.
        company: The company's facts; a fact the text needs and nobody gave is `review`.
        policy: The brief's policy: accepted licences and the use.
        multimodal: Whether the model takes more than text; None where unknown.
    """
    name = terms["license"]
    unread = "unknown" in (terms["license_class"], terms["commercial_use"])
    if unread or terms["read"] == "not read":
        return [Finding(REVIEW, UNREAD, f"the text of {name} has not been read", "licence text")]
    findings: list[Finding] = []
    if name not in policy.licenses and terms["license_class"] not in policy.licenses:
        findings.append(
            Finding(
                BLOCKED,
                f"accept licence {name}",
                f"licence {name} is not among policy.licenses",
                "policy.licenses",
            )
        )
    if terms["commercial_use"] == "no":
        findings.append(_non_commercial(name, policy))
    findings += _services(terms, company, policy)
    findings += _agreement(terms, company, policy)
    findings += _display(terms, company)
    findings += _territories(terms, company, multimodal)
    findings += _outputs(terms, company)
    findings += _duties(terms, company, policy)
    return findings


def _non_commercial(name: str, policy: Policy) -> Finding:
    fact = f"use: {policy.use}"
    if policy.use == "internal":
        text = "non-commercial: counsel must say whether internal use by a company is commercial"
        return Finding(REVIEW, NON_COMMERCIAL, f"licence {name} is {text}", fact)
    return Finding(BLOCKED, NON_COMMERCIAL, f"licence {name} allows no commercial use", fact)


def _services(terms: Terms, company: Company, policy: Policy) -> list[Finding]:
    """Services that need an agreement at any size."""
    found = []
    for service in _listed(terms.get("services_excluded")):
        clause = f"{terms['license']} needs a separate agreement for {service} at any size"
        runs = _runs(service, company, policy)
        if runs is None:
            found.append(_missing("company.services", clause))
        elif runs:
            key = "use" if service == policy.use else "services"
            found.append(Finding(BLOCKED, AGREEMENT, clause, f"{key}: {service}"))
    return found


def _runs(service: str, company: Company, policy: Policy) -> bool | None:
    """Whether the company runs a kind of service; None where the brief does not say."""
    if service == policy.use:
        return True
    if service in ("model-as-a-service", "redistribution"):
        return company.services is not None and service in company.services
    return None if company.services is None else service in company.services


def _agreement(terms: Terms, company: Company, policy: Policy) -> list[Finding]:
    """Sizes past which there is no right without a separate agreement."""
    duty = f"{terms['license']} needs a separate agreement"
    scope = _listed(terms.get("agreement_scope")) or ["any"]
    if scope != ["any"]:
        duty += f" for {' and '.join(scope)}"
        running = [_runs(service, company, policy) for service in scope]
        if not any(running):
            if None not in running or not _thresholds(terms, company, "agreement", BLOCKED, duty):
                return []
            return [_missing("company.services", f"{duty} above a size")]
    return _thresholds(terms, company, "agreement", BLOCKED, duty)


def _display(terms: Terms, company: Company) -> list[Finding]:
    text = terms.get("display_text")
    if not text:
        return []
    duty = f'display "{text}"'
    if terms.get("display_mau") == 0:
        return [Finding(CONDITIONAL, DUTY, duty, ANY_SIZE)]
    return _thresholds(terms, company, "display", CONDITIONAL, duty)


def _thresholds(terms: Terms, company: Company, kind: str, level: int, duty: str) -> list[Finding]:
    """Each threshold of a kind against the fact it tests, with how near the company is."""
    found = []
    inclusive = kind == "agreement" and terms.get("agreement_at") == "at-or-above"
    clause = f"{duty} {'from' if inclusive else 'above'}"
    users, dollars = terms.get(f"{kind}_mau"), terms.get(f"{kind}_revenue_usd")
    if users is not None:
        text = f"{clause} {_count(users)} monthly users"
        if company.monthly_active_users is None:
            found.append(_missing("company.monthly_active_users", text))
        else:
            found.append(_tested(company.monthly_active_users, users, inclusive, level, text, "{}"))
    if dollars is not None:
        months = int(terms[f"{kind}_revenue_months"])
        unit = f"USD {{}} per {_period(months)}"
        text = f"{clause} a revenue of {unit.format(_count(dollars))}"
        if company.revenue is None:
            found.append(_missing("company.revenue", text))
        else:
            revenue = _per_months(company.revenue, months)
            found.append(_tested(revenue, dollars, inclusive, level, text, unit))
    return found


def _tested(fact: float, limit: float, inclusive: bool, level: int, clause: str,
            unit: str) -> Finding:  # fmt: skip
    """A fact against a limit: "not reached: at 5M you are at 5 %"."""
    told = _count(fact)
    if told == _count(limit) and fact != limit:
        told = f"{fact:,.2f}".removesuffix(".00")
    told = f"at {unit.format(told)} you are at {_share(fact, limit)}"
    if fact > limit or (inclusive and fact == limit):
        rule = AGREEMENT if level == BLOCKED else DUTY
        return Finding(level, rule, clause, f"reached: {told}")
    return Finding(CONDITIONAL, DUTY, clause, f"not reached: {told}")


def _share(fact: float, limit: float) -> str:
    """How much of a limit a fact is: 0.7 %, 5 %, 114 %."""
    percent = 100 * fact / limit
    if 0 < percent < 0.01:
        return "under 0.01 %"
    text = f"{percent:.2g}" if percent < 9.5 else f"{percent:,.0f}"
    if text != "100":
        return f"{text} %"
    return f"{'exactly' if fact == limit else 'just under' if fact < limit else 'just over'} 100 %"


def _per_months(revenue: Revenue, months: int) -> float:
    """Revenue over another number of months."""
    return revenue.amount * months / (12 if revenue.period == "year" else 1)


def _territories(terms: Terms, company: Company, multimodal: bool | None) -> list[Finding]:
    """Places the licence does not reach: where the company sits, or where it serves."""
    excluded = _listed(terms.get("territories_excluded"))
    only_multimodal = terms.get("territory_scope") == "multimodal"
    if not excluded or (only_multimodal and multimodal is False):
        return []
    named = " or ".join(f"the {p}" if p.startswith(("European", "United")) else p for p in excluded)
    # A clause on multimodal models speaks of the licensee's seat, a general one of use.
    key = "domicile" if only_multimodal else "territories"
    clause = f"{terms['license']} grants no rights in {named}"
    if only_multimodal:
        clause = f"{terms['license']} grants companies in {named} no rights to multimodal models"
        if multimodal is None:
            clause += ": data/models.csv does not say whether this model is one"
            return [Finding(REVIEW, "give modality in data/models.csv", clause, MISSING)]
    given = getattr(company, key)
    own = [given] if isinstance(given, str) else given or []
    if not any(place.strip() for place in own):
        return [_missing(f"company.{key}", clause)]
    hit = [place for place in own if any(places.within(place, one) for one in excluded)]
    if hit:
        return [Finding(BLOCKED, TERRITORY, clause, f"{key}: {', '.join(hit)}")]
    return [Finding(CONDITIONAL, DUTY, clause, f"{key}: {', '.join(own)}")]


def _outputs(terms: Terms, company: Company) -> list[Finding]:
    """Whether the model's outputs may train other models."""
    rule = terms.get("output_training")
    if rule not in ("not-allowed", "named"):
        if rule == "unknown" and company.outputs_train_models:
            clause = f"{terms['license']}: not known whether outputs may train other models"
            return [Finding(REVIEW, OUTPUTS, clause, "outputs train models: yes")]
        return []
    name = terms.get("name_prefix")
    if rule == "not-allowed":
        clause = f"outputs may not train other models, says {terms['license']}"
    elif name:
        clause = f'the name of a model trained on outputs must begin with "{name}"'
    else:
        clause = f"a model trained on outputs must credit the original, says {terms['license']}"
    if company.outputs_train_models is None:
        return [_missing("company.outputs_train_models", clause)]
    told = f"outputs train models: {'yes' if company.outputs_train_models else 'no'}"
    level = BLOCKED if rule == "not-allowed" and company.outputs_train_models else CONDITIONAL
    return [Finding(level, OUTPUTS if level == BLOCKED else DUTY, clause, told)]


def _duties(terms: Terms, company: Company, policy: Policy) -> list[Finding]:
    """What the text asks of everybody: notices, names of derivatives, acceptable use."""
    found = []
    level = ALLOWED if terms["license_class"] == "permissive" else CONDITIONAL
    if terms.get("conditions"):
        found.append(Finding(level, DUTY, str(terms["conditions"]).removesuffix("."), IN_SHORT))
    elif level == CONDITIONAL:
        found.append(Finding(level, DUTY, f"keep the terms of {terms['license']}", ANY_SIZE))
    if terms.get("name_prefix"):
        publishes = company.publishes_derivatives
        if publishes is None and policy.use == "redistribution":
            publishes = True
        told = {True: "yes", False: "no", None: "not given"}[publishes]
        clause = f'the name of a derivative must begin with "{terms["name_prefix"]}"'
        found.append(Finding(CONDITIONAL, DUTY, clause, f"publishes derivatives: {told}"))
    if terms.get("acceptable_use_policy") == "yes":
        found.append(Finding(CONDITIONAL, DUTY, "follow the acceptable-use policy", ANY_SIZE))
    return found


def _missing(key: str, clause: str) -> Finding:
    return Finding(REVIEW, f"give {key}", f"{clause}: the brief does not give {key}", MISSING)


def _listed(value: Any) -> list[str]:
    return [part.strip() for part in str(value).split(";")] if value else []


def _period(months: int) -> str:
    return {1: "month", 12: "year"}.get(months, f"{months} months")


def _count(value: float) -> str:
    """A large number in words of business: 700M, 20M, 9.9M, 10B."""
    for size, letter in ((1e9, "B"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.6g}{letter}"
    return f"{value:,.0f}"
