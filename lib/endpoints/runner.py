"""Performs calls: concurrent, at the pace endpoints bear, within a budget, nothing twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import openai
from anyio.from_thread import start_blocking_portal

from lib.brief.project import Deployment, Evaluation
from lib.endpoints import budget as spending
from lib.endpoints import replies
from lib.endpoints import store as storage
from lib.endpoints.attempts import Link, ask
from lib.endpoints.requests import Call, Plan, cache_path
from lib.endpoints.serving import client, serving
from lib.endpoints.throttle import Throttle
from lib.errors import PlaybookError
from lib.progress import bar as progress_bar

__all__ = ["GIVE_UP_AFTER", "STORE", "Record", "perform", "run_blocking"]

STORE = spending.ANSWERS
GIVE_UP_AFTER = 20  # calls without one answer: the endpoint is down, not unlucky

Record = dict[str, Any]


def perform(
    jobs: Iterable[tuple[Deployment, Iterable[Call]]],
    run: Path,
    *,
    evaluation: Evaluation,
    store: str = STORE,
    label: str = "answers",
    progress: bool = True,
    budget: spending.Budget | None = None,
) -> dict[str, Record]:
    """Perform every call that has no answer yet, and return the records of all by their keys.

    A record is written to the store the moment it arrives. A failed call is there as well, with
    its `error`, and is made again next time. Answers of pinned weights are shared by all runs
    (`calls.cache_path`); one from another run is copied to this one and says `cached`.

    Args:
        jobs: Deployments and their calls; the calls are looped over twice, a `calls.Plan` makes
            them as they are needed.
        run: The run directory.
        evaluation: With concurrency, timeouts and retries.
        store: The file in the run directory.
        label: What the progress bar calls them.
        progress: Show a bar with rate and time left.
        budget: Stops before it is exceeded; the same for answers and their judge.

    Returns:
        By key, of every call: `key served output tool_calls finish_reason error retries
        prompt_tokens completion_tokens latency_s usd cached`. Calls that `total_timeout_s` left
        without an answer say so in `error` and are not stored.

    Raises:
        PlaybookError: A key is unset, a server does not start, an endpoint refuses the key or
            is down, or the budget is used up; what was answered is kept.
    """
    stop_at = _deadline(evaluation)
    asked: dict[str, Deployment] = {}
    calls_of: dict[str, list[Iterable[Call]]] = {}
    for deployment, calls in jobs:
        asked[deployment.name] = deployment
        calls_of.setdefault(deployment.name, []).append(calls)
    rates = {name: budget.rate(d) for name, d in asked.items()} if budget else {}
    with ExitStack() as stack:
        append = stack.enter_context(storage.appending(run / store))
        if budget:
            stack.enter_context(budget.opened())
        wanted: set[str] = set()
        new: dict[str, set[str]] = {}
        for name, many in calls_of.items():
            # Equal calls, of two items or of two names for one endpoint, are made once.
            new[name] = {key for calls in many for key in _keys(calls)} - wanted
            wanted |= new[name]
        records = storage.read(run / store, wanted)
        stack.callback(_share, asked, {n: frozenset(keys) for n, keys in new.items()}, records)
        for name, todo in new.items():
            todo -= {key for key in todo if _done(records.get(key))}
            for record in _cached(asked[name], todo):
                append(record)
                records[record["key"]] = record
                todo.discard(record["key"])
        bar = stack.enter_context(progress_bar(len(wanted), label, show=progress))
        bar.update(len(wanted) - sum(map(len, new.values())))

        def keep(record: Record) -> None:
            append(record)
            records[record["key"]] = record
            bar.update()

        waiting = {name: _once(chain(*calls_of[name]), todo) for name, todo in new.items()}
        for group in _groups([asked[name] for name, todo in new.items() if todo]):
            if stop_at is None or time.monotonic() < stop_at:
                with ExitStack() as servers:
                    links = [
                        Link(
                            d,
                            servers.enter_context(serving(d, logs=run / "logs")),
                            _throttle(d, evaluation),
                            evaluation,
                            budget,
                            rates.get(d.name),
                        )
                        for d in group
                    ]
                    run_blocking(_ask_group, links, waiting, keep, stop_at)
            if budget and budget.exhausted:
                left = len(wanted) - sum(key in records for key in wanted)
                raise PlaybookError(
                    f"evaluation.max_usd of ${budget.max_usd:g} would be exceeded:"
                    f" ${budget.spent:.4g} is spent and {left} of {len(wanted)} {label} are not"
                    " asked yet; what was answered is kept, a higher max_usd goes on from there"
                )
    late = f"not asked: evaluation.total_timeout_s of {evaluation.total_timeout_s or 0:g} s is over"
    for key in wanted - set(records):
        records[key] = replies.blank(key, "") | {"error": late, "cached": False}
    return records


def run_blocking(function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Run a coroutine function to its end from a notebook, whose own event loop is busy."""
    with start_blocking_portal() as portal:
        return portal.call(function, *args)


def _deadline(evaluation: Evaluation) -> float | None:
    total_s = evaluation.total_timeout_s
    return None if total_s is None else time.monotonic() + total_s


def _done(record: Record | None) -> bool:
    return record is not None and not record["error"]


def _keys(calls: Iterable[Call]) -> Iterator[str]:
    # A plan knows its keys without making its bodies.
    return calls.keys() if isinstance(calls, Plan) else (call.key for call in calls)


def _once(calls: Iterable[Call], keys: set[str]) -> Iterator[Call]:
    left = set(keys)
    for call in calls:
        if call.key in left:
            left.discard(call.key)
            yield call


def _cached(deployment: Deployment, keys: set[str]) -> list[Record]:
    path = cache_path(deployment) if keys else None
    found = storage.read(path, keys) if path else {}
    return [record | {"cached": True, "usd": None} for record in found.values()]


def _share(
    asked: dict[str, Deployment], keys_of: dict[str, frozenset[str]], records: dict[str, Record]
) -> None:
    """Put new answers of pinned weights where other runs find them."""
    for name, deployment in asked.items():
        path = cache_path(deployment)
        fresh = {key for key in keys_of[name] if _done(records.get(key))}
        if path is None or not fresh:
            continue
        # Another run may hold the file or the disk be full: this run has its answers anyway.
        with contextlib.suppress(PlaybookError, OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with storage.appending(path, wait_s=10) as append:
                for key in sorted(fresh - set(storage.read(path, fresh))):
                    append(records[key])


def _groups(deployments: list[Deployment]) -> list[list[Deployment]]:
    """Who is asked at the same time: hosted ones together, local ones as cores allow."""
    groups: list[list[Deployment]] = []
    hosted: list[Deployment] = []
    free = 0
    for deployment in sorted(deployments, key=lambda d: d.endpoint.threads if d.endpoint else 0):
        assert deployment.endpoint is not None
        threads = deployment.endpoint.threads
        if not deployment.endpoint.local:
            hosted.append(deployment)
        elif threads <= free:
            groups[-1].append(deployment)
            free -= threads
        else:
            groups.append([deployment])
            free = (os.cpu_count() or 1) - threads
    return [*groups, *([hosted] if hosted else [])]


def _throttle(deployment: Deployment, evaluation: Evaluation) -> Throttle:
    limits = deployment.limits
    return Throttle(
        limits.concurrency or evaluation.concurrency,
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
    )


async def _ask_group(
    links: list[Link],
    waiting: dict[str, Iterator[Call]],
    keep: Callable[[Record], None],
    stop_at: float | None,
) -> None:
    left_s = None if stop_at is None else max(0.0, stop_at - time.monotonic())
    work = [_ask_deployment(link, waiting[link.deployment.name], keep) for link in links]
    try:
        async with asyncio.timeout(left_s):
            results = await asyncio.gather(*work, return_exceptions=True)
    except TimeoutError:
        return
    for result in results:
        if isinstance(result, BaseExceptionGroup):
            raise result.exceptions[0]
        if isinstance(result, BaseException):
            raise result


async def _ask_deployment(
    link: Link, waiting: Iterator[Call], keep: Callable[[Record], None]
) -> None:
    """Workers take calls from one queue; an endpoint that refuses or is down stops them all."""
    refused: list[str] = []
    failed, answered = 0, 0

    async def worker(api: openai.AsyncOpenAI) -> None:
        nonlocal failed, answered
        for call in waiting:
            if refused or (link.budget and link.budget.exhausted):
                return
            try:
                record, hopeless = await ask(api, link, call)
            except spending.Exhausted:
                return
            if hopeless:
                refused.append(record["error"])
                return
            keep(record)
            failed, answered = failed + bool(record["error"]), answered + (not record["error"])
            if failed >= GIVE_UP_AFTER and not answered:
                refused.append(f"the first {failed} calls all failed, {record['error']}")

    api = client(link.served, timeout_s=link.evaluation.timeout_s, max_retries=0)
    async with api, asyncio.TaskGroup() as workers:
        for _ in range(link.throttle.most):
            workers.create_task(worker(api))
    if refused:
        served = link.served
        raise PlaybookError(
            f"deployment {link.deployment.name!r}: {served.base_url} does not answer:"
            f" {refused[0]}; check {served.api_key_env or 'the URL and the model name'},"
            " then run step 4 again"
        )
