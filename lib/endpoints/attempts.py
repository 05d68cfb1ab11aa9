"""One call, tried until it is answered: at the endpoint's pace, within the budget.

What an endpoint sends back is read as hostile bytes into plain facts.
"""

import asyncio
import itertools
import json
import random
from collections.abc import Iterable
from typing import Any, NamedTuple

import httpx2
import openai

from lib.brief import Deployment, Evaluation, Size
from lib.endpoints import price
from lib.endpoints.requests import Call, as_text, refuses_schema
from lib.endpoints.servers import Served, redacted, scrub
from lib.endpoints.throttle import Throttle
from lib.untrusted import as_count, as_number, retry_after

PATHS = {"chat": "/chat/completions", "rerank": "/rerank"}
HOPELESS = (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError)
BUSY = (429, 503)
PASSING = (408, 409, *BUSY)
MOST_WAIT_S = 120.0  # who asks for more is not waited for, as in OpenAI's client
LONGEST_PAUSE_S = 8.0
FACTS = """output tool_calls finish_reason asked_by retries prompt_tokens completion_tokens
    latency_s usd"""
WRONG_SHAPE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError)
MOST_TOKENS = 10**9
MOST_DOCUMENTS = 10**6

Record = dict[str, Any]
Timed = tuple[float, int | None, int | None]


class Refused(Exception):
    """The endpoint refuses whatever is asked: a wrong key, no such model, no money left."""


class Job(NamedTuple):
    """What one deployment is asked; `keys` are those of the calls that no earlier job makes."""

    deployment: Deployment
    calls: Iterable[Call]
    keys: set[str]
    evaluation: Evaluation
    size: Size
    budget: price.Budget | None
    rate: price.Rate | None

    @property
    def threads(self) -> int:
        """The threads it takes of this machine; a hosted endpoint takes none."""
        endpoint = self.deployment.endpoint
        return endpoint.threads if endpoint and endpoint.local else 0


class Link(NamedTuple):
    """The endpoint that a job is asked through."""

    job: Job
    served: Served
    api: openai.AsyncOpenAI
    throttle: Throttle


class _Attempt(NamedTuple):
    """What became of one request: what to keep, and whether and when to try again."""

    facts: Record
    status: int = 200
    again: bool = False
    hopeless: bool = False
    wait_s: float | None = None
    charged: bool = True  # whether the endpoint may have charged for it


def blank(key: str, served: str) -> Record:
    """The record of a call nothing is known of yet."""
    return {"key": key, "served": served, "error": "", **dict.fromkeys(FACTS.split())}


async def answer_call(link: Link, call: Call) -> Record:
    """The record of a call, tried until there is an answer or no more tries are left.

    Whoever is only put off (429, 503 with a time) is tried again for as long as one answer may
    take: quotas a minute are no fault of a call. Raises Refused, or Exhausted by the budget.
    """
    most, usd, clock = link.job.evaluation.max_retries, 0.0, asyncio.get_running_loop().time
    patience_until = clock() + link.job.evaluation.timeout_s
    for retries in itertools.count():
        attempt, charge = await _take_turn(link, call)
        usd += charge
        put_off = attempt.status == 429 or (attempt.status == 503 and attempt.wait_s is not None)
        patient = most > 0 and put_off and clock() < patience_until
        if not attempt.again or (retries >= most and not patient):
            break
        if attempt.status not in BUSY:  # those wait for their turn
            pause_s = min(LONGEST_PAUSE_S, 0.5 * 2.0 ** min(retries, 10))
            pause_s *= 1 - random.random() / 4
            await asyncio.sleep(pause_s if attempt.wait_s is None else attempt.wait_s)
    if attempt.hopeless:
        raise Refused(attempt.facts["error"])
    record = blank(call.key, link.served.model) | attempt.facts
    return record | {"retries": retries, "usd": usd if link.job.budget else None, "cached": False}


async def _take_turn(link: Link, call: Call) -> tuple[_Attempt, float]:
    """One request when the endpoint's limits and the budget let it through, and its dollars."""
    throttle, budget, rate = link.throttle, link.job.budget, link.job.rate
    estimated = price.prompt_bytes(call) / price.BYTES_PER_TOKEN
    estimated += price.most_tokens(call) or 0
    used, usd, ticket = estimated, 0.0, ""
    sent_in = await throttle.enter(estimated)
    try:
        if budget and rate:
            usd = price.worst_usd(rate, call, link.job.deployment.name)
            ticket = await budget.reserve(usd)
        attempt = await _send(link, call)
        read, written = map(attempt.facts.get, ("prompt_tokens", "completion_tokens"))
        if not attempt.charged:
            used, usd = 0.0, 0.0
        elif read is not None and written is not None:
            used, usd = read + written, price.usd(rate, read, written) if rate else 0.0
        if budget:
            budget.settle(ticket, usd)
        if attempt.status in BUSY:
            throttle.put_off(sent_in, attempt.wait_s)
        elif attempt.status == 200:
            throttle.answered()
    finally:
        await throttle.leave(estimated=estimated, used=used)
    return attempt, usd


async def _send(link: Link, call: Call) -> _Attempt:
    """Send a request and read the reply; every way to fail is a sentence."""
    served, timeout_s = link.served, link.job.evaluation.timeout_s
    asked = as_text(call.body) if link.throttle.text_only else call.body
    body = {"model": served.model, **asked}
    clock = asyncio.get_running_loop().time
    start = clock()
    try:
        # The client's own timeout counts from byte to byte: a trickle would never end.
        async with asyncio.timeout(timeout_s):
            response = await link.api.post(PATHS[call.api], cast_to=httpx2.Response, body=body)
    except TimeoutError:
        return _failed(served, f"Timeout: no answer in {timeout_s:g} s", again=True)
    except openai.APIStatusError as error:
        if refuses_schema(error.status_code, error.message, body):
            link.throttle.text_only = True
            return await _send(link, call)
        return _refused(served, error)
    except openai.APIError as error:
        never_sent = isinstance(error.__cause__, httpx2.ConnectError)
        text = f"{type(error).__name__}: {error.message}"
        return _failed(served, text, again=True, charged=not never_sent)
    except (TypeError, ValueError) as error:  # a key that no header can hold
        text = f"the request cannot be sent ({type(error).__name__})"
        return _failed(served, text, charged=False)
    latency_s = round(clock() - start, 4)
    attempt = _read(served, call.api, response.content, latency_s)
    attempt.facts["asked_by"] = "schema" if "response_format" in body else "text"
    return attempt


async def stream(api: openai.AsyncOpenAI, model: str, call: Call, **options: Any) -> Timed:
    """Wait for a whole answer in a stream: when its first token came, and its tokens if counted.

    Raises an error of `openai` or httpx, or what reading another shape raises.
    """
    clock, first, ended, usage = asyncio.get_running_loop().time, 0.0, False, None
    if call.api == "rerank":  # which comes whole
        body = {"model": model, **call.body}
        reply = await api.post(PATHS["rerank"], cast_to=httpx2.Response, body=body)
        facts = _ranking(json.loads(reply.content))
        return clock(), facts.get("prompt_tokens"), facts.get("completion_tokens")
    turns, more = call.body["messages"], options | call.body
    chat = api.chat.completions
    async for chunk in await chat.create(model=model, messages=turns, stream=True, extra_body=more):
        usage = chunk.usage or usage
        for choice in chunk.choices[:1]:
            ended |= bool(choice.finish_reason)
            if choice.delta.content:
                first = first or clock()
    if not ended:  # a page, nothing at all, or cut off half-way
        raise ValueError("no chat completion")
    read, written = (getattr(usage, f"{part}_tokens", None) for part in ("prompt", "completion"))
    return first or clock(), as_count(read), as_count(written)


def _failed(served: Served, error: str, *, status: int = 0, **facts: Any) -> _Attempt:
    return _Attempt({"error": scrub(error, served)}, status, **facts)


def _refused(served: Served, error: openai.APIStatusError) -> _Attempt:
    status, wait_s = error.status_code, retry_after(error.response.headers)
    hopeless = isinstance(error, HOPELESS) or error.code == "insufficient_quota"
    passing = (status in PASSING or status >= 500) and not hopeless
    return _failed(
        served,
        f"{status} {error.message}" if hopeless else f"HTTP {status}: {error.message}",
        status=status,
        again=passing and (wait_s or 0.0) <= MOST_WAIT_S,
        hopeless=hopeless,
        wait_s=wait_s,
        charged=status >= 500 and status not in BUSY,
    )


def _read(served: Served, api: str, content: bytes, latency_s: float) -> _Attempt:
    """The facts of a reply: an HTML page, broken JSON or a JSON of another shape is a failure."""
    parsed = False  # a gateway's page, or a reply cut off half-way, may be right next time
    try:
        reply = json.loads(content)
        parsed = True
        facts = _chat(served, reply) if api == "chat" else _ranking(reply)
    except WRONG_SHAPE as error:
        what = "a chat completion" if api == "chat" else "a ranking"
        text = f"the answer is not {what} ({type(error).__name__})"
        return _failed(served, text, again=not parsed)
    return _Attempt(facts | {"latency_s": latency_s})


def _chat(served: Served, reply: Any) -> Record:
    """The text without what is sent apart as reasoning, and the tools called with raw arguments."""
    choice, usage = reply["choices"][0], reply.get("usage")
    message = choice["message"]
    content = message.get("content")
    if isinstance(content, list) and content:  # as some endpoints send it beside their thinking
        parts = [part.get("text") for part in content if part.get("type") == "text"]
        content = "".join(_text(served, part) for part in parts)
    tools = [
        {"name": _text(served, f["name"]), "arguments": _arguments(served, f.get("arguments"))}
        for f in (call["function"] for call in message.get("tool_calls") or [])
    ]
    reason = "refusal" if message.get("refusal") else _text(served, choice.get("finish_reason"))
    facts: Record = {
        "output": _text(served, content),
        "tool_calls": tools or None,
        "finish_reason": reason or None,
    }
    if usage is not None:
        facts |= {name: _count(usage[name]) for name in ("prompt_tokens", "completion_tokens")}
    return facts


def _ranking(reply: Any) -> Record:
    """JSON text of one score a document, in the order they were sent."""
    scores: dict[int, float] = {}
    for result in reply["results"]:
        index = as_count(result["index"])
        score = as_number(result.get("relevance_score", result.get("score")))
        if index is None or index >= MOST_DOCUMENTS or index in scores or score is None:
            raise ValueError("no score of a document")
        scores[index] = score
    facts: Record = {"output": json.dumps([scores.get(i) for i in range(max(scores) + 1)])}
    usage = reply.get("usage") or {}
    if (prompt := usage.get("prompt_tokens", usage.get("total_tokens"))) is not None:
        facts |= {"prompt_tokens": _count(prompt), "completion_tokens": 0}
    return facts


def _count(value: Any) -> int:
    if not 0 <= (number := int(value)) <= MOST_TOKENS:
        raise ValueError("no number of tokens")
    return number


def _arguments(served: Served, value: Any) -> str:
    # Some engines send the object itself in place of its text.
    return _text(served, json.dumps(value) if isinstance(value, dict) else value)


def _text(served: Served, value: Any) -> str:
    """A text as every file can hold it, without the key; none at all is an empty one."""
    text: str = ("" if value is None else value).encode("utf-8", "replace").decode()
    return redacted(text, served)
