"""Open-loop load: requests start on schedule, whatever has become of the earlier ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import numpy as np
import openai

from lib.brief.project import Project
from lib.endpoints.serving import Served, client

__all__ = ["MISSES", "offer"]

MISSES = 0.05  # p95 within the SLO means at most this share outside it

Record = dict[str, Any]


async def offer(
    brief: Project, served: Served, bodies: list[Record], rate: float, n: int
) -> list[Record]:
    """Send n requests at a rate; stop when the SLO is certainly lost. One record a request."""
    slo = brief.requirements.slo_s
    # The same unit-rate arrivals in every probe: rates differ, luck does not.
    gaps = np.random.default_rng(0).exponential(1.0, n)
    due = (np.cumsum(gaps) - gaps[0]) / rate
    loop, lost, misses = asyncio.get_running_loop(), asyncio.Event(), 0

    def miss() -> None:
        nonlocal misses
        misses += 1
        if misses > MISSES * n:
            lost.set()

    async with client(served, timeout_s=brief.evaluation.timeout_s, max_retries=0) as api:
        # One request first: it warms the connection and waits for what an earlier probe left.
        await _request(api, served, bodies[0], due_at=loop.time(), slo=slo, miss=lambda: None)
        start = loop.time()
        tasks = [
            asyncio.create_task(
                _request(
                    api,
                    served,
                    bodies[i % len(bodies)],
                    due_at=start + float(due[i]),
                    slo=slo,
                    miss=miss,
                )
            )
            for i in range(n)
        ]
        everything = asyncio.gather(*tasks, return_exceptions=True)
        stop = asyncio.create_task(lost.wait())
        stop.add_done_callback(lambda _: [task.cancel() for task in tasks])
        results = await everything
        stop.cancel()
        now = loop.time()
    requests = []
    for offset, result in zip(due, results, strict=True):
        if isinstance(result, asyncio.CancelledError):
            waited = now - start - float(offset)
            if waited > 0:  # not yet due when the probe stopped: never sent
                requests.append({"due_s": float(offset), "latency_s": waited, "outcome": "cut"})
        elif isinstance(result, BaseException):
            raise result
        else:
            requests.append({"due_s": float(offset), **result})
    return [{k: round(v, 4) if isinstance(v, float) else v for k, v in r.items()} for r in requests]


async def _request(
    api: openai.AsyncOpenAI,
    served: Served,
    body: Record,
    *,
    due_at: float,
    slo: float,
    miss: Callable[[], None],
) -> Record:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(max(0.0, due_at - loop.time()))
    late = loop.call_later(max(0.0, due_at + slo - loop.time()), miss)
    first: float | None = None
    ended = False
    try:
        if "documents" in body:  # a ranking comes whole
            sent = {"model": served.model, **body}
            await api.post("/rerank", body=sent, cast_to=httpx2.Response)
            ended = True
        else:
            stream = await api.chat.completions.create(model=served.model, stream=True, **body)
            async for chunk in stream:
                for choice in chunk.choices[:1]:
                    ended = ended or bool(choice.finish_reason)
                    if first is None and choice.delta.content:
                        first = loop.time()
        if not ended:  # a page, nothing at all, or cut off half-way
            raise ValueError("no chat completion")
    except (openai.APIError, httpx2.HTTPError, AttributeError, TypeError, ValueError) as error:
        if not late.cancelled() and loop.time() < due_at + slo:
            late.cancel()
            miss()
        elapsed = loop.time() - due_at
        return {"latency_s": elapsed, "outcome": "failed", "error": type(error).__name__}
    finally:
        if loop.time() < due_at + slo:
            late.cancel()
    end = loop.time()
    return {
        "ttft_s": (first or end) - due_at,
        "latency_s": end - due_at,
        "outcome": "ok",
    }
