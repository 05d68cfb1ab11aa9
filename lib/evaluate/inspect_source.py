"""Inspect as a source of scores: any of its tasks is run, or its log read (`endpoint.recorded`)."""

import contextlib
import importlib
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field

from lib.artifacts import path_name, write_bytes
from lib.brief import Deployment, Project, Section
from lib.endpoints import identity, key_of, recorded_path, scrub, serving
from lib.errors import PlaybookError, did_you_mean
from lib.evaluate.kinds import options_of
from lib.evaluate.scoring import MAX_FAILED_SHARE, metric_row
from lib.json_values import text_of
from lib.replies import usage_of
from lib.untrusted import as_text, without

ASKS_ITEMS = False
UNPLANNED = "the task decides what it asks"
NOT_READ = {"messages", "store", "attachments", "events"}
WORDS = {"c": 1.0, "p": 0.5, "i": 0.0, "n": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
EVALUATE = "import inspect_ai, json, sys; inspect_ai.eval(**json.load(sys.stdin))"


class InspectTask(Section):
    """A task of Inspect, by name (`inspect_evals/gsm8k`) or file (`tasks.py@mine`)."""

    task: str = Field(min_length=1)
    args: dict[str, Any] = {}
    limit: int | None = Field(default=None, ge=1)
    metric: str | None = None


class Options(Section):
    """The task that is run."""

    inspect: InspectTask


def gather(brief: Project, deployments: list[Deployment], run: Path) -> pd.DataFrame:
    """The samples of the brief's task, run with every deployment or read, as answers.

    Of the brief only the concurrency, timeout and retries are used, and a deployment's `options`.
    """
    how = {"metric": options_of(brief).inspect.metric, "group": brief.evaluation.group}
    logs = {d.name: read_log(_log(brief, d, run), d, **how) for d in deployments}
    if len(tasks := {log.attrs["task"] for log in logs.values()}) > 1:
        raise PlaybookError(f"only logs of one task can be compared, not of {sorted(tasks)}")
    return pd.concat(logs.values(), ignore_index=True)


def _log(brief: Project, deployment: Deployment, run: Path) -> Path:
    """The log of the task: recorded, or made now or before."""
    task = options_of(brief).inspect
    if deployment.endpoint and deployment.endpoint.recorded:
        return recorded_path(deployment, brief.folder)
    if brief.evaluation.max_usd is not None:
        raise PlaybookError("kind 'inspect' cannot keep max_usd: use evaluation.inspect.limit")
    _reader()
    # The name says what is run and on what; a local server has another address every time.
    code = brief.folder / task.task.partition("@")[0]
    source = code.read_text(encoding="utf-8", errors="replace") if code.is_file() else ""
    parts = deployment.options.model_dump(), task.model_dump(exclude={"metric"}), source
    key = key_of(identity(deployment, threads=True), *parts)[:12]
    path = run / "04_inspect" / f"{deployment.name}-{key}.json"
    with contextlib.suppress(PlaybookError):  # there is none yet, or it cannot be read
        if (read_log(path, deployment)["error"] != "").mean() <= MAX_FAILED_SHARE:
            return path
    local = serving(deployment, logs=run / "logs", context_tokens=brief.size.context_tokens)
    with local as served, tempfile.TemporaryDirectory() as place:
        env = {name: text for name, text in os.environ.items() if not name.startswith("INSPECT_")}
        env |= {"PLAYBOOK_BASE_URL": served.base_url, "PLAYBOOK_API_KEY": served.key or "none"}
        # Traces, which may hold what an endpoint sends back, go where they are thrown away.
        env |= {"XDG_DATA_HOME": f"{place}/data", "INSPECT_TRACE_FILE": f"{place}/trace"}
        if served.base_url.startswith("http://127.0.0.1"):
            env["NO_PROXY"] = env["no_proxy"] = "127.0.0.1"
        # In a process of its own: Inspect changes the event loop and the environment.
        settings = _settings(brief, deployment, served.model) | {"log_dir": f"{place}/logs"}
        how: dict[str, Any] = {"input": json.dumps(settings), "text": True, "errors": "replace"}
        how |= {"cwd": brief.folder, "env": env, "capture_output": True}
        process = subprocess.run([sys.executable, "-c", EVALUATE], **how)
        logs = [log.read_bytes() for log in Path(place).glob("logs/*.json")]
    if process.returncode or len(logs) != 1:
        last = (process.stdout + process.stderr).strip().rpartition("\n")[2]
        why = scrub(last, served) or f"{len(logs)} logs; name one task"
        subject = f"evaluation.inspect.task {task.task!r} did not run with {deployment.name!r}"
        raise PlaybookError(f"{subject}: {why}")
    write_bytes(path, without(served.secrets, logs[0].decode(errors="replace")).encode())
    return path


def _settings(brief: Project, deployment: Deployment, model: str) -> dict[str, Any]:
    """What `inspect_ai.eval` is called with."""
    evaluation, task = brief.evaluation, options_of(brief).inspect
    seconds, total = evaluation.timeout_s, evaluation.total_timeout_s
    connections = deployment.limits.concurrency or evaluation.concurrency
    settings = {"tasks": task.task, "task_args": task.args, "limit": task.limit}
    settings |= {"model": f"openai-api/playbook/{model}", "max_connections": connections}
    settings |= {"max_retries": evaluation.max_retries, "fail_on_error": False}
    settings |= {"attempt_timeout": math.ceil(seconds), "timeout": total and math.ceil(total)}
    settings |= {"display": "none", "log_format": "json", "log_realtime": False}
    options = deployment.options.model_dump(exclude_none=True)
    return settings | {{"stop": "stop_seqs"}.get(key, key): v for key, v in options.items() if v}


def _reader() -> Any:
    try:  # an optional extra, and seconds to import
        return importlib.import_module("inspect_ai.log").read_eval_log
    except ImportError:
        why = "evaluation.kind 'inspect' needs Inspect, for its logs too"
        raise PlaybookError(f"{why}: run `pip install inspect-ai` in this environment") from None


def read_log(
    path: Path, deployment: Deployment, *, metric: str | None = None, group: str | None = None
) -> pd.DataFrame:
    """Read an Inspect log as answers: those of `answers.ask` with `input scorer graded`.

    A sample with an error, or without a score, is a failed call. `metric` names the scorer that
    counts (the first), or `scorer/key` where its values are mappings; `group` the field of the
    samples' metadata that says which belong together, without which the epochs of one sample do.
    """
    where, read = path_name(path), _reader()
    try:
        log = read(path, exclude_fields=NOT_READ)
    except Exception as error:  # a damaged file raises anything
        why = as_text(str(error)) or type(error).__name__
        raise PlaybookError(f"{where}: not a readable Inspect log: {why}") from None
    if log.status != "success" or not log.samples:
        why = f"status {log.status!r}{f': {log.error.message[:200]}' if log.error else ''}"
        raise PlaybookError(f"{where}: this run did not finish, or has no samples ({why})")
    scorers = [one.scorer for one in log.results.scores] if log.results else []
    name = metric or "".join(scorers[:1])
    choice = (name, "") if name in scorers else name.rpartition("/")[::2]
    if scorers and choice[0] not in scorers:
        hint = did_you_mean(name, dict.fromkeys(scorers))
        raise PlaybookError(f"{where}: evaluation.inspect.metric {metric!r} is no scorer; {hint}")
    rows = [_answer(sample, log.eval, choice, group) for sample in log.samples]
    table = pd.DataFrame(rows).assign(deployment=deployment.name, repo_id=deployment.model)
    for name in table.loc[table["item_id"].duplicated(), "item_id"]:
        raise PlaybookError(f"{where}: sample {name!r} is twice")
    table.attrs["task"] = log.eval.task
    return table


def _answer(sample: Any, task: Any, choice: tuple[str, str], group: str | None) -> dict[str, Any]:
    (scorer, key), output, scores = choice, sample.output, sample.scores or {}
    grade, name = scores.get(scorer), str(sample.id)
    value, answer = (grade.value, grade.answer or "") if grade else (None, "")
    if key:
        value = value.get(key) if isinstance(value, dict) else None
    graded = "" if value is None or value != value else str(value)[:2000]  # NaN is no score
    missing = "" if graded else f"the log has no score by {scorer or 'any scorer'}"
    error = sample.error.message if sample.error else missing
    several = task.config.epochs not in (None, 1)
    turns = [sample.input] if isinstance(sample.input, str) else [t.text for t in sample.input]
    stop = output.choices[0].stop_reason if output.choices else ""
    tokens = {}
    if usage := sample.model_usage.get(task.model) or output.usage:
        tokens["prompt_tokens"] = usage.total_tokens - usage.output_tokens  # cached ones too
        tokens["completion_tokens"] = usage.output_tokens
        tokens["cached_tokens"] = usage.input_tokens_cache_read
    return {
        "item_id": f"{name}/{sample.epoch}" if several else name,
        "group": text_of(sample.metadata.get(group) if group else name if several else ""),
        "input": "\n".join(text for text in turns if text),
        "target": text_of(sample.target),
        # An agent may do its task without a last word; its scorer has seen what it did.
        "output": output.completion or (answer or "(no text)" if graded else ""),
        "finish_reason": "length" if stop in ("max_tokens", "model_length") else stop,
        "error": " ".join(error.split())[-300:],  # Inspect puts the request first
        **usage_of(tokens, wrote=bool(output.completion)),
        "latency_s": output.time,
        "cached": False,
        "shared_with": "",
        "scorer": scorer,
        "graded": graded,
        "answer": answer,
        "detail": ((grade.explanation if grade else "") or "")[:2000],
    }


def score(brief: Project, answers: pd.DataFrame, **_: Any) -> pd.DataFrame:
    """What Inspect's scorer said, from 0 to 1: C is 1, P a half, I 0; N, no answer, `unparsed`."""
    words = answers["graded"].str.strip().str.casefold()
    points = pd.to_numeric(words.map(lambda word: WORDS.get(word, word)), errors="coerce")
    for scorer, value in answers.loc[~points.between(0, 1), ["scorer", "graded"]].to_numpy():
        way = "name another one, or scorer/key, in evaluation.inspect.metric"
        text = f"Inspect's scorer {scorer!r} gives {value[:80]!r}, not C, I, P, N or 0 to 1"
        raise PlaybookError(f"{text}; {way}")
    outcome = words.eq("n").map({True: "unparsed", False: "answered"})
    predicted = answers["answer"].where(answers["answer"] != "", answers["output"])
    facts = {"outcome": outcome, "predicted": predicted, "score": points}
    return pd.DataFrame(facts | {"detail": answers["detail"]})


def metrics(brief: Project, scored: pd.DataFrame) -> list[dict[str, Any]]:
    """The mean score with its interval: `accuracy` where a sample is right or wrong."""
    whole = scored["score"].dropna().isin((0.0, 1.0)).all()
    return [metric_row("accuracy" if whole else "mean score", scored["score"], scored)]
