"""What is offered to a deployment, and in what order, until its capacity is known.

A warm-up, closed loops of 1, 2, 4 … requests in flight, then open loops of Poisson arrivals around
the answer of the queue model. Which load comes next follows from those before, so a search goes
on from what is on disk. All runs on the clock of the event loop.
"""

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import ranksums

from lib.speed import estimate
from lib.speed.queue_model import MISSES

Record = dict[str, Any]
Send = Callable[[int], Awaitable[Record]]

MOST_IN_FLIGHT = 256
GAIN = 1.1  # throughput that another doubling in flight must add
FASTER = 0.85  # of the earlier median: the server was still cold
LASTS_MEDIANS, LASTS_SLOS = 20, 3  # how long an open loop lasts at least
AIMS = (0.8, 1.0, 0.9)  # of what the model says, to check it
PAUSE_S = 2.0  # after refusals


class Limits(NamedTuple):
    """What may be spent on a deployment, and what counts as late."""

    slo_s: float
    budget_s: float = 40.0
    budget_requests: int = 1500


class Load(NamedTuple):
    """Requests to send: so many in flight, or (0) at a rate; none is begun after `most_s`."""

    purpose: str  # warm-up, level, again or probe
    in_flight: int
    rate: float
    n: int
    most_s: float


async def offer(load: Load, send: Send, *, slo_s: float, seed: int) -> Record:
    """Send a load and wait for its answers; `due_s` and `latency_s` count from its start."""
    clock = asyncio.get_running_loop().time
    start, requests = clock(), list[Record]()

    async def one(number: int, due_s: float) -> None:
        requests.append(record := {"due_s": due_s, "outcome": "cut"})
        try:
            record |= await send(number)
        finally:
            record["latency_s"] = clock() - start - due_s

    if load.in_flight:
        numbers = iter(range(load.n))

        async def user() -> None:
            for number in numbers:
                if clock() - start > load.most_s:
                    break
                await one(number, clock() - start)
                if requests[-1]["outcome"] == "failed":
                    await asyncio.sleep(PAUSE_S / 4)

        await asyncio.gather(*(user() for _ in range(min(load.in_flight, load.n))))
    else:
        gaps = np.random.default_rng(seed).exponential(1.0, load.n)
        due = np.cumsum(gaps) * (load.n / load.rate / gaps.sum())
        room, tasks = 20 + 4 * load.rate * slo_s, set[asyncio.Task[None]]()
        for number, due_s in enumerate(due.tolist()):
            await asyncio.sleep(start + due_s - clock())
            tasks = {task for task in tasks if not task.done()}
            if len(tasks) > room:  # it falls behind for good
                break
            tasks.add(asyncio.create_task(one(number, due_s)))
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=3 * slo_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
    requests.sort(key=lambda record: record["due_s"])
    took = clock() - start
    # What it left behind, or used up of an allowance, must not meet the next load.
    wrong = sum(record["outcome"] != "ok" for record in requests)
    while wrong and clock() - start - took < 30 * PAUSE_S:
        await asyncio.sleep(PAUSE_S)
        tried = await asyncio.gather(*(send(0) for _ in range(3)), return_exceptions=True)
        wrong = not all(isinstance(t, dict) and t["outcome"] == "ok" for t in tried)
    head = {"purpose": load.purpose, "in_flight": load.in_flight, "offered_rps": load.rate}
    stopped = not load.in_flight and len(requests) < load.n
    return head | {"stopped": stopped, "took_s": clock() - start, "requests": requests}


def next_load(done: list[Record], limits: Limits) -> Load | None:
    """What to offer next, or None where the capacity is known as well as may be spent on it."""
    left_n = limits.budget_requests - sum(len(r["requests"]) for r in done)
    left_s = limits.budget_s - sum(r["took_s"] for r in done)
    each_n, each_s = max(limits.budget_requests // 40, 8), max(limits.budget_s / 15, 1.0)
    if left_n < 20 or left_s <= 0:
        return None
    current = estimate.warm(done)
    if not current or (current[-1]["purpose"] == "warm-up" and len(current) < 5 and _cold(current)):
        return Load("warm-up", 1, 0.0, each_n, min(each_s, 5.0))
    # Closed loops, until another doubling gains nothing; then the first again.
    levels = [r for r in current if r["purpose"] == "level"]
    if not any(r["purpose"] == "again" for r in current):
        if not levels or _climbs(levels, limits.slo_s):
            k = 2 * levels[-1]["in_flight"] if levels else 1
            return Load("level", k, 0.0, max(each_n, 3 * k), each_s)
        return Load("again", 1, 0.0, max(each_n // 2, 8), each_s)
    if rate := _next_rate(current, limits):
        n_probes = sum(r["purpose"] == "probe" for r in current)
        share = (0.35, 0.5, 1.0)[min(n_probes, 2)]
        if estimate.assess(current, limits.slo_s).method == "measured":
            share = max(1 / max(7 - n_probes, 1), 0.2)
        least_s = max(LASTS_MEDIANS * _median(levels[0]), LASTS_SLOS * limits.slo_s)
        n = min(share * left_n, max(rate * share * left_s, rate * least_s))
        return Load("probe", 0, rate, max(int(n), 20), math.inf)
    return None


def _cold(current: list[Record]) -> bool:
    """Whether latencies still fell in the last two warm-ups."""
    latency = _latencies(list(itertools.chain(*(r["requests"] for r in current[-2:]))))
    half = len(latency) // 2
    return half >= 3 and bool(np.median(latency[half:]) < FASTER * np.median(latency[:half]))


def _climbs(levels: list[Record], slo_s: float) -> bool:
    last = levels[-1]
    failed = np.mean([r["outcome"] != "ok" for r in last["requests"]])
    if failed > 2 * MISSES or last["in_flight"] >= MOST_IN_FLIGHT or _median(last) > slo_s:
        return False
    return len(levels) == 1 or throughput(last) > GAIN * throughput(levels[-2])


def _latencies(requests: list[Record]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([r["latency_s"] for r in requests if r["outcome"] == "ok"])


def _median(record: Record) -> float:
    latency = _latencies(record["requests"])
    return float(np.median(latency)) if len(latency) else math.inf


def throughput(record: Record) -> float:
    """Answers a second while a load lasted, but for the last ones of a closed loop."""
    ends = np.sort([r["due_s"] + r["latency_s"] for r in record["requests"] if r["outcome"] == "ok"])
    if len(ends) < 2:
        return 0.0
    keep = max(len(ends) - record["in_flight"], 1)  # then fewer than that are in flight
    return float(keep / ends[keep - 1])


def _next_rate(current: list[Record], limits: Limits) -> float | None:
    probes = [r for r in current if r["purpose"] == "probe"]
    answer = estimate.assess(current, limits.slo_s)
    if answer.method != "measured":
        if len(probes) >= len(AIMS):
            return None
        aim = answer.middle * AIMS[len(probes)]
        if not math.isfinite(aim):
            aim = 0.9 * max(throughput(r) for r in current if r["in_flight"])
    elif not probes:
        aim = 0.8 * max(throughput(r) for r in current if r["in_flight"])
    else:
        aim = estimate.next_measured(probes, answer)
    return float(f"{aim:.3g}") if aim > 0 and len(probes) < 8 else None
