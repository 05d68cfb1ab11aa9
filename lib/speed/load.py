"""One load on one endpoint: items sent when they are due, and a record of each.

Open loop: requests start at seeded Poisson arrival times whether or not earlier ones have
finished, and latency counts from the time a request was due. A request is an item with all its
calls, sent together. A load ends early once too many requests missed the SLO.
"""

import asyncio
import functools
import itertools
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import numpy as np
import openai

from lib.brief import Project
from lib.endpoints import Call, Served, client, read_ranking
from lib.untrusted import as_count

MISSES = 0.05  # p95 within the SLO means at most this share outside it
FAILURES = (openai.APIError, httpx2.HTTPError, AttributeError, LookupError, TypeError, ValueError)
TOKENS = ("prompt_tokens", "completion_tokens")
COUNTED = {"stream_options": {"include_usage": True}}

Record = dict[str, Any]
Send = Callable[[Call], Awaitable[Record]]


async def offer(
    brief: Project, served: Served, items: list[list[Call]], rate: float, n: int
) -> list[Record]:
    """Send n items at a rate until the SLO is certainly lost; returns a record of each.

    `due_s latency_s outcome`, and where answered `ttft_s prompt_tokens completion_tokens`.
    """
    slo_s, loop, misses = brief.requirements.slo_s, asyncio.get_running_loop(), itertools.count(1)
    gaps = np.random.default_rng(0).exponential(1.0, n)  # the same luck in every probe
    due = ((np.cumsum(gaps) - gaps[0]) / rate).tolist()

    def miss() -> None:
        if next(misses) > MISSES * n:  # soon, so that a request that has just failed says so first
            loop.call_soon(lambda: [task.cancel() for task in tasks])

    async with client(served, timeout_s=brief.evaluation.timeout_s) as api:
        # One item first: it warms the connection, waits for what an earlier probe left, and shows
        # whether the endpoint counts tokens when asked to.
        send = functools.partial(_send, api, served.model, COUNTED)
        warm = await _request(send, slo_s, loop.time(), items[0], lambda: None)
        if warm["outcome"] != "ok":
            send = functools.partial(_send, api, served.model, {})
        start, turns = loop.time(), itertools.cycle(items)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_request(send, slo_s, start + s, next(turns), miss)) for s in due
            ]
        end = loop.time()
    requests = []
    for due_s, task in zip(due, tasks, strict=True):
        if not task.cancelled():
            requests.append({"due_s": due_s, **task.result()})
        elif (waited := end - start - due_s) > 0:  # else it was never sent
            requests.append({"due_s": due_s, "latency_s": waited, "outcome": "cut"})
    return [{k: round(v, 4) if isinstance(v, float) else v for k, v in r.items()} for r in requests]


async def _request(
    send: Send, slo_s: float, due_at: float, calls: list[Call], miss: Callable[[], None]
) -> Record:
    """Send an item's calls when it is due; `miss` is called once where one fails or is late."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(due_at - loop.time())
    late = loop.call_at(due_at + slo_s, miss)
    replies = await asyncio.gather(*map(send, calls))
    end = loop.time()
    counts = {name: [reply[name] for reply in replies] for name in TOKENS}
    facts: Record = {k: None if None in count else sum(count) for k, count in counts.items()}
    if errors := [reply["error"] for reply in replies if reply["error"]]:
        facts |= {"outcome": "failed", "error": errors[0]}
    else:
        facts |= {"outcome": "ok", "ttft_s": max(reply["first"] for reply in replies) - due_at}
    if end < due_at + slo_s:
        late.cancel()
        if errors:
            miss()
    return facts | {"latency_s": end - due_at}


async def _send(api: openai.AsyncOpenAI, model: str, more: Record, call: Call) -> Record:
    """Send a call and wait for its whole answer: when it began, its tokens, or its `error`."""
    loop, body, usage = asyncio.get_running_loop(), more | call.body, dict[str, Any]()
    first, ended, error = None, False, ""
    try:
        if call.api == "rerank":  # which comes whole
            body = {"model": model, **call.body}
            reply = await api.post("/rerank", body=body, cast_to=httpx2.Response)
            usage, ended = read_ranking(json.loads(reply.content)), True
        else:
            ask: Any = {"model": model, "messages": body["messages"], "extra_body": body}
            async for chunk in await api.chat.completions.create(stream=True, **ask):
                usage |= vars(chunk.usage) if chunk.usage else {}
                for choice in chunk.choices[:1]:
                    ended |= bool(choice.finish_reason)
                    if choice.delta.content:
                        first = first or loop.time()
        if not ended:  # a page, nothing at all, or cut off half-way
            raise ValueError("no chat completion")
    except FAILURES as failure:
        error = type(failure).__name__
        if isinstance(failure, openai.APIStatusError) and failure.status_code < 500:
            usage = dict.fromkeys(TOKENS, 0)  # refused, and nothing to pay
    tokens = {name: as_count(usage.get(name)) for name in TOKENS}
    return {"first": first or loop.time(), "error": error, **tokens}
