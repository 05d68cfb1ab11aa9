"""For CI: does the decision still hold? Compares two `06_decision.json`, a sentence a finding.

    python -m tools.watch_decision committed.json fresh.json --retirements retirements.csv

Ends with 0 where nothing that matters changed, with 1 where something did, with 2 where a file
cannot be read. `--retirements` is a CSV file of yours with the columns `model` and `retires_on`
(a date as 2027-01-31), from your providers' announcements: a model's repository, or a deployment.
It goes before a deployment's `retires_on` in the brief of the fresh record.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

Record = dict[str, Any]
NOTICE = timedelta(days=90)


class UnreadableError(Exception):
    """A file that cannot be compared, as a sentence."""


def read(path: Path) -> Record:
    """A record of a decision; raises UnreadableError where the file is none."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableError(f"{path}: cannot be read as JSON: {str(error)[:200]}") from error
    if not isinstance(record, dict) or record.get("record_version") != 1:
        raise UnreadableError(f"{path}: no 06_decision.json of version 1; run `python -m lib run`")
    return record


def retirements(path: Path) -> dict[str, date]:
    """When which model or deployment ends; raises UnreadableError with the line at fault."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if not {"model", "retires_on"} <= {*(rows.fieldnames or [])}:
                raise UnreadableError(f"{path}: the first line must name model,retires_on")
            ends = {}
            for row in rows:
                try:
                    ends[row["model"]] = date.fromisoformat(row["retires_on"] or "")
                except (TypeError, ValueError) as error:
                    raise UnreadableError(
                        f"{path}, line {rows.line_num}: retires_on is {row['retires_on']!r:.60},"
                        " write a date as 2027-01-31"
                    ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnreadableError(f"{path}: cannot be read as CSV: {str(error)[:200]}") from error
    return ends


def findings(old: Record, new: Record, ends: dict[str, date], today: date) -> Iterator[str]:
    """What somebody must look at, a sentence each; nothing where the decision still holds."""
    before, now = (record["pick"] or {} for record in (old, new))
    names = [(record["pick"] or {}).get("deployment", record["outcome"]) for record in (old, new)]
    if names[0] != names[1]:
        yield f"The pick was {names[0]}, now it is {names[1]}: {new['summary']}"
    elif before.get("revision") != now.get("revision"):
        yield f"{names[0]} is at revision {now['revision']}, it was {before['revision']}."
    yield from licences(old, new)
    watched = {pick[key]: pick["deployment"] for pick in (before, now) if pick
               for key in ("model", "deployment")}  # fmt: skip
    days = {d["name"]: d.get("retires_on") for d in new.get("brief", {}).get("deployments", [])}
    ends = {name: date.fromisoformat(day) for name, day in days.items() if day} | ends
    for name in sorted(watched.keys() & ends.keys()):
        if ends[name] - today <= NOTICE:
            left = (ends[name] - today).days
            when = f"in {left} days" if left >= 0 else f"{-left} days ago"
            yield f"{name} retires {when}, on {ends[name]}; the notice here is {NOTICE.days} days."
    yield from passed(old["flip_points"], new["flip_points"])


def licences(old: Record, new: Record) -> Iterator[str]:
    """Another licence, verdict or condition of a pick or runner-up, and who is barred since."""
    for role in ("pick", "runner_up"):
        before, now = old[role] or {}, new[role] or {}
        if before.get("model") == now.get("model"):
            for key in ("license", "verdict", "conditions"):
                if before.get(key) != now.get(key):
                    change = f"{key} was {before[key]!r:.200}, now {now[key]!r:.200}"
                    yield f"{now['model']}: its {change}."
    known = {one["deployment"] for one in old["not_asked"]}
    for one in new["not_asked"]:
        if one["deployment"] not in known:
            yield f"{one['deployment']} is not asked any more: {one['why']}"


def passed(old: list[Record], new: list[Record]) -> Iterator[str]:
    """Prices, loads and bars that are beyond the point where the old record would flip."""
    values = {point["change"]: point["value"] for point in new}
    for point in old:
        edge, was, now = point["flips_at"], point["value"], values.get(point["change"])
        if None not in (edge, was, now) and (edge >= now) != (edge >= was):
            yield (
                f"{point['change']}: {now:.4g} is beyond {edge:.4g}, where the pick becomes"
                f" {point['pick']}; it was {was:.4g}."
            )


def main(argv: list[str] | None = None) -> int:
    """Print the findings; the exit status is for CI."""
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    cli.add_argument("committed", type=Path, help="the record that stands, in your repository")
    cli.add_argument("fresh", type=Path, help="the record of the run that has just ended")
    cli.add_argument("--retirements", type=Path, help="a CSV file: model,retires_on")
    args = cli.parse_args(argv)
    try:
        ends = retirements(args.retirements) if args.retirements else {}
        found = [*findings(read(args.committed), read(args.fresh), ends, date.today())]
    except UnreadableError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    # A terminal obeys nothing that stands in a record.
    found = [
        "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
        for line in found
    ]
    print("\n".join(found) or "The decision holds: pick, licences, models' lives and prices.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
