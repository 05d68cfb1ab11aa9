"""The judge: a model that is asked about answers, as a deployment is asked about items.

What a candidate wrote is data for the judge and hostile: it is put into the brief's wording in
one pass, so a placeholder in it stays text, and it cannot end the place it stands in.
"""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from lib import endpoints, tables
from lib.brief import Deployment, Judge, Options, Project
from lib.endpoints import Call, answer_identity, request_options
from lib.errors import PlaybookError
from lib.reading import visible

TEXTS = ["input", "target", "output", "first", "second"]
PLACEHOLDER = re.compile(rf"\{{({'|'.join(TEXTS)})\}}")
TAG = re.compile(r"</?\s*([A-Za-z][\w-]*)[^<>]*>")
# Tokens such as <|im_end|> would end the turn itself: llama.cpp reads them inside a text too.
CONTROL = ("s", "bos", "eos", "start_of_turn", "end_of_turn")
READ = 10_000  # characters of a judge's answer that are read


def as_deployment(judge: Judge) -> Deployment:
    """The judge as a deployment named `judge`, so that it is asked, priced and cached like one.

    Temperature 0, 16 tokens and no stop unless its own options say otherwise.

    Raises:
        PlaybookError: The endpoint is a file of recorded outputs.
    """
    endpoint, model = judge.endpoint, judge.model
    if endpoint.recorded:
        raise PlaybookError(
            "judge.endpoint: recorded outputs cannot judge; name an endpoint that answers"
        )
    if not endpoint.local and not endpoint.model:
        endpoint = endpoint.model_copy(update={"model": model})
    options = {"temperature": 0.0, "max_tokens": 16, "stop": []}
    is_repo = re.fullmatch(r"[\w.-]+/[\w.-]+", model)
    return Deployment(
        name="judge",
        model=model if is_repo else "judge/" + re.sub(r"[^\w.-]+", "-", model),
        endpoint=endpoint,
        options=Options(**options | judge.options.model_dump(exclude_none=True)),
        hardware=judge.hardware,
        price=judge.price,
    )


def messages(judge: Judge, **texts: str) -> list[dict[str, str]]:
    """The chat turns of one judgement: system, worked examples, then what is judged.

    `texts` are `input`, `target`, and `output` or for a comparison `first` and `second`.
    """
    turns = [("system", judge.system)] if judge.system else []
    for shot in judge.shots:
        turns.append(("user", _filled(judge.user, shot.model_dump())))
        turns.append(("assistant", judge.answer.replace("{verdict}", shot.verdict)))
    turns.append(("user", _filled(judge.user, texts)))
    return [{"role": role, "content": content} for role, content in turns]


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
    brief: Project, rows: pd.DataFrame, run: Path, *, label: str = "verdicts", **calls: Any
) -> pd.DataFrame:
    """Ask the judge about every row; equal questions are asked once, answers are kept in `run`.

    Rows hold texts: those of `input target output first second` that there are. A progress bar
    counts `label`; `calls` are the `progress` and `budget` of `runner.perform`.

    Returns:
        The rows with `said`, the judge's answer without its reasoning, and `judge_error`, why
        there is none, or "".
    """
    judge = brief.evaluation.judge
    assert judge is not None
    deployment = as_deployment(judge)
    who, options = answer_identity(brief, deployment), request_options(brief, deployment)
    texts = rows[[name for name in TEXTS if name in rows]].astype(str)
    bodies = [{"messages": messages(judge, **row), **options} for row in tables.rows(texts)]
    keys = [endpoints.key_of(who, body) for body in bodies]
    once = [Call(key, "chat", body) for key, body in dict(zip(keys, bodies, strict=True)).items()]
    jobs = [(deployment, once)]
    records = endpoints.perform(jobs, run, evaluation=brief.evaluation, label=label, **calls)
    read = [_read(records[key], brief.evaluation.reasoning_tags) for key in keys]
    table = pd.DataFrame(read, rows.index, columns=["said", "judge_error"], dtype=str)
    return rows.assign(said=table["said"], judge_error=table["judge_error"])


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
