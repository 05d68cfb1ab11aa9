"""Latency under load, and the greatest load a deployment bears within the SLO.

Open loop: requests start at seeded Poisson arrival times whether or not earlier ones have
finished, and latency counts from the time a request was due. A request is an item with all its
calls, sent together. The load doubles until p95 misses `requirements.max_p95_s`, then bisection
narrows the bracket. A probe ends early once too many requests missed. Probes on disk (with all
raw requests) are used again on the same machine.
"""

import asyncio
import functools
import itertools
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import numpy as np
import openai
import pandas as pd

from lib import endpoints, evaluate
from lib.brief import Deployment, Project
from lib.endpoints import Budget, Call, Served, run_blocking
from lib.errors import PlaybookError
from lib.errors import bar as progress_bar
from lib.replies import WRONG_SHAPE
from lib.speed.summary import MISSES, unmeasured
from lib.tables import Row

FAILURES = (openai.APIError, httpx2.HTTPError, TimeoutError, *WRONG_SHAPE)
TOKENS = ("prompt_tokens", "completion_tokens")

Items = list[list[Call]]  # the calls of each
Send = Callable[[Call], Awaitable[tuple[Any, ...]]]


async def offer(brief: Project, served: Served, items: Items, rate: float, n: int) -> list[Row]:
    """Send n items at a rate until the SLO is certainly lost; returns a record of each."""
    slo_s, loop, misses = brief.requirements.slo_s, asyncio.get_running_loop(), itertools.count(1)
    gaps = np.random.default_rng(0).exponential(1.0, n)  # the same luck in every probe
    due = ((np.cumsum(gaps) - gaps[0]) / rate).tolist()

    def miss() -> None:
        if next(misses) > MISSES * n:  # soon, so that a request that has just failed says so first
            loop.call_soon(lambda: [task.cancel() for task in tasks])

    async with endpoints.client(served, timeout_s=brief.evaluation.timeout_s) as api:
        # One first: it warms the connection, waits for what an earlier probe left, and shows
        # whether the endpoint counts tokens when asked to.
        send = functools.partial(endpoints.stream, api, served.model)
        count = functools.partial(send, stream_options={"include_usage": True})
        warm = await _request(count, slo_s, loop.time(), items[0], lambda: None)
        send = send if "error" in warm else count
        start, turns = loop.time(), itertools.cycle(items)
        async with asyncio.TaskGroup() as group:
            timed = (_request(send, slo_s, start + s, next(turns), miss) for s in due)
            tasks = [group.create_task(request) for request in timed]
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
) -> Row:
    """Send an item's calls when it is due; `miss` is called once where one fails or is late."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(due_at - loop.time())
    late = loop.call_at(due_at + slo_s, miss)
    try:
        firsts, contents, *counts = zip(*await asyncio.gather(*map(send, calls)), strict=True)
        facts: Row = {"ttft_s": max(firsts) - due_at, "outcome": "ok"}
        if None not in contents:
            facts["ttft_content_s"] = max(contents) - due_at
        facts |= {k: sum(n) for k, n in zip(TOKENS, counts, strict=True) if None not in n}
    except FAILURES as failure:
        facts = {"outcome": "failed", "error": type(failure).__name__}
        refused = isinstance(failure, openai.APIStatusError) and failure.status_code < 500
        if refused and len(calls) == 1:  # there is nothing to pay
            facts |= dict.fromkeys(TOKENS, 0)
    if (end := loop.time()) < due_at + slo_s:
        late.cancel()
        if "error" in facts:
            miss()
    return facts | {"latency_s": end - due_at}


STORE = "05_probes.jsonl"
# An outcome is ok, failed or cut (left when its probe had failed: its latency is a lower bound).
COLUMNS = """deployment repo_id probe offered_rps planned due_s ttft_s ttft_content_s latency_s
    outcome error""".split()
CLOSE_ENOUGH = 1.2  # the bracket around the capacity is narrow enough
MAX_HALVINGS = 6
MIN_FOR_P95 = 59  # fewer requests cannot bound a p95 from above (0.95**59 < 0.05)


class _Search(NamedTuple):
    """A deployment, the items that it is loaded with, and its part of a probe's key."""

    brief: Project
    deployment: Deployment
    items: Items
    key: str

    def next_probe(self, done: list[Row]) -> tuple[str, float, int, Items] | None:
        """Key, rate and number of the next probe, and its items from the one that warms up on."""
        if not (probe := _next_probe(done, self.brief)):
            return None
        first = sum(record["planned"] for record in done) % len(self.items)
        turn = itertools.islice(itertools.cycle(self.items), first, first + probe[1])
        # The same load may be offered twice.
        return endpoints.key_of(self.key, len(done), probe), *probe, list(turn)


def _searches(
    brief: Project, items: pd.DataFrame, deployments: list[Deployment]
) -> Iterator[_Search]:
    for deployment in deployments:
        calls = evaluate.plan(brief, deployment, items).by_item()
        bodies = [[call.body for call in item] for item in calls]
        how = brief.speed.model_dump(), brief.requirements.slo_s
        who = endpoints.identity(deployment, threads=True), endpoints.machine()
        yield _Search(brief, deployment, calls, endpoints.key_of(*who, *how, bodies))


def _loadable(deployments: list[Deployment], items: pd.DataFrame) -> list[Deployment]:
    """Nothing to load is behind published figures and recorded answers, nor without items."""
    live = [d for d in deployments if d.endpoint and not d.endpoint.recorded]
    return live if len(items) else []


def dry_run(
    brief: Project, items: pd.DataFrame, deployments: list[Deployment], run: Path
) -> pd.DataFrame:
    """The most that `measure` may still send, in the columns of `evaluate.dry_run`."""
    nothing = {"basis": "nothing to send: no endpoint, or no items of the brief"}
    table = {d.name: evaluate.forecast(d, []) | nothing for d in deployments}
    kept = endpoints.read_records(run / STORE)
    for search in _searches(brief, items, _loadable(deployments, items)):
        most = itertools.chain.from_iterable(_most(search, kept, []))
        table[search.deployment.name] = evaluate.forecast(search.deployment, list(most))
    return pd.DataFrame(table.values())


def _most(search: _Search, kept: dict[str, Row], done: list[Row]) -> Items:
    """The items that are sent where the probes to come end in the way that takes the most."""
    if not (following := search.next_probe(done)):
        return []
    key, rate, n, turn = following
    if key in kept:
        return _most(search, kept, [*done, kept[key]])
    probe, cut = {"offered_rps": rate, "planned": n}, [{"outcome": "cut"}]
    ends = ([*done, probe | {"requests": missed}] for missed in ([], cut * n))
    return turn[:1] + turn + max((_most(search, kept, end) for end in ends), key=len)


def measure(
    brief: Project, items: pd.DataFrame, deployments: list[Deployment], run: Path, *,
    progress: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """Offer rising load to each deployment; returns one row per request, with `COLUMNS`.

    One whose first probe has no answer is not measured further, as `unmeasured` says.

    Raises:
        PlaybookError: No endpoint answers anything, or the next load could exceed
            `evaluation.max_usd`; what was measured is kept.
    """
    rows, budget = [], endpoints.Session(brief, run).budget
    deployments = _loadable(deployments, items)
    if budget:  # before anything is sent
        _ = [budget.rate(deployment) for deployment in deployments]
    with (
        endpoints.appending_records(run / STORE) as append,
        budget.opened() if budget else nullcontext(),
        progress_bar(len(deployments) * brief.speed.max_probes, "probes", show=progress) as bar,
    ):
        kept = endpoints.read_records(run / STORE)
        for search in _searches(brief, items, deployments):
            who = {"deployment": search.deployment.name, "repo_id": search.deployment.model}
            for number, probe in enumerate(_probes(search, run, kept, append, budget), start=1):
                rows += [who | probe | {"probe": number} | sent for sent in probe["requests"]]
                bar.update()
    table = pd.DataFrame(rows, columns=COLUMNS)
    problems = list(unmeasured(table).values())
    if problems and len(problems) == table["deployment"].nunique():
        raise PlaybookError(f"deployment {problems[0]}")
    return table


def _probes(
    search: _Search, run: Path, kept: dict[str, Row], append: Callable[[Row], None],
    budget: Budget | None,
) -> Iterator[Row]:  # fmt: skip
    """All probes of one deployment, from disk where they are there."""
    done, served, deployment = list[Row](), None, search.deployment
    with ExitStack() as server:
        while following := search.next_probe(done):
            key, rate, n, turn = following
            if key not in kept:
                if not served:
                    calls = itertools.chain.from_iterable(search.items)
                    context = endpoints.context_tokens(calls, search.brief.size)
                    local = endpoints.serving(deployment, logs=run / "logs", context_tokens=context)
                    served = server.enter_context(local)
                load = functools.partial(run_blocking, offer, search.brief, served, turn, rate, n)
                requests = budget.pay(deployment, turn[:1] + turn, load) if budget else load()
                errors = [r["error"] for r in requests if "error" in r]
                probe = {"offered_rps": rate, "planned": n, "requests": requests}
                if errors and not done and all(r["outcome"] != "ok" for r in requests):
                    yield probe  # which is not kept: it says nothing of the load
                    return
                kept[key] = {"key": key, **probe}
                append(kept[key])
            done.append(kept[key])
            yield kept[key]


def _next_probe(done: list[Row], brief: Project) -> tuple[float, int] | None:
    """The rate and number of requests of the next probe, or None where enough is known."""
    settings, least = brief.speed, brief.requirements.min_rps or 0.0
    if len(done) >= settings.max_probes:
        return None
    if rate := _next_rate(done, brief):
        return rate, max(settings.min_requests, math.ceil(rate * settings.probe_s))
    # Enough requests to bound p95: at the least load that passed, which is the safest to repeat.
    enough = [r for r in done if _within(r, brief) and r["offered_rps"] >= least]
    if (short := MIN_FOR_P95 - sum(r["planned"] for r in enough)) <= 0 or not enough:
        return None
    return min(r["offered_rps"] for r in enough), max(settings.min_requests, short) + 1


def _next_rate(done: list[Row], brief: Project) -> float | None:
    """Double until a probe fails, halve until one passes, then bisect geometrically."""
    needed, ceiling = brief.requirements.min_rps, brief.speed.ceiling_rps
    if not done:
        return 2 * (needed or 0.5)  # passing there settles `min_rps` with room to spare
    failed = [r["offered_rps"] for r in done if not _within(r, brief)]
    high = min(failed, default=math.inf)  # whatever lies below it has passed
    low = max((r["offered_rps"] for r in done if r["offered_rps"] < high), default=0.0)
    if not failed:
        return None if low >= ceiling else min(2 * low, ceiling)
    if not low:  # below what is asked for there is nothing left to decide
        settled = high <= needed if needed else len(failed) > MAX_HALVINGS
        return None if settled else high / 2
    return None if high / low <= CLOSE_ENOUGH else round(math.sqrt(low * high), 3)


def _within(record: Row, brief: Project) -> bool:
    slo = brief.requirements.slo_s
    misses = sum(r["outcome"] != "ok" or r["latency_s"] > slo for r in record["requests"])
    return bool(misses <= MISSES * record["planned"])
