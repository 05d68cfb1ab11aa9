"""What the HTML pages share: everything escaped, numbers for people, links only to the web."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lib.pages.style import number

__all__ = ["MANY", "cut", "environment", "linked", "name", "records"]

NAME, TEXT = 80, 400  # characters shown; the record beside the page has the whole text
URL = re.compile(r"(https?://[^\s<>\"'`]+[^\s<>\"'`.,;:!?)\]])")
MANY = 8  # longer lists are folded


def cut(value: object, limit: int = TEXT) -> str:
    """Any value as one line of text: numbers to three digits, "–" where unknown, long text cut."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        text = " ".join(str(value).split())
        text = "".join(c if c.isprintable() else "□" for c in text)
        return text if len(text) <= limit else text[: limit - 1] + "…"
    return number(value)


def name(value: object) -> str:
    """A value as a name of bounded length."""
    return cut(value, NAME)


def linked(value: object) -> Markup:
    """Text with its http(s) addresses as links, and nothing else."""
    parts = URL.split(cut(value))
    link = Markup('<a href="{0}" rel="noreferrer">{0}</a>').format
    return Markup("").join(link(part) if i % 2 else part for i, part in enumerate(parts))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
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


def environment() -> Environment:
    """The templates beside this file with the filters of all pages; a missing value is an error."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"cut": cut, "name": name, "linked": linked}
    return made
