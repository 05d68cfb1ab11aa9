"""What an evaluation would take, before anything is asked: calls, tokens and dollars."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from lib import tables
from lib.brief.project import Deployment, Project
from lib.endpoints import store
from lib.endpoints.budget import ANSWERS, BYTES_PER_TOKEN, most_tokens, prompt_bytes, usd
from lib.endpoints.price import price_of
from lib.endpoints.requests import cache_path
from lib.errors import PlaybookError
from lib.evaluate import kinds
from lib.evaluate.answers import plan
from lib.evaluate.judge import as_deployment

__all__ = ["dry_run"]

COLUMNS = "deployment calls cached prompt_tokens completion_tokens usd_low usd_high basis".split()


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
        calls = plan(brief, deployment, items)
        keys = set(calls.keys()) - planned
        planned |= keys
        there = _answered(run / ANSWERS, keys)
        if path := cache_path(deployment):
            there |= _answered(path, keys)
        todo, seen = [], set(there)
        for call in calls:
            if call.key in keys and call.key not in seen:
                seen.add(call.key)
                todo.append((prompt_bytes(call), most_tokens(call)))
        rows.append(_row(deployment, hardware, len(keys), len(there), todo))
    if brief.evaluation.judge and kinds.of(brief.evaluation.kind).JUDGED_BY:
        judge = as_deployment(brief.evaluation.judge)
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


def _judged(
    brief: Project, deployments: list[Deployment], items: pd.DataFrame
) -> Iterable[tuple[int, int | None]]:
    """Size and longest answer of every call of the judge, with answers as long as they may be."""
    evaluation, judge = brief.evaluation, brief.evaluation.judge
    assert judge is not None
    shots = sum(len(shot.model_dump_json()) for shot in judge.shots)
    fixed = len(judge.system or "") + len(judge.user) + shots + 100
    longest = evaluation.max_tokens * BYTES_PER_TOKEN
    calls, answers = kinds.of(evaluation.kind).judge_calls(deployments)
    for text, target in zip(items["input"], items["target"], strict=True):
        size = round(fixed + len(text.encode()) + len(target.encode()) + answers * longest)
        yield from [(size, judge.options.max_tokens)] * calls
    path = brief.folder / judge.calibration if judge.calibration else None
    if path is not None and path.is_file():
        for line in path.read_bytes().splitlines():
            if line.strip():
                yield fixed + len(line), judge.options.max_tokens
