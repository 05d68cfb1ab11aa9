"""Inspect's log reader as Inspect 0.3.285 has it, for tests where inspect-ai is not installed.

It reads the JSON of a log into objects with the real names and defaults, and checks nothing:
that is the real reader's work, and so is Zstandard.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `inspect_ai.log` be this stub."""
    log = ModuleType("inspect_ai.log")
    log.read_eval_log = read_eval_log  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "inspect_ai", ModuleType("inspect_ai"))
    monkeypatch.setitem(__import__("sys").modules, "inspect_ai.log", log)


def read_eval_log(path: Path, exclude_fields: set[str] | None = None) -> SimpleNamespace:
    """A log, `.eval` or `.json`, as an `EvalLog`."""
    if path.suffix == ".eval":
        with zipfile.ZipFile(path) as archive:
            raw = json.loads(archive.read("header.json"))
            names = [name for name in archive.namelist() if name.startswith("samples/")]
            raw["samples"] = [json.loads(archive.read(name)) for name in names]
    else:
        raw = json.loads(path.read_text(encoding="utf-8"))
    spec, results = raw["eval"], raw.get("results")
    return SimpleNamespace(
        status=raw["status"],
        error=raw.get("error") and _object(raw["error"]),
        eval=_object(
            spec,
            config=_object(spec["config"], ("epochs",)),
        ),
        results=results and SimpleNamespace(scores=[_object(one) for one in results["scores"]]),
        samples=[_sample(one) for one in raw["samples"]],
    )


def _object(raw: dict[str, Any], blank: tuple[str, ...] = (), **parts: Any) -> SimpleNamespace:
    return SimpleNamespace(**(dict.fromkeys(blank) | raw | parts))


def _sample(raw: dict[str, Any]) -> SimpleNamespace:
    output, turns = raw["output"], raw["input"]
    choices = [_object({"stop_reason": "unknown"} | one) for one in output.get("choices", [])]
    words = choices[0].message["content"] if choices else ""
    usages = {model: _usage(usage) for model, usage in raw["model_usage"].items()}
    return _object(
        raw,
        input=turns
        if isinstance(turns, str)
        else [SimpleNamespace(text=t["content"]) for t in turns],
        output=SimpleNamespace(
            choices=choices,
            completion=output.get("completion") or words,
            usage=output.get("usage") and _usage(output["usage"]),
            time=output.get("time"),
        ),
        scores={
            name: _object({"answer": None, "explanation": None} | score)
            for name, score in (raw.get("scores") or {}).items()
        },
        error=raw.get("error") and _object(raw["error"]),
        model_usage=usages,
    )


def _usage(raw: dict[str, Any]) -> SimpleNamespace:
    return SimpleNamespace(**({"total_tokens": 0} | raw))
