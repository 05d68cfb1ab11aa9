"""Items of OpenAI evals: the lines of its JSONL, of the open-source registry and the platform.

Both forms are read: the registry's lines of `input` and `ideal` (github.com/openai/evals) and the
Evals API's lines of `item`; the platform closes on 30 November 2026.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lib.artifacts import shown
from lib.errors import PlaybookError

__all__ = ["INPUTS", "prompt_text", "read_openai_evals"]

MAX_LINE_BYTES = 1_000_000
INPUTS = "input question prompt query text user_input message content".split()
TARGETS = (
    "ideal target expected expected_output reference ground_truth answer label correct_label output"
).split()


def read_openai_evals(path: Path, *, split_system: bool = False) -> list[dict[str, Any]]:
    """Read a JSONL file of OpenAI evals as items.

    A line is `{"input": text or chat messages, "ideal": text or list}`, or `{"item": {…}}` with
    the fields of the Evals API; `datasource_item`, as in exported outputs, is the same. There
    `input` and `target` are the fields of the usual names (question, answer, label, …); other
    names are left to `evaluation.columns`. Chat messages become one text: that of the user, after
    that of the system; of a longer talk every turn with its role in front.

    Args:
        path: The file.
        split_system: Give the text of the system its own key `system` instead.

    Returns:
        One dict a line: `id` (that of the line, or its number), `input` (text), `target` (text,
        a list of texts of which any counts, or any JSON) and the line's further fields.

    Raises:
        PlaybookError: A line is not usable; names the file, the line and what is wrong.
    """
    where = shown(path)
    if not path.is_file():
        raise PlaybookError(f"{where}: no such file; name a JSONL file of OpenAI evals")
    items = []
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                place = f"{where} line {number}"
                items.append(_item(_object(line, place), number, place, split_system))
    if not items:
        raise PlaybookError(f"{where}: empty; it needs a line of JSON an item")
    return items


def _object(line: bytes, where: str) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise PlaybookError(f"{where}: longer than {MAX_LINE_BYTES / 1e6:.0f} MB")
    try:
        found = json.loads(line.decode("utf-8-sig"))
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeError:
        raise PlaybookError(f"{where}: not UTF-8; save as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise PlaybookError(f"{where}: not JSON: {str(error)[:120]}") from None
    if not isinstance(found, dict):
        raise PlaybookError(f"{where}: must be an object with input and ideal, or with item")
    return found


def _item(line: dict[str, Any], number: int, where: str, split: bool) -> dict[str, Any]:
    inner = next((line[k] for k in ("item", "datasource_item") if k in line), None)
    if inner is not None and not isinstance(inner, dict):
        raise PlaybookError(f"{where}: item must be an object, not {str(inner)[:80]!r}")
    fields = line if inner is None else inner
    names = (["input"], ["ideal"]) if inner is None else (INPUTS, TARGETS)
    asked, wanted = (next((n for n in some if n in fields), None) for some in names)
    if asked is None and inner is None:
        raise PlaybookError(f"{where}: has no input; there are {', '.join(fields)}"[:300])
    # The API's own fields stay, as evaluation.columns may name them.
    rest = {k: v for k, v in fields.items() if inner is not None or k not in ("input", "ideal")}
    own = fields.get("id", line.get("datasource_item_id", number))
    made: dict[str, Any] = {**rest, "id": own if isinstance(own, str) and own else str(own)}
    made.pop("item_id", None)
    if asked is not None:
        system, text = prompt_text(fields[asked], f"{where}: {asked}")
        made["input"] = text if split or not system else f"{system}\n\n{text}"
        if split and system:
            made["system"] = system
    if wanted is not None:
        target = fields[wanted]
        only = target[0] if isinstance(target, list) and len(target) == 1 else target
        made["target"] = json.dumps(only) if isinstance(only, int | float) else only
    return made


def prompt_text(value: Any, where: str) -> tuple[str, str]:
    """The system's text and the rest of a prompt, which is text or chat messages."""
    if isinstance(value, str):
        return "", value
    if not isinstance(value, list) or not value:
        raise PlaybookError(f"{where} must be text or chat messages, not {str(value)[:80]!r}")
    turns = []
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise PlaybookError(f"{where}: a chat message needs role and content")
        # The registry marks worked examples as system messages with a name.
        role = str(message.get("name") or message["role"]).removeprefix("example_")
        turns.append((role, _text(message.get("content"), where)))
    first = turns[0][0] in ("system", "developer") and len(turns) > 1
    system, rest = (turns[0][1], turns[1:]) if first else ("", turns)
    if len(rest) == 1:
        return system, rest[0][1]
    return system, "\n".join(f"{role.capitalize()}: {text}" for role, text in rest)


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    texts = [p if isinstance(p, str) else p.get("text") if isinstance(p, dict) else None
             for p in parts]  # fmt: skip
    if not all(isinstance(text, str) for text in texts):
        raise PlaybookError(f"{where}: only text can be asked, not images, audio or tool calls")
    return "\n".join(str(text) for text in texts)
