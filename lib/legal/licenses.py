"""Licences by key or SPDX expression: which text applies, and what it finds."""

from __future__ import annotations

from functools import cache
from typing import Any

import pandas as pd
from license_expression import (
    ExpressionError,
    LicenseSymbol,
    Licensing,
    get_license_index,
    get_spdx_licensing,
)

from lib.brief.project import Company, Policy
from lib.legal.clauses import ALLOWED, REVIEW, UNREAD, Finding, Terms, assess

__all__ = ["CLASSES", "class_of", "judge", "table_of", "worst"]

CLASSES = ["permissive", "conditional", "non-commercial", "unknown"]


def judge(expression: str, table: dict[str, Terms], company: Company, policy: Policy, *,
          multimodal: bool | None) -> list[Finding]:  # fmt: skip
    """Test a licence key or SPDX expression; every finding names its clause and its fact.

    Of `A OR B` the mildest alternative counts, of `A AND B` both do. A key that SPDX does
    not know is looked up in the table; what neither knows is `review`.
    """
    if expression in table:
        return assess(table[expression], company, policy, multimodal=multimodal)
    parsed = _parsed(expression)
    if parsed is None:
        return [Finding(REVIEW, UNREAD, f"{expression!r} is not a licence expression", "licence")]
    return _walk(parsed, table, company, policy, multimodal)


def _walk(parsed: Any, table: dict[str, Terms], company: Company, policy: Policy,
          multimodal: bool | None) -> list[Finding]:  # fmt: skip
    if not parsed.args:
        if terms := _terms(parsed, table):
            return assess(terms, company, policy, multimodal=multimodal)
        clause = f"licence {parsed.render()} is not in data/licenses.csv"
        return [Finding(REVIEW, UNREAD, clause, "licence")]
    parts = [_walk(part, table, company, policy, multimodal) for part in parsed.args]
    if parsed.operator.strip() == "OR":
        return min(parts, key=worst)
    return [finding for part in parts for finding in part]


def _parsed(expression: str) -> Any:
    """The expression as a tree of licences; None where it is none."""
    try:
        return _licensing().parse(expression)
    except ExpressionError:
        return None


def _terms(symbol: Any, table: dict[str, Terms]) -> Terms | None:
    """Terms of one licence by any of its names; a licence `WITH` an exception has none."""
    if not isinstance(symbol, LicenseSymbol):
        return None
    for name in (symbol.key, *symbol.aliases):
        if terms := table.get(name) or table.get(name.lower()):
            return terms
    return _standard(str(symbol.key))


def worst(findings: list[Finding]) -> int:
    """The strictest level among findings; no finding is `allowed`."""
    return max((finding.level for finding in findings), default=ALLOWED)


@cache
def _licensing() -> Licensing:
    return get_spdx_licensing()


@cache
def _categories() -> dict[str, str]:
    return {
        entry["spdx_license_key"]: entry["category"]
        for entry in get_license_index()
        if entry.get("spdx_license_key")
    }


def _standard(key: str) -> Terms | None:
    """Terms of a standard licence the table lacks, from the category SPDX tooling gives it."""
    category = _categories().get(key)
    if category is None:
        return None
    permissive = category in ("Permissive", "Public Domain")
    terms: Terms = dict.fromkeys(("agreement_mau", "agreement_revenue_usd", "display_mau"))
    return terms | {
        "license": key,
        "license_class": "permissive" if permissive else "unknown",
        "commercial_use": "yes" if permissive else "unknown",
        "conditions": f"Keep the notices of {key}." if permissive else "",
        "read": "second-hand" if permissive else "not read",
    }


def class_of(expression: str | None, table: dict[str, Terms]) -> str:
    """The class of a licence key or SPDX expression; `unknown` where nobody knows."""
    if terms := table.get(expression or ""):
        return str(terms["license_class"])
    parsed = _parsed(expression or "")
    return CLASSES[-1] if parsed is None else _class(parsed, table)


def _class(parsed: Any, table: dict[str, Terms]) -> str:
    if not parsed.args:
        terms = _terms(parsed, table)
        return str(terms["license_class"]) if terms else CLASSES[-1]
    classes = [_class(part, table) for part in parsed.args]
    return (min if parsed.operator.strip() == "OR" else max)(classes, key=CLASSES.index)


def table_of(licenses: pd.DataFrame) -> dict[str, Terms]:
    """The licence table as terms by key, blanks as None."""
    plain = licenses.astype(object).where(licenses.notna(), None)
    rows: list[dict[Any, Any]] = plain.to_dict("records")
    return {row["license"]: row for row in rows}
