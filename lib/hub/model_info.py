"""The Hub's raw answers about one model, read with distrust: null for what is missing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from huggingface_hub import errors
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

__all__ = ["as_count", "as_dict", "as_list", "as_text", "commit", "described", "valid_id"]

PICKLE = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
FORMATS = {"safetensors": (".safetensors",), "gguf": (".gguf",), "pickle": PICKLE}
# What a server loads: repositories also hold a second copy of the weights, adapters, onnx.
LOADED = {
    "safetensors": r"model[^/]*\.safetensors",
    "gguf": r"(?!mmproj)[^/]*\.gguf",
    "pickle": r"pytorch_model[^/]*\.bin",
}
SPLIT = re.compile(r"-\d+-of-\d+(?=\.\w+$)")
GATED = {"False": "no", "True": "yes", "auto": "auto", "manual": "manual"}
RELATIONS = ("quantized", "finetune", "adapter", "merge")
CUSTOM_CODE = re.compile(r"(?:.*/)?(?:modeling|configuration|tokenization|processing)_[^/]*\.py")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d[\d:.]*(?:Z|[+-]\d\d:\d\d)?")
CATALOGUE = {"license_on_hub": "hub_license", "params_b": "hub_params_b"}
SHAPE = ("context_length", "layers", "kv_heads", "head_dim")
SHOWN_ISSUES = 20


def described(row: dict[Any, Any], told: dict[str, Any]) -> dict[str, Any]:
    """One row of `hub.pull`'s metadata: the Hub's answers where there are some, else the catalogue.

    Args:
        row: The catalogue's row, null as `None`.
        told: What may be missing: `model` and `files`, entries of `hub_cache`; `config`, from
            `model_config.described`; `providers`; `problem`.
    """
    entry, base = told.get("model", {}), row["base_model"]
    facts = {
        "repo_id": row["repo_id"],
        "metadata_source": entry.get("source", "catalogue"),
        "retrieved_at": entry.get("retrieved_at") or row["checked_on"],
        "problem": told.get("problem", ""),
    }
    if "answer" not in entry:
        facts |= {column: row[own] for column, own in CATALOGUE.items()}
        facts |= {column: row[column] and int(row[column]) for column in SHAPE}
        verdict = f"base: {base}" if base else "not checked"
        return facts | {"base_models": base, "lineage_verdict": verdict}
    raw, extra = as_dict(entry["answer"]), as_dict(told.get("files", {}).get("answer"))
    config = told.get("config")
    known = {key: value for key, value in (config or {}).items() if key != "remote_code"}
    facts |= known | _identity(raw, row["repo_id"]) | _contents(raw, config) | _weights(raw, extra)
    facts["context_length"] = known.get("context_length") or _of_gguf(raw, "context_length")
    facts["providers"] = told.get("providers")
    missing = "" if facts["revision"] else "the Hub named no revision: nothing is pinned, ask again"
    facts["problem"] = "; ".join(filter(None, (missing, facts["problem"])))
    return facts


def _identity(raw: dict[str, Any], repo_id: str) -> dict[str, Any]:
    """Name, commit, licence, descent and popularity."""
    card = as_dict(raw.get("cardData"))
    tags = [tag for tag in as_list(raw.get("tags")) if isinstance(tag, str)]
    license_, name = _licenses(card, tags)
    bases = _base_models(raw.get("baseModels"), tags)
    return {
        "revision": commit(raw),
        "license_on_hub": name or license_,
        "license_name": name,
        "license_link": as_text(card.get("license_link")),
        "gated": GATED.get(str(raw.get("gated"))),
        "base_models": bases,
        "base_relation": _relation(raw.get("baseModels"), tags) if bases else None,
        "lineage_verdict": f"base: {bases}" if bases else "",
        "created_at": _moment(raw.get("createdAt")),
        "last_modified": _moment(raw.get("lastModified")),
        "downloads": as_count(raw.get("downloads")),
        "likes": as_count(raw.get("likes")),
        "library_name": as_text(raw.get("library_name")),
        "renamed_to": _joined(id_ for id_ in [raw.get("id")] if id_ != repo_id) or None,
    }


def _contents(raw: dict[str, Any], config: dict[str, Any] | None) -> dict[str, Any]:
    """What kinds of files there are, and whether they bring code and a chat template."""
    digest, listed = raw.get("config"), isinstance(raw.get("siblings"), list)
    names = [str(as_dict(file).get("rfilename")) for file in as_list(raw.get("siblings"))]
    kinds = [kind for kind, ends in FORMATS.items() if any(name.endswith(ends) for name in names)]
    code = as_dict(as_dict(digest).get("auto_map")) or (config or {}).get("remote_code")
    code = code or any(CUSTOM_CODE.fullmatch(name) for name in names)
    read = isinstance(digest, dict) or config is not None
    tokenizer = as_dict(digest).get("tokenizer_config")
    templates = (
        *(as_dict(tokenizer).get("chat_template"), as_dict(digest).get("chat_template_jinja")),
        as_dict(raw.get("gguf")).get("chat_template"),
        {"chat_template.jinja", "chat_template.json"} & set(names),
    )
    looked = listed and (isinstance(tokenizer, dict) or isinstance(raw.get("gguf"), dict))
    return {
        "formats": ";".join(kinds) if listed else None,
        "remote_code": True if code else False if listed and read else None,
        "chat_template": True if any(templates) else False if looked else None,
    }


def _weights(raw: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    """Parameters as the Hub counts them, the size of the files, and what its scanners found."""
    counted = as_dict(raw.get("safetensors"))
    by_dtype = {
        dtype: elements
        for dtype, given in as_dict(counted.get("parameters")).items()
        if re.fullmatch(r"\w{1,20}", str(dtype)) and (elements := as_count(given)) is not None
    }
    total, of_gguf = as_count(counted.get("total")), _of_gguf(raw, "total")
    security, issues = _security(extra.get("securityRepoStatus"))
    return {
        "params_b": total and total / 1e9,
        "params_by_dtype": ";".join(f"{dtype}:{n}" for dtype, n in by_dtype.items()) or None,
        "gguf_params_b": of_gguf and of_gguf / 1e9,
        "weights_gb": _weights_gb(extra.get("siblings")),
        "security": security,
        "security_issues": issues,
    }


def _weights_gb(siblings: object) -> float | None:
    """The size of one copy of the weights; null where there are several, or a size is missing."""
    sizes = {str(f.get("rfilename")): f.get("size") for f in map(as_dict, as_list(siblings))}
    for kind, ends in FORMATS.items():
        every = [name for name in sizes if name.endswith(ends)]
        root = [name for name in every if "/" not in name]
        named = [name for name in root if re.fullmatch(LOADED[kind], name)]
        if chosen := named or root or every:
            bytes_ = [as_count(sizes[name]) for name in chosen]
            several = kind == "gguf" and len({SPLIT.sub("", name) for name in chosen}) > 1
            known = [size for size in bytes_ if size is not None]
            return None if several or len(known) < len(bytes_) else sum(known) / 1e9
    return None


def _security(status: object) -> tuple[str | None, str | None]:
    """The scanners' verdict and the files they name; a scan under way has cleared nothing."""
    if not isinstance(status, dict):
        return None, None
    listed = status.get("filesWithIssues")
    found = [
        f"{path} ({as_text(issue.get('level')) or 'not rated'})".replace(";", ",")
        for issue in map(as_dict, as_list(listed))
        if (path := as_text(issue.get("path")))
    ]
    if len(found) > SHOWN_ISSUES:
        found[SHOWN_ISSUES:] = [f"and {len(found) - SHOWN_ISSUES} more"]
    if isinstance(listed, list) and listed:
        return "issues", "; ".join(found) or None
    return ("clean" if listed == [] and status.get("scansDone") is True else "unknown"), None


def commit(raw: dict[str, Any]) -> str | None:
    """The 40-digit commit of an answer."""
    pinned = re.fullmatch(r"[0-9a-f]{40}", str(raw.get("sha")))
    return pinned and pinned[0]


def _moment(value: object) -> str | None:
    return value if isinstance(value, str) and MOMENT.fullmatch(value) else None


def _of_gguf(raw: dict[str, Any], key: str) -> int | None:
    return as_count(as_dict(raw.get("gguf")).get(key))


def _licenses(card: dict[str, Any], tags: list[str]) -> tuple[str | None, str | None]:
    """The licence identifier, and the name that says which one `other` is."""
    given = card.get("license")
    texts = [as_text(value) for value in (given if isinstance(given, list) else [given])]
    texts = [text for text in texts if text] or [t[8:] for t in tags if t.startswith("license:")]
    license_ = as_text(", ".join(str(text).replace(";", ",") for text in texts))
    name = (as_text(card.get("license_name")) or "").replace(";", ",")
    return license_, (name or None) if license_ == "other" else None


def _base_models(listed: object, tags: list[str]) -> str | None:
    """`{"models": [{"id": …}]}`, a list of ids or of `{"id": …}`, or else the tags."""
    listed = as_dict(listed).get("models", listed)
    ids = _joined(as_dict(one).get("id", one) for one in as_list(listed))
    tagged = (tag.rpartition(":")[2] for tag in tags if tag.startswith("base_model:"))
    return ids or _joined(tagged) or None


def _relation(listed: object, tags: list[str]) -> str | None:
    """How it was made from its base: quantized, finetune, adapter or merge."""
    tagged = [tag.split(":")[1] for tag in tags if tag.startswith("base_model:")]
    given = [as_dict(listed).get("relation"), *tagged]
    return next((relation for relation in RELATIONS if relation in given), None)


def _joined(names: Iterable[object]) -> str:
    return ";".join(dict.fromkeys(str(name) for name in names if valid_id(name)))


def valid_id(name: object) -> bool:
    """Whether a value is a repository name, and so safe as part of a URL or file name."""
    try:
        validate_repo_id(str(name))
    except errors.HFValidationError:
        return False
    return isinstance(name, str)


def as_dict(value: object) -> dict[str, Any]:
    """The value where it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    """The value where it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def as_text(value: object) -> str | None:
    """Hostile text on one line: no control or direction characters, 200 characters at most."""
    text = "".join(c if c.isprintable() else " " for c in value) if isinstance(value, str) else ""
    return " ".join(text.split())[:200] or None


def as_count(value: object) -> int | None:
    """A whole number from 0 that a table can hold."""
    return value if type(value) is int and 0 <= value < 2**63 else None
