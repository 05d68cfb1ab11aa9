"""The supply-chain gate: what a repository must show before its weights are loaded."""

from collections.abc import Iterator
from datetime import date, datetime
from typing import Any

import pandas as pd

from lib.brief import Require
from lib.tables import rows
from lib.untrusted import as_text

COLUMNS = """repo_id formats remote_code security security_issues gated created_at
    last_modified""".split()
Check = tuple[str, bool | None, str]
JUDGED = ["repo_id", "supply_verdict", "supply_reasons"]


def supply_verdicts(metadata: pd.DataFrame, require: Require, *, today: date) -> pd.DataFrame:
    """Hold every repository against the brief's `require`.

    `fail` wins over `unknown`, and what is not known never passes. Loading pickle runs code: who
    has pickle files beside safetensors passes, with a note. A scan must be done. `min_age_days`
    counts from `created_at`, `max_age_days` from `last_modified`, in whole days to `today`.

    Args:
        metadata: From `hub.pull`.
        require: The brief's section.
        today: The day that ages are counted to.

    Returns:
        One row per row of `metadata`, in order: `repo_id supply_verdict supply_reasons`;
        `pass|fail|unknown`, and reasons that are empty where nothing was required.
    """
    judged = []
    for row in rows(metadata, COLUMNS):
        row["kinds"] = set(str(row["formats"] or "").split(";")) - {""}
        checks = list(_checks(row, require, today))
        reasons = [why for _, holds, why in checks if holds is False]
        unknown = [fact for fact, holds, _ in checks if holds is None]
        verdict = "fail" if reasons else "unknown" if unknown else "pass"
        reasons += [f"not verified: {', '.join(unknown)}"] * bool(unknown)
        if require.safetensors and {"safetensors", "pickle"} <= row["kinds"]:
            reasons.append("pickle files too: load with safetensors only")
        judged.append((row["repo_id"], verdict, "; ".join(reasons)))
    return pd.DataFrame(judged, columns=JUDGED, index=metadata.index, dtype="str")


def _checks(row: dict[str, Any], require: Require, today: date) -> Iterator[Check]:
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
