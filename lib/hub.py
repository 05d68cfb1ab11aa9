"""What the Hub says about the shortlisted models. The only module that talks to the Hub."""

from __future__ import annotations

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pandas as pd

from lib.artifacts import write_bytes
from lib.errors import PlaybookError
from lib.model_info import as_dict, as_text, described, valid_id
from lib.progress import bar

# huggingface_hub reads these when it is imported: no telemetry request, no bars in notebooks.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

from huggingface_hub import constants, errors, hf_hub_download
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    hf_raise_for_status,
    http_backoff,
)

__all__ = ["download_gguf", "pull", "relicense"]

SOURCES = ("auto", "hub", "catalogue")
EXPAND = """baseModels cardData config downloads gated gguf inferenceProviderMapping lastModified
    library_name likes safetensors sha siblings tags""".split()
CATALOGUE = """repo_id license hub_license total_params_b hub_params_b context_length base_model
    checked_on""".split()
TEXT = """repo_id revision metadata_source retrieved_at license_on_hub drift gated formats
    base_models lineage_verdict last_modified providers library_name renamed_to problem""".split()
COLUMNS = dict.fromkeys(TEXT, "str") | {"license_drift": "bool", "remote_code": "boolean"}
COLUMNS |= {"context_length": "Int64", "downloads": "Int64", "likes": "Int64", "params_b": "float"}
# A failed connection is not retried: http_backoff would close the client the other threads use.
RETRIED = (httpx2.ReadError, httpx2.RemoteProtocolError)
REQUEST: dict[str, Any] = {"params": {"expand": EXPAND}, "retry_on_exceptions": RETRIED}
REQUEST |= {"max_retries": 4, "base_wait_time": 1.0}
UNREACHABLE = (
    *(httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError),
    *(httpx2.InvalidURL, httpx2.UnsupportedProtocol, errors.OfflineModeIsEnabled),
)
REFUSED = "access refused: accept the terms on the model's page or ask its owner, and set HF_TOKEN"
NOT_FOUND = "not found on the Hub, or private: check the name, and HF_TOKEN if it is yours"
BUSY = "too many requests: wait five minutes and run the step again"
PROBLEMS = {401: NOT_FOUND, 403: REFUSED, 404: NOT_FOUND, 410: NOT_FOUND, 429: BUSY}


def pull(
    shortlist: pd.DataFrame,
    cache: Path,
    *,
    source: str = "auto",
    timeout_s: float = 20.0,
    workers: int = 8,
    token: str | None = None,
    max_age_days: float = 1.0,
    progress: bool = False,
) -> pd.DataFrame:
    """Ask the Hub about every shortlisted model, and compare its answers with the catalogue.

    Args:
        shortlist: Rows of the catalogue (`lib.tables.models`).
        cache: Folder for the raw answers, one file a model; a killed pull goes on from there.
        source: `hub` (live, or an error), `catalogue` (opens no socket), or `auto`: live, and
            the catalogue for what is not cached once the Hub cannot be reached.
        timeout_s: Longest wait for a connection and for each part of an answer.
        workers: Requests in flight at once.
        token: Sent to the Hub's own host only; left out, the one of HF_TOKEN or `hf auth login`.
        max_age_days: Cached answers older than this are asked again.
        progress: Show a progress bar.

    Returns:
        One row per row of `shortlist`, in order. `metadata_source` is `hub`, `hub (cached <date>)`
        or `catalogue`; what is not known is null; `problem` says why a model could not be asked.

    Raises:
        PlaybookError: Unknown source, a column is missing, or `hub` cannot be reached.
    """
    if source not in SOURCES:
        raise PlaybookError(f"source {source!r} is unknown; use one of {', '.join(SOURCES)}")
    if not timeout_s > 0 or workers < 1:
        raise PlaybookError(f"timeout_s {timeout_s!r} and workers {workers!r} must be above zero")
    if lacking := [column for column in CATALOGUE if column not in shortlist.columns]:
        raise PlaybookError(f"the shortlist lacks the catalogue's column {lacking[0]!r}")
    known = shortlist[CATALOGUE].astype(object)
    rows: list[dict[Any, Any]] = known.where(known.notna(), None).to_dict("records")
    ids = list(dict.fromkeys(row["repo_id"] for row in rows)) if source != "catalogue" else []
    unreachable = ["HF_HUB_OFFLINE is set"] if _offline() else []  # any entry ends the asking
    headers = {} if unreachable or not ids else build_hf_headers(token=_allowed(token))
    with ThreadPoolExecutor(workers) as pool:
        try:
            asked = pool.map(
                lambda repo_id: _ask(repo_id, cache, headers, timeout_s, max_age_days, unreachable),
                ids,
            )
            with bar(len(ids), "models", show=progress) as shown:
                entries = {}
                for repo_id, entry in zip(ids, asked, strict=True):
                    entries[repo_id] = entry
                    shown.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    missed = sum("missed" in entry for entry in entries.values())
    if source == "hub" and missed:
        raise PlaybookError(
            f"the Hub at {_host()!r} could not be asked about {missed} of {len(ids)} models"
            f" ({unreachable[0]}); check the network and HF_ENDPOINT, or use source 'auto'"
        )
    found = [described(row, entries.get(row["repo_id"], {})) for row in rows]
    return pd.DataFrame(found, columns=list(COLUMNS)).astype(COLUMNS)


def relicense(legal: pd.DataFrame, metadata: pd.DataFrame) -> pd.DataFrame:
    """A copy of step 1's table with `review` where `pull` found another licence on the Hub.

    The drift is added to `reasons`. What is `blocked` stays so: drift never loosens a verdict.
    """
    drifted = metadata[metadata["license_drift"]].drop_duplicates("repo_id")
    notes = drifted.set_index("repo_id")["drift"].str.split("; ").str[0]
    found = legal["repo_id"].map(notes.str.replace("licence:", "licence drift:", n=1, regex=False))
    hit = found.notna()
    table = legal.copy()
    table.loc[hit & (table["verdict"] != "blocked"), "verdict"] = "review"
    reasons = table.loc[hit, "reasons"].fillna("").astype(str)
    table.loc[hit, "reasons"] = (reasons + "; " + found[hit].astype(str)).str.removeprefix("; ")
    return table


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
    token, offline = _allowed(None), _offline()
    try:
        return Path(
            hf_hub_download(repo_id, file, revision=revision, token=token, local_files_only=offline)
        )
    except errors.RevisionNotFoundError:
        reason = f"{repo_id} has no commit {revision}; check the revision"
    except errors.RemoteEntryNotFoundError:
        reason = f"{repo_id} has no such file at {revision}; check the file name"
    except (errors.LocalEntryNotFoundError, *UNREACHABLE):
        reason = f"not in the local cache, and {_host()!r} cannot be asked; connect and run again"
    except httpx2.HTTPError as error:  # before OSError, which the Hub's own errors are as well
        reason = _problem(error, constants.HF_HUB_DOWNLOAD_TIMEOUT)
    except OSError as error:
        reason = f"cannot be stored ({error.strerror}); free the disk or set HF_HUB_CACHE"
    raise PlaybookError(f"gguf {spec!r}: {reason}") from None


def _offline() -> bool:  # also when it was set after huggingface_hub had been imported
    late = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    return constants.is_offline_mode() or late


def _host() -> str:  # for messages: without a user name and password
    return constants.ENDPOINT.partition("://")[2].rpartition("@")[2] or constants.ENDPOINT


def _allowed(token: str | None) -> str | bool | None:  # False: send none, this is not the Hub
    hub = re.fullmatch(r"https://(?:(?:[\w-]+\.)*huggingface\.co|hf\.co)", constants.ENDPOINT)
    return ((token or "").strip() or None) if hub else False


def _ask(
    repo_id: str, cache: Path, headers: dict[str, str], timeout_s: float, max_age_days: float,
    unreachable: list[str],
) -> dict[str, Any]:  # fmt: skip
    """One model's entry: an answer with its date, or the problem, or nothing."""
    if not valid_id(repo_id):  # also what keeps the file name inside the cache folder
        return {"problem": "not a repository name: write it as owner/name"}
    path = cache / f"{repo_id.replace('/', '--')}.json"
    kept, age_days = _cached(path, repo_id)
    if kept and 0 <= age_days <= max_age_days:
        return kept
    if unreachable:
        return kept | {"missed": True}
    try:
        url = f"{constants.ENDPOINT}/api/models/{repo_id}"
        response = http_backoff("GET", url, headers=headers, timeout=timeout_s, **REQUEST)
        hf_raise_for_status(response)
        answer = dict(response.json().items())
    except UNREACHABLE as error:
        unreachable.append(as_text(str(error)) or type(error).__name__)
        return kept | {"missed": True}
    except Exception as error:  # whatever one answer breaks must not lose the other models
        return {"problem": _problem(error, timeout_s)}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entry = {"asked": repo_id, "host": _host(), "retrieved_at": now, "answer": answer}
    write_bytes(path, json.dumps(entry).encode())
    return entry | {"source": "hub"}


def _cached(path: Path, repo_id: str) -> tuple[dict[str, Any], float]:
    """A kept answer and its age in days; nothing where the file is missing or not ours."""
    try:
        entry = json.loads(path.read_bytes())
        age = datetime.now(UTC) - datetime.fromisoformat(entry["retrieved_at"])
        if (entry["asked"], entry["host"]) == (repo_id, _host()) and as_dict(entry["answer"]):
            entry["source"] = f"hub (cached {entry['retrieved_at'][:10]})"
            return entry, age.total_seconds() / 86400
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        pass
    return {}, 0.0


def _problem(error: Exception, timeout_s: float) -> str:
    """In our own words: an error's text may quote headers, and with them the token."""
    if isinstance(error, errors.GatedRepoError):
        return REFUSED
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        return PROBLEMS.get(status, f"the Hub answered {status}: run the step again later")
    if isinstance(error, httpx2.TimeoutException):
        return f"no answer within {timeout_s:g} s: run the step again"
    if isinstance(error, httpx2.HTTPError):
        return f"the answer broke off ({type(error).__name__}): run the step again"
    return f"the answer is not the Hub's JSON ({type(error).__name__}): check proxy and HF_ENDPOINT"
