"""Latency under load, and the greatest load a deployment bears within the SLO."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pandas as pd
from tqdm import tqdm

from lib import stats, store
from lib.answers import run_blocking
from lib.deployments import (
    Served,
    client,
    identity,
    machine,
    messages,
    request_options,
    serving,
)
from lib.errors import PlaybookError
from lib.project import Deployment, Project

__all__ = ["capacity", "measure", "summarise"]

STORE = "05_probes.jsonl"
COLUMNS = """deployment repo_id offered_rps planned due_s ttft_s latency_s outcome
    error""".split()
MISSES = 0.05  # p95 within the SLO means at most this share outside it
CLOSE_ENOUGH = 1.15  # the bracket around the capacity is narrow enough
MAX_HALVINGS = 6
MIN_FOR_P95 = 59  # fewer requests cannot bound a p95 from above (0.95**59 < 0.05)

Record = dict[str, Any]


def measure(
    brief: Project,
    items: pd.DataFrame,
    deployments: list[Deployment],
    run: Path,
    *,
    progress: bool = True,
) -> pd.DataFrame:
    """Offer rising load to each deployment and bracket the greatest one within the SLO.

    Open loop: requests start at seeded Poisson arrival times whether or not earlier ones
    have finished, and latency counts from the time a request was due. The load doubles from
    `requirements.min_rps` until p95 misses `requirements.max_p95_s`, then bisection narrows
    the bracket. A probe ends early once too many requests missed. Probes on disk
    (`05_probes.jsonl`, with all raw requests) are used again on the same machine.

    Returns:
        One row per request: `deployment repo_id offered_rps due_s ttft_s latency_s outcome
        planned`; outcome is `ok`, `failed` or `cut` (abandoned when its probe had failed; its
        latency is a lower bound).
    """
    path, rows = run / STORE, []
    if brief.evaluation.kind == "published":
        deployments = []
    with store.appending(path) as append:
        kept = store.read(path)
        budget = len(deployments) * brief.speed.max_probes
        with tqdm(total=budget, desc="probes", disable=None if progress else True) as bar:
            for deployment in deployments:
                for record in _search(brief, deployment, items, run, kept, append, bar):
                    facts = {
                        "deployment": deployment.name,
                        "repo_id": deployment.model,
                        "offered_rps": record["offered_rps"],
                        "planned": record["planned"],
                    }
                    rows += [facts | request for request in record["requests"]]
    return pd.DataFrame(rows, columns=COLUMNS)


def _search(
    brief: Project,
    deployment: Deployment,
    items: pd.DataFrame,
    run: Path,
    kept: dict[str, Record],
    append: Callable[[Record], None],
    bar: tqdm[Any],
) -> list[Record]:
    """All probes of one deployment, from disk where they are there."""
    slo = brief.requirements.slo_s
    who = [identity(deployment), machine(), brief.speed.model_dump(), slo, request_options(brief)]
    bodies = [
        {"messages": messages(brief, deployment, text), **request_options(brief)}
        for text in items["input"]
    ]
    who.append(store.key_of(bodies))
    done: list[Record] = []

    while (probe := _next_probe(done, slo, brief)) and store.key_of(who, probe) in kept:
        done.append(kept[store.key_of(who, probe)])
        bar.update()
    if probe is None:
        return done
    with serving(deployment, logs=run / "logs") as served:
        while probe := _next_probe(done, slo, brief):
            rate, n = probe
            requests = run_blocking(_probe, brief, served, bodies, rate, n)
            record = {
                "key": store.key_of(who, probe),
                "offered_rps": rate,
                "planned": n,
                "requests": requests,
            }
            if all(request["outcome"] == "failed" for request in requests):
                raise PlaybookError(
                    f"deployment {deployment.name!r}: every request of the first probe failed:"
                    f" {requests[0]['error']}"
                )
            append(record)
            done.append(record)
            bar.update()
    return done


def _next_probe(done: list[Record], slo: float, brief: Project) -> tuple[float, int] | None:
    """The rate and number of requests of the next probe, or None where enough is known."""
    if len(done) >= brief.speed.max_probes:
        return None
    rate = _next_rate(done, slo, brief)
    if rate is not None:
        return rate, max(brief.speed.min_requests, math.ceil(rate * brief.speed.probe_s))
    passed = [r for r in done if _within(r, slo)]
    asked = brief.requirements.min_rps or 0.0
    short = MIN_FOR_P95 - sum(r["planned"] for r in passed if r["offered_rps"] >= asked)
    rates = [r["offered_rps"] for r in passed if r["offered_rps"] >= asked]
    if not rates or short <= 0:
        return None
    # Enough requests to bound p95: at the least load that passed, which is the safest to repeat.
    return min(rates), max(brief.speed.min_requests, short) + 1


def _next_rate(done: list[Record], slo: float, brief: Project) -> float | None:
    """Double until a probe fails, halve until one passes, then bisect geometrically."""
    if not done:
        # Twice what is asked for: passing there settles the requirement with room to spare.
        return 2 * (brief.requirements.min_rps or 0.5)
    failed = [r["offered_rps"] for r in done if not _within(r, slo)]
    worst = min(failed, default=math.inf)
    passed = [r["offered_rps"] for r in done if _within(r, slo) and r["offered_rps"] < worst]
    if not failed:
        return None if max(passed) >= brief.speed.ceiling_rps else 2 * max(passed)
    if not passed:
        return None if len(failed) > MAX_HALVINGS else worst / 2
    low = max(passed)
    return None if worst / low <= CLOSE_ENOUGH else round(math.sqrt(low * worst), 3)


def _within(record: Record, slo: float) -> bool:
    misses = sum(r["outcome"] != "ok" or r["latency_s"] > slo for r in record["requests"])
    return bool(misses <= MISSES * record["planned"])


async def _probe(
    brief: Project, served: Served, bodies: list[Record], rate: float, n: int
) -> list[Record]:
    """Send one probe's requests on schedule; stop when the SLO is certainly lost."""
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
    try:
        stream = await api.chat.completions.create(model=served.model, stream=True, **body)
        async for chunk in stream:
            if first is None and chunk.choices and chunk.choices[0].delta.content:
                first = loop.time()
    except (openai.APIError, httpx2.HTTPError) as error:
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


def summarise(requests: pd.DataFrame, *, slo_s: float) -> pd.DataFrame:
    """One row per deployment and offered load: percentiles, errors, whether within the SLO.

    Latencies of requests that were cut are lower bounds, so percentiles of a probe that
    failed are at least the value shown (`stopped_early`).
    """
    rows = []
    for (name, rate), probe in requests.groupby(["deployment", "offered_rps"], sort=False):
        ok = probe[probe["outcome"] == "ok"]
        n_planned = int(probe["planned"].iloc[0])
        span = (ok["due_s"] + ok["latency_s"]).max() if len(ok) else float("nan")
        missed = int(((probe["outcome"] != "ok") | (probe["latency_s"] > slo_s)).sum())
        rows.append(
            {
                "deployment": name,
                "repo_id": probe["repo_id"].iloc[0],
                "offered_rps": rate,
                "achieved_rps": len(ok) / span if span else float("nan"),
                "p50_s": _quantile(probe["latency_s"], 0.5),
                "p95_s": _quantile(probe["latency_s"], 0.95),
                "ttft_p95_s": _quantile(ok["ttft_s"], 0.95) if len(ok) else float("nan"),
                "n": len(probe),
                "errors": int((probe["outcome"] == "failed").sum()),
                "stopped_early": bool((probe["outcome"] == "cut").any()),
                "within_slo": missed <= MISSES * n_planned,
            }
        )
    columns = """deployment repo_id offered_rps achieved_rps p50_s p95_s ttft_p95_s n errors
        stopped_early within_slo""".split()
    return pd.DataFrame(rows, columns=columns).sort_values(["deployment", "offered_rps"])


def capacity(brief: Project, requests: pd.DataFrame) -> pd.DataFrame:
    """The greatest load within the SLO per deployment, with the bracket it lies in.

    `max_rps` and `low` are the greatest load that passed, `high` the least that failed
    (missing where nothing failed up to the ceiling). `p95_s` with its bounds pools the
    requests of all passing loads at or above `requirements.min_rps`: more load is not
    faster, so it speaks for `min_rps` as well. Published figures have no bracket.
    """
    probes = summarise(requests, slo_s=brief.requirements.slo_s)
    min_rps = brief.requirements.min_rps or 0.0
    rows = _published(brief)
    for name in dict.fromkeys(requests["deployment"]):
        own = probes[probes["deployment"] == name]
        failed = own.loc[~own["within_slo"], "offered_rps"]
        high = failed.min()
        passed = own.loc[own["within_slo"] & ~(own["offered_rps"] >= high), "offered_rps"]
        low = passed.max() if len(passed) else 0.0
        enough = passed[passed >= min_rps]
        pool = requests[(requests["deployment"] == name) & requests["offered_rps"].isin(enough)]
        p95, p95_low, p95_high = stats.quantile(pool["latency_s"], 0.95)
        rows.append(
            {
                "deployment": name,
                "repo_id": own["repo_id"].iloc[0],
                "max_rps": low,
                "low": low,
                "high": high,
                "p95_s": p95,
                "p95_low": p95_low,
                "p95_high": p95_high,
                "n": len(pool),
                "basis": "measured here",
            }
        )
    return pd.DataFrame(rows)


def _published(brief: Project) -> list[Record]:
    nan = float("nan")
    return [
        {
            "deployment": d.name,
            "repo_id": d.model,
            "max_rps": d.published.max_rps,
            **dict.fromkeys(("low", "high", "p95_s", "p95_low", "p95_high"), nan),
            "n": 0,
            "basis": f"published ({d.published.source}, {d.published.checked_on})",
        }
        for d in brief.deployments
        if d.published is not None and brief.evaluation.kind == "published"
    ]


def _quantile(values: pd.Series[float], p: float) -> float:
    return float(np.quantile(values, p, method="inverted_cdf"))
