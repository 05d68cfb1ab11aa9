"""What is offered to a deployment, and in what order, until its capacity is known.

A warm-up, closed loops of 1, 2, 4 … requests in flight, then open loops of Poisson arrivals around
the answer of the queue model. Which load comes next follows from those before, so a search goes
on from what is on disk. All runs on the clock of the event loop.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import numpy as np

from lib.speed.estimate import Record, assess, throughput, usable

Send = Callable[[int, float], Awaitable[Record]]  # the number of a request, and when it was due

MOST_IN_FLIGHT = 256
GAIN = 1.1  # throughput that another doubling in flight must add
FAILING = 0.1  # of a closed loop, from which on more in flight is not tried
LASTS_MEDIANS, LASTS_SLOS = 20, 3  # how long an open loop lasts at least
AIMS = (0.8, 1.0, 0.9)  # of what the model says, to check it
ASIDE = (0.88, 1.1)  # of what was measured, in turn, where no model holds
MOST_PROBES = 6  # without a model
WARM_UP_S, PAUSE_S = 10.0, 5.0  # the pause is after requests that failed or were cut


class Limits(NamedTuple):
    """What may be spent on a deployment, and what counts as late."""

    slo_s: float
    budget_s: float = 40.0
    budget_requests: int = 1500


class Load(NamedTuple):
    """Requests to send: so many in flight, or (0) at a rate; none is begun after `most_s`."""

    purpose: str  # warm-up, level or probe
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
    facts = {"stopped": stopped, "took_s": clock() - start, "waited": 0.0}
    return head | facts | {"requests": rounded}


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
    current = usable(done)
    probes = [r for r in current if r["purpose"] == "probe"]
    if left_n < 20 or (left_s <= 0 and probes):
        return None
    each_n = max(limits.budget_requests // 40, 8)
    if not current:
        return Load("warm-up", 1, 0.0, 2 * each_n, min(limits.budget_s / 4, WARM_UP_S))
    # Closed loops, until another doubling gains nothing.
    levels = [r for r in current if r["purpose"] == "level"]
    k = 2 * levels[-1]["in_flight"] if levels else 1
    if not levels or (not probes and k <= left_n / 8 and _climbs(levels, limits.slo_s)):
        return Load("level", k, 0.0, max(each_n, 3 * k), max(limits.budget_s / 15, 1.0))
    # Open loops around the answer.
    answer = assess(current, limits.slo_s)
    most = max(throughput(r) for r in current)
    aim = answer.middle if math.isfinite(answer.middle) else most * GAIN ** len(probes)
    aims = AIMS if answer.drawn else ASIDE * (MOST_PROBES // 2)
    if len(probes) >= len(aims) or not aim:
        return None
    rate, share = float(f"{aim * aims[len(probes)]:.3g}"), 1 / (len(aims) - len(probes))
    usual = np.median([r["latency_s"] for r in levels[0]["requests"]])
    lasts_s = max(share * left_s, LASTS_MEDIANS * usual, LASTS_SLOS * limits.slo_s)
    return Load("probe", 0, rate, max(int(min(share * left_n, rate * lasts_s)), 20), math.inf)


def _climbs(levels: list[Record], slo_s: float) -> bool:
    """Whether more in flight may bring more throughput, and is not hopeless."""
    requests = levels[-1]["requests"]
    failing = np.mean([r["outcome"] != "ok" for r in requests]) > FAILING
    slow = np.median([r["latency_s"] for r in requests]) > slo_s
    if failing or slow or levels[-1]["in_flight"] >= MOST_IN_FLIGHT:
        return False
    return len(levels) == 1 or throughput(levels[-1]) > GAIN * throughput(levels[-2])
