"""The decision page: one self-contained HTML file, the decision first, everything escaped."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lib.style import number

NAME, TEXT = 80, 400  # characters shown; the record beside the page has the whole text
URL = re.compile(r"(https?://[^\s<>\"'`]+[^\s<>\"'`.,;:!?)\]])")
MANY = 8  # longer lists are folded


def _cut(value: object, limit: int = TEXT) -> str:
    """Any value as one line of text: numbers to three digits, "–" where unknown, long text cut."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        text = " ".join(str(value).split())
        text = "".join(c if c.isprintable() else "□" for c in text)
        return text if len(text) <= limit else text[: limit - 1] + "…"
    return number(value)


def _name(value: object) -> str:
    return _cut(value, NAME)


def _linked(value: object) -> Markup:
    """Text with its http(s) addresses as links, and nothing else."""
    parts = URL.split(_cut(value))
    link = Markup('<a href="{0}" rel="noreferrer">{0}</a>').format
    return Markup("").join(link(part) if i % 2 else part for i, part in enumerate(parts))


def _interval(low: float | None, high: float | None) -> str:
    """An interval in words: both ends, the one that is known, or nothing."""
    low, high = (math.nan if end is None else end for end in (low, high))
    if math.isnan(low) or math.isnan(high):
        known = high if math.isnan(low) else low
        word = "up to " if math.isnan(low) else "at least "
        return "" if math.isnan(known) else word + number(known)
    return number(low) if low == high else f"{number(low)} to {number(high)}"


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain Python values, whatever the column's type says about missing ones."""
    plain = table.astype(object).where(table.notna(), None)
    floats = set(table.select_dtypes("number"))
    return [
        {
            str(key): math.nan if value is None and key in floats else value
            for key, value in row.items()
        }
        for row in plain.to_dict("records")
    ]


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
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cut": _cut, "name": _name, "linked": _linked}
    environment.globals["interval"] = _interval
    rows, required = _records(tradeoffs), _records(checks)
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
    return environment.get_template("report.html.j2").render(
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
