"""Latency under load, and the greatest load a deployment bears within the SLO.

Open loop: requests start at seeded Poisson arrival times whether or not earlier ones have
finished, and latency counts from the time a request was due. The load doubles until p95 misses
`requirements.max_p95_s`, then bisection narrows the bracket. A probe ends early once too many
requests missed. Probes on disk (with all raw requests) are used again on the same machine.
"""

import asyncio
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pandas as pd

from lib import endpoints, stats
from lib.brief import Deployment, Project
from lib.endpoints import Served, client, identity, machine, request_options, run_blocking, serving
from lib.errors import PlaybookError
from lib.errors import bar as progress_bar
from lib.evaluate import plan

MISSES = 0.05  # p95 within the SLO means at most this share outside it
FAILURES = (openai.APIError, httpx2.HTTPError, AttributeError, TypeError, ValueError)

Record = dict[str, Any]
Miss = Callable[[], None]


async def offer(
    brief: Project, served: Served, bodies: list[Record], rate: float, n: int
) -> list[Record]:
    """Send n requests at a rate until the SLO is certainly lost; returns a record of each."""
    slo_s, loop, misses = brief.requirements.slo_s, asyncio.get_running_loop(), itertools.count(1)
    gaps = np.random.default_rng(0).exponential(1.0, n)  # the same luck in every probe
    due = ((np.cumsum(gaps) - gaps[0]) / rate).tolist()

    def miss() -> None:
        if next(misses) > MISSES * n:  # soon, so that a request that has just failed says so first
            loop.call_soon(lambda: [task.cancel() for task in tasks])

    async with client(served, timeout_s=brief.evaluation.timeout_s) as api:
        send = functools.partial(_request, api, served.model, slo_s)
        # One request first: it warms the connection and waits for what an earlier probe left.
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
    try:
        first = await _first_token(api, model, body)
        end = loop.time()
        facts: Record = {"ttft_s": (first or end) - due_at, "outcome": "ok"}
    except FAILURES as failure:
        end = loop.time()
        facts = {"outcome": "failed", "error": type(failure).__name__}
    if end < due_at + slo_s:
        late.cancel()
        if "error" in facts:
            miss()
    return facts | {"latency_s": end - due_at}


async def _first_token(api: openai.AsyncOpenAI, model: str, body: Record) -> float | None:
    """Wait for a whole answer; returns when its first token came, where it came in tokens."""
    if "documents" in body:  # a ranking comes whole
        await api.post("/rerank", body={"model": model, **body}, cast_to=httpx2.Response)
        return None
    first, ended = None, False
    async for chunk in await api.chat.completions.create(model=model, stream=True, **body):
        for choice in chunk.choices[:1]:
            ended |= bool(choice.finish_reason)
            if choice.delta.content:
                first = first or asyncio.get_running_loop().time()
    if not ended:  # a page, nothing at all, or cut off half-way
        raise ValueError("no chat completion")
    return first


STORE = "05_probes.jsonl"
# An outcome is ok, failed or cut (left when its probe had failed: its latency is a lower bound).
COLUMNS = """deployment repo_id probe offered_rps planned due_s ttft_s latency_s outcome
    error""".split()
LOAD = """deployment repo_id offered_rps achieved_rps p50_s p95_s ttft_p95_s n errors
    stopped_early within_slo""".split()
CAPACITY = "deployment repo_id max_rps low high p95_s p95_low p95_high n basis".split()
CLOSE_ENOUGH = 1.2  # the bracket around the capacity is narrow enough
MAX_HALVINGS = 6
MIN_FOR_P95 = 59  # fewer requests cannot bound a p95 from above (0.95**59 < 0.05)
NAN = math.nan


def measure(
    brief: Project,
    items: pd.DataFrame,
    deployments: list[Deployment],
    run: Path,
    *,
    progress: bool = True,
) -> pd.DataFrame:
    """Offer rising load to each deployment; returns one row per request, with `COLUMNS`."""
    rows = []
    # There is nothing to load behind published figures and recorded answers.
    deployments = [d for d in deployments if d.endpoint and not d.endpoint.recorded]
    with (
        endpoints.appending_records(run / STORE) as append,
        progress_bar(len(deployments) * brief.speed.max_probes, "probes", show=progress) as bar,
    ):
        kept = endpoints.read_records(run / STORE)
        for deployment in deployments:
            who = {"deployment": deployment.name, "repo_id": deployment.model}
            bodies = [call.body for call in plan(brief, deployment, items)]
            probes = _probes(brief, deployment, bodies, run, kept, append)
            for number, probe in enumerate(probes, start=1):
                rows += [who | probe | {"probe": number} | sent for sent in probe["requests"]]
                bar.update()
    return pd.DataFrame(rows, columns=COLUMNS)


def _probes(
    brief: Project,
    deployment: Deployment,
    bodies: list[Record],
    run: Path,
    kept: dict[str, Record],
    append: Callable[[Record], None],
) -> Iterator[Record]:
    """All probes of one deployment, from disk where they are there."""
    slo, done, served = brief.requirements.slo_s, list[Record](), None
    who = [identity(deployment, threads=True), machine(), brief.speed.model_dump(), slo]
    who += [request_options(brief, deployment), endpoints.key_of(bodies)]
    with ExitStack() as server:
        while probe := _next_probe(done, slo, brief):
            key = endpoints.key_of(who, len(done), probe)  # the same load may be offered twice
            if key not in kept:
                served = served or server.enter_context(serving(deployment, logs=run / "logs"))
                sent = sum(r["planned"] for r in done) % len(bodies)
                turn = bodies[sent:] + bodies[:sent]
                requests = run_blocking(offer, brief, served, turn, *probe)
                errors = [r["error"] for r in requests if "error" in r]
                if errors and not done and all(r["outcome"] != "ok" for r in requests):
                    text = f"no request of the first probe was answered: {errors[0]}"
                    raise PlaybookError(f"deployment {deployment.name!r}: {text}")
                facts = {"offered_rps": probe[0], "planned": probe[1], "requests": requests}
                kept[key] = {"key": key, **facts}
                append(kept[key])
            done.append(kept[key])
            yield kept[key]


def _next_probe(done: list[Record], slo: float, brief: Project) -> tuple[float, int] | None:
    """The rate and number of requests of the next probe, or None where enough is known."""
    settings, least = brief.speed, brief.requirements.min_rps or 0.0
    if len(done) >= settings.max_probes:
        return None
    if rate := _next_rate(done, slo, brief):
        return rate, max(settings.min_requests, math.ceil(rate * settings.probe_s))
    # Enough requests to bound p95: at the least load that passed, which is the safest to repeat.
    enough = [r for r in done if _within(r, slo) and r["offered_rps"] >= least]
    if (short := MIN_FOR_P95 - sum(r["planned"] for r in enough)) <= 0 or not enough:
        return None
    return min(r["offered_rps"] for r in enough), max(settings.min_requests, short) + 1


def _next_rate(done: list[Record], slo: float, brief: Project) -> float | None:
    """Double until a probe fails, halve until one passes, then bisect geometrically."""
    asked, ceiling = brief.requirements.min_rps, brief.speed.ceiling_rps
    if not done:
        return 2 * (asked or 0.5)  # passing there settles `min_rps` with room to spare
    failed = [r["offered_rps"] for r in done if not _within(r, slo)]
    high = min(failed, default=math.inf)  # whatever lies below it has passed
    low = max((r["offered_rps"] for r in done if r["offered_rps"] < high), default=0.0)
    if not failed:
        return None if low >= ceiling else min(2 * low, ceiling)
    if not low:  # below what is asked for there is nothing left to decide
        settled = high <= asked if asked else len(failed) > MAX_HALVINGS
        return None if settled else high / 2
    return None if high / low <= CLOSE_ENOUGH else round(math.sqrt(low * high), 3)


def _within(record: Record, slo: float) -> bool:
    misses = sum(r["outcome"] != "ok" or r["latency_s"] > slo for r in record["requests"])
    return bool(misses <= MISSES * record["planned"])


def summarise(requests: pd.DataFrame, *, slo_s: float) -> pd.DataFrame:
    """One row per deployment and offered load, with `LOAD`; `stopped_early`: at least so late."""
    rows = []
    for (name, rate), probe in requests.groupby(["deployment", "offered_rps"]):
        ok, latency = probe[probe["outcome"] == "ok"], probe["latency_s"]
        # The same load may have been offered in more than one probe.
        planned = probe.groupby("probe")["planned"].first().sum()
        span_s = (ok["due_s"] + ok["latency_s"]).groupby(ok["probe"]).max().sum()
        missed = ((probe["outcome"] != "ok") | (latency > slo_s)).sum()
        row = [name, probe["repo_id"].iloc[0], rate, len(ok) / span_s if span_s else NAN]
        row += [_quantile(latency, 0.5), _quantile(latency, 0.95), _quantile(ok["ttft_s"], 0.95)]
        row += [len(probe), (probe["outcome"] == "failed").sum(), (probe["outcome"] == "cut").any()]
        rows.append([*row, missed <= MISSES * planned])
    return pd.DataFrame(rows, columns=LOAD)


def capacity(
    brief: Project, requests: pd.DataFrame, *, deployments: list[Deployment] | None = None
) -> pd.DataFrame:
    """The greatest load within the SLO, `max_rps`, and the least above it that failed, `high`.

    `p95_s` with its bounds pools the requests of all passing loads from `min_rps` on: more load
    is not faster, so it speaks for `min_rps` as well.
    """
    probes = summarise(requests, slo_s=brief.requirements.slo_s)
    rows: list[tuple[Any, ...]] = []
    for deployment in brief.deployments if deployments is None else deployments:
        if (figures := deployment.published) and deployment.endpoint is None:
            basis = f"published ({figures.source}, {figures.checked_on})"
            rows.append((deployment.name, deployment.model, figures.max_rps, *[NAN] * 5, 0, basis))
    for name, sent in requests.groupby("deployment", sort=False):
        loads = probes[probes["deployment"] == name]
        high = loads.loc[~loads["within_slo"], "offered_rps"].min()
        passed = loads.loc[loads["within_slo"] & ~(loads["offered_rps"] >= high), "offered_rps"]
        low = passed.max() if len(passed) else 0.0
        enough = passed[passed >= (brief.requirements.min_rps or 0.0)]
        pool = sent.loc[sent["offered_rps"].isin(enough), "latency_s"]
        bracket, p95 = (low, low, high), stats.quantile(pool, 0.95)
        rows.append((name, sent["repo_id"].iloc[0], *bracket, *p95, len(pool), "measured here"))
    return pd.DataFrame(rows, columns=CAPACITY)


def _quantile(values: "pd.Series[float]", p: float) -> float:
    return float(np.quantile(values, p, method="inverted_cdf")) if len(values) else NAN
