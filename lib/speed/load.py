"""Open-loop load: requests start on schedule, whatever has become of the earlier ones."""

import asyncio
import functools
import itertools
from collections.abc import Callable
from typing import Any

import httpx2
import numpy as np
import openai

from lib.brief import Project
from lib.endpoints import Served, client

MISSES = 0.05  # p95 within the SLO means at most this share outside it
FAILURES = (openai.APIError, httpx2.HTTPError, AttributeError, TypeError, ValueError)

Record = dict[str, Any]
Miss = Callable[[], None]


async def offer(
    brief: Project, served: Served, bodies: list[Record], rate: float, n: int
) -> list[Record]:
    """Send n requests at a rate; stop when the SLO is certainly lost. One record a request."""
    slo_s, loop, misses = brief.requirements.slo_s, asyncio.get_running_loop(), 0
    # The same unit-rate arrivals in every probe: rates differ, luck does not.
    gaps = np.random.default_rng(0).exponential(1.0, n)
    due = ((np.cumsum(gaps) - gaps[0]) / rate).tolist()

    def miss() -> None:
        nonlocal misses
        misses += 1
        if misses > MISSES * n:  # soon, so that a request that has just failed says so first
            loop.call_soon(lambda: [task.cancel() for task in tasks])

    async with client(served, timeout_s=brief.evaluation.timeout_s) as api:
        # One request first: it warms the connection and waits for what an earlier probe left.
        send = functools.partial(_request, api, served.model, slo_s)
        await send(loop.time(), bodies[0], lambda: None)
        start, turns = loop.time(), itertools.cycle(bodies)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(send(start + s, next(turns), miss)) for s in due]
        end = loop.time()
    requests = []
    for due_s, task in zip(due, tasks, strict=True):
        if not task.cancelled():
            requests.append({"due_s": due_s, **task.result()})
        elif (waited := end - start - due_s) > 0:  # else it was never sent
            requests.append({"due_s": due_s, "latency_s": waited, "outcome": "cut"})
    return [{k: round(v, 4) if isinstance(v, float) else v for k, v in r.items()} for r in requests]


async def _request(
    api: openai.AsyncOpenAI, model: str, slo_s: float, due_at: float, body: Record, miss: Miss
) -> Record:
    """Send a request when it is due; `miss` is called once where it fails or is late."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(due_at - loop.time())
    late = loop.call_at(due_at + slo_s, miss)
    first, error = None, ""
    try:
        first = await _first_token(api, model, body)
    except FAILURES as failure:
        error = type(failure).__name__
    end = loop.time()
    if end < due_at + slo_s:
        late.cancel()
        if error:
            miss()
    if error:
        return {"latency_s": end - due_at, "outcome": "failed", "error": error}
    return {"ttft_s": (first or end) - due_at, "latency_s": end - due_at, "outcome": "ok"}


async def _first_token(api: openai.AsyncOpenAI, model: str, body: Record) -> float | None:
    """Wait for a whole answer; returns when its first token came, where it came in tokens."""
    if "documents" in body:  # a ranking comes whole
        await api.post("/rerank", body={"model": model, **body}, cast_to=httpx2.Response)
        return None
    first, ended = None, False
    async for chunk in await api.chat.completions.create(model=model, stream=True, **body):
        for choice in chunk.choices[:1]:
            ended = ended or bool(choice.finish_reason)
            if first is None and choice.delta.content:
                first = asyncio.get_running_loop().time()
    if not ended:  # a page, nothing at all, or cut off half-way
        raise ValueError("no chat completion")
    return first
