"""Tables as CSV files, for whoever reads them elsewhere."""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from lib.artifacts import write_bytes

FORMULA = re.compile(r"[=+\-@\t\r]")


def export_csv(run: Path, scored: pd.DataFrame, scores: pd.DataFrame) -> list[Path]:
    """Write `scores.csv` and `answers.csv` into `exports/` of the run, and return their paths.

    A text that a spreadsheet would take for a formula gets an apostrophe in front. A file of an
    earlier run is replaced.
    """
    tables = {"scores.csv": scores, "answers.csv": scored}
    paths = [run / "exports" / name for name in tables]
    for path, table in zip(paths, tables.values(), strict=True):
        text = table.map(_harmless).to_csv(index=False, lineterminator="\n")
        write_bytes(path, text.encode(errors="replace"))
    return paths


def _harmless(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = value.replace("\0", "\ufffd")
    return f"'{text}" if FORMULA.match(text) else text
