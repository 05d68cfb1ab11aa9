"""The decision page: one self-contained HTML file, the decision first, everything escaped."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from lib.pages.page import MANY, environment, records
from lib.pages.style import number

__all__ = ["render"]


def _interval(low: float | None, high: float | None) -> str:
    """An interval in words: both ends, the one that is known, or nothing."""
    low, high = (math.nan if end is None else end for end in (low, high))
    if math.isnan(low) or math.isnan(high):
        known = high if math.isnan(low) else low
        word = "up to " if math.isnan(low) else "at least "
        return "" if math.isnan(known) else word + number(known)
    return number(low) if low == high else f"{number(low)} to {number(high)}"


def render(
    decision: Mapping[str, Any],
    tradeoffs: pd.DataFrame,
    checks: pd.DataFrame,
    figures: Mapping[str, bytes],
) -> str:
    """Render the decision page.

    Args:
        decision: The record of `06_decision.json`.
        tradeoffs: One row per configuration, as in `06_tradeoffs.parquet`.
        checks: One row per configuration and requirement.
        figures: Title or file name to PNG; the title is also the alternative text.

    Returns:
        A self-contained page: no scripts, nothing loaded from elsewhere.
    """
    templates = environment()
    templates.globals["interval"] = _interval
    rows, required = records(tradeoffs), records(checks)
    by_name = {row["deployment"]: row for row in rows}
    pick, runner_up = decision["pick"], decision["runner_up"]
    subject = pick or decision["nearest_miss"] or {"deployment": None}
    rules: dict[tuple[str, str], list[str]] = {}
    for rejected in decision["rejected"]:
        rules.setdefault((rejected["step"], rejected["rule"]), []).append(rejected["what"])
    images = {
        title.removesuffix(".png").replace("_", " "): base64.b64encode(content).decode()
        for title, content in figures.items()
    }
    return templates.get_template("report.html.j2").render(
        decision=decision,
        project=decision["project"],
        pick=pick,
        pick_row=by_name.get(pick["deployment"]) if pick else None,
        runner_up=runner_up,
        runner_row=by_name.get(runner_up["deployment"]) if runner_up else None,
        subject=subject["deployment"],
        subject_checks=[row for row in required if row["deployment"] == subject["deployment"]],
        other_checks=[row for row in required if row["deployment"] != subject["deployment"]],
        tradeoffs=rows,
        rules=rules,
        images=images,
        many=MANY,
    )
