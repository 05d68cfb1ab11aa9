"""Performs calls: concurrent, at the pace endpoints bear, within a budget, nothing twice.

A record is stored the moment it arrives and only asked again where the call failed. Equal calls,
of two items or two deployments, are made once, by the first deployment that needs them. Answers
of pinned weights are shared by all runs (`requests.cache_path`).
"""

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import joblib
from anyio.from_thread import start_blocking_portal

from lib.brief import Deployment, Project
from lib.endpoints import store as storage
from lib.endpoints.attempts import Job, Link, Refused, answer_call, blank
from lib.endpoints.price import Budget, Exhausted, context_tokens
from lib.endpoints.requests import Call, cache_path
from lib.endpoints.servers import Served, client, serving
from lib.endpoints.throttle import Throttle
from lib.errors import PlaybookError
from lib.errors import bar as progress_bar

STORE = "04_answers.jsonl"
GIVE_UP_AFTER = 20  # calls without one answer: the endpoint is down, not unlucky

Record = dict[str, Any]
Jobs = Iterable[tuple[Deployment, Iterable[Call]]]  # whose calls are looped over twice
Keep = Callable[[Record], None]


def perform(
    jobs: Jobs,
    run: Path,
    *,
    brief: Project,
    label: str = "answers",
    progress: bool = True,
    budget: Budget | None = None,
) -> dict[str, Record]:
    """Perform every call that has no answer yet; returns the records of all calls by key.

    A record has `key served error cached` and `attempts.FACTS`. Those `cached` are from another
    run; what `total_timeout_s` left unasked says so in `error`.

    Raises:
        PlaybookError: A key is unset, a server does not start, an endpoint refuses the key or
            is down, or the budget is used up; what was answered is kept.
    """
    total_s = brief.evaluation.total_timeout_s or math.inf
    stop_at = time.monotonic() + total_s
    work = _divided(jobs, brief, budget)
    wanted = {key for job in work for key in job.keys}
    with (
        storage.appending_records(run / STORE) as append,
        budget.opened() if budget else contextlib.nullcontext(),
        progress_bar(len(wanted), label, show=progress) as bar,
    ):

        def keep(record: Record) -> None:
            append(record)
            records[record["key"]] = record
            bar.update()

        # What is there already, of this run or another.
        records = storage.read_records(run / STORE, wanted)
        bar.update(len(wanted) - sum(len(_unanswered(job, records)) for job in work))
        _borrow(work, records, keep)
        # The rest is asked, and shared.
        try:
            for group in _groups([job for job in work if _unanswered(job, records)]):
                if time.monotonic() < stop_at:
                    _ask_group(group, run, records, keep, stop_at)
                if budget and budget.exhausted:
                    raise _over(budget, label, len(wanted - set(records)), len(wanted))
        finally:
            _share(work, records)
    late = f"not asked: evaluation.total_timeout_s of {total_s:g} s is over"
    for key in wanted - set(records):
        records[key] = blank(key, "") | {"error": late, "cached": False}
    return records


def _over(budget: Budget, label: str, left: int, total: int) -> PlaybookError:
    return PlaybookError(
        f"evaluation.max_usd of ${budget.max_usd:g} would be exceeded: ${budget.spent:.4g} is spent"
        f" and {left} of {total} {label} are not asked yet; what was answered is kept,"
        " a higher max_usd goes on from there"
    )


def run_blocking(function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Run a coroutine function to its end from a notebook, whose own event loop is busy."""
    with start_blocking_portal() as portal:
        return portal.call(function, *args)


def _divided(jobs: Jobs, brief: Project, budget: Budget | None) -> list[Job]:
    """Who makes which calls; every price must be known before anything is asked."""
    work, taken = list[Job](), set[str]()
    for deployment, calls in jobs:
        keys = {call.key for call in calls} - taken
        rate = budget.rate(deployment) if budget else None
        work.append(Job(deployment, calls, keys, brief.evaluation, brief.size, budget, rate))
        taken |= keys
    return work


def _unanswered(job: Job, records: dict[str, Record]) -> set[str]:
    return {key for key in job.keys if key not in records or records[key]["error"]}


def _borrow(work: list[Job], records: dict[str, Record], keep: Keep) -> None:
    """Copy what other runs asked of the same weights."""
    for job in work:
        keys = _unanswered(job, records)
        if keys and (path := cache_path(job.deployment)):
            for record in storage.read_records(path, keys).values():
                keep(record | {"cached": True, "usd": None})


def _share(work: list[Job], records: dict[str, Record]) -> None:
    """Put new answers of pinned weights where other runs find them."""
    for job in work:
        answered = job.keys - _unanswered(job, records)
        if answered and (path := cache_path(job.deployment)):
            # The file may be held or the disk full: this run has its answers anyway.
            with contextlib.suppress(PlaybookError, OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                with storage.appending_records(path, wait_s=10) as append:
                    for key in sorted(answered - set(storage.read_records(path, answered))):
                        append(records[key])


def _groups(work: list[Job]) -> list[list[Job]]:
    """Who is asked at the same time: local models as cores allow, then all hosted ones."""
    hosted = [job for job in work if not job.threads]
    groups, free = list[list[Job]](), 0
    for job in sorted((job for job in work if job.threads), key=lambda job: job.threads):
        if job.threads > free:
            groups.append([])
            free = joblib.cpu_count()  # of affinity and a container's quota too
        groups[-1].append(job)
        free -= job.threads
    return [*groups, hosted] if hosted else groups


def _ask_group(
    group: list[Job], run: Path, records: dict[str, Record], keep: Keep, stop_at: float
) -> None:
    """Ask endpoints side by side; where one fails, the others are asked to their end."""

    async def ask_all() -> list[BaseException | None]:
        asking = [_ask(job, served, _unanswered(job, records), keep) for job, served in endpoints]
        try:
            async with asyncio.timeout_at(stop_at):
                return await asyncio.gather(*asking, return_exceptions=True)
        except TimeoutError:
            return []

    with ExitStack() as servers:
        endpoints = []
        for job in group:
            context = context_tokens(job.calls, job.size) if job.threads else 0
            local = serving(job.deployment, logs=run / "logs", context_tokens=context)
            endpoints.append((job, servers.enter_context(local)))
        problems = run_blocking(ask_all)
    for problem in filter(None, problems):
        raise problem.exceptions[0] if isinstance(problem, BaseExceptionGroup) else problem


async def _ask(job: Job, served: Served, keys: set[str], keep: Keep) -> None:
    """Workers take calls from one queue; an endpoint that refuses or is down stops them all."""
    calls = (call for call in job.calls if call.key in keys)
    throttle = Throttle(job.evaluation.concurrency, job.deployment.limits)
    refusals: list[str] = []
    kept: Counter[str] = Counter()

    async def work(link: Link) -> None:
        for call in calls:
            if refusals or (job.budget and job.budget.exhausted):
                return
            keys.remove(call.key)
            try:
                record = await answer_call(link, call)
            except Exhausted:
                return
            except Refused as refusal:
                refusals.append(str(refusal))
                return
            keep(record)
            kept["failed" if record["error"] else "answered"] += 1
            if kept["failed"] >= GIVE_UP_AFTER and not kept["answered"]:
                refusals.append(f"the first {kept['failed']} calls all failed, {record['error']}")

    async with (
        client(served, timeout_s=job.evaluation.timeout_s) as api,
        asyncio.TaskGroup() as workers,
    ):
        for _ in range(throttle.most):
            workers.create_task(work(Link(job, served, api, throttle)))
    if refusals:
        raise PlaybookError(
            f"deployment {job.deployment.name!r}: {served.base_url} does not answer:"
            f" {refusals[0]}; check {served.api_key_env or 'the URL and the model name'},"
            " then run step 4 again"
        )
