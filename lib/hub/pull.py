"""What the Hub says about models, and what its router says about who serves them."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pandas as pd
from huggingface_hub import constants, errors, hf_hub_download

from lib.errors import PlaybookError
from lib.hub.cache import Entry, fetch, path_of
from lib.hub.http import UNREACHABLE, Session, allowed, host, is_hub, offline, sentence
from lib.hub.model import Asking, Cost, ask, cost
from lib.hub.model_info import as_dict, as_text, described, valid_id
from lib.hub.offers import EVALS, PROVIDERS, offers, results, routed
from lib.progress import bar

__all__ = ["Pulled", "budget", "download_gguf", "pull"]

SOURCES = ("auto", "hub", "catalogue")
ROUTER = "https://router.huggingface.co"
ANONYMOUS = 500  # API requests in five minutes without a token
CATALOGUE = """repo_id hub_license hub_params_b context_length layers kv_heads head_dim base_model
    checked_on""".split()
ORDER = """repo_id revision metadata_source retrieved_at license_on_hub license_name license_link
    gated formats remote_code chat_template architecture context_length layers kv_heads head_dim
    experts experts_active kv_layout state_bytes quantization config_params_b config_active_b
    base_models base_relation lineage_verdict created_at last_modified downloads likes params_b
    params_by_dtype gguf_params_b weights_gb security security_issues providers library_name
    renamed_to problem""".split()
WHOLE = """context_length layers kv_heads head_dim experts experts_active state_bytes downloads
    likes""".split()
DECIMAL = "config_params_b config_active_b params_b gguf_params_b weights_gb".split()
COLUMNS = dict.fromkeys(ORDER, "str") | dict.fromkeys(WHOLE, "Int64")
COLUMNS |= dict.fromkeys(DECIMAL, "float") | dict.fromkeys(
    ("remote_code", "chat_template"), "boolean"
)


class Pulled(NamedTuple):
    """What `pull` found: one row per model, per model and provider, per model and result."""

    metadata: pd.DataFrame
    providers: pd.DataFrame
    evals: pd.DataFrame


def pull(
    models: pd.DataFrame,
    cache: Path,
    *,
    source: str = "auto",
    timeout_s: float = 20.0,
    workers: int = 16,
    token: str | None = None,
    max_age_days: float = 1.0,
    progress: bool = False,
    say: Callable[[str], Any] | None = None,
) -> Pulled:
    """Ask the Hub about every model: its facts, files, security scan, config.json and providers.

    Args:
        models: Rows of the catalogue (`lib.tables.models`) or of a later step.
        cache: Folder of raw answers, shared by all runs; a killed pull goes on from there.
        source: `hub` (live, or an error), `catalogue` (opens no socket), or `auto`: live, and
            the catalogue for what is not cached once the Hub cannot be reached.
        timeout_s: Longest wait for a connection and for each part of an answer.
        workers: Models asked about at once.
        token: Sent to the Hub's own host only; left out, the one of HF_TOKEN or `hf auth login`.
        max_age_days: Cached answers older than this are asked again, which is cheap where they
            still hold; a config.json is kept for good, because it belongs to a commit.
        progress: Show a progress bar.
        say: Told when the pull waits for the Hub's request limit; left out, the bar says it.

    Returns:
        `metadata`: one row per row of `models`, in order. `metadata_source` is `hub`,
        `hub (cached <date>)` or `catalogue`; sizes are in 1e9 bytes and parameters, what is not
        known is null, and `problem` says what could not be asked. `providers` and `evals`: one
        row per offer and per benchmark result, null where the Hub or its router does not say.

    Raises:
        PlaybookError: Unknown source, a column is missing, or `hub` cannot be reached.
    """
    _known(source)
    if not timeout_s > 0 or workers < 1:
        raise PlaybookError(f"timeout_s {timeout_s!r} and workers {workers!r} must be above zero")
    if lacking := [column for column in CATALOGUE if column not in models.columns]:
        raise PlaybookError(f"the table of models lacks the column {lacking[0]!r}")
    known = models[CATALOGUE].astype(object)
    rows: list[dict[Any, Any]] = known.where(known.notna(), None).to_dict("records")
    ids = list(dict.fromkeys(row["repo_id"] for row in rows)) if source != "catalogue" else []
    with bar(len(ids), "models", show=progress) as shown:
        say = say or shown.set_description_str
        hub = Session(timeout_s=timeout_s, token=allowed(token), say=say)
        router = Session(timeout_s=timeout_s, say=say) if ids and _router_url() else None
        asking = Asking(hub, cache, max_age_days)
        pool = ThreadPoolExecutor(workers)
        try:
            listing = pool.submit(_ask_router, router, cache, max_age_days)
            told = {}
            for repo_id, found in zip(ids, pool.map(lambda i: ask(i, asking), ids), strict=True):
                told[repo_id] = found
                if not hub.waits:
                    shown.set_description_str("models", refresh=False)
                shown.update()
            on_router = listing.result()
        except BaseException:
            for session in filter(None, (hub, router)):
                session.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        pool.shutdown()
        missed = sum(found["missed"] for found in told.values())
        # Where the Hub itself is out of reach, its router is no news.
        lost = "answer" not in on_router and {"missed", "problem"} & set(on_router)
        if lost and missed < len(told):
            say("the router's list could not be had: prices and speeds of providers stay unknown")
    if source == "hub" and missed:
        raise PlaybookError(
            f"the Hub at {host()!r} could not be asked about {missed} of {len(ids)} models"
            f" ({as_text(hub.lost)}); check the network, HF_ENDPOINT and HF_HUB_OFFLINE and run it"
            " again: what was answered is kept; a notebook goes on without the Hub as source 'auto'"
        )
    return _pulled(rows, told, on_router)


def budget(
    models: pd.DataFrame,
    cache: Path,
    *,
    source: str = "auto",
    max_age_days: float = 1.0,
    token: str | None = None,
) -> str:
    """Say in one sentence what `pull` would ask, and how that stands to the Hub's limit.

    Raises:
        PlaybookError: Unknown source.
    """
    if _known(source) == "catalogue":
        return f"{models['repo_id'].nunique()} models, source 'catalogue': nothing is asked"
    ids = [name for name in dict.fromkeys(models["repo_id"]) if valid_id(name)]
    asking = Asking(Session(timeout_s=1.0, token=allowed(token)), cache, max_age_days)
    costs = [cost(repo_id, asking) for repo_id in ids]
    kept, api, files = (sum(column) for column in zip(Cost(0, 0, 0), *costs, strict=True))
    text = f"{len(ids)} models, {kept} answers kept; "
    if offline():
        return text + "HF_HUB_OFFLINE is set: nothing is asked"
    text += f"to ask: {api} API requests and {files} files"
    if not is_hub():
        return f"{text}; the limit of {host()} is not known"
    limit = f"the anonymous limit of {ANONYMOUS} API requests in 5 minutes"
    if asking.hub.with_token:
        return f"{text}; with a token {limit} does not hold, the Hub names its own as it answers"
    waits = max(0, math.ceil(api / ANONYMOUS) - 1)
    return f"{text}; " + (
        f"over {limit}: about {5 * waits} minutes of waiting" if waits else f"within {limit}"
    )


def _known(source: str) -> str:
    if source not in SOURCES:
        raise PlaybookError(f"source {source!r} is unknown; use one of {', '.join(SOURCES)}")
    return source


def _router_url() -> str:
    """The router's list of models; empty where a mirror is asked and no router is named."""
    named = os.environ.get("PLAYBOOK_ROUTER_URL") or (ROUTER if is_hub() else "")
    return named and named.rstrip("/").removesuffix("/v1/models") + "/v1/models"


def _ask_router(session: Session | None, cache: Path, max_age_days: float) -> Entry:
    if session is None:
        return {}
    url, path = _router_url(), path_of(cache, "router", "models")
    return fetch(session, path, url, asked=url, max_age_days=max_age_days)


def _pulled(rows: list[dict[Any, Any]], told: dict[str, Any], on_router: Entry) -> Pulled:
    """The three tables; a model that is listed twice has its offers and results once."""
    facts = [described(row, told.get(row["repo_id"], {})) for row in rows]
    served: list[dict[str, Any]] = []
    scored: list[dict[str, Any]] = []
    lists = routed(on_router.get("answer"))
    for repo_id, found in told.items():
        entry = found.get("model", {})
        raw = as_dict(entry.get("answer"))
        listed = lists.get(repo_id) or lists.get(str(raw.get("id")), {})
        served += offers(repo_id, entry, listed, on_router.get("retrieved_at"))
        scored += results(repo_id, raw)
    return Pulled(_table(facts, COLUMNS), _table(served, PROVIDERS), _table(scored, EVALS))


def _table(rows: list[dict[str, Any]], columns: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(columns)).astype(columns)


def download_gguf(spec: str, revision: str) -> Path:
    """Download `owner/name/file.gguf` at a pinned commit, or find it in the Hub's own cache.

    Raises:
        PlaybookError: The spec is wrong or the file cannot be had; says what to do.
    """
    owner, name, file = (*spec.split("/", 2), "", "")[:3]
    repo_id = f"{owner}/{name}"
    if (
        not valid_id(repo_id)
        or not file.endswith(".gguf")
        or {"", ".", ".."} & set(file.split("/"))
    ):
        raise PlaybookError(f"gguf {spec!r} is not owner/name/file.gguf")
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise PlaybookError(f"revision {revision!r} of {spec!r} can move; give the 40-digit commit")
    token, local = allowed(None), offline()
    try:
        return Path(
            hf_hub_download(repo_id, file, revision=revision, token=token, local_files_only=local)
        )
    except errors.RevisionNotFoundError:
        reason = f"{repo_id} has no commit {revision}; check the revision"
    except errors.RemoteEntryNotFoundError:
        reason = f"{repo_id} has no such file at {revision}; check the file name"
    except (errors.LocalEntryNotFoundError, *UNREACHABLE):
        reason = f"not in the local cache, and {host()!r} cannot be asked; connect and run again"
    except httpx2.HTTPError as error:  # before OSError, which the Hub's own errors are as well
        reason = _download_problem(error)
    except OSError as error:
        reason = f"cannot be stored ({error.strerror}); free the disk or set HF_HUB_CACHE"
    raise PlaybookError(f"gguf {spec!r}: {reason}") from None


def _download_problem(error: httpx2.HTTPError) -> str:
    if isinstance(error, errors.HfHubHTTPError):
        gated = isinstance(error, errors.GatedRepoError)
        return sentence(error.response.status_code, "GatedRepo" if gated else None)
    if isinstance(error, httpx2.TimeoutException):
        return f"no answer within {constants.HF_HUB_DOWNLOAD_TIMEOUT:g} s: run the step again"
    return f"the download broke off ({type(error).__name__}): run the step again"
