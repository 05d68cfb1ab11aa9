"""Tables and sentences of a notebook: headings in words, numbers for people, all escaped."""

import re
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup
from pandas.api.types import infer_dtype

from lib.pages.page import cut
from lib.tables import number

# Words for the columns whose name and unit do not say enough.
HEADINGS = {
    "repo_id": "Model", "license": "Licence", "licenses": "Licences", "tie_group": "Quality group",
    "license_class": "Class of licence", "license_on_hub": "Licence on the Hub",
    "agreement_mau": "Users a month", "agreement_revenue_usd": "Revenue ($)",
    "agreement_revenue_months": "Over (months)", "agreement_scope": "For", "rule": "Relaxation",
    "touches": "Models it touches", "alone": "Models it alone keeps out",
    "params_basis": "Basis of the size", "count": "Models", "fits_on": "Smallest machine",
    "total_params_b": "Parameters (billions)", "hub_params_b": "Counted by the Hub (billions)",
    "kv_gb": "Cache (GB)", "kv_gib": "Cache (GiB)", "kv_tokens": "Tokens in the cache",
    "tensor_parallel": "GPUs", "first_token_latency_ms": "First token (ms)", "error": "Error (%)",
    "input_usd_per_million": "Input ($ per million tokens)",
    "output_usd_per_million": "Output ($ per million tokens)", "item_id": "Item",
    "file_group": "Group", "n": "Answers", "n_failed": "Failed calls", "n_unparsed": "Unparsed",
    "low": "95 % from", "high": "95 % to", "other": "Compared with", "p_adjusted": "p (Holm)",
    "detectable": "Detectable difference", "usd_low": "Least ($)", "usd_high": "Most ($)",
    "offered_rps": "Offered load (requests/s)", "max_rps": "Greatest load (requests/s)",
    "p50_s": "Median latency (s)", "p95_s": "p95 latency (s)",
    "ttft_p95_s": "p95 to first token (s)", "api": "By token", "replicas": "Machines",
    "ttft_content_p95_s": "p95 to first word (s)", "itl_p95_s": "p95 between tokens (s)",
    "max_ttft_p95_s": "p95 to first token at most (s)",
    "max_itl_p95_s": "p95 between tokens at most (s)", "min_quality": "Quality at least",
    "usd_per_1k": "1,000 requests ($)", "usd_per_1k_correct": "1,000 correct answers ($)",
    "dollars": "Price class", "machine": "By the hour", "p_pick": "Is the pick",
    "max_p95_s": "p95 latency at most (s)", "min_rps": "Load at least (requests/s)",
    "max_usd_per_1k": "1,000 requests at most ($)", "usd_per_month": "Month ($)",
    "max_usd_per_month": "Month at most ($)", "p_qualifies": "Meets every requirement",
    "p_frontier": "Beaten by none in all three",
}  # fmt: skip
UNITS = {"s": "s", "gb": "GB", "tokens": "tokens", "length": "tokens"}
NUMBERS = {"integer", "floating", "mixed-integer-float", "decimal"}
MOST_TEXT = 2000  # characters of one cell in a notebook


class Shown(NamedTuple):
    """What a cell of a notebook shows: text in a terminal, HTML on a page."""

    text: str
    html: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.html


def table(
    frame: Any, columns: str = "", *, rows: int = 12, says: str = "", empty: str = "None.",
    **headings: str,
) -> Shown:  # fmt: skip
    """A table for people, and the sentence that it `says`; of no rows the sentence `empty`.

    `frame` is what pandas makes a table of, or facts by their names; a named index is a column.
    Of the `columns` those are left out that are blank everywhere; `headings` are by column.
    """
    if isinstance(frame, Mapping):
        frame = pd.DataFrame({"fact": map(_heading, frame), "value": map(_words, frame.values())})
    frame = pd.DataFrame(frame)
    frame = frame.reset_index() if any(frame.index.names) else frame
    frame = frame.reindex(columns=columns.split()) if columns else frame
    texts = frame[:rows].map(_words)
    texts = texts.loc[:, texts.ne("").any()]
    if texts.empty:
        return sentence(empty)
    right = [infer_dtype(frame[name], skipna=True) in NUMBERS for name in texts]
    names = [headings.get(str(name)) or _heading(str(name)) for name in texts]
    lines = [names, *texts.to_numpy().tolist()]
    widths = [min(max(map(len, column)), 40) for column in zip(*lines, strict=True)]
    cells = [list(zip(line, right, widths, strict=True)) for line in lines]
    text = ["  ".join(t.rjust(w) if r else t.ljust(w) for t, r, w in row).rstrip() for row in cells]
    html = [
        f"<tr>{''.join(_cell('td' if turn else 'th', text, r) for text, r, _ in row)}</tr>"
        for turn, row in enumerate(cells)
    ]
    more = f"and {len(frame) - rows:,} more" if len(frame) > rows else ""
    end = sentence(*filter(None, [more, says]))
    return Shown("\n".join([*text, end.text]), "\n".join(["<table>", *html, "</table>", end.html]))


def sentence(*lines: str) -> Shown:
    """Sentences of a notebook; the last says what its section means for this project."""
    texts = [cut(line, MOST_TEXT) for line in lines]
    html = [f"<p>{_without_formulas(line)}</p>\n" for line in texts]
    html[-1:] = [f"<p><b>{_without_formulas(line)}</b></p>" for line in texts[-1:]]
    return Shown("\n".join(texts), "".join(html))


def _cell(tag: str, text: str, right: bool) -> str:
    # GitHub keeps `align` and drops styles; JupyterLab's own style overrules `align`.
    to, short = "right" if right else "left", "; white-space: nowrap" * (len(text) < 25)
    return f'<{tag} align="{to}" style="text-align: {to}{short}">{_without_formulas(text)}</{tag}>'


def _heading(name: str) -> str:
    """A column in words with its unit; what has digits or capitals stays as it is."""
    if name in HEADINGS or not re.fullmatch("[a-z_ -]+", name):
        return HEADINGS.get(name, name)
    words, _, unit = name.rpartition("_")
    words = f"{words} ({UNITS[unit]})" if unit in UNITS and words else name
    return (words[:1].upper() + words[1:]).replace("_", " ")


def _words(value: Any) -> str:
    """A value for people: blank where missing, counts in full, other numbers to three digits."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(part) or '–'}" for key, part in value.items())
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(_words(part) or "–" for part in value) or "none"
    if pd.isna(value):
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return _number(value) if isinstance(value, Real) else cut(value, MOST_TEXT)


def _number(value: Any) -> str:
    """Counts in full, other numbers to three digits; of extremes only on which side they lie."""
    if abs(value) >= 1e15:
        return "unbounded" if abs(value) == np.inf else f"beyond {'-' if value < 0 else ''}10^15"
    if 0 < abs(value) < 1e-6:
        return "under 0.000001" if value > 0 else "about 0"
    return f"{value:,}" if isinstance(value, Integral) else number(float(value))


def _without_formulas(text: str) -> Markup:
    """Text in which a notebook finds no formula: it would look for one between two dollars."""
    return Markup("<span>$</span>").join(text.split("$"))
