"""Everything that is asked about one model, in three requests: facts, files and config.json."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import constants

from lib.hub.cache import Entry, fetch, fresh, path_of, read, write
from lib.hub.http import Session, host
from lib.hub.model_config import described as config_facts
from lib.hub.model_info import as_dict, commit, valid_id
from lib.hub.offers import live

__all__ = ["Asking", "Cost", "ask", "cost"]

EXPAND = """baseModels cardData config createdAt downloads evalResults gated gguf likes sha tags
    inferenceProviderMapping lastModified library_name safetensors siblings""".split()
FILES = {"securityStatus": True, "blobs": True}
CONFIG_BYTES = 5_000_000


class Asking(NamedTuple):
    """Whom one pull asks, and what it takes from the cache."""

    hub: Session
    cache: Path
    max_age_days: float


def ask(repo_id: str, asking: Asking) -> dict[str, Any]:
    """What is kept or answered about one model: `model`, `files`, `config`, and `problem`."""
    if not valid_id(repo_id):  # also what keeps the file name inside the cache folder
        return {"problem": "not a repository name: write it as owner/name", "missed": False}
    hub, cache, days = asking
    api = f"{constants.ENDPOINT}/api/models/"
    path = path_of(cache, "model", repo_id)
    entry = fetch(hub, path, api + repo_id, {"expand": EXPAND}, asked=repo_id, max_age_days=days)
    told = {"model": entry, "problem": entry.get("problem", ""), "missed": "missed" in entry}
    raw = as_dict(entry.get("answer"))
    if not raw:
        return told
    name, sha = str(raw["id"]) if valid_id(raw.get("id")) else repo_id, commit(raw)
    held = _files_kept(cache, repo_id, sha, days)
    path = path_of(cache, "files", repo_id)
    files = held or fetch(hub, path, api + name, FILES, asked=repo_id, max_age_days=-1)
    told["missed"] |= "missed" in files
    notes = [told["problem"], _note("file sizes and security scan", files)]
    if commit(as_dict(files.get("answer"))) not in (None, sha):
        files = {}
        notes.append("file sizes: the repository changed meanwhile, run the step again")
    config: Entry = {}
    if sha and _open(raw, hub):
        config = _config(name, repo_id, sha, asking)
        if config.get("code") not in ("GatedRepo", "EntryNotFound"):
            notes.append(_note("config.json", config))
    told["missed"] |= "missed" in config
    facts = config_facts(config["answer"]) if config.get("answer") else None
    told |= {"files": files, "config": facts, "providers": live(raw)}
    return told | {"problem": "; ".join(filter(None, notes))}


class Cost(NamedTuple):
    """Answers about one model that are kept, and requests that are to be made."""

    kept: int
    api: int
    files: int


def cost(repo_id: str, asking: Asking) -> Cost:
    """What `ask` would have to ask; a repository not seen yet may hide its config.json."""
    hub, cache, days = asking
    entry = read(path_of(cache, "model", repo_id), repo_id, host())
    raw = as_dict(entry.get("answer"))
    sha = commit(raw)
    config = sha and read(path_of(cache, "config", repo_id, sha), f"{repo_id}@{sha}", host())
    held = [fresh(entry, days), bool(_files_kept(cache, repo_id, sha, days))]
    files = not config and _open(raw, hub)
    return Cost(sum(held) + bool(config), held.count(False), int(files))


def _open(raw: dict[str, Any], hub: Session) -> bool:
    """Whether it is of use to ask for a file: a gated one is shown to nobody without a token."""
    return hub.with_token or raw.get("gated") in (None, False)


def _files_kept(cache: Path, repo_id: str, sha: str | None, max_age_days: float) -> Entry:
    """The kept sizes and scan, where they are young enough and of the same commit."""
    entry = read(path_of(cache, "files", repo_id), repo_id, host())
    same = commit(as_dict(entry.get("answer"))) in (None, sha)
    return entry if same and fresh(entry, max_age_days) else {}


def _config(name: str, repo_id: str, sha: str, asking: Asking) -> Entry:
    """config.json at a commit, which never changes; null where the repository has none."""
    path, asked = path_of(asking.cache, "config", repo_id, sha), f"{repo_id}@{sha}"
    url = f"{constants.ENDPOINT}/{name}/resolve/{sha}/config.json"
    files: dict[str, Any] = {"bucket": "resolvers", "most_bytes": CONFIG_BYTES}
    entry = fetch(asking.hub, path, url, asked=asked, max_age_days=math.inf, **files)
    missing = entry.get("code") == "EntryNotFound"
    return entry | (write(path, asked, host(), None, None) if missing else {})


def _note(what: str, entry: Entry) -> str:
    """Why a part of the facts is not known; empty where it is."""
    problem = entry.get("problem", "")
    if "missed" in entry and "answer" not in entry:
        problem = "the Hub could not be reached: run the step again"
    return problem and f"{what}: {problem}"
