"""How tables look in the notebooks: three significant digits, whole sentences, few rows."""

from __future__ import annotations

import pandas as pd

from lib.pages.style import number

__all__ = ["readable"]


def readable() -> None:
    """Set pandas' display options for people: call once, in the imports cell."""
    pd.set_option("display.float_format", number)
    pd.set_option("display.max_colwidth", 90)
    pd.set_option("display.max_rows", 40)
    pd.set_option("display.max_columns", 20)
    # Two dollar signs in a model's answer are no formula.
    pd.set_option("display.html.use_mathjax", False)
