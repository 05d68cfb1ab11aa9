"""Ask every deployment every item: concurrent, resumable, nothing asked twice."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib import endpoints, tables
from lib.brief import Deployment, Project
from lib.endpoints import BYTES_PER_TOKEN, STORE, Call, Plan, request_options
from lib.errors import PlaybookError
from lib.evaluate import kinds
from lib.evaluate.judge import as_deployment, judge_of, load_labelled, messages
from lib.evaluate.scoring import outcome_of
from lib.tables import Row, number, rows

FACTS = """output finish_reason asked_by error retries prompt_tokens completion_tokens cached_tokens
    latency_s cached shared_with served_model fingerprint provider asked_model""".split()
COLUMNS = ["deployment", "repo_id", "item_id", "group", "target", *FACTS]


def plan(brief: Project, deployment: Deployment, items: pd.DataFrame) -> Plan:
    """All calls that a deployment of the brief is asked the items with, built once."""
    calls_of = kinds.of(brief.evaluation.kind).calls_of(brief, deployment)
    return Plan(endpoints.answer_identity(brief, deployment), calls_of, items)


def ask(
    brief: Project, deployments: list[Deployment], items: pd.DataFrame, run: Path, **how: Any
) -> pd.DataFrame:
    """Ask every deployment every item, as `endpoints.perform` does; what is recorded is read.

    Returned is a row per deployment and item, with `COLUMNS`. `output` is text: of tool calls a
    JSON list of `name` and raw `arguments`; of a ranking JSON of every document's score or raw
    answer. `cached` answers are from another run; one that is `shared_with` has no latency.
    """
    answer_of = kinds.of(brief.evaluation.kind).answer_of
    live = [d for d in deployments if d.endpoint and not d.endpoint.recorded]
    plans = {d.name: plan(brief, d, items) for d in live}
    records = {}
    if plans:
        jobs = [(d, plans[d.name]) for d in live]
        records = endpoints.perform(jobs, run, brief=brief, **how)
    asked_by, facts = dict[str, str](), list[dict[str, Any]]()
    for deployment in deployments:
        if deployment.name not in plans:
            lines = endpoints.recorded_answers(deployment, brief.folder, items["item_id"].tolist())
            facts += [{**answer_of(brief, {}, [("", line)]), "shared_with": ""} for line in lines]
            continue
        for item, parts in zip(rows(items), plans[deployment.name].parts, strict=True):
            answer = answer_of(brief, item, [(part, records[key]) for part, key in parts])
            other = asked_by.get(parts[0][1], "")
            answer = {**answer, "asked_model": answer.get("served")}
            facts.append({**answer, "shared_with": other} | ({"latency_s": None} if other else {}))
        asked_by = dict.fromkeys(plans[deployment.name].keys(), deployment.name) | asked_by
    table = pd.DataFrame(facts, columns=FACTS)
    names = [(d.name, d.model) for d in deployments]
    item_columns = items.reindex(columns=["item_id", "group", "target"])
    who = pd.DataFrame(names, columns=["deployment", "repo_id"]).merge(item_columns, how="cross")
    return pd.concat([who, table.assign(cached=table["cached"].eq(True))], axis=1)


def visible_answers(brief: Project, answers: pd.DataFrame) -> pd.DataFrame:
    """The answers with `output` without reasoning, and why one is `unusable`, as `outcome_of`."""
    visible, tags = kinds.of(brief.evaluation.kind).visible, brief.evaluation.reasoning_tags
    texts = [visible(text, tags) if isinstance(text, str) else "" for text in answers["output"]]
    rest = zip(answers["error"], answers["finish_reason"], texts, strict=True)
    unusable = np.array([outcome_of(*row) for row in rest], dtype=object)
    return answers.assign(output=texts, unusable=unusable)


def dry_run(
    brief: Project, deployments: list[Deployment], items: pd.DataFrame, run: Path
) -> pd.DataFrame:
    """How many calls and dollars an evaluation would take, before anything is asked.

    A row per deployment, and one for the judge: `deployment calls cached prompt_tokens
    completion_tokens usd_low usd_high basis`; calls include the cached ones, tokens and dollars do
    not. A prompt's tokens are its bytes by 4; `usd_low` counts 5 bytes a token and one token of
    output, `usd_high` 3 bytes and as many tokens as an answer may have. Unknown is missing.
    """
    table, planned, kind = [], set[str](), kinds.of(brief.evaluation.kind)
    for deployment in deployments:
        if deployment.endpoint is None or deployment.endpoint.recorded:
            basis = f"{'recorded' if deployment.endpoint else 'published'}: nothing is asked"
            if deployment.endpoint and kind.ASKS_ITEMS:
                ids = items["item_id"].tolist()
                strangers = endpoints.recorded_elsewhere(deployment, brief.folder, ids)
                basis += f"; {strangers}" * bool(strangers)
            table.append(forecast(deployment, []) | {"basis": basis})
            continue
        if kind.UNPLANNED:
            blank = dict.fromkeys(forecast(deployment, [])) | {"deployment": deployment.name}
            table.append(blank | {"basis": f"not known: {kind.UNPLANNED}"})
            continue
        calls = {call.key: call for call in plan(brief, deployment, items)}
        keys = calls.keys() - planned
        planned |= keys
        answered = set[str]()
        for path in filter(None, (run / STORE, endpoints.cache_path(deployment))):
            records = endpoints.read_records(path, keys).items()
            answered |= {key for key, record in records if not record["error"]}
        left = [calls[key] for key in keys - answered]
        table.append(forecast(deployment, left, cached=len(answered)))
    if brief.evaluation.judge and kind.JUDGED_BY:
        calls_of_judge, quoted = _judge_calls(brief, deployments, items)
        table.append(forecast(as_deployment(judge_of(brief)), calls_of_judge, quoted=quoted))
    return pd.DataFrame(table)


def spending(run: Path) -> list[str]:
    """What the evaluation has cost so far, apart from serving: a sentence for who was asked.

    The candidates' calls and the judge's stand apart; a call's dollars are those of all its tries.
    """
    columns = ["deployment", "cached", "retries", "usd"]
    records = pd.DataFrame(endpoints.read_records(run / STORE).values(), columns=columns)
    records = records.astype({"retries": float, "usd": float})
    calls_made, sentences = records[~records["cached"].astype(bool)], list[str]()
    judged = calls_made["deployment"].eq("judge")
    for who, calls in ("the deployments", calls_made[~judged]), ("the judge", calls_made[judged]):
        unpriced = calls["usd"].isna().sum()
        usd = f", ${number(calls['usd'].sum())} at token prices" * bool(calls["usd"].sum())
        usd += f", {unpriced:,} at no known price" * bool(unpriced)
        told = f"Asked of {who}: {len(calls):,} calls, {calls['retries'].sum():,.0f} tries again"
        sentences += [f"{told}{usd}."] * (len(calls) > 0)
    return sentences


def forecast(
    deployment: Deployment, calls: list[Call], *, cached: int = 0, quoted: float = 0.0
) -> dict[str, Any]:
    """A row of `dry_run`, of calls still to be made, which will quote so many bytes at most."""
    least = sum(map(endpoints.prompt_bytes, calls))
    most, answers = least + quoted, [endpoints.most_tokens(call) for call in calls]
    longest = None if None in answers else sum(tokens or 0 for tokens in answers)
    row: Row = {"deployment": deployment.name, "calls": len(calls) + cached, "cached": cached}
    row["prompt_tokens"] = None if math.isnan(most) else round(most / BYTES_PER_TOKEN)
    row |= {"completion_tokens": longest, "usd_low": None, "usd_high": None}
    try:
        rate = endpoints.price_of(deployment, tables.hardware())
    except PlaybookError as error:
        return row | {"basis": f"not known: {error}"}
    if rate.usd_per_hour is not None:
        return row | {"basis": f"{rate.basis}; by the hour, not counted toward max_usd"}
    high = None if longest is None else endpoints.usd(rate, most / 3, longest)
    low = endpoints.usd(rate, least / 5, sum(tokens != 0 for tokens in answers))
    return row | {"usd_low": low, "usd_high": high, "basis": rate.basis}


def _judge_calls(
    brief: Project, deployments: list[Deployment], items: pd.DataFrame
) -> tuple[list[Call], float]:
    """The judge's calls without the answers that it sees, and the most bytes of those (or NaN)."""
    kind, judge = kinds.of(brief.evaluation.kind), judge_of(brief)
    options = request_options(brief, as_deployment(judge))

    def call(**texts: str) -> Call:
        return Call("", "chat", {"messages": messages(judge, **texts), **options})

    pairs = kind.judge_calls(deployments)
    blank = dict.fromkeys(("output", "first", "second"), "")
    calls = [call(**item | blank) for item in rows(items)] * len(pairs)
    longest = {d.name: _longest(brief, d, items) for d in deployments}
    places = [entry for places in pairs for entry in places.items()]
    quoted = sum(judge.user.count(f"{{{place}}}") * longest[name] for place, name in places)
    labelled = load_labelled(brief) if kind.read_verdicts else pd.DataFrame()
    return calls + [call(**row) for row in rows(labelled)], quoted


def _longest(brief: Project, deployment: Deployment, items: pd.DataFrame) -> float:
    """The most bytes that its answers to all items can have; NaN where there is no limit."""
    if deployment.endpoint and deployment.endpoint.recorded:
        lines = endpoints.recorded_answers(deployment, brief.folder, items["item_id"].tolist())
        return sum(len((line["output"] or "").encode()) for line in lines)
    most = endpoints.most_tokens(Call("", "chat", request_options(brief, deployment)))
    return math.nan if most is None else most * BYTES_PER_TOKEN * len(items)
