"""Inspect as a source of scores: any of its tasks is run, or its log read (`endpoint.recorded`)."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import math
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field

from lib.artifacts import shown, write_bytes, writing
from lib.brief.deployment import Deployment
from lib.brief.project import Project
from lib.brief.sections import Section
from lib.endpoints.serving import Served, identity, scrub, serving
from lib.endpoints.store import key_of
from lib.errors import PlaybookError
from lib.evaluate.kinds import options_of
from lib.evaluate.recorded import recorded_path
from lib.evaluate.scoring import MAX_FAILED_SHARE, measured

__all__ = ["Options", "gather", "metrics", "read_log", "score"]

ASKS_ITEMS = False
COLUMNS = """deployment repo_id item_id group target output finish_reason error retries
    prompt_tokens completion_tokens latency_s cached input scorer graded answer detail""".split()
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
    """Run the brief's Inspect task against every deployment and return its samples as answers.

    The task decides how it asks: of the brief only the concurrency, timeout and retries are used,
    and a deployment's own `options`. A log of the same task, endpoint and options is not run again,
    unless more than 2 % of its samples failed. Keys are taken out before it reaches the run.

    Returns:
        One row per deployment, sample and epoch, with the columns `COLUMNS`: `item_id` is the
        sample's id, with `/epoch` if there are several, and `graded` the scorer's value as JSON.
    """
    metric, group = options_of(brief).inspect.metric, brief.evaluation.group
    frames, tasks = [], {}
    for deployment in deployments:
        recorded = deployment.endpoint is not None and deployment.endpoint.recorded
        path = recorded_path(deployment, brief.folder) if recorded else _run(brief, deployment, run)
        frames.append(read_log(path, deployment, metric=metric, group=group))
        tasks[frames[-1].attrs["task"]] = deployment.name
    if len(tasks) > 1:
        (one, first), (other, second) = list(tasks.items())[:2]
        raise PlaybookError(
            f"deployment {first!r} has a log of task {one!r} and {second!r} one of {other!r};"
            " only logs of one task can be compared"
        )
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)


def _run(brief: Project, deployment: Deployment, run: Path) -> Path:
    """The log of the task, made now or before."""
    task = options_of(brief).inspect
    if brief.evaluation.max_usd is not None:
        raise PlaybookError(
            "evaluation.max_usd cannot be kept for kind 'inspect', which calls the endpoint by"
            " itself; remove it and use evaluation.inspect.limit"
        )
    _reader()
    # What is run and on what; a local server has another address every time.
    code = brief.folder / task.task.partition("@")[0]
    source = code.read_text(encoding="utf-8", errors="replace") if code.is_file() else ""
    parts = deployment.options.model_dump(), task.model_dump(exclude={"metric"}), source
    key = key_of(identity(deployment, threads=True), *parts)[:12]
    path = run / "04_inspect" / f"{deployment.name}-{key}.eval"
    with contextlib.suppress(PlaybookError):  # there is none yet, or it cannot be read
        if (read_log(path, deployment)["error"] != "").mean() <= MAX_FAILED_SHARE:
            return path
    with serving(deployment, logs=run / "logs") as served, tempfile.TemporaryDirectory() as folder:
        secret = os.environ.get(served.api_key_env or "", "")
        log = _perform(brief, deployment, served, secret, Path(folder))
        write_bytes(path, _without_key(log, secret))
    return path


def _perform(
    brief: Project, deployment: Deployment, served: Served, secret: str, place: Path
) -> Path:
    """Run Inspect in a process of its own: it changes the event loop and the environment."""
    evaluation, task = brief.evaluation, options_of(brief).inspect
    seconds, total = evaluation.timeout_s, evaluation.total_timeout_s
    connections = deployment.limits.concurrency or evaluation.concurrency
    options = deployment.options.model_dump(exclude_none=True)
    settings: dict[str, Any] = {"tasks": task.task, "task_args": task.args, "limit": task.limit}
    settings |= {"model": f"openai-api/playbook/{served.model}", "max_connections": connections}
    settings |= {"max_retries": evaluation.max_retries, "fail_on_error": False, "display": "none"}
    settings |= {"attempt_timeout": math.ceil(seconds), "timeout": total and math.ceil(total)}
    settings |= {"log_dir": str(place / "logs"), "log_format": "eval", "log_realtime": False}
    settings |= {("stop_seqs" if k == "stop" else k): v for k, v in options.items() if v}
    env = {k: v for k, v in os.environ.items() if not k.startswith("INSPECT_")}
    env |= {"PLAYBOOK_BASE_URL": served.base_url, "PLAYBOOK_API_KEY": secret or "none"}
    # Traces, which may hold what an endpoint sends back, go where they are thrown away.
    env |= {"XDG_DATA_HOME": str(place / "data"), "INSPECT_TRACE_FILE": str(place / "trace")}
    if served.base_url.startswith("http://127.0.0.1"):
        env["NO_PROXY"] = env["no_proxy"] = "127.0.0.1"
    how: dict[str, Any] = {"capture_output": True, "text": True, "errors": "replace", "env": env}
    with writing(place):
        done = subprocess.run(
            [sys.executable, "-c", EVALUATE], cwd=brief.folder, input=json.dumps(settings), **how
        )
    logs = list(place.glob("logs/*.eval"))
    if not done.returncode and len(logs) == 1:
        return logs[0]
    lines = (done.stdout + done.stderr).strip() or f"exit status {done.returncode}"
    reason = scrub(lines.splitlines()[-1].strip(), served)
    raise PlaybookError(
        f"evaluation.inspect.task {task.task!r} did not run with {deployment.name!r}: "
        + (f"it left {len(logs)} logs; name one task" if len(logs) > 1 else reason)
    )


def _without_key(log: Path, secret: str) -> bytes:
    """A log with the key taken out; Inspect has taught zipfile to read its compression."""
    target = io.BytesIO()
    with zipfile.ZipFile(log) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as made:
        for name in source.namelist():
            content = source.read(name)
            for text in {secret, json.dumps(secret)[1:-1]} - {""}:
                content = content.replace(text.encode(), b"***")
            made.writestr(name, content)
    return target.getvalue()


def _reader() -> Any:
    try:  # an optional extra, and seconds to import
        return importlib.import_module("inspect_ai.log").read_eval_log
    except ImportError:
        raise PlaybookError(
            "evaluation.kind 'inspect' needs Inspect, for its logs too:"
            " run `pip install inspect-ai` in this environment"
        ) from None


def read_log(
    path: Path, deployment: Deployment, *, metric: str | None = None, group: str | None = None
) -> pd.DataFrame:
    """Read an Inspect log, `.eval` or `.json`, as a deployment's answers; see `gather`.

    A sample with an error, or without a score, is a failed call. `metric` names the scorer that
    counts, or the only one with that metric, or `name/key` where values are mappings; left out,
    the first counts. `group` is the field of the samples' metadata that says which belong
    together; without it the epochs of one sample do.
    """
    where, read = shown(path), _reader()
    try:
        log = read(path, exclude_fields={"messages", "store", "attachments"})
    except Exception as error:  # a damaged file raises anything
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise PlaybookError(f"{where}: not a readable Inspect log: {why}") from None
    if log.status != "success":
        why = f": {log.error.message[:200]}" if log.error else ""
        raise PlaybookError(
            f"{where}: this run of {log.eval.task!r} did not finish (status {log.status!r}{why});"
            " `inspect eval-retry` finishes it"
        )
    if not log.samples:
        raise PlaybookError(f"{where}: has no samples; it was written with --no-log-samples")
    # A log has the samples as they were done; the order of the data set is always the same.
    several, choice = log.eval.config.epochs not in (None, 1), _choice(log, metric, where)
    rank = {str(name): n for n, name in enumerate(log.eval.dataset.sample_ids or [])}
    log.samples.sort(key=lambda s: (rank.get(str(s.id), len(rank)), str(s.id), str(s.epoch)))
    rows = [_row(sample, log.eval.model, choice, group, several) for sample in log.samples]
    frame = pd.DataFrame(rows)
    for name in frame.loc[frame["item_id"].duplicated(), "item_id"]:
        raise PlaybookError(f"{where}: sample {name!r} is twice")
    if choice and not frame["scorer"].any() and not frame["error"].all():
        raise PlaybookError(f"{where}: no sample has a score by {'/'.join(filter(None, choice))!r}")
    frame = frame.assign(deployment=deployment.name, repo_id=deployment.model, cached=False)
    frame.attrs["task"] = log.eval.task
    return frame[COLUMNS]


def _choice(log: Any, metric: str | None, where: str) -> tuple[str, str] | None:
    """The scorer that counts and, of a mapping, its key; None takes each sample's first."""
    scores = log.results.scores if log.results else []
    names = [*(scorer.name for scorer in log.eval.scorers or []), *(s.scorer for s in scores)]
    if metric is None:
        return (names[0], "") if names else None
    scorer, _, key = metric.rpartition("/")
    if metric in names or scorer in names:
        return (metric, "") if metric in names else (scorer, key)
    keyed = {score.scorer for score in scores if score.name == metric}
    owners = keyed or {score.scorer for score in scores if metric in score.metrics}
    if len(owners) == 1:
        return next(iter(owners)), metric if keyed else ""
    raise PlaybookError(
        f"{where}: evaluation.inspect.metric {metric!r} names no one scorer;"
        f" this log has {', '.join(dict.fromkeys(names)) or 'none'}"
    )


def _row(
    sample: Any, model: str, choice: tuple[str, str] | None, group: str | None, several: bool
) -> dict[str, Any]:
    scores, output, name = sample.scores or {}, sample.output, str(sample.id)
    scorer, key = choice or (next(iter(scores), ""), "")
    grade = scores.get(scorer)
    value = grade.value if grade else None
    if key:
        value = value.get(key) if isinstance(value, dict) else None
    value = None if isinstance(value, float) and math.isnan(value) else value
    missing = f"the log has no score by {scorer or 'any scorer'}" if value is None else ""
    error = sample.error.message if sample.error else missing
    answer, detail = (grade.answer, grade.explanation) if grade else ("", "")
    stop = output.choices[0].stop_reason if output.choices else ""
    usage = sample.model_usage.get(model) or output.usage
    calls = [e for e in sample.events if e.event == "model" and e.model == model and not e.role]
    times = [call.working_time for call in calls] or [output.time]
    turns = [] if isinstance(sample.input, str) else sample.input
    return {
        "item_id": f"{name}/{sample.epoch}" if several else name,
        "group": _plain(sample.metadata.get(group) if group else name if several else ""),
        "target": _plain(sample.target),
        # An agent may do its task without a last word; its scorer has seen what it did.
        "output": output.completion or ("" if value is None else answer or "(no text)"),
        "finish_reason": "length" if stop in ("max_tokens", "model_length") else stop,
        "error": " ".join(error.split())[-300:],  # Inspect puts the request first
        "retries": sum(call.retries or 0 for call in calls),
        "prompt_tokens": usage and usage.input_tokens
        + (usage.input_tokens_cache_read or 0) + (usage.input_tokens_cache_write or 0),
        "completion_tokens": usage and usage.output_tokens,
        "latency_s": max((time for time in times if time is not None), default=None),
        "input": "\n".join(t.text for t in turns if t.text) if turns else sample.input or "",
        "scorer": "" if value is None else scorer,
        "graded": "" if value is None else json.dumps(value, ensure_ascii=False)[:2000],
        "answer": answer or "",
        "detail": (detail or "")[:2000],
    }  # fmt: skip


def _plain(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "" if value is None else text


def score(brief: Project, asked: pd.DataFrame, **_: Any) -> pd.DataFrame:
    """What Inspect's scorer said, as a score from 0 to 1; see `lib.evaluate.scoring`.

    C counts 1, P a half, I 0; N, no answer, is `unparsed`. One that the token limit cut off is
    truncated and scores 0 like everywhere here, which Inspect may see otherwise.
    """
    values = asked["graded"].map(json.loads)
    return pd.DataFrame(
        {
            "outcome": ["unparsed" if value == "N" else "answered" for value in values],
            "predicted": asked["answer"].where(asked["answer"] != "", asked["output"]),
            "score": [_share(*pair) for pair in zip(values, asked["scorer"], strict=True)],
            "detail": asked["detail"],
        }
    )


def _share(value: Any, scorer: str) -> float:
    word = str(value).strip().casefold()
    try:
        number = WORDS[word] if word in WORDS else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number <= 1:
        raise PlaybookError(
            f"Inspect's scorer {scorer!r} gives {str(value)[:80]!r}, not C, I, P, N or a"
            " number from 0 to 1; name another one, or scorer/key, in evaluation.inspect.metric"
        )
    return number


def metrics(brief: Project, scored: pd.DataFrame) -> list[dict[str, Any]]:
    """The mean score with its interval: `accuracy` where a sample is right or wrong."""
    whole = scored["score"].dropna().isin((0.0, 1.0)).all()
    return [measured("accuracy" if whole else "mean score", scored["score"], scored, primary=True)]
