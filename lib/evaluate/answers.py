"""Ask every deployment every item: concurrent, resumable, nothing asked twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lib.brief.project import Deployment, Project
from lib.endpoints import budget as spending
from lib.endpoints.requests import Plan
from lib.endpoints.runner import GIVE_UP_AFTER, STORE, perform, run_blocking
from lib.errors import PlaybookError
from lib.evaluate import recorded

__all__ = ["GIVE_UP_AFTER", "STORE", "admitted", "ask", "run_blocking"]

FACTS = """output finish_reason error retries prompt_tokens completion_tokens latency_s
    cached""".split()
COLUMNS = ["deployment", "repo_id", "item_id", "group", "target", *FACTS]
NOT_ASKED = ("published", "inspect")  # kinds whose figures come from elsewhere


def ask(
    brief: Project,
    deployments: list[Deployment],
    items: pd.DataFrame,
    run: Path,
    *,
    progress: bool = True,
    budget: spending.Budget | None = None,
) -> pd.DataFrame:
    """Ask every deployment every item and return all answers.

    Answers go to `04_answers.jsonl` in the run directory the moment they arrive; what is
    there is not asked again unless the weights, the endpoint, the wording or the options
    changed. A failed call is asked again next time. A recorded file is read, not asked.

    Args:
        brief: The brief; of kind `published` or `inspect` nothing is asked.
        deployments: Those of the brief that may be asked, from `admitted`.
        items: From `items.load_items`.
        run: The run directory.
        progress: Show a bar with rate and time left.
        budget: Shared with a judge; left out, `evaluation.max_usd` makes one.

    Returns:
        One row per deployment and item: `deployment repo_id item_id group target output
        finish_reason error retries prompt_tokens completion_tokens latency_s cached`. `output`
        is text: of tool calls a JSON list of `name` and raw `arguments`; of a ranking JSON text
        of the score, or of the raw answer, of every document. An item that took several calls has
        their summed tokens and retries and the longest latency. `cached` answers are from another
        run, with the latency measured then.

    Raises:
        PlaybookError: A key is unset, a server does not start, an endpoint refuses the key, or
            the budget is used up.
    """
    if brief.evaluation.kind in NOT_ASKED:
        deployments = []
    asked = {d.name: d for d in deployments if not (d.endpoint and d.endpoint.recorded)}
    plans = {name: Plan(brief, deployment, items) for name, deployment in asked.items()}
    records: Mapping[str, dict[str, Any]] = {}
    if plans:
        records = perform(
            [(asked[name], plan) for name, plan in plans.items()],
            run,
            evaluation=brief.evaluation,
            progress=progress,
            budget=budget or spending.budget_of(brief, run),
        )
    ids = items["item_id"].tolist()
    columns: dict[str, list[Any]] = {name: [] for name in FACTS}
    for deployment in deployments:
        if deployment.name in plans:
            facts = _of_plan(brief, plans[deployment.name], items, records)
        else:
            facts = map(_texts, recorded.load(deployment, brief.folder, ids))
        for row in facts:
            for name in FACTS:
                columns[name].append(row[name])
    n = len(deployments)
    groups = items["group"].tolist() if "group" in items else [""] * len(ids)
    table = {
        "deployment": [d.name for d in deployments for _ in ids],
        "repo_id": [d.model for d in deployments for _ in ids],
        "item_id": ids * n,
        "group": groups * n,
        "target": items["target"].tolist() * n,
        **columns,
    }
    return pd.DataFrame(table, columns=COLUMNS)


def admitted(brief: Project, verdicts: pd.DataFrame) -> list[Deployment]:
    """The deployments that `admission.admit` lets through.

    Raises:
        PlaybookError: It lets none through.
    """
    names = set(verdicts.loc[verdicts["admitted"] == "yes", "deployment"])
    if not names:
        first = verdicts.iloc[0]
        raise PlaybookError(
            f"no deployment of {brief.name!r} may be asked; {first['deployment']}: {first['why']}"
        )
    return [d for d in brief.deployments if d.name in names]


def _of_plan(
    brief: Project, plan: Plan, items: pd.DataFrame, records: Mapping[str, dict[str, Any]]
) -> Any:
    """The facts of every item, in order, from the records of its calls."""
    ranked = brief.evaluation.kind == "reranking"
    documents = items["documents"] if ranked else items["item_id"]
    for parts, item_id, shown in zip(plan.parts, items["item_id"], documents, strict=True):
        if not ranked:
            yield _texts(records[parts[0][1]])
        else:
            own = [(part, records[key]) for part, key in parts]
            yield _ranking(brief, own, {"item_id": item_id, "documents": shown})


def _texts(record: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of one record, with the tools it calls as the output."""
    facts = {name: record.get(name) for name in FACTS} | {"cached": bool(record.get("cached"))}
    if record.get("tool_calls"):
        facts["output"] = json.dumps(record["tool_calls"], ensure_ascii=False)
    return facts


def _ranking(
    brief: Project, parts: list[tuple[str, dict[str, Any]]], item: Mapping[str, Any]
) -> dict[str, Any]:
    """The facts of an item whose documents were ranked, by one call or by one each."""
    from lib.evaluate import reranking

    method = brief.evaluation.ranking.method
    records = [record for _, record in parts]
    facts = _texts(records[0])
    if method == "listwise" or not records:
        return facts
    failed = [record for record in records if record["error"]]
    if failed:
        return facts | {"error": failed[0]["error"], "output": None}
    if method == "rerank":
        names = [name for name, _ in reranking.documents(item)]
        scores = json.loads(records[0]["output"])
        known = {d: s for d, s in zip(names, scores, strict=False) if s is not None}
        return facts | {"output": json.dumps(known, ensure_ascii=False)}
    for name in ("retries", "prompt_tokens", "completion_tokens"):
        values = [record[name] for record in records]
        facts[name] = None if None in values else sum(values)
    reasons = [record["finish_reason"] for record in records]
    latencies = [record["latency_s"] for record in records if record["latency_s"] is not None]
    return facts | {
        "output": json.dumps({d: r["output"] for d, r in parts}, ensure_ascii=False),
        "finish_reason": next((r for r in reasons if r != "stop"), reasons[0]),
        "latency_s": max(latencies, default=None),
        "cached": all(bool(record["cached"]) for record in records),
    }
