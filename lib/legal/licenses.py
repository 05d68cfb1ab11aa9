"""Licences by key or SPDX expression: which text applies, and what it finds."""

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache, partial
from itertools import chain
from typing import Any, TypeVar

import license_expression as spdx
import pandas as pd

from lib import tables
from lib.brief import Project
from lib.legal.clauses import ALLOWED, Finding, Terms, assess
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
T = TypeVar("T")
_licensing = cache(spdx.get_spdx_licensing)
VERSION = re.compile(r"-(only|or-later)$|\+$")  # which names the text: `-or-later` offers it too


def assess_expression(
    expression: str | None, table: dict[str, Terms], brief: Project, *, multimodal: bool | None
) -> list[Finding]:
    """The findings of a licence key or SPDX expression; what nobody knows is `review`."""
    company, policy = brief.company, brief.policy
    assess_terms = partial(assess, company=company, policy=policy, multimodal=multimodal)
    return _mildest(expression, table, assess_terms, worst)


def texts_of(expression: str | None, table: dict[str, Terms]) -> list[Terms]:
    """The texts that an expression binds to, the freest alternative of each choice."""
    return _mildest(expression, table, lambda terms: [terms], rank)


def class_of(expression: str | None, table: dict[str, Terms]) -> str:
    """The class of a licence key or SPDX expression; `unknown` where nobody knows."""
    return CLASSES[rank(texts_of(expression, table))]


def rank(texts: list[Terms]) -> int:
    """The strictest class of some texts, by its place in `CLASSES`."""
    return max(CLASSES.index(terms["license_class"]) for terms in texts)


def _mildest(
    expression: str | None,
    table: dict[str, Terms],
    of_text: Callable[[Terms], list[T]],
    strictness: Callable[[list[T]], int],
) -> list[T]:
    """What an expression amounts to: of `A OR B` the milder part, of `A AND B` both."""

    def walk(tree: Any) -> list[T]:
        if not tree.args:
            return of_text(_terms(tree, table))
        parts = [walk(part) for part in tree.args]
        either = tree.operator.strip() == "OR"
        return min(parts, key=strictness) if either else [*chain.from_iterable(parts)]

    if terms := _by_name(expression, table):
        return of_text(terms)
    with suppress(spdx.ExpressionError):
        if (tree := _licensing().parse(expression)) is not None:
            return walk(tree)
    why = f"{expression!r} is not a licence expression" if expression else "no licence is recorded"
    return of_text(_unknown_terms(str(expression), why))


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


def keys_on_hub(licenses: Iterable[Terms]) -> dict[str, list[str]]:
    """The licences that a name on the Hub, in lower case, may mean: a tag, or `other: name`."""
    keys: dict[str, list[str]] = {}
    for row in licenses:
        tags = str(row.get("hub_license") or "other").lower().split(";")
        names = str(row.get("hub_license_name") or "other").lower().split(";")
        for name in {*tags, *(f"other: {name}" for name in names)} - {"other", "other: other"}:
            keys.setdefault(name, []).append(row["license"])
    return keys


def _terms(symbol: Any, table: dict[str, Terms]) -> Terms:
    """Terms of one licence by any of its names; those `WITH` an exception are unknown."""
    if isinstance(symbol, spdx.LicenseSymbol):
        for name in (symbol.key, *symbol.aliases):
            if terms := _by_name(name, table) or _by_name(VERSION.sub("", name), table):
                return terms
    key = symbol.render()
    if key not in STANDARD:
        return _unknown_terms(key, f"licence {key} is not in data/licenses.csv")
    terms = {"license": key, "license_class": "permissive", "commercial_use": "yes"}
    return terms | {"conditions": f"Keep the notices of {key}.", "read": "second-hand"}


def _unknown_terms(name: str, why: str) -> Terms:
    return {"license": name, "license_class": "unknown", "unread": why}


def _by_name(name: str | None, table: dict[str, Terms]) -> Terms | None:
    """Terms by key or by the Hub's name; a name of several texts is unknown."""
    if name is None or name in table:
        return table.get(name or "")
    name = name.lower()
    on_hub = keys_on_hub(table.values())
    keys = {name} & table.keys() or {*on_hub.get(name, []), *on_hub.get(f"other: {name}", [])}
    if len(keys) > 1:
        several = f"{name} ({' or '.join(sorted(keys))})"
        return _unknown_terms(several, f"the text of {several} has not been read")
    return table[keys.pop()] if keys else None
