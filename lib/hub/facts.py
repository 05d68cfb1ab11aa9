"""The facts of a pull: what was verified against the Hub, kept for the project's next run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from lib.artifacts import write_bytes
from lib.hub.model_info import as_text, valid_id

__all__ = ["Row", "by_repo", "number", "overview", "recall", "records", "remember", "verified"]

TEXTS = """repo_id revision metadata_source retrieved_at license_on_hub license_name gated
    base_models renamed_to""".split()
NUMBERS = ["context_length", "params_b", "gguf_params_b"]
# What a deployment rests on, the column that holds it, and the drift that contradicts it.
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


def remember(metadata: pd.DataFrame, path: Path) -> None:
    """Keep the facts of an accepted pull for the project's next run, in any run directory.

    Rows that were not verified against the Hub replace nothing.
    """
    known = verified(metadata)
    if known:
        earlier = recall(path)
        kept = {} if earlier is None else verified(earlier)
        rows = list((kept | known).values())
        write_bytes(path, json.dumps(rows, indent=1, ensure_ascii=False).encode())


def recall(path: Path) -> pd.DataFrame | None:
    """The facts that `remember` kept; None where there are none or the file is damaged."""
    try:
        rows = json.loads(path.read_bytes())
        facts = [_clean(row) for row in rows]
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    return pd.DataFrame(facts, columns=[*TEXTS, *NUMBERS]).dropna(subset=["repo_id"])


def _clean(row: Row) -> Row:
    facts: Row = {key: as_text(row.get(key)) for key in TEXTS}
    facts |= {key: number(row.get(key)) for key in NUMBERS}
    return facts | {"base_models": _ids(row.get("base_models"))}


def records(table: pd.DataFrame, columns: list[str]) -> list[Row]:
    """The rows with these columns, blanks and missing columns as None."""
    plain = table.reindex(columns=columns).astype(object)
    return plain.where(plain.notna(), None).to_dict("records")


def by_repo(table: pd.DataFrame, columns: list[str]) -> dict[str, Row]:
    """The first row of each repository, with these columns."""
    first = table.drop_duplicates("repo_id")
    return {row["repo_id"]: row for row in records(first, ["repo_id", *columns])}


def verified(metadata: pd.DataFrame) -> dict[str, Row]:
    """The facts that came from the Hub, by repository."""
    rows = by_repo(metadata, [*TEXTS[1:], *NUMBERS])
    return {k: row for k, row in rows.items() if str(row["metadata_source"]).startswith("hub")}


def overview(metadata: pd.DataFrame, drifts: pd.DataFrame) -> pd.DataFrame:
    """One screen: of how many models the Hub confirmed, contradicted or left open each fact.

    Returns:
        One row per fact, `fact verified drifted unknown`; each row adds up to all models. What
        only the catalogue says is unknown, and so is a security scan that has not finished.
    """
    asked = metadata["repo_id"].isin(verified(metadata))
    rows = []
    for fact, (column, drift) in RESTS_ON.items():
        told = asked & metadata[column].notna() & (metadata[column] != "unknown")
        apart = metadata["repo_id"].isin(drifts.loc[drifts["field"] == drift, "repo_id"])
        if fact == "base model":  # the Hub's silence says that there is none
            told = asked
        drifted = asked & apart
        verified_ = told & ~drifted
        unknown = len(metadata) - int(verified_.sum()) - int(drifted.sum())
        rows.append((fact, int(verified_.sum()), int(drifted.sum()), unknown))
    return pd.DataFrame(rows, columns=["fact", "verified", "drifted", "unknown"])


def number(value: object) -> float | None:
    """A finite number above zero; the file it comes from may hold anything."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value < 2**63 else None


def _ids(names: object) -> str | None:
    """Repository names joined by `;`, however many."""
    parts = names.split(";") if isinstance(names, str) else []
    return ";".join(part for part in parts if valid_id(part)) or None
