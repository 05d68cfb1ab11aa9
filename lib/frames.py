"""Rows of a table as plain values."""

from collections.abc import Sequence
from typing import Any

import pandas as pd


def rows(table: pd.DataFrame, columns: Sequence[str] | None = None) -> list[dict[Any, Any]]:
    """The rows as dictionaries of plain values, None for blanks and for `columns` not there."""
    plain = (table if columns is None else table.reindex(columns=list(columns))).astype(object)
    records: list[dict[Any, Any]] = plain.where(plain.notna(), None).to_dict("records")
    return records
