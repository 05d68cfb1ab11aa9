"""What is stale, unresolved or contradictory in the tables of `data/`."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import date
from typing import Any, NamedTuple

import pandas as pd
from license_expression import ExpressionError, get_spdx_licensing

from lib import tables
from lib.errors import PlaybookError
from lib.legal import ancestors, bases, class_of
from lib.tables import rows

KINDS = ["stale", "unresolved", "contradictory"]
FREEDOM = ["permissive", "conditional", "non-commercial"]
TOLERANCE = 0.1  # of a size
EXAMPLES = 5

Row = dict[Any, Any]


class Problem(NamedTuple):
    """One thing to look at: where it is, what it is (`topic: detail`), and which kind."""

    table: str
    key: str
    text: str
    kind: str


def check(
    catalogue: dict[str, pd.DataFrame], *, today: date | None = None, days: int = 90
) -> list[Problem]:
    """List everything that somebody should look at, by kind as in `KINDS`.

    Args:
        catalogue: Tables by name, `models` and `licenses` among them; of the others only the
            age is looked at.
        today: The day that ages are counted to.
        days: Rows checked longer ago than this are stale, and listed from the oldest on.
    """
    models = {row["repo_id"]: row for row in rows(catalogue["models"])}
    licenses = {row["license"]: row for row in rows(catalogue["licenses"])}
    problems = [
        *(p for name in catalogue for p in _stale(name, catalogue[name], today, days)),
        *_unresolved(models, licenses),
        *_contradictory(models, licenses),
        *_lineage(catalogue["models"], models, licenses),
    ]
    return sorted(problems, key=lambda problem: KINDS.index(problem.kind))


def shipped() -> dict[str, pd.DataFrame]:
    """The tables of `data/`, read afresh."""
    return {name: tables.read_table(name) for name in tables.SCHEMAS}


def render(problems: list[Problem], *, every: bool = False) -> str:
    """The problems as text for a terminal: counts and a few rows of each, or every row."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for table, key, text, kind in problems:
        topic, _, detail = text.partition(": ")
        groups.setdefault((kind, table, topic), []).append(f"    {key}  {detail}".rstrip())
    lines: list[str] = []
    for (kind, table, topic), entries in groups.items():
        lines += [] if kind.upper() in lines else [kind.upper()]
        lines.append(f"  {table}.csv: {topic} ({len(entries)})")
        lines += entries if every else entries[:EXAMPLES]
        if not every and len(entries) > EXAMPLES:
            lines.append(f"    and {len(entries) - EXAMPLES} more (--all)")
    return "\n".join([*lines, summary(problems)])


def summary(problems: list[Problem]) -> str:
    """The counts in one line, as `3 stale, 2 unresolved, 0 contradictory`."""
    counts = Counter(problem.kind for problem in problems)
    return ", ".join(f"{counts[kind]} {kind}" for kind in KINDS)


def _stale(name: str, table: pd.DataFrame, today: date | None, days: int) -> Iterator[Problem]:
    """Rows checked too long ago, the oldest first."""
    for row in rows(table.sort_values("checked_on", kind="stable")):
        key = " ".join(str(row[part]) for part in tables.SCHEMAS[name][0] if row[part] is not None)
        try:
            age = ((today or date.today()) - date.fromisoformat(row["checked_on"])).days
        except ValueError:
            text = f"checked_on {row['checked_on']!r} of {key} is not a day"
            raise PlaybookError(f"{name}.csv: {text}") from None
        if age > days:
            text = f"checked more than {days} days ago: {row['checked_on']}, {age} days"
            yield Problem(name, key, text, "stale")


def _unresolved(models: dict[str, Row], licenses: dict[str, Row]) -> Iterator[Problem]:
    """What a verdict or a tier needs and a model lacks; texts in use that nobody read."""
    for repo_id, row in models.items():
        lacking = {
            "no licence": row["license"] is None,
            f"licence neither in licenses.csv nor SPDX: {row['license']}": not _resolves(
                row["license"], licenses
            ),
            "no country": row["country"] is None,
            "no base model, nor called a first release": row["base_model"] is None,
            "no parameter count": row["total_params_b"] is None and row["hub_params_b"] is None,
        }
        for text, is_lacking in lacking.items():
            if is_lacking:
                yield Problem("models", repo_id, text, "unresolved")
    uses = Counter(row["license"] for row in models.values())
    for key, terms in licenses.items():
        if terms["read"] == "not read" and uses[key]:
            text = f"text not read: {uses[key]} of the models have it"
            yield Problem("licenses", key, text, "unresolved")


def _resolves(expression: str | None, licenses: dict[str, Row]) -> bool:
    """Whether a licence is in the table or a standard one; none at all is another problem."""
    if expression is None or expression in licenses:
        return True
    try:
        unknown = get_spdx_licensing().unknown_license_keys(expression)
    except ExpressionError:
        return False
    return all(key in licenses or key.lower() in licenses for key in unknown)


def _contradictory(models: dict[str, Row], licenses: dict[str, Row]) -> Iterator[Problem]:
    """Cells of one model that cannot both be right, and one repository under two names."""
    first: dict[str, str] = {}
    for repo_id, row in models.items():
        texts = []
        total, hub, active = row["total_params_b"], row["hub_params_b"], row["active_params_b"]
        if total is not None and hub is not None and abs(hub - total) - TOLERANCE * total > 1e-9:
            texts.append(f"sizes more than 10 % apart: stated {total:g}B, Hub counts {hub:g}B")
        whole = hub if total is None else total
        if active is not None and whole is not None and active > whole:
            texts.append(f"active exceeds total: {active:g}B of {whole:g}B")
        license_, tag = row["license"], row["hub_license"]
        if (
            license_ is not None
            and tag is not None
            and tag.lower() not in _tags(license_, licenses)
        ):
            texts.append(f"Hub tag does not match: licence {license_}, Hub {tag}")
        if (twin := first.setdefault(repo_id.lower(), repo_id)) != repo_id:
            texts.append(f"same repository but for case: {twin}")
        yield from (Problem("models", repo_id, text, "contradictory") for text in texts)


def _tags(license_: str, licenses: dict[str, Row]) -> set[str]:
    """What the Hub may call a licence, in lower case."""
    every = [key for key in (license_, *license_.split(" AND ")) if key in licenses]
    names = [
        licenses[key][column] for key in every for column in ("hub_license", "hub_license_name")
    ]
    cells = [license_, *every, *names]
    return {tag.strip().lower() for cell in cells if cell for tag in cell.split(";")}


def _lineage(
    table: pd.DataFrame, models: dict[str, Row], licenses: dict[str, Row]
) -> Iterator[Problem]:
    """Base models without a row, and derivatives tagged more freely than what they are made of."""
    direct = bases(table)
    for repo_id, row in models.items():
        for base in direct.get(repo_id, []):
            if base not in models:
                yield Problem("models", repo_id, f"base model without a row: {base}", "unresolved")
        for base in ancestors(repo_id, direct):
            tags = row["license"], models.get(base, {}).get("license")
            classes = [class_of(tag, licenses) for tag in tags]
            ranks = [FREEDOM.index(name) for name in classes if name in FREEDOM]
            if len(ranks) == 2 and ranks[0] < ranks[1]:
                text = f"relabelled: tagged {tags[0]}, but its base {base} is {tags[1]}"
                yield Problem("models", repo_id, text, "contradictory")


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, check, and return the exit status."""
    cli = argparse.ArgumentParser(prog="python -m tools.check_catalogue", description=__doc__)
    cli.add_argument("--days", type=int, default=90, help="older rows are stale (90)")
    cli.add_argument("--all", action="store_true", help="every row, not the first of each")
    args = cli.parse_args(argv)
    try:
        print(render(check(shipped(), days=args.days), every=args.all))
    except PlaybookError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
