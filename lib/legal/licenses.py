"""Licences by key or SPDX expression: which text applies, and what it finds."""

from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any

import license_expression as spdx
import pandas as pd

from lib.brief import Project
from lib.legal.clauses import ALLOWED, REVIEW, UNREAD, Finding, Terms, assess
from lib.tables import rows

CLASSES = ["permissive", "conditional", "non-commercial", "unknown"]


def assess_expression(
    expression: str | None, table: dict[str, Terms], brief: Project, *, multimodal: bool | None
) -> list[Finding]:
    """The findings of a licence key or SPDX expression; what nobody knows is `review`.

    Of `A OR B` the mildest alternative counts, of `A AND B` both do.
    """
    company, policy = brief.company, brief.policy
    assess_terms = partial(assess, company=company, policy=policy, multimodal=multimodal)
    if expression in table:
        return assess_terms(table[expression])
    if (tree := _parsed(expression or "")) is not None:
        return _walk(tree, table, assess_terms)
    recorded = expression is not None
    why = f"{expression!r} is not a licence expression" if recorded else "no licence is recorded"
    return [Finding(REVIEW, UNREAD, why, "licence")]


def _walk(
    tree: Any, table: dict[str, Terms], assess_terms: Callable[[Terms], list[Finding]]
) -> list[Finding]:
    if tree.args:
        parts = [_walk(part, table, assess_terms) for part in tree.args]
        either = tree.operator.strip() == "OR"
        return min(parts, key=worst) if either else [f for part in parts for f in part]
    if terms := _terms(tree, table):
        return assess_terms(terms)
    clause = f"licence {tree.render()} is not in data/licenses.csv"
    return [Finding(REVIEW, UNREAD, clause, "licence")]


def class_of(expression: str | None, table: dict[str, Terms]) -> str:
    """The class of a licence key or SPDX expression; `unknown` where nobody knows."""
    if expression in table:
        return str(table[expression]["license_class"])
    tree = _parsed(expression or "")
    return "unknown" if tree is None else CLASSES[_rank(tree, table)]


def _rank(tree: Any, table: dict[str, Terms]) -> int:
    if tree.args:
        strictest = min if tree.operator.strip() == "OR" else max
        return strictest(_rank(part, table) for part in tree.args)
    terms = _terms(tree, table)
    return CLASSES.index(terms["license_class"] if terms else "unknown")


def worst(findings: Iterable[Finding]) -> int:
    """The strictest level among findings; no finding is `allowed`."""
    return max((finding.level for finding in findings), default=ALLOWED)


def terms_by_key(licenses: pd.DataFrame) -> dict[str, Terms]:
    """The licence table as terms by key, blanks as None."""
    return {row["license"]: row for row in rows(licenses)}


def keys_on_hub(licenses: pd.DataFrame) -> dict[str, list[str]]:
    """The licences that a name on the Hub may mean: a tag, or `other: name` beside `other`.

    Names are in lower case. A name beside `other` never stands for a tag; `other` alone for none.
    """
    keys: dict[str, list[str]] = {}
    for row in rows(licenses, ["license", "hub_license", "hub_license_name"]):
        tags = str(row["hub_license"] or "other").lower().split(";")
        names = str(row["hub_license_name"] or "other").lower().split(";")
        for name in {*tags, *(f"other: {name}" for name in names)} - {"other", "other: other"}:
            keys.setdefault(name, []).append(row["license"])
    return keys


def _parsed(expression: str) -> Any:
    """The expression as a tree of licences; None where it is none."""
    try:
        return _licensing().parse(expression)
    except spdx.ExpressionError:
        return None


def _terms(symbol: Any, table: dict[str, Terms]) -> Terms | None:
    """Terms of one licence by any of its names; a licence `WITH` an exception has none."""
    if not isinstance(symbol, spdx.LicenseSymbol):
        return None
    for name in (symbol.key, *symbol.aliases):
        if terms := table.get(name) or table.get(name.lower()):
            return terms
    return _standard(symbol.key)


def _standard(key: str) -> Terms | None:
    """Terms of a standard licence the table lacks, from the category SPDX tooling gives it."""
    category = _categories().get(key)
    if category is None:
        return None
    if category not in ("Permissive", "Public Domain"):
        return {"license": key, "license_class": "unknown", "commercial_use": "unknown"}
    terms = {"license": key, "license_class": "permissive", "commercial_use": "yes"}
    return terms | {"conditions": f"Keep the notices of {key}.", "read": "second-hand"}


_licensing = cache(spdx.get_spdx_licensing)


@cache
def _categories() -> dict[str, str]:
    entries = spdx.get_license_index()
    return {entry.get("spdx_license_key", ""): entry["category"] for entry in entries}
