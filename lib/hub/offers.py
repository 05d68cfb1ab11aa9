"""Who serves a model at what price, and the scores on its page: the Hub's lists, with distrust."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from lib.hub.model_info import as_count, as_dict, as_list, as_text, valid_id

__all__ = ["EVALS", "PROVIDERS", "live", "offers", "results", "routed"]

PROVIDERS = dict.fromkeys("repo_id provider status task retrieved_at".split(), "str") | {
    "context_length": "Int64",
    "input_usd_per_million": "float",
    "output_usd_per_million": "float",
    "first_token_latency_ms": "float",
    "throughput_tps": "float",
    "supports_tools": "boolean",
}
RESULT = """repo_id benchmark task_id value date verified source_url source_name filename
    pull_request notes""".split()
EVALS = dict.fromkeys(RESULT, "str") | {"value": "float", "verified": "boolean"}
DATE = re.compile(r"\d{4}-\d\d-\d\d(?:T[\d:.]+Z?)?")
URL = re.compile(r"https?://[!-~]{1,500}")


def routed(listed: object) -> dict[str, dict[str, dict[str, Any]]]:
    """The router's list of models (`/v1/models`), by model and provider."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for model in map(as_dict, as_list(as_dict(listed).get("data"))):
        if valid_id(model.get("id")):
            given = _by_provider(model.get("providers"))
            found.setdefault(model["id"], {}).update(given)
    return found


def offers(
    repo_id: str, entry: dict[str, Any], on_router: dict[str, dict[str, Any]], asked_at: str | None
) -> Iterator[dict[str, Any]]:
    """One row per provider that the model's page or the router names.

    Args:
        repo_id: The name in the catalogue.
        entry: The model's entry of `hub_cache`; may be empty.
        on_router: The model's part of `routed`.
        asked_at: When the router answered.
    """
    mapped = _by_provider(as_dict(entry.get("answer")).get("inferenceProviderMapping"))
    for provider in mapped | on_router:
        here, there = mapped.get(provider, {}), on_router.get(provider, {})
        price = as_dict(there.get("pricing"))
        tools = there.get("supports_tools")
        yield {
            "repo_id": repo_id,
            "provider": provider,
            "status": as_text(here.get("status")) or as_text(there.get("status")),
            "task": as_text(here.get("task")),
            "retrieved_at": asked_at if there else entry.get("retrieved_at"),
            "context_length": as_count(there.get("context_length")),
            "input_usd_per_million": _amount(price.get("input")),
            "output_usd_per_million": _amount(price.get("output")),
            "first_token_latency_ms": _amount(there.get("first_token_latency_ms")),
            "throughput_tps": _amount(there.get("throughput")),
            "supports_tools": tools if isinstance(tools, bool) else None,
        }


def live(raw: dict[str, Any]) -> str | None:
    """The providers that are live on a model's page, joined by `;`; null where none are listed."""
    mapping = raw.get("inferenceProviderMapping")
    if not isinstance(mapping, dict | list):
        return None
    return ";".join(n for n, offer in _by_provider(mapping).items() if offer["status"] == "live")


def results(repo_id: str, raw: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One row per benchmark result on a model's page; those the Hub calls broken are left out."""
    for element in map(as_dict, as_list(raw.get("evalResults"))):
        data = as_dict(element.get("data", element))
        dataset, source = as_dict(data.get("dataset")), as_dict(data.get("source"))
        verified, value = element.get("verified"), _number(data.get("value"))
        request = element.get("pullRequest")
        if "error" in element or not valid_id(dataset.get("id")) or value is None:
            continue
        yield {
            "repo_id": repo_id,
            "benchmark": dataset["id"],
            "task_id": as_text(dataset.get("task_id")),
            "value": value,
            "date": _matching(DATE, data.get("date")),
            "verified": verified if isinstance(verified, bool) else None,
            "source_url": _matching(URL, source.get("url")),
            "source_name": as_text(source.get("name")),
            "filename": as_text(element.get("filename")),
            "pull_request": as_text(str(request) if type(request) is int else request),
            "notes": as_text(data.get("notes")),
        }


def _by_provider(mapping: object) -> dict[str, dict[str, Any]]:
    """Offers by provider, from a mapping by name or from a list."""
    if isinstance(mapping, dict):
        mapping = [as_dict(offer) | {"provider": name} for name, offer in mapping.items()]
    given = [offer for offer in map(as_dict, as_list(mapping)) if valid_id(offer.get("provider"))]
    return {offer["provider"]: {"status": None} | offer for offer in given}


def _number(value: object) -> float | None:
    if type(value) not in (int, float):
        return None
    number = float(value) if abs(value) < 1e15 else math.nan  # type: ignore[arg-type]
    return number if math.isfinite(number) else None


def _amount(value: object) -> float | None:
    number = _number(value)
    return number if number is not None and number >= 0 else None


def _matching(pattern: re.Pattern[str], value: object) -> str | None:
    return value if isinstance(value, str) and pattern.fullmatch(value) else None
