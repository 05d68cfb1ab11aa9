"""Tables: `data/*.csv`, read through their schemas and only here, and the rows of any table."""

import math
import re
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa

from lib import places
from lib.errors import PlaybookError

DATA = Path(__file__).resolve().parents[1] / "data"
ADDRESS = re.compile(r"(https?://[^\s<>\"'`]+[^\s<>\"'`.,;:!?)\]])")

TEXT, OPTIONAL = pa.Column(str), pa.Column(str, nullable=True)
LATER = pa.Column(str, nullable=True, required=False)  # a team's own older table lacks it
NUMBER, AT_LEAST_ONE = (pa.Column(float, pa.Check.ge(n), nullable=True) for n in (0.0, 1))
COUNT, AMOUNT = pa.Column(int, pa.Check.ge(1)), pa.Column(float, pa.Check.gt(0))
DAY = pa.Column(str, pa.Check.str_matches(r"^\d{4}-\d{2}-\d{2}$"))

Schema = dict[str, pa.Column]
Row = dict[str, Any]  # of any table, or what stands for one: an answer, the terms of a licence


def _of(column: pa.Column, names: str) -> Schema:
    return dict.fromkeys(names.split(), column)


def _choice(*values: str, nullable: bool = False) -> pa.Column:
    return pa.Column(str, pa.Check.isin(values), nullable=nullable)


def _places(*groups: str) -> pa.Column:
    """Names of countries as `lib.places` has them, or of these groups, between semicolons."""

    def names_of_places(cell: str) -> bool:
        return {*parts(cell)} <= {*places.COUNTRIES, *groups}

    return pa.Column(str, pa.Check(names_of_places, element_wise=True), nullable=True)


# The key of each table and what its columns hold, besides a source and its date.
SCHEMAS: dict[str, tuple[list[str], Schema]] = {
    "models": (
        ["repo_id"],
        _of(TEXT, "repo_id family developer source")
        | _of(OPTIONAL, "license hub_license modality base_model released note")
        | _of(OPTIONAL, "hub_revision hub_checked_on")
        | _of(LATER, "former_names quantization kv_layout")
        | {"file_gb": pa.Column(float, pa.Check.gt(0), nullable=True, required=False)}
        | _of(NUMBER, "total_params_b active_params_b hub_params_b context_length")
        | _of(NUMBER, "layers kv_heads head_dim")
        | {"listed_for": _choice("choice", "lineage")}
        | {"country": _places()},
    ),
    "licenses": (
        ["license"],
        _of(TEXT, "license full_name source")
        | _of(OPTIONAL, "conditions agreement_scope display_text name_prefix")
        | _of(OPTIONAL, "services_excluded")
        | _of(LATER, "agreement_exempt derivatives untestable text_date text_sha256")
        | {"territories_excluded": _places("European Union")}
        | _of(NUMBER, "agreement_mau agreement_revenue_usd display_mau display_revenue_usd")
        | _of(AT_LEAST_ONE, "agreement_revenue_months display_revenue_months")
        | {
            "license_class": _choice("permissive", "conditional", "non-commercial", "unknown"),
            "commercial_use": _choice("yes", "conditional", "no", "unknown"),
            "agreement_at": _choice("above", "at-or-above", nullable=True),
            "territory_scope": _choice("any", "multimodal", nullable=True),
            "output_training": _choice("free", "named", "derivative", "not-allowed", "unknown"),
            "acceptable_use_policy": _choice("yes", "no", "unknown"),
            "read": _choice("full text", "partly", "second-hand", "not read"),
        },
    ),
    "clauses": (
        ["license", "obligation"],
        _of(TEXT, "license obligation section reading source"),
    ),
    "published_scores": (
        ["benchmark", "repo_id", "variant"],
        _of(TEXT, "repo_id benchmark unit")
        | {
            "score": pa.Column(float),
            "kind": _choice("independent", "self-reported"),
            "verified": _choice("yes", "no", nullable=True),
            "variant": OPTIONAL,
        },
    ),
    "closed_models": (
        ["closed_model"],
        _of(TEXT, "closed_model provider basis") | {"tier": _choice("low", "medium", "high")},
    ),
    "hardware": (
        ["hardware"],
        _of(TEXT, "hardware device")
        | _of(AMOUNT, "memory_gb usable_gb")
        | _of(AT_LEAST_ONE, "bandwidth_gb_s power_w")
        | _of(OPTIONAL, "spec_source_url price_basis")
        | {"devices": COUNT, "usd_per_hour": NUMBER},
    ),
    "memory_measurements": (
        ["repo_id", "engine", "kv_gib"],
        _of(TEXT, "repo_id engine weights_dtype kv_layout")
        | _of(COUNT, "tensor_parallel kv_tokens")
        | _of(AT_LEAST_ONE, "layers kv_heads head_dim")
        | {"weights_gib": NUMBER, "kv_gib": AMOUNT, "note": OPTIONAL}
        | {"kv_dtype": _choice("bf16", "fp16", "fp8")},
    ),
}


def read_table(name: str, path: Path | None = None) -> pd.DataFrame:
    """Read a table of `data/`, or of a team's own `path`, held against its schema.

    A PlaybookError, which names file, column and value, where it is missing or breaks its schema.
    """
    keys, columns = SCHEMAS[name]
    path, columns = path or DATA / f"{name}.csv", columns | {"source_url": TEXT, "checked_on": DAY}
    text = {key: str for key, column in columns.items() if "str" in str(column.dtype)}
    try:
        table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
        return pa.DataFrameSchema(columns, unique=keys, coerce=True).validate(table, lazy=True)
    except FileNotFoundError:
        raise PlaybookError(f"{path}: no such table; restore it from the repository") from None
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise PlaybookError(f"{path}: not a readable CSV file: {error}") from None
    except pa.errors.SchemaErrors as error:
        case = error.failure_cases.astype(object).iloc[0]
        value = np.asarray(case["failure_case"]).item()
        where = f"{path}: column {case['column']!r}, row {case['index']}"
        raise PlaybookError(f"{where}: {value!r} breaks {case['check']}") from None


_read_once = cache(read_table)


def _shipped(name: str) -> pd.DataFrame:
    return _read_once(name).copy()


models = partial(_shipped, "models")  # one row per model on the Hub
licenses = partial(_shipped, "licenses")  # per licence text, with what it asks of a company
clauses = partial(_shipped, "clauses")  # per licence text and obligation, with its section
published_scores = partial(_shipped, "published_scores")  # per model, benchmark and variant
memory_measurements = partial(_shipped, "memory_measurements")  # per start of an engine
closed_models = partial(_shipped, "closed_models")  # per closed model, with the tier for it
hardware = partial(_shipped, "hardware")  # per machine: total memory in GB, USD per hour


@cache
def addresses() -> frozenset[str]:
    """The http(s) addresses in the tables of `data/`, whose rows people reviewed."""
    cells = [str(cell) for name in SCHEMAS for cell in _shipped(name).to_numpy().flat]
    return frozenset(ADDRESS.findall("\n".join(cells)))


def rows(table: pd.DataFrame, columns: Sequence[str] | None = None) -> list[Row]:
    """The rows as dictionaries of plain values, None for blanks and for `columns` not there."""
    plain = (table if columns is None else table.reindex(columns=list(columns))).astype(object)
    records: list[Any] = plain.where(plain.notna(), None).to_dict("records")
    return records


def number(value: float, *, digits: int = 3, beside: float | None = None) -> str:
    """Three significant digits, more to tell it from one `beside` it, no exponent; "–" unknown."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞" if value > 0 else "-∞"
    text = np.format_float_positional(value, precision=digits, fractional=False, trim="-")
    text = f"{float(text):,.15g}" if abs(value) >= 1000 else text
    alike = beside not in (None, value) and text == number(beside, digits=digits)
    return number(value, digits=digits + 1, beside=beside) if alike and digits < 15 else text


def percent(share: float | None) -> str:
    """A chance in whole percents; no finite number of draws makes one certain."""
    if share is None or share != share:
        return "not known"
    return "under 1%" if share < 0.01 else "over 99%" if share > 0.99 else f"{share:.0%}"


def parts(cell: str | None) -> list[str]:
    """The names in a cell, which `;` separates."""
    return [name.strip() for name in (cell or "").split(";") if name.strip()]
