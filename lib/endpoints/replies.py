"""What an endpoint sent back, read as hostile bytes into plain facts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

__all__ = ["Unreadable", "blank", "read"]

FACTS = "output tool_calls finish_reason retries prompt_tokens completion_tokens latency_s usd"
WRONG_SHAPE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError)
MOST_TOKENS = 10**9
MOST_DOCUMENTS = 10**6


class Unreadable(Exception):
    """Not the reply that was asked for: a text, and whether asking again may help."""


def blank(key: str, served: str) -> dict[str, Any]:
    """The record of a call nothing is known of yet."""
    return {"key": key, "served": served, "error": "", **dict.fromkeys(FACTS.split())}


def read(api: str, content: bytes, redact: Callable[[str], str]) -> dict[str, Any]:
    """The facts of a reply, with the endpoint's key taken out of every text.

    They are `output finish_reason tool_calls prompt_tokens completion_tokens`. A chat's output is
    its text without what is sent apart as reasoning, and tools are called by `name` with raw
    `arguments`; a ranking's is JSON text of one score a document, in the order they were sent.

    Raises:
        Unreadable: An HTML page, broken JSON, or a JSON of another shape.
    """
    parsed = False  # a gateway's page, or a reply cut off half-way, may be right next time
    try:
        reply = json.loads(content)
        parsed = True
        return _chat(reply, redact) if api == "chat" else _ranking(reply)
    except WRONG_SHAPE as error:
        what = "a chat completion" if api == "chat" else "a ranking"
        text = f"the answer is not {what} ({type(error).__name__})"
        raise Unreadable(text, not parsed) from None


def _chat(reply: Any, redact: Callable[[str], str]) -> dict[str, Any]:
    choice, usage = reply["choices"][0], reply.get("usage")
    message = choice["message"]
    content = message.get("content")
    if isinstance(content, list) and content:  # as some endpoints send it beside their thinking
        content = "".join(_text(part.get("text")) for part in content if part.get("type") == "text")
    tools = [
        {"name": redact(_text(f["name"])), "arguments": redact(_arguments(f.get("arguments")))}
        for f in (call["function"] for call in message.get("tool_calls") or [])
    ]
    reason = redact(_text(choice.get("finish_reason"))) or None
    facts: dict[str, Any] = {
        "output": redact(_text(content)),
        "tool_calls": tools or None,
        "finish_reason": "refusal" if message.get("refusal") else reason,
    }
    if usage is not None:
        facts |= {name: _count(usage[name]) for name in ("prompt_tokens", "completion_tokens")}
    return facts


def _ranking(reply: Any) -> dict[str, Any]:
    scores: dict[int, float] = {}
    for result in reply["results"]:
        index, score = result["index"], result.get("relevance_score", result.get("score"))
        if type(index) is not int or not 0 <= index < MOST_DOCUMENTS or index in scores:
            raise ValueError("no such document")
        if isinstance(score, bool) or not math.isfinite(score):
            raise ValueError("no score")
        scores[index] = float(score)
    facts: dict[str, Any] = {"output": json.dumps([scores.get(i) for i in range(max(scores) + 1)])}
    usage = reply.get("usage") or {}
    if (prompt := usage.get("prompt_tokens", usage.get("total_tokens"))) is not None:
        facts |= {"prompt_tokens": _count(prompt), "completion_tokens": 0}
    return facts


def _count(value: Any) -> int:
    if not 0 <= (number := int(value)) <= MOST_TOKENS:
        raise ValueError("no number of tokens")
    return number


def _arguments(value: Any) -> str:
    # Some engines send the object itself in place of its text.
    return json.dumps(value) if isinstance(value, dict) else _text(value)


def _text(value: Any) -> str:
    """A text as every file can hold it; none at all is an empty one."""
    text: str = ("" if value is None else value).encode("utf-8", "replace").decode()
    return text
