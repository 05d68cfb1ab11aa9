"""The facts of a pull: what was verified against the Hub, kept for the project's next run."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from lib.artifacts import write_bytes
from lib.frames import rows
from lib.untrusted import as_number

# The facts that are compared, and kept.
TEXTS = """repo_id revision metadata_source retrieved_at license_on_hub license_name gated
    base_models renamed_to""".split()
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

Row = dict[Any, Any]
Facts = dict[str, Row]


def verified(pulled: pd.DataFrame) -> Facts:
    """The facts that came from the Hub, by repository."""
    told = pulled[pulled["metadata_source"].astype(str).str.startswith("hub")]
    return {row["repo_id"]: _facts(row) for row in rows(told.drop_duplicates("repo_id"))}


def _facts(row: Row) -> Row:
    """What is compared and kept: texts or None, numbers or 0, and the licence by its one name.

    `license` is the Hub's tag, or `other: name` where a name stands beside the tag `other`.
    """
    facts: Row = {key: row.get(key) if isinstance(row.get(key), str) else None for key in TEXTS}
    facts |= {key: max(as_number(row.get(key)) or 0.0, 0.0) for key in NUMBERS}
    text = facts["license_on_hub"] or ""
    return facts | {"license": f"other: {text}" if text and text == facts["license_name"] else text}


def overview(pulled: pd.DataFrame, drifts: pd.DataFrame) -> pd.DataFrame:
    """One screen: of how many models the Hub confirmed, contradicted or left open each fact.

    Returns:
        One row per fact, `fact verified drifted unknown`; each row adds up to all models. What
        only the catalogue says is unknown, and so is a security scan that has not finished.
    """
    asked, counts = pulled["repo_id"].isin(verified(pulled)), []
    for fact, (column, field) in RESTS_ON.items():
        known = asked & pulled[column].notna() & (pulled[column] != "unknown")
        if fact == "base model":  # the Hub's silence says that there is none
            known = asked
        apart = pulled["repo_id"].isin(drifts.loc[drifts["field"] == field, "repo_id"])
        agreed, drifted = (known & ~apart).sum(), (asked & apart).sum()
        counts.append((fact, agreed, drifted, len(pulled) - agreed - drifted))
    return pd.DataFrame(counts, columns=["fact", "verified", "drifted", "unknown"])


def remember(pulled: pd.DataFrame, path: Path) -> None:
    """Keep the facts of an accepted pull for the project's next run, in any run directory.

    Rows that were not verified against the Hub replace nothing.
    """
    if facts := verified(pulled):
        kept = list((recall(path) | facts).values())
        write_bytes(path, json.dumps(kept, indent=1, ensure_ascii=False).encode())


def recall(path: Path) -> Facts:
    """The facts that `remember` kept, by repository; none where the file is damaged."""
    try:
        kept = [_facts(row) for row in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return {row["repo_id"]: row for row in kept if row["repo_id"]}
