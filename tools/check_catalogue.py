"""What is stale, unresolved or contradictory in the shipped tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from datetime import date
from typing import Any, NamedTuple

import pandas as pd
from license_expression import ExpressionError, get_spdx_licensing

from lib import tables
from lib.errors import PlaybookError
from lib.legal import licenses as texts
from lib.legal.clauses import Terms
from lib.legal.lineage import ancestors, bases

__all__ = ["KINDS", "check", "check_shipped", "render", "summary"]

KINDS = ["stale", "unresolved", "contradictory"]
FREEDOM = ["permissive", "conditional", "non-commercial"]
TOLERANCE = 0.1
EXAMPLES = 5

Row = dict[Any, Any]


class Problem(NamedTuple):
    """One thing to look at: where it is, what it is (`topic: detail`), and which kind."""

    table: str
    key: str
    problem: str
    kind: str


def check(
    models: pd.DataFrame,
    licenses: pd.DataFrame,
    others: dict[str, pd.DataFrame] | None = None,
    *,
    today: date,
    days: int = 90,
) -> pd.DataFrame:
    """List everything in the tables that somebody should look at.

    Args:
        models: The catalogue, from `tables.models`.
        licenses: Licence texts, from `tables.licenses`.
        others: Further tables by name, of which only the age is looked at.
        today: The day that ages are counted to.
        days: Rows checked longer ago than this are stale.

    Returns:
        One row per problem: `table key problem kind`, ordered by kind as in `KINDS`; what is
        stale comes oldest first, the rest in the order of its table.
    """
    found: list[Problem] = []
    for name, table in {"models": models, "licenses": licenses, **(others or {})}.items():
        found += _stale(name, table, today, days)
    rows, known = _rows(models), texts.terms_by_key(licenses)
    used, first = [row["license"] for row in rows], dict[str, str]()
    for row in rows:
        repo_id = row["repo_id"]
        found += [Problem("models", repo_id, p, "unresolved") for p in _unresolved(row, known)]
        found += [
            Problem("models", repo_id, p, "contradictory") for p in _contradictory(row, known)
        ]
        if (twin := first.setdefault(repo_id.lower(), repo_id)) != repo_id:
            problem = f"same repository but for case: {twin}"
            found.append(Problem("models", repo_id, problem, "contradictory"))
    for key, terms in known.items():
        if terms["read"] == "not read" and key in used:
            problem = f"text not read: {used.count(key)} of the models have it"
            found.append(Problem("licenses", key, problem, "unresolved"))
    found += _lineage(models, {row["repo_id"]: row["license"] for row in rows}, known)
    table = pd.DataFrame(found, columns=list(Problem._fields)).astype(str)
    return table.sort_values("kind", key=lambda kind: kind.map(KINDS.index), kind="stable",
                             ignore_index=True)  # fmt: skip


def check_shipped(*, today: str = "", days: int = 90) -> pd.DataFrame:
    """Check the tables of `data/`, read afresh.

    Args:
        today: An ISO day instead of the current one.
        days: As in `check`.

    Raises:
        PlaybookError: A table cannot be read, or an argument makes no sense.
    """
    if days < 0:
        raise PlaybookError(f"--days {days}: give 0 or more")
    try:
        day = date.fromisoformat(today) if today else date.today()
    except ValueError:
        raise PlaybookError(f"--today {today!r}: give a day as YYYY-MM-DD") from None
    read = {name: tables.read_table(name) for name in tables.SCHEMAS}
    return check(read.pop("models"), read.pop("licenses"), read, today=day, days=days)


def render(problems: pd.DataFrame, *, every: bool = False) -> str:
    """The problems as text for a terminal: counts and a few rows of each, or every row."""
    lines = []
    for kind in KINDS:
        own = problems[problems["kind"] == kind]
        if own.empty:
            continue
        lines.append(kind.upper())
        topics = own["problem"].str.split(":").str[0]
        for (table, topic), group in own.groupby(["table", topics], sort=False):
            lines.append(f"  {table}.csv: {topic} ({len(group)})")
            shown = group if every else group.head(EXAMPLES)
            width = shown["key"].str.len().max()
            for key, problem in zip(shown["key"], shown["problem"], strict=True):
                detail = problem.partition(": ")[2]
                lines.append(f"    {key:<{width}}  {detail}".rstrip())
            if len(shown) < len(group):
                lines.append(f"    and {len(group) - len(shown)} more (--all)")
        lines.append("")
    return "\n".join([*lines, summary(problems)])


def summary(problems: pd.DataFrame) -> str:
    """The counts in one line, as `3 stale, 2 unresolved, 0 contradictory`."""
    return ", ".join(f"{(problems['kind'] == kind).sum()} {kind}" for kind in KINDS)


def _stale(name: str, table: pd.DataFrame, today: date, days: int) -> Iterator[Problem]:
    """Rows checked too long ago, the oldest first."""
    for row in _rows(table.sort_values("checked_on", kind="stable")):
        key = " ".join(str(row[part]) for part in tables.SCHEMAS[name][0] if row[part] is not None)
        try:
            age = (today - date.fromisoformat(row["checked_on"])).days
        except ValueError:
            text = f"checked_on {row['checked_on']!r} of {key} is not a day"
            raise PlaybookError(f"{name}.csv: {text}") from None
        if age > days:
            problem = f"checked more than {days} days ago: {row['checked_on']}, {age} days"
            yield Problem(name, key, problem, "stale")


def _unresolved(row: Row, known: dict[str, Terms]) -> Iterator[str]:
    """What a verdict or a tier needs and a model lacks."""
    if row["license"] is None:
        yield "no licence"
    elif not _resolves(row["license"], known):
        yield f"licence neither in licenses.csv nor SPDX: {row['license']}"
    if row["country"] is None:
        yield "no country"
    if row["total_params_b"] is None and row["hub_params_b"] is None:
        yield "no parameter count"


def _resolves(expression: str, known: dict[str, Terms]) -> bool:
    if expression in known:
        return True
    try:
        unknown = get_spdx_licensing().unknown_license_keys(expression)
    except ExpressionError:
        return False
    return all(key in known or key.lower() in known for key in unknown)


def _contradictory(row: Row, known: dict[str, Terms]) -> Iterator[str]:
    """Cells of one model that cannot both be right."""
    total, hub, active = row["total_params_b"], row["hub_params_b"], row["active_params_b"]
    if total is not None and hub is not None and abs(hub - total) - TOLERANCE * total > 1e-9:
        yield f"sizes more than 10 % apart: stated {total:g}B, Hub counts {hub:g}B"
    whole = hub if total is None else total
    if active is not None and whole is not None and active > whole:
        yield f"active exceeds total: {active:g}B of {whole:g}B"
    license_, tag = row["license"], row["hub_license"]
    if license_ is not None and tag is not None:
        terms = known.get(license_, {})
        cells = (license_, terms.get("hub_license"), terms.get("hub_license_name"))
        if tag.lower() not in {part.strip().lower() for c in cells if c for part in c.split(";")}:
            yield f"Hub tag does not match: licence {license_}, Hub {tag}"


def _lineage(
    models: pd.DataFrame, given: dict[str, str | None], known: dict[str, Terms]
) -> Iterator[Problem]:
    """Base models without a row, and derivatives tagged more freely than what they are made of."""
    direct = bases(models)
    for repo_id, license_ in given.items():
        for base in direct.get(repo_id, []):
            if base not in given:
                problem = f"base model without a row: {base}"
                yield Problem("models", repo_id, problem, "unresolved")
        for base in ancestors(repo_id, direct):
            classes = [texts.class_of(key, known) for key in (license_, given.get(base))]
            ranks = [FREEDOM.index(name) for name in classes if name in FREEDOM]
            if len(ranks) == 2 and ranks[0] < ranks[1]:
                problem = f"relabelled: tagged {license_}, but its base {base} is {given[base]}"
                yield Problem("models", repo_id, problem, "contradictory")


def _rows(table: pd.DataFrame) -> list[Row]:
    plain = table.astype(object)
    return plain.where(plain.notna(), None).to_dict("records")


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, check, and return the exit status."""
    cli = argparse.ArgumentParser(prog="python -m tools.check_catalogue", description=__doc__)
    cli.add_argument("--today", default="", metavar="YYYY-MM-DD", help="count ages to this day")
    cli.add_argument("--days", type=int, default=90, help="older rows are stale (90)")
    cli.add_argument("--all", action="store_true", help="every row, not the first of each")
    args = cli.parse_args(argv)
    try:
        print(render(check_shipped(today=args.today, days=args.days), every=args.all))
    except PlaybookError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
