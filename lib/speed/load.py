"""What is offered to a deployment, and in what order, until its capacity is known.

A warm-up, closed loops of 1, 2, 4 … requests in flight, then open loops of Poisson arrivals around
the answer of the queue model. Which load comes next follows from those before, so a search goes
on from what is on disk. All runs on the clock of the event loop.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lib.speed import estimate
from lib.speed.queue_model import MISSES

Record = dict[str, Any]
Send = Callable[[int, float], Awaitable[Record]]  # the number of a request, and when it was due

MOST_IN_FLIGHT = 256
GAIN = 1.1  # throughput that another doubling in flight must add
LASTS_MEDIANS, LASTS_SLOS = 20, 3  # how long an open loop lasts at least
AIMS = (0.8, 1.0, 0.9)  # of what the model says, to check it
SHARES = (0.35, 0.5, 1.0)  # of what is left, for each of them
MOST_PROBES, WARM_UPS = 6, 5
PAUSE_S = 5.0  # after requests that failed or were late


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
    """Send a load and wait for its answers; `due_s` counts from its start, `latency_s` from then.

    Requests have what `send` returns besides, and the outcome `cut` where the wait was ended.
    """
    clock = asyncio.get_running_loop().time
    start, requests = clock(), list[Record]()

    async def one(number: int, due_s: float) -> Record:
        record: Record = {"due_s": due_s, "late_s": clock() - start - due_s, "outcome": "cut"}
        requests.append(record)
        try:
            record |= await send(number, start + due_s)
        finally:
            record["latency_s"] = clock() - start - due_s
        return record

    await (_closed if load.in_flight else _open)(load, one, slo_s, seed)
    requests.sort(key=lambda record: float(record["due_s"]))
    if any(record["outcome"] != "ok" for record in requests):
        await asyncio.sleep(PAUSE_S)  # what is left of it must not meet the next load
    rounded = [{k: round(v, 5) if isinstance(v, float) else v for k, v in r.items()}
               for r in requests]  # fmt: skip
    head = {"purpose": load.purpose, "in_flight": load.in_flight, "offered_rps": load.rate}
    stopped = not load.in_flight and len(requests) < load.n
    return head | {"stopped": stopped, "took_s": clock() - start, "requests": rounded}


async def _closed(load: Load, one: Send, slo_s: float, seed: int) -> None:
    clock = asyncio.get_running_loop().time
    start, numbers = clock(), iter(range(load.n))

    async def user() -> None:
        for number in numbers:
            if clock() - start > load.most_s:
                break
            if (await one(number, clock() - start))["outcome"] == "failed":
                await asyncio.sleep(PAUSE_S / 10)

    await asyncio.gather(*(user() for _ in range(load.in_flight)))


async def _open(load: Load, one: Send, slo_s: float, seed: int) -> None:
    """Poisson arrivals, scaled so that all fall on their time; given up where they pile up."""
    clock = asyncio.get_running_loop().time
    start, tasks = clock(), set[asyncio.Future[Record]]()
    gaps = np.random.default_rng(seed).exponential(1.0, load.n)
    due = np.cumsum(gaps) * (load.n / load.rate / gaps.sum())
    for number, due_s in enumerate(due.tolist()):
        await asyncio.sleep(start + due_s - clock())
        tasks = {task for task in tasks if not task.done()}
        if len(tasks) > 20 + 4 * load.rate * slo_s:
            break
        tasks.add(asyncio.ensure_future(one(number, due_s)))
    _, late = await asyncio.wait(tasks, timeout=3 * slo_s)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)


def next_load(done: list[Record], limits: Limits) -> Load | None:
    """What to offer next, or None where the capacity is known as well as may be spent on it."""
    left_n = limits.budget_requests - sum(len(r["requests"]) for r in done)
    left_s = limits.budget_s - sum(r["took_s"] for r in done)
    each_n, each_s = max(limits.budget_requests // 40, 8), max(limits.budget_s / 15, 1.0)
    if left_n < 20 or (left_s <= 0 and any(r["purpose"] == "probe" for r in done)):
        return None
    current = estimate.warm(done)
    if not current or (
        current[-1]["purpose"] == "warm-up" and len(current) < WARM_UPS and _cold(current)
    ):
        return Load("warm-up", 1, 0.0, each_n, min(each_s, 5.0))
    # Closed loops, until another doubling gains nothing; then the first again.
    levels = [r for r in current if r["purpose"] == "level"]
    if not any(r["purpose"] == "again" for r in current):
        k = 2 * levels[-1]["in_flight"] if levels else 1
        if not levels or (k <= left_n / 8 and _climbs(levels, limits.slo_s)):
            return Load("level", k, 0.0, max(each_n, 3 * k), each_s)
        return Load("again", 1, 0.0, max(each_n // 2, 8), each_s)
    # Open loops around the answer.
    probes = [r for r in current if r["purpose"] == "probe"]
    method = estimate.assess(current, limits.slo_s).method
    if not (rate := _next_rate(current, probes, limits.slo_s)):
        return None
    left = MOST_PROBES - len(probes)
    share = 1 / left if method == "measured" else SHARES[len(probes)]
    least_s = max(LASTS_MEDIANS * _median(levels[0]), LASTS_SLOS * limits.slo_s)
    n = int(min(share * left_n, rate * max(share * left_s, least_s)))
    return Load("probe", 0, rate, max(n, 20), math.inf)


def _cold(current: list[Record]) -> bool:
    """Whether latencies still fell in the last two warm-ups."""
    latency = np.concatenate([_latencies(record) for record in current[-2:]])
    half = len(latency) // 2
    fell = half and np.median(latency[half:]) < estimate.FASTER * np.median(latency[:half])
    return half < 3 or bool(fell)


def _climbs(levels: list[Record], slo_s: float) -> bool:
    last = levels[-1]
    failed = np.mean([r["outcome"] != "ok" for r in last["requests"]])
    if failed > 2 * MISSES or last["in_flight"] >= MOST_IN_FLIGHT or _median(last) > slo_s:
        return False
    return len(levels) == 1 or throughput(last) > GAIN * throughput(levels[-2])


def _latencies(record: Record) -> NDArray[np.float64]:
    return np.array([r["latency_s"] for r in record["requests"] if r["outcome"] == "ok"])


def _median(record: Record) -> float:
    latency = _latencies(record)
    return float(np.median(latency)) if len(latency) else 0.0


def throughput(record: Record) -> float:
    """Answers a second while a load lasted, but for the last ones of a closed loop."""
    ends = np.sort(
        [r["due_s"] + r["latency_s"] for r in record["requests"] if r["outcome"] == "ok"]
    )
    keep = max(len(ends) - int(record["in_flight"]), 1)  # then fewer than that are in flight
    return float(keep / ends[keep - 1]) if len(ends) > 1 and ends[keep - 1] > 0 else 0.0


def _next_rate(current: list[Record], probes: list[Record], slo_s: float) -> float | None:
    answer, n = estimate.assess(current, slo_s), len(probes)
    most = max(throughput(r) for r in current)
    if answer.method == "measured":
        aim = estimate.next_measured(probes, answer) if probes else AIMS[0] * most
    elif n < len(AIMS):
        aim = AIMS[n] * (answer.middle if math.isfinite(answer.middle) else 1.1 * most)
    else:
        return None
    return float(f"{aim:.3g}") if aim > 0 and n < MOST_PROBES else None
