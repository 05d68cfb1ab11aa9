"""The facts of a pull: what was verified, kept for the next run, and passes the brief's gate."""

import json
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

import pandas as pd

from lib.artifacts import write_bytes
from lib.brief import Require
from lib.tables import Row, parts, rows
from lib.untrusted import as_number, as_text

# The facts that are compared, and kept.
TEXTS = """repo_id revision metadata_source retrieved_at license_on_hub license_name gated
    base_models renamed_to license_sha256""".split()
NUMBERS = ["context_length", "params_b", "gguf_params_b"]
# What a deployment rests on: the column that holds it, and the drift that contradicts it.
RESTS_ON = {
    "revision": ("revision", None),
    "licence": ("license_on_hub", "licence"),
    "size": ("params_b", "size"),
    "context length": ("context_length", "context"),
    "gating": ("gated", "gated"),
    "base model": ("base_models", "base model"),
    "file formats": ("formats", None),
    "remote code": ("remote_code", None),
    "security scan": ("security", None),
}
# What the gate looks at, and what it answers.
GATE = """repo_id formats remote_code security security_issues gated created_at
    last_modified""".split()
SUPPLY = ["repo_id", "supply_verdict", "supply_reasons"]

Check = tuple[str, bool | None, str]
Facts = dict[str, Row]


def facts_from_hub(pulled: pd.DataFrame) -> Facts:
    """The facts that came from the Hub, by repository."""
    from_hub = pulled[pulled["metadata_source"].astype(str).str.startswith("hub")]
    return {row["repo_id"]: _facts(row) for row in rows(from_hub.drop_duplicates("repo_id"))}


def _facts(row: Row) -> Row:
    """What is compared and kept: texts or None, numbers or 0, and the licence by its one name."""
    facts: Row = {key: row.get(key) if isinstance(row.get(key), str) else None for key in TEXTS}
    facts |= {key: max(as_number(row.get(key)) or 0.0, 0.0) for key in NUMBERS}
    text = facts["license_on_hub"] or ""
    return facts | {"license": f"other: {text}" if text and text == facts["license_name"] else text}


def overview(pulled: pd.DataFrame, drifts: pd.DataFrame) -> pd.DataFrame:
    """How many models the Hub confirmed and contradicted: `fact verified drifted unknown`."""
    is_verified, counts = pulled["repo_id"].isin(facts_from_hub(pulled)), []
    for fact, (column, field) in RESTS_ON.items():
        has_value = pulled[column].notna() & (pulled[column] != "unknown")
        apart = pulled["repo_id"].isin(drifts.loc[drifts["field"] == field, "repo_id"])
        agreed, drifted = (is_verified & has_value & ~apart).sum(), (is_verified & apart).sum()
        counts.append((fact, agreed, drifted, len(pulled) - agreed - drifted))
    return pd.DataFrame(counts, columns=["fact", "verified", "drifted", "unknown"])


def remember(pulled: pd.DataFrame, path: Path) -> None:
    """Keep the facts of an accepted pull that the Hub verified, for the project's next run."""
    if facts := facts_from_hub(pulled):
        all_facts = list((recall(path) | facts).values())
        write_bytes(path, json.dumps(all_facts, indent=1, ensure_ascii=False).encode())


def recall(path: Path) -> Facts:
    """The facts that `remember` kept, by repository; none where the file is damaged."""
    try:
        facts = [_facts(row) for row in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return {row["repo_id"]: row for row in facts if row["repo_id"]}


def supply_verdicts(metadata: pd.DataFrame, require: Require, *, today: date) -> pd.DataFrame:
    """Hold every repository against the brief's `require`: a row each, with the columns `SUPPLY`.

    The verdict is `pass|fail|unknown`: `fail` wins over `unknown`, which never passes.
    """
    judged = []
    for row in rows(metadata, GATE):
        row["kinds"] = {*parts(row["formats"])}
        checks = list(_checks(row, require, today))
        reasons = [why for _, holds, why in checks if holds is False]
        unknown = [fact for fact, holds, _ in checks if holds is None]
        verdict = "fail" if reasons else "unknown" if unknown else "pass"
        reasons += [f"not verified: {', '.join(unknown)}"] * bool(unknown)
        if require.safetensors and {"safetensors", "pickle"} <= row["kinds"]:
            reasons.append("pickle files too: load with safetensors only")
        judged.append((row["repo_id"], verdict, "; ".join(reasons)))
    return pd.DataFrame(judged, columns=SUPPLY, index=metadata.index, dtype="str")


def _checks(row: Row, require: Require, today: date) -> Iterator[Check]:
    """What the brief asks for: the fact, whether it holds (null: not known), why it does not."""
    if require.safetensors:
        there = f"only {' and '.join(sorted(row['kinds']))}" if row["kinds"] else "no weight files"
        holds = None if row["formats"] is None else "safetensors" in row["kinds"]
        yield "file formats", holds, f"no safetensors files, {there}"
    if require.no_remote_code:
        holds = not row["remote_code"] if isinstance(row["remote_code"], bool) else None
        yield "remote code", holds, "loading it runs the repository's own code"
    if require.scanned:
        issues = as_text(row["security_issues"]) or "files not named"
        holds = {"clean": True, "issues": False}.get(row["security"])
        yield "security scan", holds, f"the Hub's scan found issues: {issues}"
    if require.not_gated:
        holds = {"no": True, "auto": False, "manual": False, "yes": False}.get(row["gated"])
        yield "gating", holds, f"gated ({row['gated']}): its terms must be accepted first"
    if least := require.min_age_days:
        age = _age_days(row["created_at"], today)
        why = f"created {age} days ago, wanted at least {least}"
        yield "creation date", None if age is None else age >= least, why
    if (most := require.max_age_days) is not None:
        age = _age_days(row["last_modified"], today)
        why = f"last changed {age} days ago, wanted at most {most}"
        yield "last change", None if age is None else age <= most, why


def _age_days(stamp: object, today: date) -> int | None:
    """Whole days from an ISO time to a day; None where it is none or lies ahead."""
    try:
        age = (today - datetime.fromisoformat(str(stamp)).date()).days
    except ValueError:
        return None
    return max(age, 0) if age >= -1 else None  # a day ahead is a time zone, more no date to trust
