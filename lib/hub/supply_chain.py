"""The supply-chain gate: what a repository must show before its weights are loaded."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from typing import Any

import pandas as pd

from lib.brief.sections import Require
from lib.frames import rows
from lib.untrusted import as_text

__all__ = ["judge"]

COLUMNS = "formats remote_code security security_issues gated created_at last_modified".split()
# A day ahead is a time zone; more than that is no date to trust.
AHEAD_DAYS = 1


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
    judged = []
    for row in rows(metadata, COLUMNS):
        checks = list(_checks(row, require, today))
        reasons = [why for _, holds, why in checks if holds is False]
        unknown = [fact for fact, holds, _ in checks if holds is None]
        verdict = "fail" if reasons else "unknown" if unknown else "pass"
        reasons += [f"not verified: {', '.join(unknown)}"] * bool(unknown)
        if require.safetensors and {"safetensors", "pickle"} <= _formats(row):
            reasons.append("pickle files too: load with safetensors only")
        judged.append((verdict, "; ".join(reasons)))
    names = ["supply_verdict", "supply_reasons"]
    verdicts = pd.DataFrame(judged, columns=names, index=metadata.index, dtype="str")
    return metadata[["repo_id"]].join(verdicts)


def _checks(
    row: dict[str, Any], require: Require, today: date
) -> Iterator[tuple[str, bool | None, str]]:
    """What the brief asks for: the fact, whether it holds (null: not known), why it does not."""
    if require.safetensors:
        kinds = _formats(row)
        there = f"only {' and '.join(sorted(kinds))}" if kinds else "no weight files"
        holds = None if row["formats"] is None else "safetensors" in kinds
        yield "file formats", holds, f"no safetensors files, {there}"
    if require.no_remote_code:
        holds = not row["remote_code"] if isinstance(row["remote_code"], bool) else None
        yield "remote code", holds, "loading it runs the repository's own code"
    if require.scanned:
        holds = {"clean": True, "issues": False}.get(row["security"])
        issues = as_text(row["security_issues"]) or "files not named"
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


def _formats(row: dict[str, Any]) -> set[str]:
    return set(str(row["formats"] or "").split(";")) - {""}


def _age_days(stamp: object, today: date) -> int | None:
    """Whole days from an ISO time to a day; None where it is none or lies ahead."""
    try:
        age = (today - datetime.fromisoformat(str(stamp)).date()).days
    except ValueError:
        return None
    return max(age, 0) if age >= -AHEAD_DAYS else None
