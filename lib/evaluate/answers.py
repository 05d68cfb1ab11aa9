"""Ask every deployment every item: concurrent, resumable, nothing asked twice."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib import endpoints
from lib.brief import Deployment, Project
from lib.endpoints import Budget, Plan, answer_identity, budget_of, perform
from lib.evaluate import kinds
from lib.evaluate.scoring import outcome_of
from lib.tables import rows

FACTS = """output finish_reason error retries prompt_tokens completion_tokens latency_s
    cached shared_with""".split()
COLUMNS = ["deployment", "repo_id", "item_id", "group", "target", *FACTS]


def plan(brief: Project, deployment: Deployment, items: pd.DataFrame) -> Plan:
    """All calls that a deployment of the brief is asked the items with, built once.

    Raises:
        PlaybookError: A schema or tools file is not usable, or an option is not allowed.
    """
    calls_of = kinds.of(brief.evaluation.kind).calls_of(brief, deployment)
    return Plan(answer_identity(brief, deployment), calls_of, items)


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

    Answers go to `04_answers.jsonl` in the run directory the moment they arrive; what is
    there is not asked again unless the weights, the endpoint, the wording or the options
    changed. A failed call is asked again next time. A recorded file is read, not asked.
    Deployments of the same weights that are asked the same share their answers. The `budget` is
    shared with a judge; left out, `evaluation.max_usd` makes one.

    Returns:
        One row per deployment and item: `deployment repo_id item_id group target output
        finish_reason error retries prompt_tokens completion_tokens latency_s cached shared_with`.
        `output`
        is text: of tool calls a JSON list of `name` and raw `arguments`; of a ranking JSON text
        of the score, or of the raw answer, of every document. `cached` answers are from another
        run, with the latency measured then; one that is shared with the deployment in
        `shared_with` has no latency.

    Raises:
        PlaybookError: A key is unset, a server does not start, an endpoint refuses the key, or
            the budget is used up.
    """
    answer_of = kinds.of(brief.evaluation.kind).answer_of
    live = [d for d in deployments if d.endpoint and not d.endpoint.recorded]
    plans = {d.name: plan(brief, d, items) for d in live}
    records = {}
    if plans:
        jobs, budget = [(d, plans[d.name]) for d in live], budget or budget_of(brief, run)
        evaluation = brief.evaluation
        records = perform(jobs, run, evaluation=evaluation, progress=progress, budget=budget)
    shown, asked_by = rows(items), dict[str, str]()
    facts: list[dict[str, Any]] = []
    for deployment in deployments:
        if deployment.name not in plans:
            lines = endpoints.recorded_answers(deployment, brief.folder, items["item_id"].tolist())
            facts += [answer_of(brief, {}, [("", line)]) for line in lines]
            continue
        for item, parts in zip(shown, plans[deployment.name].parts, strict=True):
            answer = answer_of(brief, item, [(part, records[key]) for part, key in parts])
            other = asked_by.get(parts[0][1], "")
            shared = {"shared_with": other, "latency_s": None} if other else {"shared_with": ""}
            facts.append({**answer, **shared})
        asked_by = dict.fromkeys(plans[deployment.name].keys(), deployment.name) | asked_by
    who = [
        {"deployment": d.name, "repo_id": d.model, **item}
        for d in deployments
        for item in rows(items, ["item_id", "group", "target"])
    ]
    table = pd.DataFrame(facts, columns=FACTS)
    table["cached"] = table["cached"].map(lambda cached: cached is True)
    return pd.concat([pd.DataFrame(who), table], axis=1).reindex(columns=COLUMNS)


def visible_answers(brief: Project, answers: pd.DataFrame) -> pd.DataFrame:
    """The answers with `output` as far as it is visible, and why an answer is `unusable`.

    Reasoning is taken out. `unusable` is failed, refused, truncated, empty, or None.
    """
    visible, tags = kinds.of(brief.evaluation.kind).visible, brief.evaluation.reasoning_tags
    texts = [visible(text, tags) if isinstance(text, str) else "" for text in answers["output"]]
    rest = zip(answers["error"], answers["finish_reason"], texts, strict=True)
    unusable = np.array([outcome_of(*row) for row in rest], dtype=object)
    return answers.assign(output=texts, unusable=unusable)
