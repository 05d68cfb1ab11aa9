"""What is offered to a deployment, and in what order, until its capacity is known.

A warm-up of one request at a time, then open loops of Poisson arrivals: at twice the rate each
time until one is not borne, then around the answer. Which load comes next follows from those
before, so a search goes on from what is on disk. All runs on the clock of the event loop.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import numpy as np

from lib.brief import Project
from lib.speed.estimate import assess, conclusive_loads, throughput
from lib.tables import Row

Send = Callable[[int, float], Awaitable[Row]]  # the number of a request, and when it was due

BORNE = 0.75  # the least answers for each request offered, where a rate may still be doubled
AT_ONCE = 10  # requests of a load for each that it has in flight
LASTS_MEDIANS, LASTS_SLOS = 20, 3  # how long a load around the answer lasts at least
MEDIANS = 60  # latencies that a search may take, where that is more than the brief's seconds
AIMS = (0.7, 1.15, 1.0)  # of the answer so far, to check and to refine it
NEAR = 0.9  # of what the endpoint allows
WARM_UP_S, PAUSE_S = 10.0, 5.0  # the pause is after requests that failed or were cut


class Load(NamedTuple):
    """Requests to send at a rate, or (0) one at a time; then none is begun after `most_s`."""

    purpose: str  # warm-up, ramp or probe
    rate: float
    n: int
    most_s: float = math.inf


async def offer(load: Load, send: Send, *, slo_s: float, seed: int) -> Row:
    """Send a load and wait for its answers; `due_s` counts from its start, `latency_s` from then.

    Requests have what `send` returns besides, and the outcome `cut` where the wait was ended.
    """
    clock = asyncio.get_running_loop().time
    start, requests = clock(), list[Row]()

    async def one(number: int, due_s: float) -> Row:
        record: Row = {"due_s": due_s, "late_s": clock() - start - due_s, "outcome": "cut"}
        requests.append(record)
        try:
            record |= await send(number, start + due_s)
        finally:
            record["latency_s"] = clock() - start - due_s
        return record

    if load.rate:
        await _open(load, one, slo_s, seed)
    else:
        for number in range(load.n):
            if clock() - start < load.most_s:
                await one(number, clock() - start)
    if any(record["outcome"] != "ok" for record in requests):
        await asyncio.sleep(PAUSE_S)  # what is left of it must not meet the next load
    rounded = [{k: round(v, 5) if isinstance(v, float) else v for k, v in r.items()}
               for r in requests]  # fmt: skip
    head = {"purpose": load.purpose, "offered_rps": load.rate, "took_s": clock() - start}
    stopped = load.rate > 0 and len(requests) < load.n
    return head | {"stopped": stopped, "waited": 0.0, "requests": rounded}


async def _open(load: Load, one: Send, slo_s: float, seed: int) -> None:
    """Poisson arrivals, scaled so that all fall on their time; given up where they pile up."""
    clock = asyncio.get_running_loop().time
    start, tasks = clock(), set[asyncio.Future[Row]]()
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


def seconds_allowed(brief: Project, usual_s: float) -> float:
    """About how long a search takes: as the brief says, or so many latencies if that is more."""
    return max(brief.speed.budget_s, MEDIANS * usual_s)


def next_load(done: list[Row], brief: Project, allowed_rps: float = math.inf) -> Load | None:
    """What to offer next, or None where the capacity is known as well as may be spent on it.

    Nothing is offered near `allowed_rps`, which is what the endpoint allows: arrivals are uneven.
    """
    allowed_rps *= NEAR
    needs, most_s, most_n = brief.requirements, brief.speed.budget_s, brief.speed.budget_requests
    left_n = most_n - sum(len(r["requests"]) for r in done)
    current = conclusive_loads(done)
    ramp, probes = ([r for r in current if r["purpose"] == name] for name in ("ramp", "probe"))
    each_n = max(most_n // 40, 8)
    if not current:
        n = int(max(min(2 * each_n, allowed_rps * WARM_UP_S), 1))
        return Load("warm-up", 0.0, n, min(most_s / 4, WARM_UP_S))
    # Twice the rate each time, from that of one request after the other.
    last = [r["latency_s"] for r in current[0]["requests"]][-each_n:]
    usual_s = max(float(np.median(last)), 1e-3)
    left_s = seconds_allowed(brief, usual_s) - sum(r["took_s"] for r in done)
    if left_n < 20 or 0 <= left_s * allowed_rps < 20 or (left_s <= 0 and probes):
        return None
    rate = min(float(f"{2 ** len(ramp) / usual_s:.3g}"), allowed_rps)
    n = int(max(min(each_n, rate * most_s / 15), AT_ONCE * 2 ** len(ramp)))
    last_rps = ramp[-1]["offered_rps"] if ramp else 0.0
    borne = not ramp or (throughput(ramp[-1]) > BORNE * last_rps and last_rps < allowed_rps)
    if not probes and borne and (not ramp or (n < left_n / 3 and left_s > 0)):
        return Load("ramp", rate, n)
    # Around the answer.
    if len(probes) == len(AIMS):
        return None
    _, middle, high, _ = assess([*ramp, *probes], needs.slo_s, needs.max_ttft_p95_s)
    most = middle if 0 < middle < math.inf else max(map(throughput, ramp))
    rate, share = float(f"{AIMS[len(probes)] * most:.3g}"), 1 / (len(AIMS) - len(probes))
    if allowed_rps < (rate if high < math.inf else math.inf):
        rate, share = allowed_rps, 1.0  # after which there is none to offer
    lasts_s = max(share * left_s, LASTS_MEDIANS * usual_s, LASTS_SLOS * needs.slo_s)
    return Load("probe", rate, max(int(min(share * left_n, rate * lasts_s)), 10))
