"""Outputs that are there already, in a file: the closed model's production answers, say."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from lib.artifacts import shown
from lib.brief.project import Deployment
from lib.endpoints.serving import recorded_path
from lib.errors import PlaybookError
from lib.evaluate.json_lines import read_json_lines

__all__ = ["load"]

MISSING = "not recorded: the file has no line for this item"
NUMBERS = ("latency_s", "prompt_tokens", "completion_tokens")


def load(deployment: Deployment, folder: Path, item_ids: list[str]) -> list[dict[str, Any]]:
    """The recorded outputs of items, in their order, as facts of an answer.

    A line is `{"id", "output"}` with, where known, `latency_s prompt_tokens completion_tokens
    finish_reason error tool_calls`; `item_id` may stand for `id`. Lines of other items are
    passed over. An item without a line is a failed call; so is a line with an `error`.

    Raises:
        PlaybookError: The file is missing, a line is not usable, an id is there twice, or no
            item has a line.
    """
    path = recorded_path(deployment, folder)
    answers: dict[str, dict[str, Any]] = {}
    for where, line in read_json_lines(path, wanted="id and output"):
        item_id, facts = _facts_of(line, where)
        if item_id in answers:
            raise PlaybookError(f"{where}: {item_id!r} is there twice")
        answers[item_id] = facts
    if item_ids and not any(item_id in answers for item_id in item_ids):
        raise PlaybookError(
            f"{shown(path)}: has no line for any item, such as {item_ids[0]!r};"
            " its id must be that of the items file"
        )
    return [answers.get(item_id) or _facts({"error": MISSING}) for item_id in item_ids]


def _facts(line: dict[str, Any]) -> dict[str, Any]:
    names = ("output", "tool_calls", "finish_reason", *NUMBERS)
    return {"error": "", "retries": None} | {name: line.get(name) for name in names} | line


def _facts_of(line: dict[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    item_id = line.get("id", line.get("item_id"))
    if not isinstance(item_id, str) or not item_id:
        raise PlaybookError(f"{where}: id must be text, not {item_id!r}")
    facts: dict[str, Any] = {}
    for name in ("output", "finish_reason", "error"):
        value = line.get(name)
        if not isinstance(value, str | None):
            raise PlaybookError(f"{where}: {name} must be text, not {str(value)[:80]!r}")
        facts[name] = value
    for name in NUMBERS:
        facts[name] = _number(line.get(name), name, where)
    facts["tool_calls"] = _tool_calls(line.get("tool_calls"), where)
    if facts["output"] is None and not facts["tool_calls"] and not facts["error"]:
        raise PlaybookError(f"{where}: has neither output nor tool_calls nor error")
    return item_id, _facts(facts | {"error": facts["error"] or ""})


def _number(value: Any, name: str, where: str) -> float | int | None:
    if value is None:
        return None
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    if not usable or not math.isfinite(value) or not 0 <= value <= 1e9:
        raise PlaybookError(f"{where}: {name} must be a number, not {str(value)[:80]!r}")
    return float(value) if name == "latency_s" else int(value)


def _tool_calls(value: Any, where: str) -> list[dict[str, str]] | None:
    """Calls as `{"name", "arguments"}`, or in OpenAI's form with `function` around them."""
    calls = []
    for call in value if isinstance(value, list) else [value] if value is not None else []:
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise PlaybookError(f"{where}: tool_calls must be a list of name and arguments")
        arguments = function.get("arguments", "")
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        calls.append({"name": function["name"], "arguments": text})
    return calls or None
