"""The supply-chain gate: what a repository must show before its weights are loaded."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime

import pandas as pd

from lib.brief.sections import Require
from lib.frames import rows as records
from lib.hub.facts import Row
from lib.hub.model_info import as_text

__all__ = ["judge"]

COLUMNS = ["formats", "remote_code", "security", "security_issues", "gated", "created_at",
           "last_modified"]  # fmt: skip
GATED = ("auto", "manual", "yes")
# A day ahead is a time zone; more than that is no date to trust.
AHEAD_DAYS = 1

# What a check found: why it fails, or "" where the fact is not known, or None where it holds.
Outcome = str | None


def judge(metadata: pd.DataFrame, require: Require, *, today: date) -> pd.DataFrame:
    """Hold every repository against the brief's `require`.

    `fail` wins over `unknown`, and what is not known never passes. Pickle is what
    `safetensors` guards against: loading it runs code. It asks for safetensors files, so a
    repository with GGUF or pickle alone fails; one that has pickle files too passes, with a
    note. `scanned` takes the Hub's scan of all files, which must be done. `min_age_days` counts
    from `created_at` (fresh uploads), `max_age_days` from `last_modified` (abandoned ones), in
    whole days.

    Args:
        metadata: From `hub.pull`.
        require: The brief's section.
        today: The day that ages are counted to.

    Returns:
        One row per row of `metadata`, in order: `repo_id supply_verdict supply_reasons`;
        `pass|fail|unknown`, and reasons that are empty where nothing was required.
    """
    checks = _checks(require, today)
    rows = [_judged(row, require, checks) for row in records(metadata, COLUMNS)]
    names = ["supply_verdict", "supply_reasons"]
    judged = pd.DataFrame(rows, columns=names, index=metadata.index, dtype="str")
    return metadata[["repo_id"]].join(judged)


def _judged(
    row: Row, require: Require, checks: dict[str, Callable[[Row], Outcome]]
) -> tuple[str, str]:
    outcomes = {fact: check(row) for fact, check in checks.items()}
    reasons = [text for text in outcomes.values() if text]
    verdict = "fail" if reasons else "pass"
    if unknown := [fact for fact, text in outcomes.items() if text == ""]:
        verdict = "fail" if reasons else "unknown"
        reasons.append(f"not verified: {', '.join(unknown)}")
    if require.safetensors and {"safetensors", "pickle"} <= _formats(row):
        reasons.append("pickle files too: load with safetensors only")
    return verdict, "; ".join(reasons)


def _checks(require: Require, today: date) -> dict[str, Callable[[Row], Outcome]]:
    """The checks that the brief asks for, by the fact each needs."""
    youngest, oldest = require.min_age_days, require.max_age_days
    checks: dict[str, tuple[bool, Callable[[Row], Outcome]]] = {
        "file formats": (require.safetensors, _safetensors),
        "remote code": (require.no_remote_code, _remote_code),
        "security scan": (require.scanned, _scan),
        "gating": (require.not_gated, _gating),
        "creation date": (bool(youngest), lambda row: _young(row, youngest or 0, today)),
        "last change": (oldest is not None, lambda row: _abandoned(row, oldest or 0, today)),
    }
    return {fact: check for fact, (asked, check) in checks.items() if asked}


def _formats(row: Row) -> set[str]:
    return set(str(row["formats"] or "").split(";")) - {""}


def _safetensors(row: Row) -> Outcome:
    if not isinstance(row["formats"], str):
        return ""
    kinds = _formats(row)
    found = f"only {' and '.join(sorted(kinds))}" if kinds else "no weight files"
    return None if "safetensors" in kinds else f"no safetensors files, {found}"


def _remote_code(row: Row) -> Outcome:
    if not isinstance(row["remote_code"], bool):
        return ""
    return "loading it runs the repository's own code" if row["remote_code"] else None


def _scan(row: Row) -> Outcome:
    if row["security"] == "issues":
        return (
            f"the Hub's scan found issues: {as_text(row['security_issues']) or 'files not named'}"
        )
    return None if row["security"] == "clean" else ""


def _gating(row: Row) -> Outcome:
    if row["gated"] in GATED:
        return f"gated ({row['gated']}): its terms must be accepted first"
    return None if row["gated"] == "no" else ""


def _young(row: Row, least: int, today: date) -> Outcome:
    age = _age_days(row["created_at"], today)
    if age is None:
        return ""
    return f"created {age} days ago, wanted at least {least}" if age < least else None


def _abandoned(row: Row, most: int, today: date) -> Outcome:
    age = _age_days(row["last_modified"], today)
    if age is None:
        return ""
    return f"last changed {age} days ago, wanted at most {most}" if age > most else None


def _age_days(stamp: object, today: date) -> int | None:
    """Whole days from an ISO time to a day; None where it is none or lies ahead."""
    try:
        age = (today - datetime.fromisoformat(str(stamp)).date()).days
    except ValueError:
        return None
    return max(age, 0) if age >= -AHEAD_DAYS else None
