"""Latency under load, and the greatest load a deployment bears within the SLO."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from lib.brief.project import Deployment, Project
from lib.endpoints import store
from lib.endpoints.runner import run_blocking
from lib.endpoints.serving import identity, machine, request_options, serving
from lib.errors import PlaybookError
from lib.evaluate.answers import plan
from lib.progress import bar as progress_bar
from lib.speed.load import MISSES, offer
from lib.stats import intervals as stats

__all__ = ["capacity", "measure", "summarise"]

STORE = "05_probes.jsonl"
COLUMNS = """deployment repo_id probe offered_rps planned due_s ttft_s latency_s outcome
    error""".split()
CLOSE_ENOUGH = 1.2  # the bracket around the capacity is narrow enough
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
        One row per request: `deployment repo_id probe offered_rps planned due_s ttft_s
        latency_s outcome error`; outcome is `ok`, `failed` or `cut` (abandoned when its probe
        had failed; its latency is a lower bound).
    """
    path, rows = run / STORE, []
    # There is nothing to load behind published figures and recorded answers.
    deployments = [d for d in deployments if d.endpoint and not d.endpoint.recorded]
    with store.appending(path) as append:
        kept = store.read(path)
        budget = len(deployments) * brief.speed.max_probes
        with progress_bar(budget, "probes", show=progress) as bar:
            for deployment in deployments:
                probes = _search(brief, deployment, items, run, kept, append, bar)
                for number, record in enumerate(probes, start=1):
                    facts = {
                        "deployment": deployment.name,
                        "repo_id": deployment.model,
                        "probe": number,
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
    options = request_options(brief, deployment)
    who = [identity(deployment), machine(), brief.speed.model_dump(), slo, options]
    bodies = [call.body for call in plan(brief, deployment, items)]
    who.append(store.key_of(bodies))
    done: list[Record] = []

    def key_of(probe: tuple[float, int]) -> str:
        return store.key_of(who, len(done), probe)  # the same load may be offered twice

    while (probe := _next_probe(done, slo, brief)) and key_of(probe) in kept:
        done.append(kept[key_of(probe)])
        bar.update()
    if probe is None:
        return done
    with serving(deployment, logs=run / "logs") as served:
        while probe := _next_probe(done, slo, brief):
            rate, n = probe
            sent = sum(record["planned"] for record in done)
            turn = bodies[sent % len(bodies) :] + bodies[: sent % len(bodies)]
            requests = run_blocking(offer, brief, served, turn, rate, n)
            record = {
                "key": key_of(probe),
                "offered_rps": rate,
                "planned": n,
                "requests": requests,
            }
            errors = [request["error"] for request in requests if "error" in request]
            if errors and not done and all(request["outcome"] != "ok" for request in requests):
                raise PlaybookError(
                    f"deployment {deployment.name!r}: no request of the first probe was answered:"
                    f" {errors[0]}"
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
        ceiling = brief.speed.ceiling_rps
        return None if max(passed) >= ceiling else min(2 * max(passed), ceiling)
    if not passed:
        # Below what is asked for there is nothing left to decide.
        enough = brief.requirements.min_rps
        done_for = worst <= enough if enough else len(failed) > MAX_HALVINGS
        return None if done_for else worst / 2
    low = max(passed)
    return None if worst / low <= CLOSE_ENOUGH else round(math.sqrt(low * worst), 3)


def _within(record: Record, slo: float) -> bool:
    misses = sum(r["outcome"] != "ok" or r["latency_s"] > slo for r in record["requests"])
    return bool(misses <= MISSES * record["planned"])


def summarise(requests: pd.DataFrame, *, slo_s: float) -> pd.DataFrame:
    """One row per deployment and offered load: percentiles, errors, whether within the SLO.

    Latencies of requests that were cut are lower bounds, so percentiles of a probe that
    failed are at least the value shown (`stopped_early`).
    """
    rows = []
    for (name, rate), probe in requests.groupby(["deployment", "offered_rps"], sort=False):
        ok = probe[probe["outcome"] == "ok"]
        # The same load may have been offered in more than one probe.
        n_planned = int(probe.groupby("probe")["planned"].first().sum())
        ends = ok.assign(end=ok["due_s"] + ok["latency_s"]).groupby("probe")["end"].max()
        span = float(ends.sum())
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


def capacity(
    brief: Project, requests: pd.DataFrame, *, deployments: list[Deployment] | None = None
) -> pd.DataFrame:
    """The greatest load within the SLO per deployment, with the bracket it lies in.

    `max_rps` and `low` are the greatest load that passed, `high` the least that failed
    (missing where nothing failed up to the ceiling). `p95_s` with its bounds pools the
    requests of all passing loads at or above `requirements.min_rps`: more load is not
    faster, so it speaks for `min_rps` as well. Published figures have no bracket.
    """
    probes = summarise(requests, slo_s=brief.requirements.slo_s)
    min_rps = brief.requirements.min_rps or 0.0
    rows = _published(brief, brief.deployments if deployments is None else deployments)
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


def _published(brief: Project, deployments: list[Deployment]) -> list[Record]:
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
        for d in deployments
        if d.published is not None and brief.evaluation.kind == "published"
    ]


def _quantile(values: pd.Series[float], p: float) -> float:
    return float(np.quantile(values, p, method="inverted_cdf"))
