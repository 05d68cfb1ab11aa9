"""The Hub's own list of models, asked query by query and put together."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from itertools import product
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import httpx2

from lib.errors import PlaybookError
from lib.hub import http as hub_http
from lib.hub.filters import Filters, Found, Repo, repo
from lib.hub.model_info import as_dict, valid_id

# After hub_http, which sets the switches that huggingface_hub reads when it is imported.
from huggingface_hub import constants, errors  # isort: skip
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # isort: skip
    build_hf_headers,
    hf_raise_for_status,
    http_backoff,
)

__all__ = ["lookup", "search"]

EXPAND = """baseModels cardData downloads gguf likes pipeline_tag safetensors tags
    trendingScore""".split()
SORTS = {"downloads": "downloads", "likes": "likes", "trending": "trendingScore"}
# A list is read to its 10th page at most; the anonymous quota is 500 requests in five minutes.
PAGES, WORKERS, TIMEOUT_S = 10, 8, 30.0
OTHER, ANY_SIZE = "license:other", (0.0, math.inf)
REQUEST: dict[str, Any] = {"timeout": TIMEOUT_S, "max_retries": 4, "base_wait_time": 1.0}
# A failed connection is not retried: http_backoff would close the client of the other threads.
REQUEST["retry_on_exceptions"] = (httpx2.ReadError, httpx2.RemoteProtocolError)
MISSING = (401, 403, 404, 410)
PROBLEMS = {
    400: "the Hub refuses the query; check candidates.task and candidates.provider,",
    401: "the Hub refuses HF_TOKEN; check or unset it,",
    403: "the Hub refuses HF_TOKEN; check or unset it,",
    429: "too many requests; wait five minutes and run the step again,",
}
ADVICE = "or set candidates.source to catalogue"
Q = TypeVar("Q")
A = TypeVar("A")
Listed = tuple[list[Repo], bool]


def search(wanted: Filters, *, token: str | None = None, today: date | None = None) -> Found:
    """Find the repositories that pass, with one query per licence, task and range of sizes.

    A query cannot say "or", nor the name of an `other` licence, nor how many downloads there
    must be at least: answers are put together, filtered and sorted here.

    Args:
        wanted: From `hub_filters.filters`.
        token: Sent to the Hub's own host only.
        today: The day of the answers; this day if left out.

    Raises:
        PlaybookError: The Hub cannot be asked, or refuses; says what to do.
    """
    tags = wanted.tags + [OTHER] * (OTHER not in wanted.tags and bool(wanted.names + wanted.known))
    queries = [
        _query(tag, task, size, wanted)
        for tag, task, size in product(tags, wanted.tasks or [""], wanted.sizes or [ANY_SIZE])
    ]
    headers = _headers(token)
    pages = _every(lambda query: _pages(query, headers, wanted), queries)
    repos = {one.repo_id.lower(): one for listed, _ in pages for one in listed}
    order = sorted(repos.values(), key=lambda one: (-one.score, -one.downloads, one.repo_id))
    kept = [one for one in order if not one.copy]
    cut = sum(not complete for _, complete in pages)
    remark = f"{cut} of {len(queries)} lists were longer than could be read: raise min_downloads"
    as_of = (today or date.today()).isoformat()
    copies = len(order) - len(kept)
    return Found(kept[: wanted.limit], copies, "Hub API", as_of, remark if cut else "")


def lookup(repo_ids: list[str], *, token: str | None = None) -> list[Repo]:
    """Look up repositories by name; those that are not found or not shown are left out."""
    headers = _headers(token)

    def ask(repo_id: str) -> Repo | None:
        answer, _ = _get(f"/api/models/{repo_id}", {"expand": EXPAND}, headers, missing=True)
        return repo(_flat(as_dict(answer), "downloads"))

    return [one for one in _every(ask, [name for name in repo_ids if valid_id(name)]) if one]


def _every(ask: Callable[[Q], A], queries: list[Q]) -> list[A]:
    """Ask several at a time; the first that fails ends them all."""
    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            return list(pool.map(ask, queries))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _query(tag: str, task: str, size: tuple[float, float], wanted: Filters) -> dict[str, Any]:
    low, high = size
    bounds = [f"min:{_count(low)}"] * (low > 0) + [f"max:{_count(high)}"] * math.isfinite(high)
    query = {
        "filter": [tag],
        "pipeline_tag": task,
        "num_parameters": ",".join(bounds),
        "inference_provider": wanted.provider,
        "sort": SORTS[wanted.sort],
        "limit": min(max(wanted.limit, 100), 1000),
        "expand": EXPAND,
    }
    return {key: value for key, value in query.items() if value}


def _count(billions: float) -> str:
    """As the Hub writes it: 32B, or 500M where it is no whole number."""
    return f"{billions:.0f}B" if billions == int(billions) else f"{billions * 1000:.0f}M"


def _pages(query: dict[str, Any], headers: dict[str, str], wanted: Filters) -> Listed:
    """What passes of one list, and whether it was read as far as it matters."""
    repos: list[Repo] = []
    for _ in range(PAGES):
        answer, onward = _get("/api/models", query, headers)
        raws = [as_dict(raw) for raw in answer] if isinstance(answer, list) else []
        found = [one for raw in raws if (one := repo(_flat(raw, wanted.sort)))]
        repos += [one for one in found if _passes(one, wanted)]
        ended = wanted.sort == "downloads" and found and found[-1].downloads < wanted.min_downloads
        if not onward or ended or sum(not one.copy for one in repos) >= wanted.limit:
            return repos, True
        query = parse_qs(urlsplit(onward).query)  # never its host: the token would go with it
    return repos, False


def _passes(one: Repo, wanted: Filters) -> bool:
    tags = {f"license:{license_}" for license_ in one.licenses}
    named = (one.license_name or "").lower() in wanted.names
    listed = one.repo_id.lower() in wanted.known
    licensed = bool(tags & set(wanted.tags)) or (OTHER in tags and (named or listed))
    return licensed and one.downloads >= wanted.min_downloads


def _flat(raw: dict[str, Any], sort: str) -> dict[str, Any]:
    """The Hub's JSON in the words of `hub_filters.repo`."""
    listed = as_dict(raw.get("baseModels"))
    models = listed.get("models")
    return raw | {
        "license_name": as_dict(raw.get("cardData")).get("license_name"),
        "params": as_dict(raw.get("safetensors")).get("total"),
        "gguf_params": as_dict(raw.get("gguf")).get("total"),
        "relation": listed.get("relation"),
        "bases": [as_dict(base).get("id") for base in models] if isinstance(models, list) else [],
        "score": raw.get(SORTS[sort]),
    }


def _headers(token: str | None) -> dict[str, str]:
    if hub_http.offline():
        raise PlaybookError(f"candidates: HF_HUB_OFFLINE is set; unset it, {ADVICE}")
    return build_hf_headers(token=hub_http.allowed(token))


def _get(
    path: str, params: dict[str, Any], headers: dict[str, str], *, missing: bool = False
) -> tuple[Any, str | None]:
    """The JSON of one answer and the address of the next; None for what is not there to see."""
    url = f"{constants.ENDPOINT}{path}"
    try:
        response = http_backoff("GET", url, params=params, headers=headers, **REQUEST)
        if missing and response.status_code in MISSING:
            return None, None
        hf_raise_for_status(response)
        return response.json(), response.links.get("next", {}).get("url")
    except errors.HfHubHTTPError as error:  # in our own words: its text may quote headers
        status = error.response.status_code
        reason = PROBLEMS.get(status, f"the Hub answered {status}; try again later,")
    except (httpx2.HTTPError, httpx2.InvalidURL, errors.OfflineModeIsEnabled) as error:
        reason = (
            f"{hub_http.host()} cannot be asked ({type(error).__name__});"
            " check the network and HF_ENDPOINT,"
        )
    except (ValueError, RecursionError):
        reason = f"{hub_http.host()} does not answer as the Hub does; check proxy and HF_ENDPOINT,"
    raise PlaybookError(f"candidates: {reason} {ADVICE}")
