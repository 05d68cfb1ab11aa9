"""The Hub's facts about a model as cells of the catalogue: text, blank where it tells none."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pandas as pd

from lib.model_info import as_text

__all__ = ["as_cells"]

Row = dict[Any, Any]


def as_cells(metadata: pd.DataFrame) -> dict[str, dict[str, str]]:
    """The cells of each model that the Hub answered for, at a commit.

    Args:
        metadata: From `hub.pull`.

    Returns:
        By `repo_id`: `hub_license`, `hub_params_b` (billions, 4 digits), `layers`, `kv_heads`,
        `head_dim`, blank where the Hub does not tell or tells what no such fact can be; and
        `hub_revision` and `hub_checked_on`, the day of the answer.
    """
    plain, answers = metadata.astype(object), {}
    for row in plain.where(plain.notna(), None).to_dict("records"):
        day = re.match(r"\d{4}-\d\d-\d\d", str(row["retrieved_at"]))
        pinned = re.fullmatch(r"[0-9a-f]{40}", str(row["revision"]))
        if str(row["metadata_source"]).startswith("hub") and day and pinned:
            stamps = {"hub_revision": pinned[0], "hub_checked_on": day[0]}
            answers[row["repo_id"]] = {c: tell(row) for c, tell in FACTS.items()} | stamps
    return answers


def _license(row: Row) -> str:
    text = as_text(row["license_on_hub"]) or ""
    return "" if text[:1] in "=+-@" else text  # a spreadsheet would run it; no licence starts so


def _billions(row: Row) -> str:
    value = row["params_b"]
    fits = type(value) in (int, float) and 1e-6 < value < 1e6
    return f"{float(f'{value:.4g}'):.10g}" if fits else ""


def _count(column: str) -> Callable[[Row], str]:
    def told(row: Row) -> str:
        value = row[column]
        return str(value) if type(value) is int and 0 < value < 10**6 else ""

    return told


FACTS: dict[str, Callable[[Row], str]] = {
    "hub_license": _license,
    "hub_params_b": _billions,
    "layers": _count("layers"),
    "kv_heads": _count("kv_heads"),
    "head_dim": _count("head_dim"),
}
