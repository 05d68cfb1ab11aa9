"""Licences by key or SPDX expression: which text applies, and what it finds."""

import re
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any

import license_expression as spdx
import pandas as pd

from lib import tables
from lib.brief import Project
from lib.legal.clauses import ALLOWED, REVIEW, UNREAD, Finding, Terms, assess
from lib.tables import rows

CLASSES = ["permissive", "conditional", "non-commercial", "unknown"]
# Permissive texts that the table lacks: approved by the OSI, called free by the FSF, or of Creative
# Commons and Open Data Commons. Not `Fair`: the Hub's `fair` is another text.
STANDARD = frozenset(
    """0BSD AFL-3.0 Apache-1.1 BlueOak-1.0.0 BSD-1-Clause BSD-2-Clause-Patent
    BSD-3-Clause-LBNL CC-BY-2.0 CC-BY-2.5 CC-BY-3.0 CDLA-Permissive-1.0 curl ECL-2.0 EFL-2.0
    etalab-2.0 HPND ICU Libpng MIT-0 MIT-Modern-Variant MulanPSL-2.0 NCSA NTP ODC-By-1.0 PDDL-1.0
    PHP-3.01 PostgreSQL PSF-2.0 Python-2.0 TCL Unicode-3.0 Unicode-DFS-2016 UPL-1.0 W3C WTFPL X11
    Xnet ZPL-2.1""".split()
)
VERSION = re.compile(r"-(only|or-later)$|\+$")  # which names the text: `-or-later` offers it too


def assess_expression(
    expression: str | None, table: dict[str, Terms], brief: Project, *, multimodal: bool | None
) -> list[Finding]:
    """The findings of a licence key or SPDX expression; what nobody knows is `review`.

    Of `A OR B` the mildest alternative counts, of `A AND B` both do.
    """
    company, policy = brief.company, brief.policy
    assess_terms = partial(assess, company=company, policy=policy, multimodal=multimodal)
    if terms := _by_name(expression, table):
        return assess_terms(terms)
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
    if terms := _by_name(expression, table):
        return str(terms["license_class"])
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
    """The licence table as terms by key, blanks as None; `sections` by obligation."""
    table: dict[str, Terms] = {row["license"]: row | {"sections": {}} for row in rows(licenses)}
    for row in rows(tables.clauses()):
        if terms := table.get(row["license"]):
            terms["sections"][row["obligation"]] = f"{row['section']}: {row['reading']}"
    return table


def keys_on_hub(licenses: pd.DataFrame) -> dict[str, list[str]]:
    """The licences that a name on the Hub may mean: a tag, or `other: name` beside `other`.

    Names are in lower case. A name beside `other` never stands for a tag; `other` alone for none.
    """
    return _on_hub(rows(licenses))


def _on_hub(texts: Iterable[Terms]) -> dict[str, list[str]]:
    keys: dict[str, list[str]] = {}
    for row in texts:
        tags = str(row.get("hub_license") or "other").lower().split(";")
        names = str(row.get("hub_license_name") or "other").lower().split(";")
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
        if terms := _by_name(name, table) or _by_name(VERSION.sub("", name), table):
            return terms
    if symbol.key not in STANDARD:
        return None
    terms = {"license": symbol.key, "license_class": "permissive", "commercial_use": "yes"}
    return terms | {"conditions": f"Keep the notices of {symbol.key}.", "read": "second-hand"}


def _by_name(name: str | None, table: dict[str, Terms]) -> Terms | None:
    """Terms by key or by the Hub's name; a name of several texts is unknown."""
    if name is None or name in table:
        return table.get(name or "")
    name = name.lower()
    on_hub = _on_hub(table.values())
    keys = {name} & table.keys() or {*on_hub.get(name, []), *on_hub.get(f"other: {name}", [])}
    if len(keys) > 1:
        several = f"{name} ({' or '.join(sorted(keys))})"
        return {"license": several, "license_class": "unknown", "commercial_use": "unknown"}
    return table[keys.pop()] if keys else None


def texts_of(expression: str | None, table: dict[str, Terms]) -> list[Terms]:
    """The texts that an expression binds to, the freest alternative of each choice."""
    if terms := _by_name(expression, table):
        return [terms]
    tree = _parsed(expression or "")
    return [] if tree is None else _leaves(tree, table)


def _leaves(tree: Any, table: dict[str, Terms]) -> list[Terms]:
    parts = tree.args
    if parts and tree.operator.strip() == "OR":
        parts = [min(parts, key=lambda part: _rank(part, table))]
    if parts:
        return [terms for part in parts for terms in _leaves(part, table)]
    return [terms] if (terms := _terms(tree, table)) else []


_licensing = cache(spdx.get_spdx_licensing)
