"""The shipped tables: `data/*.csv`, read through their schemas. The only reader of `data/`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa

from lib.errors import PlaybookError

__all__ = [
    "DATA",
    "closed_models",
    "hardware",
    "licenses",
    "memory_measurements",
    "models",
    "published_scores",
    "read_table",
]

DATA = Path(__file__).resolve().parents[1] / "data"


def _text(*, nullable: bool = False, **checks: Any) -> pa.Column:
    return pa.Column(str, nullable=nullable, **checks)


def _number(*, minimum: float = 0.0) -> pa.Column:
    return pa.Column(float, pa.Check.ge(minimum), nullable=True)


def _choice(*values: str, nullable: bool = False) -> pa.Column:
    return pa.Column(str, pa.Check.isin(values), nullable=nullable)


_DATE = pa.Column(str, pa.Check.str_matches(r"^\d{4}-\d{2}-\d{2}$"))
_SOURCED = {"source_url": _text(), "checked_on": _DATE}

SCHEMAS: dict[str, tuple[list[str], dict[str, pa.Column]]] = {
    "models": (
        ["repo_id"],
        {
            "repo_id": _text(),
            "family": _text(),
            "developer": _text(),
            "country": _text(nullable=True),
            "license": _text(nullable=True),
            "hub_license": _text(nullable=True),
            "total_params_b": _number(),
            "active_params_b": _number(),
            "hub_params_b": _number(),
            "context_length": _number(),
            "layers": _number(),
            "kv_heads": _number(),
            "head_dim": _number(),
            "modality": _text(nullable=True),
            "base_model": _text(nullable=True),
            "listed_for": _choice("choice", "lineage"),
            "released": _text(nullable=True),
            "note": _text(nullable=True),
            "source": _text(),
            "hub_revision": _text(nullable=True),
            "hub_checked_on": _text(nullable=True),
        },
    ),
    "licenses": (
        ["license"],
        {
            "license": _text(),
            "full_name": _text(),
            "license_class": _choice("permissive", "conditional", "non-commercial", "unknown"),
            "commercial_use": _choice("yes", "conditional", "no", "unknown"),
            "conditions": _text(nullable=True),
            "agreement_mau": _number(),
            "agreement_revenue_usd": _number(),
            "agreement_revenue_months": _number(minimum=1),
            "agreement_scope": _text(nullable=True),
            "agreement_at": _choice("above", "at-or-above", nullable=True),
            "display_mau": _number(),
            "display_revenue_usd": _number(),
            "display_revenue_months": _number(minimum=1),
            "display_text": _text(nullable=True),
            "name_prefix": _text(nullable=True),
            "services_excluded": _text(nullable=True),
            "territories_excluded": _text(nullable=True),
            "territory_scope": _choice("any", "multimodal", nullable=True),
            "output_training": _choice("free", "named", "not-allowed", "unknown"),
            "acceptable_use_policy": _choice("yes", "no", "unknown"),
            "read": _choice("full text", "partly", "second-hand", "not read"),
            "source": _text(),
        },
    ),
    "published_scores": (
        ["benchmark", "repo_id", "variant"],
        {
            "repo_id": _text(),
            "benchmark": _text(),
            "score": pa.Column(float),
            "unit": _text(),
            "kind": _choice("independent", "self-reported"),
            "verified": _choice("yes", "no", nullable=True),
            "variant": _text(nullable=True),
        },
    ),
    "closed_models": (
        ["closed_model"],
        {
            "closed_model": _text(),
            "provider": _text(),
            "tier": _choice("low", "medium", "high"),
            "basis": _text(),
        },
    ),
    "hardware": (
        ["hardware"],
        {
            "hardware": _text(),
            "devices": pa.Column(int, pa.Check.ge(1)),
            "device": _text(),
            "memory_gb": pa.Column(float, pa.Check.gt(0)),
            "usable_gb": pa.Column(float, pa.Check.gt(0)),
            "usd_per_hour": _number(),
            "price_basis": _text(nullable=True),
        },
    ),
    "memory_measurements": (
        ["repo_id", "engine", "kv_gib"],
        {
            "repo_id": _text(),
            "engine": _text(),
            "weights_dtype": _text(),
            "kv_dtype": _choice("bf16", "fp16", "fp8"),
            "tensor_parallel": pa.Column(int, pa.Check.ge(1)),
            "weights_gib": _number(),
            "kv_gib": pa.Column(float, pa.Check.gt(0)),
            "kv_tokens": pa.Column(int, pa.Check.ge(1)),
            "layers": _number(minimum=1),
            "kv_heads": _number(minimum=1),
            "head_dim": _number(minimum=1),
            "kv_layout": _text(),
            "note": _text(nullable=True),
        },
    ),
}


def read_table(name: str, path: Path | None = None) -> pd.DataFrame:
    """Read one table of `data/` and check it against its schema.

    Args:
        name: The file's name without `.csv`; one of `SCHEMAS`.
        path: Another file with the same columns, for a team's own table.

    Raises:
        PlaybookError: The file is missing or breaks its schema; names file, column and value.
    """
    keys, columns = SCHEMAS[name]
    path = path or DATA / f"{name}.csv"
    every = columns | _SOURCED
    text = {key: str for key, column in every.items() if "str" in str(column.dtype)}
    try:
        table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
        pa.DataFrameSchema(every, unique=keys, coerce=True).validate(table, lazy=True)
    except FileNotFoundError:
        raise PlaybookError(f"{path}: no such table; restore it from the repository") from None
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise PlaybookError(f"{path}: not a readable CSV file: {error}") from None
    except pa.errors.SchemaErrors as error:
        case = error.failure_cases.astype(object).iloc[0]
        value = case["failure_case"]
        value = value.item() if hasattr(value, "item") else value
        raise PlaybookError(
            f"{path}: column {case['column']!r}, row {case['index']}:"
            f" {value!r} breaks {case['check']}"
        ) from None
    numbers = {key: float for key, column in every.items() if str(column.dtype) == "float64"}
    return table.astype(numbers)


@cache
def _shipped(name: str) -> pd.DataFrame:
    return read_table(name)


def models() -> pd.DataFrame:
    """The catalogue: one row per model on the Hub, with source and date."""
    return _shipped("models").copy()


def licenses() -> pd.DataFrame:
    """One row per licence text, with what it asks of a company."""
    return _shipped("licenses").copy()


def published_scores() -> pd.DataFrame:
    """One row per model, benchmark and variant, as published."""
    return _shipped("published_scores").copy()


def memory_measurements() -> pd.DataFrame:
    """One row per published start of an engine: the cache's memory and the tokens that fit."""
    return _shipped("memory_measurements").copy()


def closed_models() -> pd.DataFrame:
    """One row per closed model, with the size tier of open models that replaces it."""
    return _shipped("closed_models").copy()


def hardware() -> pd.DataFrame:
    """One row per machine, with total memory in GB and the hourly price in USD."""
    return _shipped("hardware").copy()
