"""Scores and answers as CSV files, for whoever reads them elsewhere."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pandas as pd

from lib.artifacts import write_bytes

__all__ = ["write"]

FORMULA = re.compile(r"[=+\-@\t\r]")


def write(
    run: Path,
    scored: pd.DataFrame,
    scores: pd.DataFrame,
) -> list[Path]:
    """Write what others read into `exports/` of the run.

    `scores.csv` and `answers.csv` are the tables; there a text that a spreadsheet would take
    for a formula has an apostrophe in front. A file of an earlier run is replaced.

    Returns:
        The files written.
    """
    folder = run / "exports"
    files = {"scores.csv": _csv(scores), "answers.csv": _csv(scored)}
    for relative, content in files.items():
        write_bytes(folder / relative, content)
    return [folder / relative for relative in files]


def _csv(table: pd.DataFrame) -> bytes:
    def safe(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        text = value.replace("\0", "�")
        return f"'{text}" if FORMULA.match(text) else text

    texts = table.select_dtypes(include=["object", "str"]).columns
    stream = io.StringIO()
    cells = table.assign(**{str(name): table[name].map(safe) for name in texts})
    cells.to_csv(stream, index=False, lineterminator="\n")
    return stream.getvalue().encode(errors="replace")
