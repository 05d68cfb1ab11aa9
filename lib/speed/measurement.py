"""The greatest load a deployment bears within the SLO, found by probes of rising load.

The load doubles until p95 misses `requirements.max_p95_s`, then bisection narrows the bracket.
Probes on disk (with all raw requests) are used again on the same machine. `evaluation.max_usd`
counts what they cost.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lib import endpoints, evaluate, stats
from lib.brief import Deployment, Project
from lib.endpoints import Budget, Call, Served, machine, run_blocking
from lib.errors import PlaybookError
from lib.errors import bar as progress_bar
from lib.speed.load import MISSES, TOKENS, Record, offer

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


Probe = tuple[float, int]  # a rate, and how many requests


class _Target(NamedTuple):
    """A deployment and what it is loaded with: the calls of each item."""

    brief: Project
    deployment: Deployment
    items: list[list[Call]]
    key: str

    def next_probe(self, done: list[Record]) -> tuple[Probe, str, list[int]] | None:
        """The next probe, its key, and its items: one that warms up and those that are timed."""
        if not (probe := _next_probe(done, self.brief.requirements.slo_s, self.brief)):
            return None
        first, n = sum(record["planned"] for record in done), len(self.items)
        turn = [(first + i) % n for i in (0, *range(probe[1]))]
        # The same load may be offered twice.
        return probe, endpoints.key_of(self.key, len(done), probe), turn


def _loadable(items: pd.DataFrame, deployments: list[Deployment]) -> list[Deployment]:
    """There is nothing to load behind published figures and recorded answers, nor without items."""
    live = [d for d in deployments if d.endpoint and not d.endpoint.recorded]
    return live if len(items) else []


def _target(brief: Project, deployment: Deployment, items: pd.DataFrame) -> _Target:
    calls = evaluate.plan(brief, deployment, items).by_item()
    who: list[Any] = [endpoints.identity(deployment, threads=True), machine()]
    who += [brief.speed.model_dump(), brief.requirements.slo_s]
    who += [endpoints.request_options(brief, deployment)]
    key = endpoints.key_of(who, [[call.body for call in item] for item in calls])
    return _Target(brief, deployment, calls, key)


def dry_run(
    brief: Project, items: pd.DataFrame, deployments: list[Deployment], run: Path
) -> pd.DataFrame:
    """The most that `measure` may still send, however its probes end: as `evaluate.dry_run`."""
    kept = endpoints.read_records(run / STORE)
    nothing = {"basis": "nothing to send: no endpoint, or no items of the brief"}
    table = {d.name: evaluate.forecast(d, 0, 0, []) | nothing for d in deployments}
    for deployment in _loadable(items, deployments):
        target = _target(brief, deployment, items)
        calls = [call for i in _most(target, kept, []) for call in target.items[i]]
        sizes = [(endpoints.prompt_bytes(call), endpoints.most_tokens(call)) for call in calls]
        table[deployment.name] = evaluate.forecast(deployment, len(calls), 0, sizes)
    return pd.DataFrame(table.values())


def _most(target: _Target, kept: dict[str, Record], done: list[Record]) -> list[int]:
    """The items that are sent where the probes to come end in the way that takes the most."""
    if not (following := target.next_probe(done)):
        return []
    (rate, n), key, turn = following
    if key in kept:
        return _most(target, kept, [*done, kept[key]])
    facts = {"offered_rps": rate, "planned": n}
    ends = (facts | {"requests": [{"outcome": "cut"}] * missed} for missed in (0, n))
    return turn + max((_most(target, kept, [*done, end]) for end in ends), key=len)


def measure(
    brief: Project,
    items: pd.DataFrame,
    deployments: list[Deployment],
    run: Path,
    *,
    progress: bool = True,
) -> pd.DataFrame:
    """Offer rising load to each deployment; returns one row per request, with `COLUMNS`.

    Raises:
        PlaybookError: An endpoint answers nothing, or the next load could exceed
            `evaluation.max_usd`; what was measured is kept.
    """
    rows, budget = [], endpoints.budget_of(brief, run)
    deployments = _loadable(items, deployments)
    if budget:  # before anything is sent
        _ = [budget.rate(deployment) for deployment in deployments]
    with (
        endpoints.appending_records(run / STORE) as append,
        budget.opened() if budget else contextlib.nullcontext(),
        progress_bar(len(deployments) * brief.speed.max_probes, "probes", show=progress) as bar,
    ):
        kept = endpoints.read_records(run / STORE)
        for deployment in deployments:
            who = {"deployment": deployment.name, "repo_id": deployment.model}
            target = _target(brief, deployment, items)
            for number, probe in enumerate(_probes(target, run, kept, append, budget), start=1):
                rows += [who | probe | {"probe": number} | sent for sent in probe["requests"]]
                bar.update()
    return pd.DataFrame(rows, columns=COLUMNS)


def _probes(
    target: _Target,
    run: Path,
    kept: dict[str, Record],
    append: Callable[[Record], None],
    budget: Budget | None,
) -> Iterator[Record]:
    """All probes of one deployment, from disk where they are there."""
    done, served, deployment = list[Record](), None, target.deployment
    with ExitStack() as server:
        while following := target.next_probe(done):
            probe, key, turn = following
            if key not in kept:
                if not served:
                    calls = itertools.chain.from_iterable(target.items)
                    context = endpoints.context_tokens(calls, target.brief.size)
                    local = endpoints.serving(deployment, logs=run / "logs", context_tokens=context)
                    served = server.enter_context(local)
                requests = _send(target, served, probe, turn, budget)
                errors = [r["error"] for r in requests if "error" in r]
                if errors and not done and all(r["outcome"] != "ok" for r in requests):
                    text = f"no request of the first probe was answered: {errors[0]}"
                    raise PlaybookError(f"deployment {deployment.name!r}: {text}")
                facts = {"offered_rps": probe[0], "planned": probe[1], "requests": requests}
                kept[key] = {"key": key, **facts}
                append(kept[key])
            done.append(kept[key])
            yield kept[key]


def _send(
    target: _Target, served: Served, probe: Probe, turn: list[int], budget: Budget | None
) -> list[Record]:
    """The requests of one probe, if the budget bears the most that it may cost."""
    items, name = [target.items[i] for i in turn], target.deployment.name
    if not budget:
        return list(run_blocking(offer, target.brief, served, items[1:], *probe))
    rate = budget.rate(target.deployment)
    usd = [sum(endpoints.worst_usd(rate, call, name) for call in item) for item in items]
    if budget.spent + sum(usd) > budget.max_usd:
        raise PlaybookError(
            f"evaluation.max_usd of ${budget.max_usd:g} would be exceeded: ${budget.spent:.4g} is"
            f" spent and the next load of {name!r} may take ${sum(usd):.4g}; what was measured is"
            " kept, a higher max_usd goes on from there"
        )
    ticket = run_blocking(budget.reserve, sum(usd))
    requests: list[Record] = run_blocking(offer, target.brief, served, items[1:], *probe)
    # What warmed up, and what nobody counted, costs the most; the last may never have been sent.
    spent = usd[:1]
    for most, request in zip(usd[1:], requests, strict=False):
        tokens = [n for n in map(request.get, TOKENS) if n is not None]
        spent.append(endpoints.usd(rate, *tokens) if len(tokens) == 2 else most)
    budget.settle(ticket, sum(spent))
    return requests


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
