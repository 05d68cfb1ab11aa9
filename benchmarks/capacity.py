"""How well the search for the capacity finds it, on servers of known truth, in virtual time.

`python benchmarks/capacity.py --runs 100`; `--truth` computes the true capacities anew. They are
the Poisson rates at which 5 % miss the SLO, by simulation of the same server with 10⁶ arrivals.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from printed import Row, show

from lib.brief import Project, Requirements
from lib.brief.sections import Speed
from lib.speed import estimate, load


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that never waits: where only a timer is left, its moment is now."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        poll = self._selector.select  # type: ignore[attr-defined]

        def select(timeout: float | None) -> Any:
            self.now += float(timeout or 0.0)  # numpy's scalars are no real clock's
            return poll(0)

        self._selector.select = select  # type: ignore[attr-defined]

    def time(self) -> float:
        return self.now


Work = Callable[[np.random.Generator], float]


class FirstCome:
    """So many slots, first come, first served; `ends` says when a request that comes is done."""

    def __init__(self, rng: np.random.Generator, slots: int, work: Work, **special: Any) -> None:
        self.rng, self.work, self.free = rng, work, [0.0] * slots
        self.cold_s, self.cached, self.cache = (
            special.get("cold_s", 0.0),
            special.get("cached"),
            300,
        )
        self.stall_every, self.stall_s = (
            special.get("stall_every", 0.0),
            special.get("stall_s", 0.0),
        )
        self.rate, self.burst = special.get("rate", 0.0), special.get("burst", 0.0)
        self.tokens, self.filled = self.burst, 0.0
        self.known: OrderedDict[int, None] = OrderedDict()
        self.start: float | None = None
        self.stalls: list[tuple[float, float]] = []  # real time each begins, lost before it

    def ends(self, now: float, item: int) -> float | None:
        """When it is answered; None where it is refused."""
        if self.start is None:
            self.start = now
            self.next_stall = now + self.rng.exponential(self.stall_every)
            self.lost, self.from_ = 0.0, now
            self.free = [0.0 for _ in self.free]
        if self.rate:
            self.tokens = min(self.burst, self.tokens + (now - self.filled) * self.rate)
            self.filled = now
            if self.tokens < 1:
                return None
            self.tokens -= 1
        need = self.work(self.rng)
        if self.cached and item in self.known:
            need = self.cached
        if self.cached:
            self.known[item] = None
            self.known.move_to_end(item)
            if len(self.known) > self.cache:
                self.known.popitem(last=False)
        begin = max(now, self.free[0])
        if begin - self.start < self.cold_s:
            need *= 3
        end = begin + need
        if self.stall_every:  # what is lost to stalls while it is served
            while self.next_stall < end:
                stall = self.next_stall
                self.stalls.append((stall, self.stall_s))
                self.next_stall = stall + self.stall_s + self.rng.exponential(self.stall_every)
            end = self._through(begin, need)
        heapq.heapreplace(self.free, end)
        return end

    def _through(self, begin: float, need: float) -> float:
        t = begin
        while self.stalls and self.stalls[0][0] + self.stall_s < min(self.free) - 60:
            self.stalls.pop(0)
        for at, length in self.stalls:
            if at + length <= t:
                continue
            if at <= t:
                t = at + length
            elif at - t >= need:
                break
            else:
                need -= at - t
                t = at + length
        end = t + need
        while self.next_stall < end:
            stall = self.next_stall
            self.stalls.append((stall, self.stall_s))
            self.next_stall = stall + self.stall_s + self.rng.exponential(self.stall_every)
            end += self.stall_s
        return end

    async def send(self, item: int) -> dict[str, Any]:
        clock = asyncio.get_running_loop().time
        end = self.ends(clock(), item)
        if end is None:
            await asyncio.sleep(0.005)
            return {"outcome": "failed"}
        await asyncio.sleep(end - clock())
        return {"outcome": "ok"}

    def latencies(self, due: list[float]) -> list[float]:
        """Of a long open loop."""
        new = itertools.count(10**6)
        ends = (self.ends(t, next(new)) for t in due)
        return [math.inf if end is None else end - t for t, end in zip(due, ends, strict=True)]


class Batching:
    """All in service at once, `most` of them; the more there are, the slower is each."""

    def __init__(
        self, rng: np.random.Generator, work: Work, slow: Callable[[int], float], most: int
    ) -> None:
        self.rng, self.work, self.slow, self.most = rng, work, slow, most
        self.now, self.done = 0.0, 0.0
        self.inside: list[tuple[float, int, Any]] = []
        self.queue: list[Any] = []
        self.turn, self.timer = itertools.count(), None

    def _forward(self, now: float) -> None:
        if self.inside:
            self.done += (now - self.now) / self.slow(len(self.inside))
        self.now = now

    def _next_end(self) -> float:
        if not self.inside:
            return math.inf
        return self.now + max(self.inside[0][0] - self.done, 0.0) * self.slow(len(self.inside))

    def _enter(self, who: Any) -> None:
        if len(self.inside) < self.most:
            need = self.done + self.work(self.rng)
            heapq.heappush(self.inside, (need, next(self.turn), who))
        else:
            self.queue.append(who)

    def _leave(self) -> Any:
        who = heapq.heappop(self.inside)[2]
        if self.queue:
            self._enter(self.queue.pop(0))
        return who

    async def send(self, item: int) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._forward(loop.time())
        self._enter(future)
        self._rearm(loop)
        await asyncio.shield(future)
        return {"outcome": "ok"}

    def _rearm(self, loop: Any) -> None:
        if self.timer:
            self.timer.cancel()
        self.timer = loop.call_at(self._next_end(), self._fire, loop) if self.inside else None

    def _fire(self, loop: Any) -> None:
        self._forward(loop.time())
        while self.inside and self.inside[0][0] <= self.done + 1e-9:
            self._leave().set_result(None)
        self._rearm(loop)

    def latencies(self, due: list[float]) -> list[float]:
        result = [math.inf] * len(due)
        for i, t in enumerate([*due, math.inf]):
            while (end := self._next_end()) <= t and self.inside:
                self._forward(end)
                who = self._leave()
                result[who] = end - due[who]
            if i < len(due):
                self._forward(t)
                self._enter(i)
        return result


class Family(NamedTuple):
    name: str
    server: Callable[[np.random.Generator], Any]
    slo_s: float
    truth: float


def fixed(mean: float) -> Work:
    return lambda rng: mean


def exponential(mean: float) -> Work:
    return lambda rng: rng.exponential(mean)


def lognormal(mean: float, sigma: float) -> Work:
    return lambda rng: mean * math.exp(sigma * rng.standard_normal() - sigma**2 / 2)


FAMILIES = [
    Family("1 slot, fixed", lambda g: FirstCome(g, 1, fixed(0.1)), 0.5, 6.938),
    Family("1 slot, exponential", lambda g: FirstCome(g, 1, exponential(0.1)), 0.5, 4.009),
    Family("4 slots, fixed", lambda g: FirstCome(g, 4, fixed(0.3)), 0.6, 9.65),
    Family("8 slots, exponential", lambda g: FirstCome(g, 8, exponential(0.4)), 1.5, 16.5),
    Family("4 slots, log-normal", lambda g: FirstCome(g, 4, lognormal(0.3, 0.5)), 1.0, 10.83),
    Family(
        "batching, 40 to 60 tokens",
        lambda g: Batching(
            g, lambda r: r.integers(40, 61) * 0.01, lambda k: 1 + 0.06 * (k - 1), 64
        ),
        1.5,
        18.23,
    ),
    Family(
        "prefix cache, new prompts", lambda g: FirstCome(g, 1, fixed(0.3), cached=0.03), 1.2, 2.068
    ),
    Family(
        "rare stalls",
        lambda g: FirstCome(g, 4, fixed(0.2), stall_every=30.0, stall_s=1.0),
        0.8,
        12.76,
    ),
    Family("cold start, 8 s", lambda g: FirstCome(g, 4, fixed(0.3), cold_s=8.0), 0.6, 9.65),
    Family("rate limit", lambda g: FirstCome(g, 8, fixed(0.1), rate=10.0, burst=10.0), 0.5, 9.979),
]


def true_capacity(family: Family, n: int = 1_000_000) -> float:
    """By bisection on long open loops, from a tenth of them on."""
    low, high = 0.2, 80.0
    while high / low > 1.004:
        rate = math.sqrt(low * high)
        rng = np.random.default_rng(7)
        length = n if high / low < 2.5 else n // 10
        due = (np.cumsum(rng.exponential(1 / rate, length)) + 100.0).tolist()
        latency = np.array(family.server(rng).latencies(due)[length // 10 :])
        if (latency > family.slo_s).mean() > 0.05:
            high = rate
        else:
            low = rate
    return math.sqrt(low * high)


async def search(server: Any, limits: Project, seed: int) -> list[dict[str, Any]]:
    done: list[dict[str, Any]] = []
    sent = itertools.count(10**6)
    while following := load.next_load(done, limits):

        async def send(_: int, __: float) -> dict[str, Any]:
            return await server.send(next(sent))

        slo_s, number = limits.requirements.slo_s, seed + len(done)
        done.append(await load.offer(following, send, slo_s=slo_s, seed=number))
    return done


async def guidellm(server: Any, slo_s: float, seed: int, n: int = 180) -> float:
    """Start at 4, double or halve, bisect to 10 %; a rate passes if 95 % of its requests do."""

    async def passes(rate: float) -> bool:
        one = load.Load("probe", rate, n)
        items = itertools.cycle(range(20))
        probe = await load.offer(one, lambda *_: server.send(next(items)), slo_s=slo_s, seed=seed)
        return not probe["stopped"] and estimate.late_requests(probe, slo_s).mean() <= 0.05

    low, high, rate = 0.0, math.inf, 4.0
    for _ in range(8):
        low, high = (rate, high) if await passes(rate) else (low, rate)
        if low and high / low <= 1.1:
            break
        rate = 2 * low if high == math.inf else (low + high) / 2 if low else high / 2
    return low


def virtual(work: Any) -> Any:
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


def rows(runs: int = 20, only: str = "", first: int = 0) -> Iterator[Row]:
    """How often the interval holds the true capacity, its half width, and the middle's median."""
    for family in FAMILIES:
        if only and not any(part in family.name for part in only.split(",")):
            continue
        found = []
        for run in range(first, first + runs):
            spend = Speed(budget_s=2000.0, budget_requests=1500)
            needs = Requirements(max_p95_s=family.slo_s)
            limits = Project.model_construct(speed=spend, requirements=needs)
            server = family.server(np.random.default_rng([run, 1]))
            done = virtual(search(server, limits, 1000 * run))
            answer = estimate.assess(estimate.conclusive_loads(done)[1:], family.slo_s)
            server = family.server(np.random.default_rng([run, 2]))
            other = virtual(guidellm(server, family.slo_s, run))
            half = (min(answer.high, 1e9) - answer.low) / 2
            covers = answer.low <= family.truth <= answer.high
            figures = np.array([half, answer.middle, other]) / family.truth
            too_high = answer.low >= 1.1 * family.truth, figures[2] >= 1.1
            found.append([covers, *figures, *too_high])
        table = np.array(found, float)
        (covers, *_, ours, met), median = table.mean(0), np.median(table, axis=0)
        words = f"{covers:.0%} hold, +-{median[1]:.1%}, median {median[2]:.2f}, {ours:.0%} too high"
        peer = f"guidellm {median[3]:.2f}, {met:.0%} too high by 10 %"
        yield f"capacity {family.name}", words, ">= 90 % hold", bool(covers >= 0.9), peer


if __name__ == "__main__":
    cli = argparse.ArgumentParser(description=__doc__)
    cli.add_argument("--runs", type=int, default=20)
    cli.add_argument("--only", default="", help="parts of families' names, with commas between")
    cli.add_argument("--first", type=int, default=0, help="seed of the first run")
    cli.add_argument("--truth", action="store_true", help="compute the true capacities anew")
    asked = cli.parse_args()
    if asked.truth:
        show((family.name, f"{true_capacity(family):.4g}", "", None, "") for family in FAMILIES)
    else:
        show(rows(asked.runs, asked.only, asked.first))
