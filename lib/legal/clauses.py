"""The clauses of one licence text, each tested against one fact of the company."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from lib import places
from lib.brief import Company, Policy

VERDICTS = ["allowed", "conditional", "review", "blocked"]
ALLOWED, CONDITIONAL, REVIEW, BLOCKED = range(4)
UNREAD, NON_COMMERCIAL, AGREEMENT = "read the licence text", "non-commercial", "agreement"
DUTY, OUTPUTS, TERRITORY, MISSING = "duty", "outputs", "territory", "missing"
# Rules that are broken by a fact of the company, which the reasons then name.
MET = (NON_COMMERCIAL, AGREEMENT, TERRITORY, OUTPUTS)
ANY_SIZE, IN_SHORT = "applies at any size", "the text in short"
INTERNAL_USE = "counsel must say whether internal use by a company is commercial"
YES_OR_NO = {True: "yes", False: "no", None: "not given"}

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

    A fact of the company that the text needs and nobody gave is `review`. `multimodal` says
    whether the model takes more than text, None where that is not known.
    """
    name = terms["license"]
    unread = "unknown" in (terms["license_class"], terms["commercial_use"])
    if unread or terms["read"] == "not read":
        return [Finding(REVIEW, UNREAD, f"the text of {name} has not been read", "licence text")]
    findings: list[Finding] = []
    if name not in policy.licenses and terms["license_class"] not in policy.licenses:
        clause = f"licence {name} is not among policy.licenses"
        findings.append(Finding(BLOCKED, f"accept licence {name}", clause, "policy.licenses"))
    if terms["commercial_use"] == "no":
        level, clause = BLOCKED, "allows no commercial use"
        if policy.use == "internal":
            level, clause = REVIEW, f"is non-commercial: {INTERNAL_USE}"
        findings.append(
            Finding(level, NON_COMMERCIAL, f"licence {name} {clause}", f"use: {policy.use}")
        )
    findings += _services(terms, company, policy)
    findings += _agreement(terms, company, policy)
    if terms.get("display_text"):
        findings += _display(terms, company)
    findings += _territories(terms, company, multimodal)
    findings += _outputs(terms, company)
    findings += _duties(terms, company, policy)
    return findings


def _services(terms: Terms, company: Company, policy: Policy) -> Iterator[Finding]:
    """Services that need an agreement at any size."""
    for service in _parts(terms.get("services_excluded")):
        clause = f"{terms['license']} needs a separate agreement for {service} at any size"
        runs, key = _runs(service, company, policy), "use" if service == policy.use else "services"
        if runs is None:
            yield _missing("services", clause)
        elif runs:
            yield Finding(BLOCKED, AGREEMENT, clause, f"{key}: {service}")


def _runs(service: str, company: Company, policy: Policy) -> bool | None:
    """Whether the company runs a kind of service; None where the brief does not say."""
    if service == policy.use:
        return True
    if company.services is None:  # who serves or hands on models says so by `policy.use`
        return False if service in ("model-as-a-service", "redistribution") else None
    return service in company.services


def _agreement(terms: Terms, company: Company, policy: Policy) -> list[Finding]:
    """Sizes past which there is no right without a separate agreement."""
    duty = f"{terms['license']} needs a separate agreement"
    scope = [service for service in _parts(terms.get("agreement_scope")) if service != "any"]
    if scope:
        duty += f" for {' and '.join(scope)}"
    runs = [_runs(service, company, policy) for service in scope] or [True]
    findings = list(_thresholds(terms, company, "agreement", BLOCKED, duty))
    if any(runs) or not findings:
        return findings
    return [_missing("services", f"{duty} above a size")] if None in runs else []


def _display(terms: Terms, company: Company) -> Iterator[Finding]:
    duty = f'display "{terms["display_text"]}"'
    if terms.get("display_mau") == 0:
        yield Finding(CONDITIONAL, DUTY, duty, ANY_SIZE)
    else:
        yield from _thresholds(terms, company, "display", CONDITIONAL, duty)


def _thresholds(
    terms: Terms, company: Company, kind: str, level: int, duty: str
) -> Iterator[Finding]:
    """Each threshold of a kind against the fact it tests, with how near the company is."""
    months = int(terms.get(f"{kind}_revenue_months") or 12)
    usd = f"USD {{}} per {({1: 'month', 12: 'year'}).get(months, f'{months} months')}"
    users, revenue = company.monthly_active_users, company.revenue
    # Multiplied first: a revenue of the same period is not rounded.
    monthly = 12 if revenue and revenue.period == "year" else 1
    dollars = None if revenue is None else revenue.amount * months / monthly
    inclusive = kind == "agreement" and terms.get("agreement_at") == "at-or-above"
    for column, key, fact, unit, what in (
        ("mau", "monthly_active_users", users, "{}", "{} monthly users"),
        ("revenue_usd", "revenue", dollars, usd, f"a revenue of {usd}"),
    ):
        limit = terms.get(f"{kind}_{column}")
        if limit is None:
            continue
        clause = f"{duty} {'from' if inclusive else 'above'} {what.format(_count(limit))}"
        if fact is None:
            yield _missing(key, clause)
            continue
        reached = fact > limit or (inclusive and fact == limit)
        rule = AGREEMENT if reached and level == BLOCKED else DUTY
        standing = f"{'reached' if reached else 'not reached'}: {_standing(fact, limit, unit)}"
        yield Finding(level if reached else CONDITIONAL, rule, clause, standing)


def _standing(fact: float, limit: float, unit: str) -> str:
    """How near a fact is to a limit: at 5M you are at 0.7 %, 114 %, just under 100 %."""
    count = _count(fact)
    if count == _count(limit) and fact != limit:
        count = f"{fact:,.2f}".removesuffix(".00")
    percent = 100 * fact / limit
    share = f"{percent:.2g}" if percent < 9.5 else f"{percent:,.0f}"
    if 0 < percent < 0.01:
        share = "under 0.01"
    elif share == "100":
        side = "just under" if fact < limit else "just over"
        share = f"{'exactly' if fact == limit else side} 100"
    return f"at {unit.format(count)} you are at {share} %"


def _territories(terms: Terms, company: Company, multimodal: bool | None) -> list[Finding]:
    """Places the licence does not reach: where the company sits, or where it serves."""
    name, excluded = terms["license"], _parts(terms.get("territories_excluded"))
    area = " or ".join(f"the {p}" if p.startswith(("European", "United")) else p for p in excluded)
    # A clause on multimodal models speaks of the licensee's seat, a general one of use.
    only_multimodal = terms.get("territory_scope") == "multimodal"
    if not excluded or (only_multimodal and multimodal is False):
        return []
    key, seats = "territories", company.territories or []
    clause = f"{name} grants no rights in {area}"
    if only_multimodal:
        key, seats = "domicile", [company.domicile or ""]
        clause = f"{name} grants companies in {area} no rights to multimodal models"
        if multimodal is None:
            clause += ": data/models.csv does not say whether this model is one"
            return [Finding(REVIEW, "give modality in data/models.csv", clause, MISSING)]
    if not any(place.strip() for place in seats):
        return [_missing(key, clause)]
    if inside := [p for p in seats if any(places.within(p, one) for one in excluded)]:
        return [Finding(BLOCKED, TERRITORY, clause, f"{key}: {', '.join(inside)}")]
    return [Finding(CONDITIONAL, DUTY, clause, f"{key}: {', '.join(seats)}")]


def _outputs(terms: Terms, company: Company) -> list[Finding]:
    """Whether the model's outputs may train other models."""
    name, prefix, rule = terms["license"], terms.get("name_prefix"), terms.get("output_training")
    train = company.outputs_train_models
    fact = f"outputs train models: {YES_OR_NO[train]}"
    if rule == "unknown" and train:
        clause = f"{name}: not known whether outputs may train other models"
        return [Finding(REVIEW, OUTPUTS, clause, fact)]
    if rule == "not-allowed":
        clause = f"outputs may not train other models, says {name}"
    elif rule == "named" and prefix:
        clause = f'the name of a model trained on outputs must begin with "{prefix}"'
    elif rule == "named":
        clause = f"a model trained on outputs must credit the original, says {name}"
    else:
        return []
    if train is None:
        return [_missing("outputs_train_models", clause)]
    if train and rule == "not-allowed":
        return [Finding(BLOCKED, OUTPUTS, clause, fact)]
    return [Finding(CONDITIONAL, DUTY, clause, fact)]


def _duties(terms: Terms, company: Company, policy: Policy) -> Iterator[Finding]:
    """What the text asks of everybody: notices, names of derivatives, acceptable use."""
    level = ALLOWED if terms["license_class"] == "permissive" else CONDITIONAL
    if terms.get("conditions"):
        yield Finding(level, DUTY, terms["conditions"].removesuffix("."), IN_SHORT)
    elif level == CONDITIONAL:
        yield Finding(level, DUTY, f"keep the terms of {terms['license']}", ANY_SIZE)
    if terms.get("name_prefix"):
        publishes = company.publishes_derivatives
        if publishes is None and policy.use == "redistribution":
            publishes = True
        clause = f'the name of a derivative must begin with "{terms["name_prefix"]}"'
        fact = f"publishes derivatives: {YES_OR_NO[publishes]}"
        yield Finding(CONDITIONAL, DUTY, clause, fact)
    if terms.get("acceptable_use_policy") == "yes":
        yield Finding(CONDITIONAL, DUTY, "follow the acceptable-use policy", ANY_SIZE)


def _missing(key: str, clause: str) -> Finding:
    key = f"company.{key}"
    return Finding(REVIEW, f"give {key}", f"{clause}: the brief does not give {key}", MISSING)


def _parts(cell: str | None) -> list[str]:
    return [part.strip() for part in cell.split(";")] if cell else []


def _count(value: float) -> str:
    """A large number in words of business: 700M, 20M, 9.9M, 10B."""
    if value >= 1e9:
        return f"{value / 1e9:.6g}B"
    return f"{value / 1e6:.6g}M" if value >= 1e6 else f"{value:,.0f}"
