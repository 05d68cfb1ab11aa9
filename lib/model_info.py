"""One raw answer of the Hub, read with distrust: facts, drift, and null for what is missing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from huggingface_hub import errors
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

__all__ = ["as_dict", "as_text", "described", "valid_id"]

PICKLE = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
FORMATS = {"safetensors": (".safetensors",), "gguf": (".gguf",), "pickle": PICKLE}
GATED = {"False": "no", "True": "yes", "auto": "auto", "manual": "manual"}
CUSTOM_CODE = re.compile(r"(?:.*/)?(?:modeling|configuration|tokenization|processing)_[^/]*\.py")


def described(row: dict[Any, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """One row of the result: the Hub's answer where there is one, else the catalogue."""
    base, context = row["base_model"], row["context_length"]
    facts = {
        "repo_id": row["repo_id"],
        "metadata_source": entry.get("source", "catalogue"),
        "retrieved_at": entry.get("retrieved_at") or row["checked_on"],
        "license_on_hub": row["hub_license"],
        "drift": "",
        "license_drift": False,
        "base_models": base,
        "lineage_verdict": f"base: {base}" if base else "not checked",
        "context_length": context and int(context),
        "params_b": row["hub_params_b"],
        "problem": entry.get("problem", ""),
    }
    if "answer" not in entry:
        return facts
    raw = entry["answer"]
    card, config = as_dict(raw.get("cardData")), raw.get("config")
    tags = [tag for tag in _list(raw.get("tags")) if isinstance(tag, str)]
    license_, name = _licenses(card, tags)
    files = [str(as_dict(file).get("rfilename")) for file in _list(raw.get("siblings"))]
    listed = isinstance(raw.get("siblings"), list)
    kinds = [kind for kind, ends in FORMATS.items() if any(file.endswith(ends) for file in files)]
    code = as_dict(config).get("auto_map") or any(CUSTOM_CODE.fullmatch(file) for file in files)
    bases = _base_models(raw.get("baseModels"), tags)
    total = _count(as_dict(raw.get("safetensors")).get("total"))
    pinned = re.fullmatch(r"[0-9a-f]{40}", str(raw.get("sha")))
    facts |= {
        "revision": pinned and pinned[0],
        "license_on_hub": name or license_,
        "gated": GATED.get(str(raw.get("gated"))),
        "formats": ";".join(kinds) if listed else None,
        "remote_code": True if code else False if listed and isinstance(config, dict) else None,
        "base_models": bases,
        "lineage_verdict": f"base: {bases}" if bases else "",
        "context_length": _count(as_dict(raw.get("gguf")).get("context_length"))
        or facts["context_length"],
        "downloads": _count(raw.get("downloads")),
        "likes": _count(raw.get("likes")),
        "last_modified": as_text(raw.get("lastModified")),
        "providers": _providers(raw.get("inferenceProviderMapping")),
        "library_name": as_text(raw.get("library_name")),
        "params_b": total and total / 1e9,
        "renamed_to": _joined(id_ for id_ in [raw.get("id")] if id_ != row["repo_id"]) or None,
        "problem": "" if pinned else "the Hub named no revision: nothing is pinned, ask again",
    }
    drift = "; ".join(_drift(row, facts, {str(license_).lower(), str(name).lower()}))
    return facts | {"drift": drift, "license_drift": drift.startswith("licence: ")}


def _drift(row: dict[Any, Any], hub: dict[str, Any], licenses: set[str]) -> list[str]:
    """Where the Hub's answer is not what the catalogue says; the licence first."""
    drift = []
    license_ = row["hub_license"] or row["license"]
    size = row["hub_params_b"] or row["total_params_b"]
    base = set((row["base_model"] or "").lower().split(";")) - {""}
    if license_ and license_.lower() not in licenses:
        drift.append(f"licence: catalogue {license_}, Hub {hub['license_on_hub'] or 'none'}")
    if size and hub["params_b"] and abs(hub["params_b"] - size) > 0.1 * size:
        drift.append(f"size: catalogue {size:.3g}B, Hub {hub['params_b']:.3g}B")
    if base and hub["base_models"] and not base & set(hub["base_models"].lower().split(";")):
        drift.append(f"base model: catalogue {row['base_model']}, Hub {hub['base_models']}")
    if hub["gated"] not in (None, "no"):
        drift.append(f"gated: {hub['gated']}")
    return drift


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
    ids = _joined(as_dict(one).get("id", one) for one in _list(listed))
    tagged = (tag.rpartition(":")[2] for tag in tags if tag.startswith("base_model:"))
    return ids or _joined(tagged) or None


def _providers(mapping: object) -> str | None:
    """The live providers, from a mapping by name or from a list."""
    if isinstance(mapping, dict):
        mapping = [{"provider": name, **as_dict(offer)} for name, offer in mapping.items()]
    if not isinstance(mapping, list):
        return None
    live = [as_dict(offer) for offer in mapping if as_dict(offer).get("status") == "live"]
    return _joined(offer.get("provider") for offer in live)


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


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def as_text(value: object) -> str | None:
    """Hostile text on one line: no control or direction characters, 200 characters at most."""
    text = "".join(c if c.isprintable() else " " for c in value) if isinstance(value, str) else ""
    return " ".join(text.split())[:200] or None


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 2**63 else None
