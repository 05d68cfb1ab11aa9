"""Ask every deployment every item: concurrent, resumable, nothing asked twice."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib import endpoints, tables
from lib.brief import Deployment, Project
from lib.endpoints import BYTES_PER_TOKEN, STORE, Budget, Plan
from lib.errors import PlaybookError
from lib.evaluate import kinds
from lib.evaluate.judge import as_deployment
from lib.evaluate.scoring import outcome_of
from lib.tables import rows

FACTS = """output finish_reason error retries prompt_tokens completion_tokens latency_s
    cached shared_with""".split()
COLUMNS = ["deployment", "repo_id", "item_id", "group", "target", *FACTS]


def plan(brief: Project, deployment: Deployment, items: pd.DataFrame) -> Plan:
    """All calls that a deployment of the brief is asked the items with, built once."""
    calls_of = kinds.of(brief.evaluation.kind).calls_of(brief, deployment)
    return Plan(endpoints.answer_identity(brief, deployment), calls_of, items)


def ask(
    brief: Project,
    deployments: list[Deployment],
    items: pd.DataFrame,
    run: Path,
    *,
    progress: bool = True,
    budget: Budget | None = None,
) -> pd.DataFrame:
    """Ask every deployment every item and return all answers.

    Answers are in `04_answers.jsonl` of the run the moment they arrive. Nothing is asked twice,
    but for what failed. A recorded file is read. Deployments of the same weights that are asked
    the same share their answers. Without a `budget` `evaluation.max_usd` makes one.

    Returns:
        One row per deployment and item, with `COLUMNS`. `output` is text: of tool calls a JSON
        list of `name` and raw `arguments`; of a ranking JSON of every document's score or raw
        answer. `cached` answers are from another run, with the latency measured then; one that
        is shared with the deployment in `shared_with` has no latency.

    Raises:
        PlaybookError: A key is unset, a server does not start, an endpoint refuses the key, or
            the budget is used up.
    """
    answer_of = kinds.of(brief.evaluation.kind).answer_of
    live = [d for d in deployments if d.endpoint and not d.endpoint.recorded]
    plans = {d.name: plan(brief, d, items) for d in live}
    records = {}
    if plans:
        calls: dict[str, Any] = {"evaluation": brief.evaluation, "progress": progress}
        calls["budget"] = budget or endpoints.budget_of(brief, run)
        records = endpoints.perform([(d, plans[d.name]) for d in live], run, **calls)
    asked_by: dict[str, str] = {}
    facts: list[dict[str, Any]] = []
    for deployment in deployments:
        if deployment.name not in plans:
            lines = endpoints.recorded_answers(deployment, brief.folder, items["item_id"].tolist())
            facts += [{**answer_of(brief, {}, [("", line)]), "shared_with": ""} for line in lines]
            continue
        for item, parts in zip(rows(items), plans[deployment.name].parts, strict=True):
            answer = answer_of(brief, item, [(part, records[key]) for part, key in parts])
            other = asked_by.get(parts[0][1], "")
            facts.append({**answer, "shared_with": other} | ({"latency_s": None} if other else {}))
        asked_by = dict.fromkeys(plans[deployment.name].keys(), deployment.name) | asked_by
    table = pd.DataFrame(facts, columns=FACTS)
    table["cached"] = table["cached"].eq(True)
    names = [(d.name, d.model) for d in deployments]
    asked = items.reindex(columns=["item_id", "group", "target"])
    who = pd.DataFrame(names, columns=["deployment", "repo_id"]).merge(asked, how="cross")
    return pd.concat([who, table], axis=1)


def visible_answers(brief: Project, answers: pd.DataFrame) -> pd.DataFrame:
    """The answers with `output` without reasoning, and why one is `unusable`, as `outcome_of`."""
    visible, tags = kinds.of(brief.evaluation.kind).visible, brief.evaluation.reasoning_tags
    texts = [visible(text, tags) if isinstance(text, str) else "" for text in answers["output"]]
    rest = zip(answers["error"], answers["finish_reason"], texts, strict=True)
    unusable = np.array([outcome_of(*row) for row in rest], dtype=object)
    return answers.assign(output=texts, unusable=unusable)


Size = tuple[int, int | None]  # bytes of a prompt, and tokens of an answer at most


def dry_run(
    brief: Project, deployments: list[Deployment], items: pd.DataFrame, run: Path
) -> pd.DataFrame:
    """How many calls and dollars an evaluation would take, before anything is asked.

    A prompt's tokens are its bytes by 4; `usd_low` counts 5 bytes a token and one token of output,
    `usd_high` 3 bytes and as many tokens as an answer may have. Retries are not in it.

    Returns:
        One row per deployment, and one for the judge: `deployment calls cached prompt_tokens
        completion_tokens usd_low usd_high basis`; calls include the cached ones, tokens and
        dollars do not. Dollars are missing where the price is by the hour or not known.
    """
    table, planned = [], set[str]()
    for deployment in deployments:
        if deployment.endpoint is None or deployment.endpoint.recorded:
            table.append(_row(deployment, 0, 0, []) | {"basis": "recorded: nothing is asked"})
            continue
        calls = {call.key: call for call in plan(brief, deployment, items)}
        keys = calls.keys() - planned
        planned |= keys
        answered = set[str]()
        for path in filter(None, (run / STORE, endpoints.cache_path(deployment))):
            records = endpoints.read_records(path, keys).items()
            answered |= {key for key, record in records if not record["error"]}
        left = [calls[key] for key in keys - answered]
        sizes = [(endpoints.prompt_bytes(call), endpoints.most_tokens(call)) for call in left]
        table.append(_row(deployment, len(keys), len(answered), sizes))
    if brief.evaluation.judge and kinds.of(brief.evaluation.kind).JUDGED_BY:
        judge_sizes = _judge_sizes(brief, deployments, items)
        judge = as_deployment(brief.evaluation.judge)
        table.append(_row(judge, len(judge_sizes), 0, judge_sizes))
    return pd.DataFrame(table)


def _row(deployment: Deployment, calls: int, cached: int, sizes: list[Size]) -> dict[str, Any]:
    prompt, answers = sum(size for size, _ in sizes), [most for _, most in sizes]
    longest = None if None in answers else sum(most or 0 for most in answers)
    row = {"deployment": deployment.name, "calls": calls, "cached": cached}
    row |= {"prompt_tokens": round(prompt / BYTES_PER_TOKEN), "completion_tokens": longest}
    row |= {"usd_low": None, "usd_high": None}
    try:
        rate = endpoints.price_of(deployment, tables.hardware())
    except PlaybookError as error:
        return row | {"basis": f"not known: {error}"}
    if rate.usd_per_hour is not None:
        return row | {"basis": f"{rate.basis}; by the hour, not counted toward max_usd"}
    high = None if longest is None else endpoints.usd(rate, prompt / 3, longest)
    low = endpoints.usd(rate, prompt / 5, sum(most != 0 for most in answers))
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
