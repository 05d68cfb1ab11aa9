"""What asking would cost, and a budget that stops before it is exceeded."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from lib import store, tables
from lib.calls import Call, Plan, cache_path
from lib.costs import Rate, price_of
from lib.errors import PlaybookError
from lib.project import Deployment, Project

__all__ = ["Budget", "Exhausted", "budget_of", "dry_run", "judge_deployment", "prompt_bytes"]

LEDGER = "04_spending.jsonl"
ANSWERS = "04_answers.jsonl"
BYTES_PER_TOKEN = 4.0  # English in today's vocabularies; other scripts take up to one token a byte
COLUMNS = "deployment calls cached prompt_tokens completion_tokens usd_low usd_high basis".split()


class Exhausted(Exception):
    """The next call could exceed the budget, and nothing in flight can free any of it."""


class Budget:
    """Dollars of a run that are spent, reserved and left; it survives a crash and a restart.

    Before a call is sent its worst case is written down: each byte of the request a token, and as
    many tokens of output as it may have. Usage replaces it after. A call that died on its way
    counts with its worst case, since nobody knows what was charged.
    """

    def __init__(self, run: Path, *, max_usd: float, hardware: pd.DataFrame | None = None) -> None:
        self.max_usd, self.spent, self.exhausted = max_usd, 0.0, False
        self._path = run / LEDGER
        self._hardware = tables.hardware() if hardware is None else hardware
        self._flying: dict[str, float] = {}
        self._append: Any = None
        self._freed = asyncio.Event()

    def rate(self, deployment: Deployment) -> Rate:
        """The price of a deployment.

        Raises:
            PlaybookError: No price is known, which is never taken for zero.
        """
        try:
            return price_of(deployment, self._hardware)
        except PlaybookError as error:
            raise PlaybookError(f"evaluation.max_usd needs every price; {error}") from None

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the ledger alone, as it is on disk now."""
        self.exhausted, self._flying = False, {}
        with store.appending(self._path) as self._append:
            self.spent = sum(float(r["usd"]) for r in store.read(self._path).values())
            try:
                yield
            finally:
                self.spent += sum(self._flying.values())  # cancelled on their way
                self._flying = {}

    async def reserve(self, usd: float) -> str:
        """Set the worst case of a call aside; returns a ticket for `settle`.

        Raises:
            Exhausted: It does not fit, and no call in flight could make room.
        """
        if usd == 0:
            return ""
        while self.exhausted or self.spent + sum(self._flying.values()) + usd > self.max_usd:
            if self.exhausted or not self._flying:
                self.exhausted = True
                self._freed.set()
                raise Exhausted
            await self._freed.wait()
        ticket = store.key_of(time.time_ns(), len(self._flying), id(asyncio.current_task()))
        self._append({"key": ticket, "usd": usd})
        self._flying[ticket] = usd
        return ticket

    def settle(self, ticket: str, usd: float) -> None:
        """Put what a call did cost in the place of what was set aside."""
        if self._flying.pop(ticket, None) is None:
            return
        self._append({"key": ticket, "usd": usd})
        self.spent += usd
        self._freed.set()
        self._freed = asyncio.Event()  # a new one: each belongs to the loop that waits for it


def budget_of(brief: Project, run: Path) -> Budget | None:
    """The budget of a brief, or None where it sets none."""
    limit = brief.evaluation.max_usd
    return None if limit is None else Budget(run, max_usd=limit)


def prompt_bytes(call: Call) -> int:
    """The size of what is sent: no tokenizer makes more tokens of it than it has bytes."""
    return len(json.dumps(call.body, ensure_ascii=False).encode(errors="replace"))


def most_tokens(call: Call) -> int | None:
    """How many tokens an answer may have at most; None where the request does not say."""
    if call.api == "rerank":
        return 0
    given = [call.body.get(k) for k in ("max_tokens", "max_completion_tokens")]
    return max((n for n in given if isinstance(n, int)), default=None)


def usd(rate: Rate, prompt_tokens: float, completion_tokens: float) -> float:
    """Dollars of one call; by the hour a call costs nothing of its own."""
    price_in, price_out = rate.input_usd_per_million or 0.0, rate.output_usd_per_million or 0.0
    return (prompt_tokens * price_in + completion_tokens * price_out) / 1e6


def worst_usd(rate: Rate, call: Call, name: str) -> float:
    """The most that a call can cost.

    Raises:
        PlaybookError: Its answer has no greatest length.
    """
    if rate.usd_per_hour is not None:
        return 0.0
    if (most := most_tokens(call)) is None:
        raise PlaybookError(
            f"deployment {name!r}: evaluation.max_usd needs max_tokens, which options.extra_body"
            " takes away; give max_completion_tokens there"
        )
    return usd(rate, prompt_bytes(call), most)


def dry_run(
    brief: Project, deployments: list[Deployment], items: pd.DataFrame, run: Path
) -> pd.DataFrame:
    """How many calls and dollars an evaluation would take, before anything is asked.

    Tokens of prompts are estimated from their bytes (4 a token); `usd_low` counts 5 bytes a
    token and one token of output, `usd_high` 3 bytes and as many tokens as an answer may have.
    Retries are not in it. A judge's calls are one an answer, or two (both orders) for every
    compared pair and item, and its calibration items.

    Args:
        brief: The brief.
        deployments: Those that would be asked.
        items: From `items.load_items`.
        run: The run directory; what is answered there, or cached by other runs, costs nothing.

    Returns:
        One row per deployment, and one for the judge: `deployment calls cached prompt_tokens
        completion_tokens usd_low usd_high basis`; calls include the cached ones, tokens and
        dollars do not. Dollars are missing where the price is by the hour or not known.
    """
    hardware, rows, planned = tables.hardware(), [], set[str]()
    for deployment in deployments:
        if deployment.endpoint is None or deployment.endpoint.recorded:
            rows.append(_row(deployment, hardware, 0, 0, [], "recorded: nothing is asked"))
            continue
        plan = Plan(brief, deployment, items)
        keys = set(plan.keys()) - planned
        planned |= keys
        there = _answered(run / ANSWERS, keys)
        if path := cache_path(deployment):
            there |= _answered(path, keys)
        todo, seen = [], set(there)
        for call in plan:
            if call.key in keys and call.key not in seen:
                seen.add(call.key)
                todo.append((prompt_bytes(call), most_tokens(call)))
        rows.append(_row(deployment, hardware, len(keys), len(there), todo))
    if brief.evaluation.judge and brief.evaluation.kind in ("scoring", "judged", "comparison"):
        judge = judge_deployment(brief)
        todo = list(_judged(brief, deployments, items))
        rows.append(_row(judge, hardware, len(todo), 0, todo))
    return pd.DataFrame(rows, columns=COLUMNS)


def _answered(path: Path, keys: set[str]) -> set[str]:
    return {key for key, record in store.read(path, keys).items() if not record["error"]}


def _row(
    deployment: Deployment,
    hardware: pd.DataFrame,
    calls: int,
    cached: int,
    todo: list[tuple[int, int | None]],
    basis: str = "",
) -> tuple[Any, ...]:
    size = sum(n for n, _ in todo)
    most = [n for _, n in todo]
    longest = None if None in most else sum(n or 0 for n in most)
    low: float | None = None
    high: float | None = None
    if not basis:
        try:
            rate = price_of(deployment, hardware)
            basis = rate.basis
            if rate.usd_per_hour is not None:
                basis += "; by the hour, not counted toward max_usd"
            else:
                low = usd(rate, size / 5, sum(n != 0 for n in most))
                high = None if longest is None else usd(rate, size / 3, longest)
        except PlaybookError as error:
            basis = f"not known: {error}"
    tokens = round(size / BYTES_PER_TOKEN)
    return deployment.name, calls, cached, tokens, longest, low, high, basis


def judge_deployment(brief: Project) -> Deployment:
    """The judge as far as its price goes."""
    judge = brief.evaluation.judge
    assert judge is not None
    # Not validated: a judge may have a name of its own kind, such as gpt-5.
    return Deployment.model_construct(
        name="judge",
        model=judge.model,
        endpoint=judge.endpoint,
        hardware=judge.hardware,
        price=judge.price,
        options=judge.options,
    )


def _judged(
    brief: Project, deployments: list[Deployment], items: pd.DataFrame
) -> Iterable[tuple[int, int | None]]:
    """Size and longest answer of every call of the judge, with answers as long as they may be."""
    evaluation, judge = brief.evaluation, brief.evaluation.judge
    assert judge is not None
    shots = sum(len(shot.model_dump_json()) for shot in judge.shots)
    fixed = len(judge.system or "") + len(judge.user) + shots + 100
    longest = evaluation.max_tokens * BYTES_PER_TOKEN
    answers, calls = 1, len(deployments)
    if evaluation.kind == "comparison":
        from lib.comparison import matchups  # who is compared is decided there

        answers, calls = 2, 2 * len(matchups(deployments))
    for text, target in zip(items["input"], items["target"], strict=True):
        size = round(fixed + len(text.encode()) + len(target.encode()) + answers * longest)
        yield from [(size, judge.options.max_tokens)] * calls
    path = brief.folder / judge.calibration if judge.calibration else None
    if path is not None and path.is_file():
        for line in path.read_bytes().splitlines():
            if line.strip():
                yield fixed + len(line), judge.options.max_tokens
