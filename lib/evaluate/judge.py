"""The judge: a model that is asked about answers, as a deployment is asked about items.

What a candidate wrote is data for the judge and hostile: it is put into the brief's wording in
one pass, so a placeholder in it stays text, and it cannot end the place it stands in.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd

from lib.brief.deployment import Deployment, Options
from lib.brief.evaluation import Judge
from lib.brief.project import Project
from lib.endpoints import runner, store
from lib.endpoints.budget import Budget
from lib.endpoints.requests import Call
from lib.endpoints.serving import identity, request_options
from lib.errors import PlaybookError
from lib.evaluate.reasoning import visible

__all__ = ["READ", "as_deployment", "ask", "messages"]

PLACEHOLDER = re.compile(r"\{(input|target|output|first|second)\}")
TAG = re.compile(r"</?\s*([A-Za-z][\w-]*)[^<>]*>")
# Tokens such as <|im_end|> would end the turn itself: llama.cpp reads them inside a text too.
CONTROL = ("s", "bos", "eos", "start_of_turn", "end_of_turn")
READ = 10_000  # characters of a judge's answer that are read
NOT_A_WORD = re.compile(r"[^\w.-]+")


def as_deployment(judge: Judge) -> Deployment:
    """The judge as a deployment named `judge`, so that it is asked, priced and cached like one.

    Temperature 0, 16 tokens and no stop unless the judge's own options say otherwise: those of
    the candidates are not its own.

    Raises:
        PlaybookError: The endpoint is a file of recorded outputs.
    """
    if judge.endpoint.recorded:
        raise PlaybookError(
            "judge.endpoint: recorded outputs cannot judge; name an endpoint that answers"
        )
    own = judge.options.model_dump(exclude_none=True)
    known = re.fullmatch(r"[\w.-]+/[\w.-]+", judge.model)
    endpoint = judge.endpoint
    if not endpoint.local and not endpoint.model:
        endpoint = endpoint.model_copy(update={"model": judge.model})
    return Deployment(
        name="judge",
        model=judge.model if known else "judge/" + NOT_A_WORD.sub("-", judge.model),
        endpoint=endpoint,
        options=Options(**({"temperature": 0.0, "max_tokens": 16, "stop": []} | own)),
        hardware=judge.hardware,
        price=judge.price,
    )


def messages(judge: Judge, **texts: str) -> list[dict[str, str]]:
    """The chat turns of one judgement: system, worked examples, then what is judged.

    Args:
        judge: Of the brief.
        texts: `input`, `target`, and `output` or for a comparison `first` and `second`.
    """
    turns = [{"role": "system", "content": judge.system}] if judge.system else []
    for shot in judge.shots:
        verdict = judge.answer.replace("{verdict}", shot.verdict)
        turns.append({"role": "user", "content": _filled(judge.user, shot.model_dump())})
        turns.append({"role": "assistant", "content": verdict})
    return [*turns, {"role": "user", "content": _filled(judge.user, texts)}]


def _filled(template: str, texts: dict[str, str]) -> str:
    """The wording with its texts, none of which can pass for a part of the wording."""
    names = "|".join(re.escape(name) for name in {*TAG.findall(template), *CONTROL})
    opening = re.compile(rf"<(?=[|｜]|\s*/?\s*(?:{names})\b)", re.IGNORECASE)

    def safe(match: re.Match[str]) -> str:
        text = opening.sub("&lt;", texts.get(match[1], ""))
        # Further lines are indented, so none of them starts like a line of the wording or
        # closes a ``` fence (which four spaces prevent).
        return "\n    ".join(text.splitlines())

    return PLACEHOLDER.sub(safe, template)


def ask(
    brief: Project,
    rows: pd.DataFrame,
    run: Path,
    *,
    label: str = "verdicts",
    progress: bool = True,
    budget: Budget | None = None,
) -> pd.DataFrame:
    """Ask the judge about every row; equal questions are asked once, answers are kept.

    Args:
        brief: With `evaluation.judge`.
        rows: Texts to judge: those of `input target output first second` that there are.
        run: The run directory.
        label: What the progress bar counts.
        progress: Show it.
        budget: Judge calls count against the run's budget.

    Returns:
        The rows with `said`, the judge's answer without its reasoning, and `judge_error`, why
        there is none, or "".
    """
    judge = brief.evaluation.judge
    assert judge is not None
    deployment = as_deployment(judge)
    who, options = identity(deployment, brief.folder), request_options(brief, deployment)
    used = [c for c in ("input", "target", "output", "first", "second") if c in rows]
    bodies = [
        {"messages": messages(judge, **dict(zip(used, map(str, texts), strict=True))), **options}
        for texts in rows[used].itertuples(index=False)
    ]
    keys = [store.key_of(who, body) for body in bodies]
    calls = {key: Call(key, "chat", body) for key, body in zip(keys, bodies, strict=True)}
    records = runner.perform(
        [(deployment, list(calls.values()))],
        run,
        evaluation=brief.evaluation,
        label=label,
        progress=progress,
        budget=budget,
    )
    read = [_read(records[key], brief.evaluation.reasoning_tags) for key in keys]
    said, errors = zip(*read, strict=True) if read else ((), ())
    return rows.assign(
        said=pd.Series(said, index=rows.index, dtype=str),
        judge_error=pd.Series(errors, index=rows.index, dtype=str),
    )


def _read(record: dict[str, Any], tags: list[str]) -> tuple[str, str]:
    """The judge's answer and why it cannot be used; one that was cut off may lack its point."""
    said = visible(str(record["output"] or ""), tags).strip()[:READ]
    if record["error"]:
        return "", f"judge: {record['error']}"
    if record["finish_reason"] == "length":
        return said, "judge: cut off; raise judge.options.max_tokens or give judge.options.stop"
    if record["finish_reason"] in ("content_filter", "refusal"):
        return said, "judge: refused"
    return said, "" if said else "judge: empty answer"
