"""The Hub's raw answers about one model, read with distrust: null for what is missing."""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from huggingface_hub import errors
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from lib.sizing import config_facts
from lib.untrusted import as_count, as_dict, as_list, as_number, as_text

# File endings, and what a server loads: there are second copies, adapters and onnx as well.
FORMATS = {
    "safetensors": (r".*\.safetensors", r"model[^/]*\.safetensors"),
    "gguf": (r".*\.gguf", r"(?!mmproj)[^/]*\.gguf"),
    "pickle": (r".*\.(bin|pt|pth|ckpt|pkl|pickle)", r"pytorch_model[^/]*\.bin"),
}
SPLIT = re.compile(r"-\d+-of-\d+(?=\.\w+$)")
GATED = {"False": "no", "True": "yes", "auto": "auto", "manual": "manual"}
CUSTOM_CODE = re.compile(r"(?:.*/)?(?:modeling|configuration|tokenization|processing)_[^/]*\.py")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d[\d:.]*(?:Z|[+-]\d\d:\d\d)?")
LICENSE_FILE = re.compile(r"(?i)licen[cs]e(\.txt|\.md)?")
BASE_TAG = r"base_model:(?:(?:adapter|finetune|merge|quantized):)?(.+)"
SHOWN_ISSUES = 20
# What `ancestry` keeps of each model that the catalogue lacks and this one was made from.
OF_BASE = "repo_id license_on_hub license_name base_models params_b gguf_params_b".split()
UNPINNED = "the Hub named no revision: nothing is pinned, ask again"

Facts = dict[str, Any]


def metadata_row(row: dict[Any, Any], answers: Facts) -> Facts:
    """One row of `hub.pull`'s metadata, from the Hub's answers or else the catalogue."""
    entry, base, problem = answers.get("model", {}), row["base_model"], answers.get("problem", "")
    facts = {"repo_id": row["repo_id"], "metadata_source": entry.get("source", "catalogue")}
    facts["retrieved_at"] = entry.get("retrieved_at") or row["checked_on"]
    if "answer" in entry:
        facts |= _on_hub(row["repo_id"], answers)
        unpinned = "" if facts["revision"] else UNPINNED
        return facts | {"problem": "; ".join(filter(None, (unpinned, problem)))}
    shape = ("context_length", "layers", "kv_heads", "head_dim")
    facts |= {column: row[column] and int(row[column]) for column in shape}
    facts |= {"license_on_hub": row["hub_license"], "params_b": row["hub_params_b"]}
    verdict = f"base: {base}" if base else "not checked"
    return facts | {"base_models": base, "lineage_verdict": verdict, "problem": problem}


def _on_hub(repo_id: str, answers: Facts) -> Facts:
    parts = [as_dict(answers.get(part, {}).get("answer")) for part in ("model", "files", "config")]
    page, files, config = parts[0], parts[1], config_facts(parts[2]) if parts[2] else {}
    facts = config | page_facts(page, repo_id) | _contents(page, config.get("remote_code"))
    gguf_context = as_count(as_dict(page.get("gguf")).get("context_length"))
    facts["context_length"] = config.get("context_length") or gguf_context
    facts["weights_gb"] = _weights_gb(files.get("siblings"))
    facts["security"], facts["security_issues"] = _security(files.get("securityRepoStatus"))
    of_bases = [{key: base[key] for key in OF_BASE} for base in answers.get("bases", [])]
    if text := as_dict(answers.get("text", {}).get("answer")).get("text"):
        words = " ".join(re.findall(r"\w+", text.lower()))  # whatever its marks and line ends
        facts["license_sha256"] = hashlib.sha256(words.encode()).hexdigest()
    return facts | {"ancestry": json.dumps(of_bases) if of_bases else None}


def page_facts(page: Facts, repo_id: str) -> Facts:
    """Commit, licence, descent, popularity and parameters, as a model's page has them."""
    tags = [tag for tag in as_list(page.get("tags")) if isinstance(tag, str)]
    card = as_dict(page.get("cardData"))
    license_, name = _license(card, tags)
    bases = _base_models(page.get("baseModels"), tags, card.get("base_model"))
    mapping, new_id = page.get("inferenceProviderMapping"), page.get("id")
    live = [who for who, offer in _by_provider(mapping).items() if offer["status"] == "live"]
    counts = as_dict(page.get("safetensors"))
    total, of_gguf = (as_count(as_dict(page.get(k)).get("total")) for k in ("safetensors", "gguf"))
    by_dtype = [
        f"{dtype}:{elements}"
        for dtype, elements in as_dict(counts.get("parameters")).items()
        if re.fullmatch(r"\w{1,20}", dtype) and as_count(elements) is not None
    ]
    return {
        "revision": commit(page),
        "license_on_hub": name or license_,
        "license_name": name,
        "gated": GATED.get(str(page.get("gated"))),
        "base_models": bases,
        "lineage_verdict": f"base: {bases}" if bases else "",
        "created_at": _moment(page.get("createdAt")),
        "last_modified": _moment(page.get("lastModified")),
        "downloads": as_count(page.get("downloads")),
        "likes": as_count(page.get("likes")),
        "params_b": total and total / 1e9,
        "params_by_dtype": ";".join(by_dtype) or None,
        "gguf_params_b": of_gguf and of_gguf / 1e9,
        "providers": ";".join(live) if isinstance(mapping, dict | list) else None,
        "renamed_to": new_id if valid_id(new_id) and new_id != repo_id else None,
    }


def _contents(page: Facts, code_in_config: bool | None) -> Facts:
    """What kinds of files there are, and whether they bring code."""
    siblings, digest = page.get("siblings"), page.get("config")
    names = [str(as_dict(file).get("rfilename")) for file in as_list(siblings)]
    kinds = [k for k, (ends, _) in FORMATS.items() if any(re.fullmatch(ends, n) for n in names)]
    custom = any(CUSTOM_CODE.fullmatch(name) for name in names)
    code = bool(as_dict(as_dict(digest).get("auto_map")) or code_in_config or custom)
    # That there is none is known only where one looked.
    examined = isinstance(digest, dict) or code_in_config is not None
    return {
        "formats": ";".join(kinds) if isinstance(siblings, list) else None,
        "remote_code": code if code or (examined and isinstance(siblings, list)) else None,
    }


def _weights_gb(siblings: object) -> float | None:
    """The size of one copy of the weights; null where there are several, or a size is missing."""
    files = [as_dict(file) for file in as_list(siblings)]
    sizes = {str(file.get("rfilename")): as_count(file.get("size")) for file in files}
    for kind, (ends, loaded) in FORMATS.items():
        every = [name for name in sizes if re.fullmatch(ends, name)]
        root = [name for name in every if "/" not in name]
        loadable = [name for name in root if re.fullmatch(loaded, name)]
        if copy := loadable or root or every:
            several = kind == "gguf" and len({SPLIT.sub("", name) for name in copy}) > 1
            byte_counts = [size for name in copy if (size := sizes[name]) is not None]
            return None if several or len(byte_counts) < len(copy) else sum(byte_counts) / 1e9
    return None


def _security(status: object) -> tuple[str | None, str | None]:
    """The scanners' verdict and the files they name; a scan under way has cleared nothing."""
    if not isinstance(status, dict):
        return None, None
    problems = status.get("filesWithIssues")
    if not isinstance(problems, list) or not problems:
        clean = problems == [] and status.get("scansDone") is True
        return ("clean" if clean else "unknown"), None
    issues = [
        f"{path} ({as_text(issue.get('level')) or 'not rated'})".replace(";", ",")
        for issue in map(as_dict, problems[:SHOWN_ISSUES])
        if (path := as_text(issue.get("path")))
    ]
    more = [f"and {len(problems) - SHOWN_ISSUES} more"] * (len(problems) > SHOWN_ISSUES)
    return "issues", "; ".join(issues + more) or None


def commit(page: Facts) -> str | None:
    """The 40-digit commit of an answer."""
    pinned = re.fullmatch(r"[0-9a-f]{40}", str(page.get("sha")))
    return pinned and pinned[0]


def license_file(page: Facts) -> str | None:
    """The licence text of a repository whose licence is not one of the free standard texts."""
    names = (str(as_dict(file).get("rfilename")) for file in as_list(page.get("siblings")))
    license_, _ = _license(as_dict(page.get("cardData")), [])
    bespoke = license_ not in ("apache-2.0", "mit", None)
    return next((name for name in names if bespoke and LICENSE_FILE.fullmatch(name)), None)


def _moment(value: object) -> str | None:
    return value if isinstance(value, str) and MOMENT.fullmatch(value) else None


def _license(card: Facts, tags: list[str]) -> tuple[str | None, str | None]:
    """The licence identifier, and the name that says which one `other` is."""
    cell = card.get("license")
    texts = [as_text(value) for value in (cell if isinstance(cell, list) else [cell])]
    texts = [text for text in texts if text] or [t[8:] for t in tags if t.startswith("license:")]
    license_ = as_text(", ".join(str(text).replace(";", ",") for text in texts))
    name = (as_text(card.get("license_name")) or "").replace(";", ",")
    return license_, (name or None) if license_ == "other" else None


def _base_models(on_page: object, tags: list[str], on_card: object) -> str | None:
    """`{"models": [{"id": …}]}`, a list of ids or of `{"id": …}`; the rest where that is not all.

    What is no repository stays, and what only the card names is marked: step 1 must not trust it.
    """
    ids = [as_dict(one).get("id", one) for one in as_list(as_dict(on_page).get("models", on_page))]
    matches = (re.fullmatch(BASE_TAG, tag) for tag in tags)
    others = [*dict.fromkeys(match[1] for match in matches if match)]
    on_card = filter(None, on_card if isinstance(on_card, list) else [on_card])
    others += [f"card: {name}" for name in map(str, on_card) if name not in others]
    names = ids if len(ids) >= len(others) else [*ids, *others]
    texts = [as_text(str(name).replace(";", ",")[:100]) for name in names]
    return ";".join(dict.fromkeys(filter(None, texts))) or None


def valid_id(name: object) -> bool:
    """Whether a value is a repository name, and so safe as part of a URL or file name."""
    try:
        validate_repo_id(str(name))
    except errors.HFValidationError:
        return False
    return isinstance(name, str)


def offers(answers_by_repo: dict[str, Facts], routing: Facts) -> Iterator[Facts]:
    """One row per model and provider that the model's page or the router (`/v1/models`) names."""
    routes: dict[str, dict[str, Facts]] = {}
    for model in map(as_dict, as_list(as_dict(routing.get("answer")).get("data"))):
        if valid_id(model.get("id")):
            routes.setdefault(model["id"], {}).update(_by_provider(model.get("providers")))
    for repo_id, answers in answers_by_repo.items():
        entry = answers.get("model", {})
        page = as_dict(entry.get("answer"))
        on_page = _by_provider(page.get("inferenceProviderMapping"))
        on_router = routes.get(repo_id) or routes.get(str(page.get("id")), {})
        for provider in on_page | on_router:
            here, there = on_page.get(provider, {}), on_router.get(provider, {})
            price = as_dict(there.get("pricing"))
            yield {
                "repo_id": repo_id,
                "provider": provider,
                "retrieved_at": (routing if there else entry).get("retrieved_at"),
                "status": as_text(here.get("status")) or as_text(there.get("status")),
                "context_length": as_count(there.get("context_length")),
                "input_usd_per_million": _amount(price.get("input")),
                "output_usd_per_million": _amount(price.get("output")),
                "first_token_latency_ms": _amount(there.get("first_token_latency_ms")),
                "throughput_tps": _amount(there.get("throughput")),
            }


def _by_provider(mapping: object) -> dict[str, Facts]:
    """Offers by provider, from a mapping by name or from a list."""
    if isinstance(mapping, dict):
        mapping = [as_dict(offer) | {"provider": name} for name, offer in mapping.items()]
    offers = [offer for offer in map(as_dict, as_list(mapping)) if valid_id(offer.get("provider"))]
    return {offer["provider"]: {"status": None} | offer for offer in offers}


def _amount(value: object) -> float | None:
    number = as_number(value)
    return number if number is not None and number >= 0 else None
