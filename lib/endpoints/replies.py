"""What an endpoint sent back, read as hostile bytes into plain facts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

__all__ = ["Unreadable", "blank", "read"]

MOST_TOKENS = 10**9


class Unreadable(Exception):
    """Not the reply that was asked for; `passing` where asking again may help."""

    def __init__(self, text: str, *, passing: bool) -> None:
        super().__init__(text)
        self.passing = passing


def blank(key: str, served: str) -> dict[str, Any]:
    """The record of a call nothing is known of yet."""
    facts = (
        "output tool_calls finish_reason error retries prompt_tokens completion_tokens latency_s"
    )
    record: dict[str, Any] = {"key": key, "served": served, **dict.fromkeys(facts.split())}
    return record | {"error": "", "usd": None}


def read(api: str, content: bytes, redact: Callable[[str], str]) -> dict[str, Any]:
    """The facts of a reply: `output tool_calls finish_reason prompt_tokens completion_tokens`.

    Args:
        api: `chat` or `rerank`.
        content: The body of the reply.
        redact: Takes a key out of a text, should the endpoint have sent it back.

    Returns:
        For a chat the text without what the endpoint sends apart as reasoning, and the tools
        called as `name` and raw `arguments`; for a ranking JSON text of one score a document,
        in the order they were sent.

    Raises:
        Unreadable: An HTML page, broken JSON, or a JSON of another shape.
    """
    what = "a chat completion" if api == "chat" else "a ranking"
    try:
        reply = json.loads(content)
    except (ValueError, RecursionError) as error:  # a gateway's page, or cut off half-way
        kind = type(error).__name__
        raise Unreadable(f"the answer is not {what} ({kind})", passing=True) from None
    try:
        facts = _chat(reply, redact) if api == "chat" else _ranking(reply)
        return {"error": "", **facts, **_usage(reply, api)}
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        kind = type(error).__name__
        raise Unreadable(f"the answer is not {what} ({kind})", passing=False) from None


def _chat(reply: Any, redact: Callable[[str], str]) -> dict[str, Any]:
    choice = reply["choices"][0]
    message = choice["message"]
    called = [
        {"name": redact(_text(f["name"])), "arguments": redact(_arguments(f.get("arguments")))}
        for f in (call["function"] for call in message.get("tool_calls") or [])
    ]
    refused, reason = message.get("refusal"), redact(_text(choice.get("finish_reason")))
    return {
        "output": redact(_text(_joined(message.get("content")))),
        "tool_calls": called or None,
        "finish_reason": "refusal" if refused else reason or None,
    }


def _joined(content: Any) -> Any:
    """The text of a message that comes in parts, as some endpoints send beside their thinking."""
    if isinstance(content, list) and content and all(isinstance(p, dict) for p in content):
        return "".join(_text(p.get("text")) for p in content if p.get("type") == "text")
    return content


def _arguments(value: Any) -> str:
    # Some engines send the object itself in place of its text.
    return json.dumps(value, ensure_ascii=True) if isinstance(value, dict) else _text(value)


def _ranking(reply: Any) -> dict[str, Any]:
    scores: dict[int, float] = {}
    for result in reply["results"]:
        index, score = result["index"], result.get("relevance_score", result.get("score"))
        if type(index) is not int or not 0 <= index < 10**6 or index in scores:
            raise ValueError("no such document")
        if isinstance(score, bool) or not math.isfinite(score):
            raise ValueError("no score")
        scores[index] = float(score)
    return {"output": json.dumps([scores.get(i) for i in range(max(scores) + 1)])}


def _usage(reply: Any, api: str) -> dict[str, int | None]:
    usage = reply.get("usage")
    if usage is None:
        return {}
    if api == "rerank":
        prompt = usage.get("prompt_tokens", usage.get("total_tokens"))
        return {} if prompt is None else {"prompt_tokens": _count(prompt), "completion_tokens": 0}
    return {name: _count(usage[name]) for name in ("prompt_tokens", "completion_tokens")}


def _count(value: Any) -> int:
    if not 0 <= (number := int(value)) <= MOST_TOKENS:
        raise ValueError("no number of tokens")
    return number


def _text(value: Any) -> str:
    """What an endpoint calls text, in a form that every file can hold."""
    if not isinstance(value, str | None):
        raise TypeError("not text")
    return (value or "").encode("utf-8", "replace").decode()
