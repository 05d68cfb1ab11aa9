"""What the Hub says about models, and what its router says about who serves them."""

import math
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pandas as pd
from huggingface_hub import constants, errors, hf_hub_download

from lib import tables
from lib.errors import PlaybookError, bar
from lib.hub.client import JSON, UNREACHABLE, Client, host, is_hub, offline, refusal
from lib.hub.model_info import commit, license_file, metadata_row, offers, page_facts, valid_id
from lib.legal import ancestors, base_names, same_names
from lib.tables import rows
from lib.untrusted import as_dict, as_text

SOURCES = ("auto", "hub", "catalogue")
ROUTER = "https://router.huggingface.co"
# Nobody's lineage is longer; a chain that is stays unresolved, which step 1 calls review.
GENERATIONS = 5
EXPAND = """baseModels cardData config createdAt downloads gated gguf likes sha tags
    inferenceProviderMapping lastModified safetensors siblings""".split()
FILES = {"securityStatus": True, "blobs": True}  # huggingface_hub refuses them beside `expand`
PARTS = ("model", "files", "config")
ORDER = """repo_id revision metadata_source retrieved_at license_on_hub license_name gated formats
    remote_code context_length layers kv_heads head_dim kv_layout quantization
    base_models lineage_verdict created_at last_modified downloads likes params_b params_by_dtype
    gguf_params_b weights_gb security security_issues providers renamed_to ancestry license_sha256
    problem""".split()
WHOLE = "context_length layers kv_heads head_dim downloads likes".split()
COLUMNS = dict.fromkeys(ORDER, "str") | dict.fromkeys(WHOLE, "Int64") | {"remote_code": "boolean"}
COLUMNS |= dict.fromkeys(("params_b", "gguf_params_b", "weights_gb"), "float")
MEASURES = """input_usd_per_million output_usd_per_million first_token_latency_ms
    throughput_tps""".split()
PROVIDERS = dict.fromkeys(("repo_id", "provider", "status", "retrieved_at"), "str")
PROVIDERS |= {"context_length": "Int64"} | dict.fromkeys(MEASURES, "float")


class Pulled(NamedTuple):
    """What `pull` answers: one row per model, and one per model and provider."""

    metadata: pd.DataFrame
    providers: pd.DataFrame


def pull(
    models: pd.DataFrame,
    cache: Path,
    *,
    source: str = "auto",
    timeout_s: float = 20.0,
    max_age_days: float = 1.0,
    progress: bool = False,
) -> Pulled:
    """Ask the Hub about every model: its facts, files, security scan, config.json and providers.

    `source` is `hub` (a PlaybookError where it cannot be reached), `catalogue` (opens no socket)
    or `auto`: the Hub, or else the catalogue. `cache` keeps raw answers for `max_age_days`. Of the
    `metadata`, a row per row of `models`, sizes are in 1e9 bytes and parameters, and `problem`
    says what could not be asked; `providers` has a row per offer.
    """
    if not timeout_s > 0:
        raise PlaybookError(f"timeout_s {timeout_s!r} must be above zero")
    ids = [] if _valid_source(source) == "catalogue" else list(models["repo_id"].unique())
    answers, routing = JSON(), JSON()
    with bar(len(ids), "models", show=progress) as display:
        say = display.set_description_str
        hub = Client(timeout_s, cache, say=say)
        replies = hub.each(lambda repo_id: _ask(repo_id, hub, max_age_days), ids)
        for repo_id, answer in zip(ids, replies, strict=True):
            answers[repo_id] = answer
            display.update()
        _add_bases(answers, hub, max_age_days)
        n_missed = sum(bool(answer["missed"]) for answer in answers.values())
        if ids and (url := _router_url()):
            router = Client(timeout_s, cache, token=False, say=say)
            routing = router.fetch("router/models", url, {}, max_age_days)
            if "answer" not in routing and n_missed < len(ids):  # else it is no news
                say("the router's list could not be had: prices and speeds stay unknown")
    if source == "hub" and n_missed:
        count = f"{n_missed} of {len(ids)} models ({as_text(hub.lost)})"
        way = "check the network, HF_ENDPOINT and HF_HUB_OFFLINE and run it again, or source 'auto'"
        raise PlaybookError(f"the Hub at {host()!r} could not be asked about {count}; {way}")
    facts = [metadata_row(row, answers.get(row["repo_id"], {})) for row in rows(models)]
    metadata = pd.DataFrame(facts, columns=list(COLUMNS)).astype(COLUMNS)
    offered = pd.DataFrame(offers(answers, routing), columns=list(PROVIDERS)).astype(PROVIDERS)
    return Pulled(metadata, offered)


def _add_bases(answers: JSON, hub: Client, max_age_days: float) -> None:
    """Add to each answer what the Hub says of those it was made from and the catalogue lacks."""
    in_catalogue, pages = same_names(tables.models()), JSON()

    def on_page(page: JSON) -> list[str]:
        names = base_names(page_facts(page, str(page.get("id")))["base_models"])
        return [name for name in names if valid_id(name) and name.lower() not in in_catalogue]

    tops = {name: as_dict(one.get("model", {}).get("answer")) for name, one in answers.items()}
    queue = [base for page in tops.values() for base in on_page(page)]
    for _ in range(GENERATIONS):
        new = [name for name in dict.fromkeys(queue) if name not in pages]
        replies = hub.each(lambda name: _page(name, hub, max_age_days), new)
        pages |= {name: as_dict(one.get("answer")) for name, one in zip(new, replies, strict=True)}
        queue = [base for name in new for base in on_page(pages[name])]
    direct = {name: on_page(page) for name, page in (tops | pages).items()}
    for repo_id, answer in answers.items():
        line = [name for name in ancestors(repo_id, direct) if pages.get(name)]
        answer["bases"] = [{"repo_id": name} | page_facts(pages[name], name) for name in line]


def _page(repo_id: str, hub: Client, max_age_days: float) -> JSON:
    """What the Hub says of one model."""
    file, url = repo_id.replace("/", "--"), f"{constants.ENDPOINT}/api/models/{repo_id}"
    return hub.fetch(f"model/{file}", url, {"expand": EXPAND}, max_age_days)


def budget(
    models: pd.DataFrame, cache: Path, *, source: str = "auto", max_age_days: float = 1.0
) -> str:
    """Say in one sentence what `pull` would ask, and how that stands to the Hub's limit."""
    if _valid_source(source) == "catalogue":
        return f"{models['repo_id'].nunique()} models, source 'catalogue': nothing is asked"
    hub = Client(1.0, cache)
    hub.lost = "only counted"
    ids = [name for name in dict.fromkeys(models["repo_id"]) if valid_id(name)]
    answers = [_ask(repo_id, hub, max_age_days) for repo_id in ids]
    gaps = [part for answer in answers for part in answer["missed"]]
    entries = [answer.get(part, {}) for answer in answers for part in PARTS]
    n_kept = sum("answer" in entry and "missed" not in entry for entry in entries)
    if why := offline():
        return f"{len(ids)} models, {n_kept} answers kept; {why}: nothing is asked"
    api, files = len(gaps) - gaps.count("config"), gaps.count("config")
    ask = f"to ask: {api} API requests and {files} files"
    if is_hub() and not hub.with_token:
        ask += "; without a token the Hub answers 500 API requests in 5 minutes"
    return f"{len(ids)} models, {n_kept} answers kept; {ask}"


def _ask(repo_id: Any, hub: Client, max_age_days: float) -> JSON:
    """What is known about one model: entries of `Client.fetch`, what is `missed`, a `problem`."""
    if not valid_id(repo_id):  # also what keeps the file name inside the cache folder
        return {"problem": "not a repository name: write it as owner/name", "missed": []}
    model = _page(repo_id, hub, max_age_days)
    if as_dict(model.get("answer")):
        return _with_parts(repo_id, model, hub, max_age_days)
    gaps = list(PARTS) if "missed" in model else []
    return {"model": model, "problem": model.get("problem", ""), "missed": gaps}


def _with_parts(repo_id: str, model: JSON, hub: Client, max_age_days: float) -> JSON:
    """The rest of what `_ask` answers, for a model whose page is known."""
    raw, file = model["answer"], repo_id.replace("/", "--")
    name, sha = raw["id"] if valid_id(raw.get("id")) else repo_id, commit(raw)
    url = f"{constants.ENDPOINT}/api/models/{name}"
    for age in (max_age_days, -1.0):  # what is kept may be of an earlier commit
        files = hub.fetch(f"files/{file}", url, FILES, age)
        if same_commit := commit(as_dict(files.get("answer"))) in (None, sha):
            break
    config: JSON = {}
    if sha and (hub.with_token or raw.get("gated") in (None, False)):  # else shown to nobody
        url = f"{constants.ENDPOINT}/{name}/resolve/{sha}/config.json"
        config = hub.fetch(f"config/{file}@{sha}", url, {}, math.inf)
    parts = {"model": model, "files": files, "config": config}
    if sha and (text := license_file(raw)) and (hub.with_token or raw.get("gated") is False):
        url = f"{constants.ENDPOINT}/{name}/resolve/{sha}/{text}"
        parts["text"] = hub.fetch(f"license/{file}@{sha}", url, {}, math.inf)
    gaps = [part for part in PARTS if "missed" in parts[part]]
    notes = [model.get("problem", "")]
    for what, entry in (("file sizes and security scan", files), ("config.json", config)):
        reason = entry.get("problem")
        if "missed" in entry and "answer" not in entry:
            reason = "the Hub could not be reached: run the step again"
        if reason and (what, entry.get("code")) != ("config.json", "GatedRepo"):
            notes.append(f"{what}: {reason}")
    if not same_commit:
        parts["files"] = {}
        notes.append("file sizes: the repository changed meanwhile, run the step again")
    return parts | {"missed": gaps, "problem": "; ".join(filter(None, notes))}


def _valid_source(source: str) -> str:
    if source not in SOURCES:
        raise PlaybookError(f"source {source!r} is unknown; use one of {', '.join(SOURCES)}")
    return source


def _router_url() -> str:
    """The router's list of models; empty where a mirror is asked and no router is named."""
    address = os.environ.get("PLAYBOOK_ROUTER_URL") or (ROUTER if is_hub() else "")
    return address and address.rstrip("/").removesuffix("/v1/models") + "/v1/models"


def download_gguf(spec: str, revision: str) -> Path:
    """Download `owner/name/file.gguf` at a pinned commit, or find it in the Hub's own cache."""
    owner, name, file = (*spec.split("/", 2), "", "")[:3]
    repo_id = f"{owner}/{name}"
    inside = not {"", ".", ".."} & set(file.split("/"))
    if not (valid_id(repo_id) and file.endswith(".gguf") and inside):
        raise PlaybookError(f"gguf {spec!r} is not owner/name/file.gguf")
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise PlaybookError(f"revision {revision!r} of {spec!r} can move; give the 40-digit commit")
    token, local = None if is_hub() else False, bool(offline())
    try:
        return Path(
            hf_hub_download(repo_id, file, revision=revision, token=token, local_files_only=local)
        )
    except (errors.LocalEntryNotFoundError, *UNREACHABLE):
        reason = f"not in the local cache, and {host()!r} cannot be asked; connect and run again"
    except errors.HfHubHTTPError as error:
        reason = refusal(error.response.status_code, error.response.headers.get("X-Error-Code"))
    except httpx2.HTTPError as error:
        reason = f"the download broke off ({type(error).__name__}): run the step again"
    except OSError as error:
        reason = f"cannot be stored ({error.strerror}); free the disk or set HF_HUB_CACHE"
    raise PlaybookError(f"gguf {spec!r}: {reason}") from None
