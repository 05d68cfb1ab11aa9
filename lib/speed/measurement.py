"""Loads deployments: sends items, keeps every load with all its requests, goes on from there.

A request is an item with all its calls, sent together. Loads on disk are used again on the same
machine.
"""

import asyncio
import itertools
import math
import uuid
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
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
from lib.replies import WRONG_SHAPE, Timed
from lib.speed import estimate, load
from lib.speed.estimate import conclusive_loads, disturbance
from lib.speed.load import Load
from lib.speed.summary import silent_deployments
from lib.tables import Row

FAILURES = (openai.APIError, httpx2.HTTPError, TimeoutError, *WRONG_SHAPE)
TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens")
STORE = "05_probes.jsonl"
COLUMNS = """deployment repo_id probe purpose offered_rps stopped waited due_s late_s ttft_s
    ttft_content_s itl_s slow latency_s outcome error prompt_tokens completion_tokens
    cached_tokens allowed_rps""".split()

Items = list[list[Call]]  # the calls of each


async def offer(
    brief: Project, served: Served, items: Items, following: Load, done: list[Row],
    at_once: int | None = None,
) -> Row:  # fmt: skip
    """Send a load to an endpoint, so many calls `at_once`; returns it with its requests.

    It asks for token counts until the endpoint's first answer refuses to count.
    """
    counts = not done or any("prompt_tokens" in r for r in done[0]["requests"])
    needs, clock = brief.requirements, asyncio.get_running_loop().time
    objectives = [("TTFT", "ttft_s", needs.max_ttft_p95_s)]
    objectives += [("inter-token latency", "itl_s", needs.max_itl_p95_s)]
    in_turn = asyncio.Semaphore(at_once or sum(map(len, items)))

    async def stream(call: Call, **usage: Any) -> Timed:
        async with in_turn:
            return await endpoints.stream(api, served.model, call, **usage)

    async def send(number: int, due_at: float) -> Row:
        """What became of an item: ok or failed, when it began to come, its tokens."""
        nonlocal counts
        usage = {"stream_options": {"include_usage": True}} if counts else {}
        calls = items[number]
        try:
            timed = await asyncio.gather(*(stream(call, **usage) for call in calls))
        except FAILURES as failure:
            status = failure.status_code if isinstance(failure, openai.APIStatusError) else 500
            if usage and status in (400, 422) and number == 0:
                counts = False
                return await send(number, due_at)
            nothing = dict.fromkeys(TOKENS, 0) if status < 500 and len(calls) == 1 else {}
            return {"outcome": "failed", "error": type(failure).__name__} | nothing
        firsts, contents, *tokens, hidden = zip(*timed, strict=True)
        facts: Row = {"outcome": "ok", "ttft_s": max(firsts) - due_at}
        if None not in contents:
            facts["ttft_content_s"] = max(contents) - due_at
        facts |= {k: sum(n) for k, n in zip(TOKENS, tokens, strict=True) if None not in n}
        if len(calls) == 1 and (n := facts.get("completion_tokens", 0)) > 1 and not hidden[0]:
            facts["itl_s"] = (clock() - firsts[0]) / (n - 1)
        slow = [noun for noun, key, most in objectives if facts.get(key, 0.0) > (most or math.inf)]
        return facts | ({"slow": slow[0]} if slow else {})

    before = _processor_ns()
    async with endpoints.client(served, timeout_s=brief.evaluation.timeout_s) as api:
        record = await load.offer(following, send, slo_s=needs.slo_s, seed=len(done))
    ran, waited = np.subtract(_processor_ns(), before).tolist()
    return record | {"waited": round(waited / max(ran + waited, 1), 3)}


def _processor_ns() -> tuple[int, int]:
    """How long all threads of local servers ran, and waited for a processor, where Linux says."""
    with suppress(OSError):  # a thread may end meanwhile
        tasks, proc = Path("/proc/self/task"), Path("/proc")
        servers = "".join(path.read_text() for path in tasks.glob("*/children")).split()
        threads = [path for pid in servers for path in proc.glob(f"{pid}/task/*/schedstat")]
        times = [path.read_text().split() for path in threads]
        return sum(int(ran) for ran, *_ in times), sum(int(waited) for _, waited, _ in times)
    return 0, 0


class _Search(NamedTuple):
    """A deployment, the items that it is loaded with, and its part of a load's key."""

    brief: Project
    deployment: Deployment
    items: Items
    key: str

    def allowed_rps(self, done: list[Row]) -> float:
        """The requests a second that the endpoint allows, by the tokens of the first load.

        Where it did not count them they are as many as the calls may take.
        """
        calls = list(itertools.chain.from_iterable(self.items))
        most = sum(map(endpoints.prompt_bytes, calls)) / 3
        most += sum(estimate.LONG if (n := endpoints.most_tokens(c)) is None else n for c in calls)
        first = done[0]["requests"] if done else []
        tokens, n = estimate.tokens_taken(first, most / len(self.items)), len(self.items)
        return estimate.allowed_rps(self.deployment.limits, calls=len(calls) / n, tokens=tokens)

    def following(self, done: list[Row]) -> Load | None:
        """The load that comes after those."""
        return load.next_load(done, self.brief, self.allowed_rps(done))

    def turn(self, done: list[Row], n: int) -> Items:
        """The next n items, each with a prefix that no cache has, unless the brief shares them."""
        first = sum(len(record["requests"]) for record in done) % len(self.items)
        items = itertools.islice(itertools.cycle(self.items), first, first + n)
        if self.brief.speed.prefix == "shared":
            return list(items)
        return [[_prefixed(call, f"{uuid.uuid4().hex[:8]} ") for call in item] for item in items]


def _prefixed(call: Call, prefix: str) -> Call:
    """A call whose prompt begins with something new, so that no cache of prompts holds it."""
    if call.api == "rerank":
        return call._replace(body=call.body | {"query": prefix + call.body["query"]})
    first, *others = call.body["messages"]
    content, part = first.get("content") or "", {"type": "text", "text": prefix}
    new = [part, *content] if isinstance(content, list) else prefix + content
    messages = [first | {"content": new}, *others]
    return call._replace(body=call.body | {"messages": messages})


def _searches(brief: Project, items: pd.DataFrame, deployments: list[Deployment]) -> list[_Search]:
    """Nothing is loaded of published figures, recorded answers and files, nor without items."""
    searches, needs = list[_Search](), brief.requirements
    objectives = needs.slo_s, needs.max_ttft_p95_s, needs.max_itl_p95_s
    live = [d for d in deployments if d.endpoint and not d.endpoint.recorded]
    for deployment in [d for d in live if not d.load_results]:
        if calls := evaluate.plan(brief, deployment, items).by_item():
            bodies = [[call.body for call in item] for item in calls]
            who = endpoints.identity(deployment, threads=True), endpoints.machine()
            spend = brief.speed.model_dump() | deployment.limits.model_dump(exclude_none=True)
            key = endpoints.key_of(*who, spend, objectives, bodies)
            searches.append(_Search(brief, deployment, calls, key))
    return searches


def dry_run(
    brief: Project, items: pd.DataFrame, deployments: list[Deployment], run: Path
) -> pd.DataFrame:
    """The most that `measure` may still send, in the columns of `evaluate.dry_run`."""
    nothing = {"basis": "nothing to send: no endpoint, or no items of the brief"}
    table = {d.name: evaluate.forecast(d, []) | nothing for d in deployments}
    for deployment in [d for d in deployments if d.load_results]:
        table[deployment.name]["basis"] = f"read from {', '.join(deployment.load_results)}"
    kept = endpoints.read_records(run / STORE)
    for search in _searches(brief, items, deployments):
        done, following = _resumed(search, kept)
        sent = sum(len(record["requests"]) for record in done)
        turn = search.turn(done, brief.speed.budget_requests - sent if following else 0)
        calls = list(itertools.chain.from_iterable(turn))
        table[search.deployment.name] = evaluate.forecast(search.deployment, calls)
    return pd.DataFrame(table.values())


def _resumed(search: _Search, kept: dict[str, Row]) -> tuple[list[Row], Load | None]:
    """The loads that are on disk, and the one that follows; without those that decide nothing."""
    done = list[Row]()
    while following := search.following(done):
        if not (record := kept.get(endpoints.key_of(search.key, len(done), following))):
            break
        done.append(record)
    if any(map(disturbance, conclusive_loads(done))):
        done = list(itertools.takewhile(lambda record: not disturbance(record), done))
        following = search.following(done)
    return done, following


def measure(
    brief: Project, items: pd.DataFrame, deployments: list[Deployment], run: Path, *,
    progress: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """Load each deployment until its capacity is known; one row per request, with `COLUMNS`.

    One whose first load has no answer is not measured further, as `silent_deployments` says.
    PlaybookError where no endpoint answers anything, or the next load could exceed
    `evaluation.max_usd`; what was measured is kept.
    """
    rows, budget = [], endpoints.Session(brief, run).budget
    searches = _searches(brief, items, deployments)
    if budget:  # before anything is sent
        _ = [budget.rate(search.deployment) for search in searches]
    most = len(searches) * brief.speed.budget_requests
    with (
        endpoints.appending_records(run / STORE) as append,
        budget.opened() if budget else nullcontext(),
        progress_bar(most, "requests", show=progress) as bar,
    ):
        kept = endpoints.read_records(run / STORE)
        for search in searches:
            who = {"deployment": search.deployment.name, "repo_id": search.deployment.model}
            for number, record in enumerate(_loads(search, run, kept, append, budget), start=1):
                rows += [who | record | {"probe": number} | sent for sent in record["requests"]]
                bar.update(len(record["requests"]))
    table = pd.DataFrame(rows, columns=COLUMNS)
    problems = list(silent_deployments(table).values())
    if problems and len(problems) == table["deployment"].nunique():
        raise PlaybookError(f"deployment {problems[0]}")
    return table


def _loads(
    search: _Search, run: Path, kept: dict[str, Row], append: Callable[[Row], None],
    budget: Budget | None,
) -> Iterator[Row]:  # fmt: skip
    """All loads of one deployment, from disk where they are there."""
    done, following = _resumed(search, kept)
    yield from done
    if not following:
        return
    calls = itertools.chain.from_iterable(search.turn([], len(search.items)))
    context = endpoints.context_tokens(calls, search.brief.size)
    with endpoints.serving(search.deployment, logs=run / "logs", context_tokens=context) as served:
        while following:
            turn = search.turn(done, following.n)
            paying = budget.paying(search.deployment, turn) if budget else nullcontext(list[Row]())
            with paying as requests:
                at_once = search.deployment.limits.concurrency
                record = run_blocking(offer, search.brief, served, turn, following, done, at_once)
                requests += record["requests"]
            if not done and all(r["outcome"] != "ok" for r in record["requests"]):
                yield record  # which is not kept: it says nothing of the load
                return
            if (most_rps := search.allowed_rps([*done, record])) < math.inf:
                record["allowed_rps"] = most_rps
            append({"key": endpoints.key_of(search.key, len(done), following), **record})
            done.append(record)
            yield record
            following = search.following(done)
