"""The clauses of one licence text, each tested against one fact of the company."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lib import places
from lib.brief import Company, Policy
from lib.tables import Row, parts

VERDICTS = ["allowed", "conditional", "review", "blocked"]
ALLOWED, CONDITIONAL, REVIEW, BLOCKED = range(4)
UNREAD, NON_COMMERCIAL, AGREEMENT = "read the licence text", "non-commercial", "agreement"
DUTY, OUTPUTS, TERRITORY, MISSING = "duty", "outputs", "territory", "missing"
# Rules that are broken by a fact of the company, which the reasons then name.
MET = (NON_COMMERCIAL, AGREEMENT, TERRITORY, OUTPUTS)
ANY_SIZE, IN_SHORT = "applies at any size", "the text in short"
UNTESTABLE = "no fact of the brief can test it"
INTERNAL_USE = "counsel must say whether internal use by a company is commercial"
NEAR = 2  # a month may bring in twice the average of its year
OUTPUT_CLAUSES = {
    "unknown": "{license}: not known whether outputs may train other models",
    "derivative": "a model trained on outputs is a derivative, under the terms of {license}",
    "not-allowed": "outputs may not train other models, says {license}",
    "prefixed": 'the name of a model trained on outputs must begin with "{name_prefix}"',
    "named": "a model trained on outputs must credit the original, says {license}",
}
DERIVATIVES = {
    "not-shared": "{license} lets nobody share an adapted version, fine-tunes included",
    "agreement": "{license} needs an agreement before a derivative is distributed",
}
YES_OR_NO = {True: "yes", False: "no", None: "not given"}

Terms = Row  # what a licence text asks, by the columns of data/licenses.csv


class Finding(NamedTuple):
    """One rule tested against one fact: how strict, which rule, what it says, what it met."""

    level: int
    rule: str
    clause: str
    fact: str
    cites: str = ""


def assess(
    terms: Terms, company: Company, policy: Policy, *, multimodal: bool | None
) -> list[Finding]:
    """All findings of one licence text for a company; a fact that nobody gave is `review`."""
    unknown = "unknown" in (terms["license_class"], terms.get("commercial_use"))
    if unknown or terms["read"] == "not read":
        clause = terms.get("unread") or f"the text of {terms['license']} has not been read"
        return [Finding(REVIEW, UNREAD, clause, "licence text")]
    display = f'display "{terms.get("display_text")}"'
    by_obligation: dict[str, Iterable[Finding]] = {
        "": _general(terms, company, policy),
        "services": _services(terms, company, policy),
        "agreement": _agreement(terms, company, policy),
        "display": _thresholds(terms, company, "display", CONDITIONAL, display),
        "territory": _territories(terms, company, multimodal),
        "outputs": _outputs(terms, company),
    }
    return [
        finding._replace(cites=terms.get("sections", {}).get(finding.cites or obligation, ""))
        for obligation, findings in by_obligation.items()
        for finding in findings
    ]


def _general(terms: Terms, company: Company, policy: Policy) -> Iterator[Finding]:
    """What the policy accepts, what only counsel can test, and what the text asks of everybody."""
    name, publishes = terms["license"], company.publishes_derivatives
    if not {name, terms["license_class"]} & {*policy.licenses}:
        clause = f"licence {name} is not among policy.licenses"
        yield Finding(BLOCKED, f"accept licence {name}", clause, "policy.licenses")
    if terms["commercial_use"] == "no":
        level, clause = BLOCKED, f"licence {name} allows no commercial use"
        if policy.use == "internal":
            level, clause = REVIEW, f"licence {name} is non-commercial: {INTERNAL_USE}"
        yield Finding(level, NON_COMMERCIAL, clause, f"use: {policy.use}", "commercial")
    if text := terms.get("untestable"):
        yield Finding(REVIEW, "counsel must judge", text, UNTESTABLE, "untestable")
    level = ALLOWED if terms["license_class"] == "permissive" else CONDITIONAL
    if terms.get("conditions"):
        yield Finding(level, DUTY, terms["conditions"].removesuffix("."), IN_SHORT, "notices")
    elif level == CONDITIONAL:
        yield Finding(level, DUTY, f"keep the terms of {name}", ANY_SIZE)
    if prefix := terms.get("name_prefix"):
        if publishes is None and policy.use == "redistribution":
            publishes = True
        fact = f"publishes derivatives: {YES_OR_NO[publishes]}"
        clause = f'the name of a derivative must begin with "{prefix}"'
        yield Finding(CONDITIONAL, DUTY, clause, fact, "names")
    if terms.get("acceptable_use_policy") == "yes":
        clause = "follow the acceptable-use policy"
        yield Finding(CONDITIONAL, DUTY, clause, ANY_SIZE, "acceptable-use")


def _services(terms: Terms, company: Company, policy: Policy) -> Iterator[Finding]:
    """Services that need an agreement at any size."""
    for service in parts(terms.get("services_excluded")):
        clause = f"{terms['license']} needs a separate agreement for {service} at any size"
        runs, key = _runs(service, company, policy), "use" if service == policy.use else "services"
        if runs is None:
            yield missing("services", clause)
        elif runs:
            yield Finding(BLOCKED, AGREEMENT, clause, f"{key}: {service}")


def _runs(service: str, company: Company, policy: Policy) -> bool | None:
    """Whether the company runs a kind of service; None where the brief does not say."""
    if service == policy.use:
        return True
    if company.services is None:  # handing on this model is a use of it, which the policy states
        return False if service == "redistribution" else None
    return service in company.services


def _agreement(terms: Terms, company: Company, policy: Policy) -> list[Finding]:
    """Sizes past which there is no right without a separate agreement to run the services."""
    duty = f"{terms['license']} needs a separate agreement"
    scope = [service for service in parts(terms.get("agreement_scope")) if service != "any"]
    if scope:
        duty += f" for {' and '.join(scope)}"
    findings = list(_thresholds(terms, company, "agreement", BLOCKED, duty))
    if findings and policy.use in parts(terms.get("agreement_exempt")):
        clause = f"{duty} above a size, from which this use is exempt"
        return [Finding(CONDITIONAL, DUTY, clause, f"exempt: use {policy.use}", "exempt")]
    runs = [_runs(service, company, policy) for service in scope] or [True]
    if any(runs) or all(finding.level <= CONDITIONAL for finding in findings):
        return findings
    return [missing("services", f"{duty} above a size")] if None in runs else []


def _thresholds(
    terms: Terms, company: Company, kind: str, level: int, duty: str
) -> Iterator[Finding]:
    """Each threshold of a kind against the fact it tests, with how near the company is."""
    months = int(terms.get(f"{kind}_revenue_months") or 12)
    usd = f"USD {{}} per {({1: 'month', 12: 'year'}).get(months, f'{months} months')}"
    users, dollars, peak = company.monthly_active_users, None, 0.0
    if revenue := company.revenue:  # multiplied first: one of the same period is not rounded
        dollars = revenue.amount * months / (12 if revenue.period == "year" else 1)
        if revenue.period == "year" and months < 12:
            peak = min(NEAR * dollars, revenue.amount)
    inclusive = kind == "agreement" and terms.get("agreement_at") == "at-or-above"
    for column, key, fact, unit, what in (
        ("mau", "monthly_active_users", users, "{}", "{} monthly users"),
        ("revenue_usd", "revenue", dollars, usd, f"a revenue of {usd}"),
    ):
        if (limit := terms.get(f"{kind}_{column}")) is None:
            continue
        clause = f"{duty} {'from' if inclusive else 'above'} {what.format(_count(limit))}"
        standing = _standing(fact, limit, unit) if fact is not None and limit else ""
        if limit == 0:
            yield Finding(level, DUTY, duty, ANY_SIZE)
        elif fact is None:
            yield missing(key, clause)
        elif fact > limit or (inclusive and fact == limit):
            rule = AGREEMENT if level == BLOCKED else DUTY
            yield Finding(level, rule, clause, f"reached: {standing}")
        elif level == BLOCKED and key == "revenue" and peak > limit:
            clause += f": {standing} on average, and a month may peak"
            yield Finding(REVIEW, "give company.revenue by the month", clause, "a year's revenue")
        else:
            yield Finding(CONDITIONAL, DUTY, clause, f"not reached: {standing}")


def _standing(fact: float, limit: float, unit: str) -> str:
    """How near a fact is to a limit: at 5M you are at 0.714 %; in full where it rounds to it."""
    count, exact = _count(fact), f"{fact:,.2f}".removesuffix(".00")
    count = exact if count == _count(limit) and fact != limit else count
    return f"at {unit.format(count)} you are at {100 * fact / limit:,.3g} %"


def _territories(terms: Terms, company: Company, multimodal: bool | None) -> Iterator[Finding]:
    """Places the licence does not reach, which binds the seat as well as the market."""
    name, excluded = terms["license"], parts(terms.get("territories_excluded"))
    if not excluded or (terms.get("territory_scope") == "multimodal" and multimodal is False):
        return
    area = " or ".join(f"the {p}" if p.startswith(("European", "United")) else p for p in excluded)
    clause = f"{name} grants no rights in {area}"
    places_of = {"domicile": [company.domicile or ""], "territories": company.territories or []}
    if terms.get("territory_scope") == "multimodal":  # which speaks of the seat, not of use
        del places_of["territories"]
        clause = f"{name} grants companies in {area} no rights to multimodal models"
        if multimodal is None:
            clause += ": data/models.csv does not say whether this model is one"
            yield Finding(REVIEW, "give modality in data/models.csv", clause, MISSING)
            return
    for key, names in places_of.items():
        if not any(names):
            yield missing(key, clause)
        elif inside := [p for p in names if any(places.within(p, one) for one in excluded)]:
            yield Finding(BLOCKED, TERRITORY, clause, f"{key}: {', '.join(inside)}")
        else:
            yield Finding(CONDITIONAL, DUTY, clause, f"{key}: {', '.join(names)}")


def _outputs(terms: Terms, company: Company) -> Iterator[Finding]:
    """Whether the company may train on the model's outputs, and hand on what it makes of it."""
    rule, train = terms.get("output_training"), company.outputs_train_models
    if rule == "named" and terms.get("name_prefix"):
        rule = "prefixed"
    if rule in OUTPUT_CLAUSES and (rule != "unknown" or train):
        clause = OUTPUT_CLAUSES[rule].format(**terms)
        level = {"unknown": REVIEW, "not-allowed": BLOCKED}.get(rule, CONDITIONAL)
        if rule == "derivative":  # which is a duty, whatever the answer
            yield Finding(level, DUTY, clause, f"outputs train models: {YES_OR_NO[train]}")
        else:
            yield by_answer(company, "outputs_train_models", clause, level)
    if shared := DERIVATIVES.get(terms.get("derivatives") or ""):
        finding = by_answer(company, "publishes_derivatives", shared.format(**terms), BLOCKED)
        yield finding._replace(cites="derivatives")


def by_answer(company: Company, key: str, clause: str, level: int) -> Finding:
    """A clause that a yes-or-no fact of the company decides: the level is that of a yes."""
    if (answer := getattr(company, key)) is None:
        return missing(key, clause)
    level = level if answer else CONDITIONAL
    rule = OUTPUTS if key == "outputs_train_models" else AGREEMENT
    rule = DUTY if level == CONDITIONAL else rule
    return Finding(level, rule, clause, f"{key.replace('_', ' ')}: {YES_OR_NO[answer]}")


def missing(key: str, clause: str) -> Finding:
    """A fact of the company that a clause asks for and the brief does not give."""
    key = f"company.{key}"
    return Finding(REVIEW, f"give {key}", f"{clause}: the brief does not give {key}", MISSING)


def _count(value: float) -> str:
    """A large number in words of business: 700M, 20M, 9.9M, 10B."""
    if value >= 1e9:
        return f"{value / 1e9:.6g}B"
    return f"{value / 1e6:.6g}M" if value >= 1e6 else f"{value:,.0f}"
