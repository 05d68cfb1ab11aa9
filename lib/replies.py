"""What an endpoint sends back, in any of the shapes that endpoints have, as plain facts."""

import asyncio
import contextlib
import html
import json
import re
from collections.abc import AsyncGenerator, Mapping
from typing import Any, NamedTuple, cast

import httpx2

from lib.tables import Row
from lib.untrusted import as_count, as_dict, as_list, as_number, as_text

# Why an answer ended, in the words of APIs, gateways and engines, by what it means to us. Case and
# punctuation do not count. A word that is not here is a failure: nobody knows what it says.
FINISH = {
    "stop": """stop stopped end end_turn end_of_text end_of_turn end_of_sequence end_id
        end_of_sentence eos eos_token s eot eot_id im_end return stop_str stop_sequence
        stop_sequence_reached stop_token stop_word stop_words stop_string stop_criteria word
        complete completed completion done finish finished normal success succeeded null none
        tool_call tool_calls tool_use function_call malformed_tool_use malformed_function_call
        malformed_model_output unexpected_tool_call""",
    "length": """length max_length model_length length_limit limit max_tokens max_tokens_reached
        max_output_tokens max_completion_tokens max_new_tokens maximum_tokens token_limit
        token_limit_reached context_length context_length_exceeded context_window_exceeded
        model_context_window_exceeded max_context_length context_limit output_limit
        output_token_limit max_output max_output_length max_tokens_exceeded error_limit truncated
        incomplete""",
    "content_filter": """content_filter content_filtered content_filter_triggered filtered filter
        sensitive sensitive_content safety image_safety refusal refused recitation blocklist blocked
        prohibited_content spii guardrail guardrails guardrail_intervened moderation moderated
        flagged error_toxic policy_violation content_policy_violation""",
    "failed": """error failed failure network_error server_error internal_error
        insufficient_system_resource insufficient_resources abort aborted cancel canceled cancelled
        user_cancel user_cancelled timeout timed_out time_limit time_limit_exceeded interrupted
        disconnected disconnect overloaded unavailable load unload not_finished preempted""",
}
MEANINGS = {w.replace("_", ""): meaning for meaning, ws in FINISH.items() for w in ws.split()}
# Where some say why beside a "stop". Other words say nothing: vLLM has there what it stopped at.
REASONS_BESIDE = ("stop_reason", "native_finish_reason", "finish_details")
# Where the words of an error stand, the most telling first.
WORDS = """message detail error errors msg error_message error_msg status_msg base_resp reason title
    description""".split()
# What an error without a status in its own right means.
STATUSES = {
    429: "rate.?limit|throttl|too many requests|quota",
    503: "overload|unavailable|try again",
    401: "unauthori[sz]ed|invalid.?api.?key|authentication",
    400: "invalid.?request",
}
TEXT_PARTS, THOUGHT_PARTS = {"text", "output_text"}, {"thinking", "reasoning"}
NO_FAILURE = {"", "0", "200", "none", "false", "ok", "success", "{}", "[]"}  # of an error beside
PROVIDER_HEADERS = ("x-inference-provider", "x-provider", "x-portkey-provider", "cf-aig-provider")
SERVED = ("served_model", "fingerprint", "provider")
CACHED = "cached_tokens prompt_cache_hit_tokens cache_read_input_tokens num_cached_tokens".split()
MOST_CHARACTERS = 1_000_000  # of an answer
THOUGHTS = ("reasoning_content", "reasoning", "reasoning_details", "thinking")
MARKUP = re.compile(r"(?is)<(script|style|head)\b.*?</\1\s*>|<!--.*?-->|</?[a-z!][^<>]*>")
# What reading a reply of another shape raises.
WRONG_SHAPE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError)


class ReplyError(ValueError):
    """A reply that is no answer: its words, the HTTP status it amounts to, and what it used."""

    def __init__(self, words: str, status: int, usage: Row | None = None) -> None:
        super().__init__(words)
        self.status, self.usage = status, usage or {}


def words_of(error: Any, depth: int = 6) -> str:
    """What an error says to people: a text, HTML or any of the usual JSON shapes; "" if nothing."""
    if isinstance(error, str):
        return as_text(html.unescape(MARKUP.sub(" ", error[:10_000])), most=300) or ""
    parts = error[:3] if isinstance(error, list) else []
    words = [words_of(part, depth - 1) for part in parts if depth]
    if isinstance(error, dict) and depth:
        values = (words_of(error.get(name), depth - 1) for name in WORDS)
        words = [next(filter(None, values), "")]
    return "; ".join(filter(None, words))


def _status_of(error: Any) -> int:
    """The HTTP status that an error in a 200 amounts to, as far as it says; else 500."""
    for facts in (as_dict(part) for part in [error, *as_list(error)]):
        if "error" in facts:
            return _status_of(facts["error"])
        for name in ("code", "status", "status_code", "http_status"):
            if re.fullmatch("[45][0-9][0-9]", code := str(facts.get(name))):
                return int(code)
    text = json.dumps(error)[:10_000]
    return next((code for code, words in STATUSES.items() if re.search(f"(?i){words}", text)), 500)


def _failure(error: Any) -> str:
    """What an error beside an answer says; "" where it says that nothing failed."""
    facts = error.values() if isinstance(error, dict) else [error]
    failed = any(str(fact).strip().lower() not in NO_FAILURE for fact in facts)
    return (words_of(error) or words_of(json.dumps(error))) if failed else ""


def check_error(reply: Any, *, part: bool = False) -> None:
    """Raise the ReplyError that a reply with the status 200, or a part of a stream, holds."""
    facts = as_dict(reply)
    choice = as_dict(next(iter(as_list(facts.get("choices"))), None))
    for error in (facts.get("error"), facts.get("base_resp"), choice.get("error")):
        if words := _failure(error):
            raise ReplyError(words, _status_of(error))
    if part or facts.get("choices") or facts.get("results"):
        return
    if words := words_of(reply):
        raise ReplyError(words, _status_of(reply))
    if "choices" in facts:
        raise ReplyError("no choices", 500)


def finish_of(choice: Mapping[str, Any], usage: Row | None = None) -> str | None:
    """Why an answer ended: stop, length, content_filter or None; ReplyError if it failed."""
    reason, meaning = _meaning(choice.get("finish_reason"))
    if reason and not meaning:
        raise ReplyError(f"finish_reason {reason!r} is no known one", 422, usage)
    for name in REASONS_BESIDE:
        beside, other = _meaning(choice.get(name))
        if other and (meaning in (None, "stop") or other == "failed"):
            reason, meaning = beside, other
    if meaning == "failed":
        raise ReplyError(f"finish_reason {reason!r}", 500, usage)
    return meaning


def _meaning(reason: Any) -> tuple[str, str | None]:
    """A reason's word, "" where there is none, and what it means to us, None where unknown."""
    word = as_dict(reason).get("type", reason)  # SGLang's own form is an object
    if word is None or word == "":
        return "", None
    letters = re.sub("[^a-z]", "", str(word)[:100].lower()).removeprefix("finishreason")
    meaning = MEANINGS.get(letters) if isinstance(word, str) else None
    return as_text(str(word), most=60) or "?", meaning


def text_of(content: Any) -> str:
    """The text of a message's content: of its parts, where it comes in parts, the text."""
    if isinstance(content, list):
        return "".join(text_of(part["text"]) for part in content if part["type"] in TEXT_PARTS)
    if not isinstance(content, str | None):
        raise TypeError("no text")
    if content and len(content) > MOST_CHARACTERS:
        raise ReplyError(f"the answer is longer than {MOST_CHARACTERS:,} characters", 422)
    return content or ""


def completion(reply: Any, headers: Mapping[str, str]) -> Row:
    """The facts of a chat completion: the text without reasoning, and the tools with raw arguments.

    A ReplyError where it is an error or no answer, one of `WRONG_SHAPE` where it is of another.
    """
    check_error(reply)
    choice, usage = reply["choices"][0], usage_of(reply.get("usage"))
    finish, message = finish_of(choice, usage), as_dict(choice.get("message"))
    if not message and finish in (None, "stop"):
        raise LookupError("no message")
    output = text_of(message.get("content"))
    tools = []
    for function in (call["function"] for call in message.get("tool_calls") or []):
        arguments = function.get("arguments")
        if isinstance(arguments, dict):  # some engines send the object itself, not its text
            arguments = json.dumps(arguments)
        tools.append({"name": text_of(function["name"]), "arguments": text_of(arguments)})
    parts = {as_dict(part).get("type") for part in as_list(message.get("content"))}
    if message.get("refusal") or "refusal" in parts:
        finish = "refusal"
    thoughts = any(map(message.get, THOUGHTS)) or parts & THOUGHT_PARTS
    if thoughts and finish in (None, "stop") and not (output.strip() or tools):
        words = "no content, only reasoning_content: the server splits it wrongly"
        raise ReplyError(words, 422, usage)
    provider = reply.get("provider") or next(filter(None, map(headers.get, PROVIDER_HEADERS)), None)
    served = map(as_text, (reply.get("model"), reply.get("system_fingerprint"), provider))
    usage = usage_of(reply.get("usage"), wrote=bool(output or tools))
    facts = {"output": output, "tool_calls": tools or None, "finish_reason": finish}
    return facts | usage | dict(zip(SERVED, served, strict=True))


def usage_of(usage: Any, *, wrote: bool = False) -> Row:
    """The tokens read, written, and read from a cache, None where not told or not possible."""
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    read, written, total = (_tokens(as_dict(usage).get(name)) for name in names)
    details = as_dict(usage) | as_dict(as_dict(usage).get("prompt_tokens_details"))
    cached = next((n for n in map(_tokens, map(details.get, CACHED)) if n is not None), None)
    # No request is of no tokens, nor of fewer than a cache held of it.
    read = None if not read or read < (cached or 0) else read
    if read is not None and written is not None and (total or 0) > read + written:
        written = (total or 0) - read
    if written is not None and (thought := thoughts_of(usage)) > written:
        written += thought  # reasoning is billed on top
    written = None if wrote and not written else written
    return {"prompt_tokens": read, "completion_tokens": written, "cached_tokens": cached}


def thoughts_of(usage: Any) -> int:
    """The tokens of reasoning, 0 where not told."""
    details = as_dict(as_dict(usage).get("completion_tokens_details"))
    return _tokens(details.get("reasoning_tokens", as_dict(usage).get("reasoning_tokens"))) or 0


def _tokens(value: Any) -> int | None:
    number = as_number(value)
    whole = number is not None and number.is_integer() and 0 <= number <= 10**9
    return int(number or 0) if whole else None


def ranking(reply: Any) -> Row:
    """The facts of a ranking: JSON text of one score a document, in the order they were sent."""
    check_error(reply)
    scores: dict[int, float] = {}
    for result in reply["results"]:
        index = as_count(result["index"])
        score = as_number(result.get("relevance_score", result.get("score")))
        if index is None or index >= 10**6 or index in scores or score is None:
            raise ValueError("no score of a document")
        scores[index] = score
    usage = as_dict(reply.get("usage"))
    read = _tokens(usage.get("prompt_tokens", usage.get("total_tokens")))
    output = json.dumps([scores.get(i) for i in range(max(scores) + 1)])
    facts = {"output": output, "served_model": as_text(reply.get("model"))}
    return facts | ({"prompt_tokens": read, "completion_tokens": 0} if read else {})


class Timed(NamedTuple):
    """When a stream's first token and the first of its answer came, and the tokens if counted."""

    first_token: float
    first_content: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None = None
    hidden: bool = False  # tokens of thoughts are counted, and did not come


async def read_events(response: httpx2.Response) -> Timed:
    """The times of a stream's tokens; a reason to end, or text and its [DONE], make it whole."""
    clock, token_at, content_at = asyncio.get_running_loop().time, 0.0, 0.0
    usage, reason, whole, thinks = None, None, False, False
    if re.search("json|html", response.headers.get("content-type", "")):
        check_error(json.loads(await response.aread()))
        raise ValueError("no stream")
    response.headers["content-type"] = "text/event-stream"  # which some forget
    source = cast(AsyncGenerator[httpx2.ServerSentEvent], aiter(httpx2.EventSource(response)))
    async with contextlib.aclosing(source) as events:
        async for event in events:
            if whole := event.data.startswith("[DONE]"):
                # The end of the body frees the connection for the next request.
                with contextlib.suppress(TimeoutError, httpx2.HTTPError):
                    async with asyncio.timeout(0.1):
                        _ = [event async for event in events]
                break
            chunk = json.loads(event.data or "{}")
            check_error(chunk, part=event.event != "error" and "choices" in chunk)
            usage = chunk.get("usage") or usage
            for choice in (chunk.get("choices") or [])[:1]:
                reason = finish_of(choice) or reason
                delta = choice.get("delta") or {}
                answer = text_of(delta.get("content")) or delta.get("tool_calls")
                thought = any(map(delta.get, THOUGHTS))
                thinks |= thought or bool(delta.get("content") and not answer)
                if answer or delta.get("content") or thought or delta.get("refusal"):
                    token_at = token_at or clock()
                if answer:
                    content_at = content_at or clock()
    if not reason and not (whole and content_at):  # a page, nothing at all, or cut off half-way
        raise ValueError("no chat completion")
    hidden, tokens = bool(thoughts_of(usage)) and not thinks, usage_of(usage, wrote=content_at > 0)
    return Timed(token_at or clock(), content_at or None, **tokens, hidden=hidden)
