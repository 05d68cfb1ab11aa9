"""What an evaluation would take, before anything is asked: calls, tokens and dollars."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

from lib import endpoints, tables
from lib.brief import Deployment, Project
from lib.endpoints import (
    BYTES_PER_TOKEN,
    STORE,
    cache_path,
    most_tokens,
    price_of,
    prompt_bytes,
    usd,
)
from lib.errors import PlaybookError
from lib.evaluate import kinds
from lib.evaluate.answers import plan
from lib.evaluate.judge import as_deployment

Size = tuple[int, int | None]  # bytes of a prompt, and tokens of an answer at most


def dry_run(
    brief: Project, deployments: list[Deployment], items: pd.DataFrame, run: Path
) -> pd.DataFrame:
    """How many calls and dollars an evaluation would take, before anything is asked.

    A prompt's tokens are its bytes by 4; `usd_low` counts 5 bytes a token and one token of output,
    `usd_high` 3 bytes and as many tokens as an answer may have. Retries are not in it, nor what
    this run or another has answered. A judge is asked about answers and calibration items.

    Returns:
        One row per deployment, and one for the judge: `deployment calls cached prompt_tokens
        completion_tokens usd_low usd_high basis`; calls include the cached ones, tokens and
        dollars do not. Dollars are missing where the price is by the hour or not known.
    """
    rows, planned = [], set[str]()
    for deployment in deployments:
        if deployment.endpoint is None or deployment.endpoint.recorded:
            rows.append(_row(deployment, 0, 0, []) | {"basis": "recorded: nothing is asked"})
            continue
        calls = plan(brief, deployment, items)
        keys = set(calls.keys()) - planned
        planned |= keys
        files = [path for path in (run / STORE, cache_path(deployment)) if path]
        records = [
            record for path in files for record in endpoints.read_records(path, keys).items()
        ]
        answered = {key for key, record in records if not record["error"]}
        left = keys - answered
        sizes = {c.key: (prompt_bytes(c), most_tokens(c)) for c in calls if c.key in left}
        rows.append(_row(deployment, len(keys), len(answered), sizes.values()))
    if brief.evaluation.judge and kinds.of(brief.evaluation.kind).JUDGED_BY:
        judge_sizes = _judge_sizes(brief, deployments, items)
        judge = as_deployment(brief.evaluation.judge)
        rows.append(_row(judge, len(judge_sizes), 0, judge_sizes))
    return pd.DataFrame(rows)


def _row(
    deployment: Deployment, calls: int, cached: int, sizes: Collection[Size]
) -> dict[str, Any]:
    prompt, answers = sum(size for size, _ in sizes), [most for _, most in sizes]
    longest = None if None in answers else sum(most or 0 for most in answers)
    row = {"deployment": deployment.name, "calls": calls, "cached": cached}
    row |= {"prompt_tokens": round(prompt / BYTES_PER_TOKEN), "completion_tokens": longest}
    row |= {"usd_low": None, "usd_high": None}
    try:
        rate = price_of(deployment, tables.hardware())
    except PlaybookError as error:
        return row | {"basis": f"not known: {error}"}
    if rate.usd_per_hour is not None:
        return row | {"basis": f"{rate.basis}; by the hour, not counted toward max_usd"}
    high = None if longest is None else usd(rate, prompt / 3, longest)
    low = usd(rate, prompt / 5, sum(most != 0 for most in answers))
    return row | {"usd_low": low, "usd_high": high, "basis": rate.basis}


def _judge_sizes(brief: Project, deployments: list[Deployment], items: pd.DataFrame) -> list[Size]:
    """Of every call of the judge, with answers as long as they may be."""
    evaluation, judge = brief.evaluation, brief.evaluation.judge
    assert judge is not None
    shots = sum(len(shot.model_dump_json()) for shot in judge.shots)
    fixed = len(judge.system or "") + len(judge.user) + shots + 100
    calls, answers = kinds.of(evaluation.kind).judge_calls(deployments)
    longest = fixed + answers * evaluation.max_tokens * BYTES_PER_TOKEN
    texts = [text.encode() for text in items["input"] + items["target"]]
    sizes = [round(longest + len(text)) for text in texts for _ in range(calls)]
    path = brief.folder / judge.calibration if judge.calibration else None
    labelled = path.read_bytes().splitlines() if path and path.is_file() else []
    sizes += [fixed + len(line) for line in labelled if line.strip()]
    return [(size, judge.options.max_tokens) for size in sizes]
