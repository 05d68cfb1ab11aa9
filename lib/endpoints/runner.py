"""Performs calls: concurrent, at the pace endpoints bear, within a budget, nothing twice.

A record is stored the moment it arrives, and only failed calls are made again. Equal calls are
made once, by the first deployment that needs them.
"""

import asyncio
import contextlib
import itertools
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import joblib
from anyio.from_thread import start_blocking_portal

from lib import artifacts
from lib.brief import Deployment, Project
from lib.endpoints import store as storage
from lib.endpoints.attempts import Job, Link, Refused, answer_call, blank
from lib.endpoints.price import Budget, Exhausted, context_tokens, price_of
from lib.endpoints.requests import Call, cache_path
from lib.endpoints.servers import Served, client, serving
from lib.endpoints.throttle import Throttle
from lib.errors import PlaybookError
from lib.errors import bar as progress_bar
from lib.tables import Row, hardware

STORE = "04_answers.jsonl"
GIVE_UP_AFTER = 20  # calls without one answer: the endpoint is down, not unlucky

Jobs = Iterable[tuple[Deployment, Iterable[Call]]]  # whose calls are looped over twice
Keep = Callable[[Row], None]


class Session:
    """What the calls of a run share: its answers, read once, its budget, and servers kept up."""

    def __init__(self, brief: Project, run: Path) -> None:
        limit = brief.evaluation.max_usd
        self.run, self.total_s = run, brief.evaluation.total_timeout_s or math.inf
        self.budget = Budget(run, max_usd=limit) if limit else None
        self.stop_at = math.inf
        self.records: dict[str, Row] = {}
        self.append: Keep
        self._keys: dict[Path, set[str]] = {}  # of the calls whose answers all runs share, by file
        self._servers: dict[str, tuple[int, ExitStack, Served]] = {}

    @contextlib.contextmanager
    def opened(self, wanted: set[str] | None = None) -> Iterator[Self]:
        """Hold the run's answers, those of the `wanted` keys only, if given; share them at last."""
        self.stop_at = time.monotonic() + self.total_s
        with (
            storage.appending_records(self.run / STORE) as self.append,
            self.budget.opened() if self.budget else contextlib.nullcontext(),
        ):
            self.records = storage.read_records(self.run / STORE, wanted)
            try:
                yield self
            finally:
                self.stop_servers()
                self._share()

    def open_keys(self, job: Job) -> set[str]:
        """The keys of the job's calls that have no answer yet."""
        return {k for k in job.keys if k not in self.records or self.records[k]["error"]}

    def shared_records(self, job: Job) -> list[Row]:
        """What other runs asked of the same weights, and this one not yet."""
        if not (path := cache_path(job.deployment)):
            return []
        self._keys.setdefault(path, set()).update(job.keys)
        keys = self.open_keys(job)
        others = storage.read_records(path, keys) if keys else {}
        return [record | {"cached": True, "usd": None} for record in others.values()]

    @contextlib.contextmanager
    def alone(self, group: list[Job], keep: Keep) -> Iterator[list[Job]]:
        """What is still to be asked, while no other run asks the same of the same weights."""
        names = [(cache_path(j.deployment), "" if j.threads else min(j.keys)[0]) for j in group]
        with ExitStack() as stack:
            # With no time left nothing is asked; on a full disk answers may be asked twice.
            with contextlib.suppress(PlaybookError):
                for path in sorted({path.with_name(path.stem + n) for path, n in names if path}):
                    left_s = max(self.stop_at - time.monotonic(), 0)
                    stack.enter_context(artifacts.alone(path, wait_s=left_s))
            for record in itertools.chain(*map(self.shared_records, group)):
                keep(record)
            stack.callback(self._share)
            yield [job for job in group if self.open_keys(job)]

    def _share(self) -> None:
        """Put new answers of pinned weights where other runs find them."""
        for path, keys in self._keys.items():
            answered = {k for k in keys & self.records.keys() if not self.records[k]["error"]}
            # The file may be held or the disk full: this run has its answers anyway.
            with contextlib.suppress(PlaybookError, OSError):
                if not answered:
                    continue
                with storage.appending_records(path) as append:
                    for key in sorted(answered - set(storage.read_records(path, answered))):
                        append(self.records[key])

    def serve(self, job: Job) -> Served:
        """The job's endpoint; a server that is up goes on where its context is long enough."""
        name, logs = job.deployment.name, self.run / "logs"
        context = context_tokens(job.calls, job.size) if job.threads else 0
        length, server, served = self._servers.get(name, (-1, ExitStack(), None))
        if served is None or context > length:
            server.close()
            local = serving(job.deployment, logs=logs, context_tokens=context)
            served = server.enter_context(local)
            self._servers[name] = context, server, served
        return served

    def stop_servers(self) -> None:
        """Stop every server that was started."""
        while self._servers:
            self._servers.popitem()[1][1].close()


def perform(
    jobs: Jobs,
    run: Path,
    *,
    brief: Project,
    label: str = "answers",
    progress: bool = True,
    session: Session | None = None,
) -> dict[str, Row]:
    """Perform every call that has no answer yet; returns the records of all calls by key.

    A record has `key served error cached deployment` and `attempts.FACTS`. Those `cached` are from
    another run; what `total_timeout_s` left unasked says so in `error`. All calls of a `session`
    share that time, and all of a run `evaluation.max_usd`. An endpoint that refuses or is down and
    a budget used up are PlaybookErrors: what was answered is kept.
    """
    alone, session = session is None, session or Session(brief, run)
    # Who makes which calls; every price must be known before anything is asked.
    work, wanted, budget = list[Job](), set[str](), session.budget
    for deployment, calls in jobs:
        keys = {call.key for call in calls} - wanted
        rate = budget.rate(deployment) if budget else None
        with contextlib.suppress(PlaybookError):  # only a budget must know it
            rate = rate or price_of(deployment, hardware())
        work.append(Job(deployment, calls, keys, brief.evaluation, brief.size, budget, rate))
        wanted |= keys
    with (
        session.opened(wanted) if alone else contextlib.nullcontext(),
        progress_bar(len(wanted), label, show=progress) as bar,
    ):

        def keep(record: Row) -> None:
            session.append(record)
            session.records[record["key"]] = record
            bar.update()

        # What is there already, of this run or another.
        bar.update(len(wanted) - sum(len(session.open_keys(job)) for job in work))
        for job in work:
            for record in session.shared_records(job):
                keep(record)
        # The rest is asked.
        for group in _groups([job for job in work if session.open_keys(job)]):
            with session.alone(group, keep) as rest:
                if rest and time.monotonic() < session.stop_at:
                    _ask_group(rest, session, keep)
            if alone:
                session.stop_servers()  # the next group needs the room
            if budget and budget.exhausted:
                left = f"{len(wanted - session.records.keys())} of {len(wanted)} {label}"
                raise PlaybookError(
                    f"evaluation.max_usd of ${budget.max_usd:g} would be exceeded:"
                    f" ${budget.spent:.4g} is spent and {left} are not asked yet;"
                    " what was answered is kept, a higher max_usd goes on from there"
                )
    why = f"not asked: evaluation.total_timeout_s of {session.total_s:g} s is over"
    late = {"error": why, "cached": False}
    return {key: session.records.get(key) or blank(key, "") | late for key in wanted}


def run_blocking(function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Run a coroutine function to its end from a notebook, whose own event loop is busy."""
    with start_blocking_portal() as portal:
        return portal.call(function, *args)


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


def _ask_group(group: list[Job], session: Session, keep: Keep) -> None:
    """Ask endpoints side by side; where one fails, the others are asked to their end."""

    async def ask_all() -> list[BaseException | None]:
        asking = [_ask(job, served, session.open_keys(job), keep) for job, served in endpoints]
        try:
            async with asyncio.timeout_at(session.stop_at):
                return await asyncio.gather(*asking, return_exceptions=True)
        except TimeoutError:
            return []

    endpoints = [(job, session.serve(job)) for job in group]
    for problem in filter(None, run_blocking(ask_all)):
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
        place = served.base_url.partition("?")[0]  # a query may hold a secret
        key = f"the key in {served.api_key_env}" if served.api_key_env else "calls without a key"
        path = ", or endpoint.base_url should end in /v1" * (not place.rstrip("/").endswith("/v1"))
        hints = dict.fromkeys(("401", "403"), f"does not accept {key} (endpoint.api_key_env)")
        hints["404"] = f"does not serve endpoint.model {served.model!r:.80}, or not for {key}{path}"
        what = f"{place} {hints.get(refusals[0][:3], 'does not answer')}: {refusals[0]}"
        raise PlaybookError(f"deployment {job.deployment.name!r}: {what}; answers are kept")
