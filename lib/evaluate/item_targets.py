"""What an item expects, by kind of task: checked, and written as text."""

from __future__ import annotations

from collections import Counter
from typing import Any

from jsonschema.protocols import Validator

from lib.brief.project import Project
from lib.endpoints.requests import schema_of
from lib.errors import PlaybookError
from lib.evaluate.json_values import canonical, misfit, validator_of
from lib.evaluate.labels import accepted
from lib.evaluate.tool_calls import validators, wanted_calls

__all__ = ["Checks", "documents_text", "target_text"]

MAX_GRADE = 1000


class Checks:
    """What targets are held against; made once for a file, because schemas are slow to check."""

    def __init__(self, brief: Project) -> None:
        self.brief = brief
        self.schema: Validator | None = None
        self.tools: dict[str, Validator] = {}
        if brief.evaluation.kind == "extraction":
            self.schema = validator_of(schema_of(brief), "evaluation.schema")
        if brief.evaluation.kind == "tool_call":
            self.tools = validators(brief)


def target_text(item: dict[str, Any], where: str, checks: Checks) -> str:
    """The target of an item as text, canonical JSON where it is no plain text.

    Raises:
        PlaybookError: It is missing or not what the kind of task expects.
    """
    kind, target = checks.brief.evaluation.kind, item.get("target")
    if kind == "extraction":
        return _object(target, where, checks)
    if kind == "tool_call":
        if "target" not in item or target == "":
            raise PlaybookError(f"{where}: target is missing; write null where no call is expected")
        return _calls(target, where, checks)
    if kind == "reranking":
        return _grades(item, where)
    if kind in ("scoring", "judged", "comparison") and (target is None or target == ""):
        return ""
    if kind == "exact" and isinstance(target, list):
        if not target or not all(isinstance(text, str) and text.strip() for text in target):
            raise PlaybookError(
                f"{where}: target must be text or a list of texts, any of which counts,"
                f" not {target!r:.200}"
            )
        return canonical(target)
    if not isinstance(target, str) or not target.strip():
        raise PlaybookError(f"{where}: target must be text, not {target!r:.200}")
    labels = checks.brief.evaluation.labels
    if kind == "classification" and target not in labels:
        raise PlaybookError(f"{where}: target {target!r} is not one of {labels}")
    if kind == "exact" and accepted(target) != [target]:
        return canonical([target])  # a text that reads like a list of texts is still one text
    return target


def _object(target: Any, where: str, checks: Checks) -> str:
    if not isinstance(target, dict) or not target:
        raise PlaybookError(
            f"{where}: target must be an object with the expected fields, not {target!r:.200}"
        )
    # An item may state some of the fields only, but none that no answer could give.
    if problem := misfit(target, checks.schema, incomplete=True):
        raise PlaybookError(f"{where}: target does not fit evaluation.schema: {problem}")
    return canonical(target)


def _calls(target: Any, where: str, checks: Checks) -> str:
    for call in wanted_calls(target):
        if not isinstance(call, dict) or set(call) - {"name", "arguments"} or "name" not in call:
            raise PlaybookError(
                f'{where}: target must be {{"name", "arguments"}}, a list of them, or null,'
                f" not {call!r:.200}"
            )
        if not isinstance(call["name"], str) or call["name"] not in checks.tools:
            raise PlaybookError(
                f"{where}: target names {call['name']!r:.200}, which is not one of"
                f" evaluation.tools: {', '.join(checks.tools)}"
            )
        arguments = call.get("arguments", {})
        if not isinstance(arguments, dict):
            raise PlaybookError(
                f"{where}: arguments of {call['name']!r} must be an object, not {arguments!r:.200}"
            )
        if problem := misfit(arguments, checks.tools[call["name"]], incomplete=True):
            raise PlaybookError(f"{where}: arguments of {call['name']!r} do not fit: {problem}")
    return canonical(target or None)


def documents_text(item: dict[str, Any], where: str) -> str:
    """The documents of a reranking item as JSON text of `id` and `text`.

    Raises:
        PlaybookError: There are fewer than two, or one is not usable.
    """
    return canonical(_documents(item, where))


def _documents(item: dict[str, Any], where: str) -> list[dict[str, str]]:
    given = item.get("documents")
    if not isinstance(given, list) or len(given) < 2:
        raise PlaybookError(f"{where}: documents must be a list of two or more to put into order")
    found = []
    for number, document in enumerate(given, start=1):
        if isinstance(document, str):  # documents without ids are counted from 1
            document = {"id": str(number), "text": document}
        name, text = (
            (document.get("id"), document.get("text")) if isinstance(document, dict) else (0, 0)
        )
        if not (isinstance(name, str) and name and isinstance(text, str) and text.strip()):
            raise PlaybookError(
                f'{where}: document {number} must be text or {{"id", "text"}},'
                f" not {given[number - 1]!r:.200}"
            )
        found.append({"id": name, "text": text})
    name, count = Counter(document["id"] for document in found).most_common(1)[0]
    if count > 1:
        raise PlaybookError(f"{where}: the document id {name!r} is used {count} times")
    return found


def _grades(item: dict[str, Any], where: str) -> str:
    target = item.get("target")
    if isinstance(target, list) and all(isinstance(name, str) for name in target):
        target = dict.fromkeys(target, 1)
    known = [document["id"] for document in _documents(item, where)]
    if not isinstance(target, dict) or not target:
        raise PlaybookError(
            f"{where}: target must be grades by document id, or a list of relevant ids,"
            f" not {item.get('target')!r:.200}"
        )
    for name, grade in target.items():
        if name not in known:
            listed = ", ".join(known)
            raise PlaybookError(
                f"{where}: target names {name!r}, which is no document: {listed}"[:400]
            )
        if type(grade) is not int or not 0 <= grade <= MAX_GRADE:
            raise PlaybookError(
                f"{where}: the grade of {name!r} must be a whole number from 0 to {MAX_GRADE},"
                f" not {grade!r:.200}"
            )
    if not any(target.values()):
        raise PlaybookError(f"{where}: no document is relevant, so every order is as good")
    return canonical(target)
