"""Inspect: run any of its tasks against every deployment, and score what its scorer said.

Running needs `pip install inspect-ai`. A log that is there already is read where a deployment's
`endpoint.recorded` names it.
"""

from __future__ import annotations

import importlib.util
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

from lib.artifacts import write_bytes, writing
from lib.brief.project import Deployment, Project
from lib.brief.sections import Section
from lib.endpoints.serving import Served, identity, recorded_path, scrub, serving
from lib.endpoints.store import key_of
from lib.errors import PlaybookError
from lib.evaluate.inspect_log import COLUMNS, INSTALL, members, read_log
from lib.evaluate.kinds import options_of
from lib.evaluate.scoring import MAX_FAILED_SHARE, measured

__all__ = ["LOGS", "gather", "metrics", "read_log", "score"]

ASKS_ITEMS = False
LOGS = "04_inspect"


class InspectTask(Section):
    """A task of Inspect, by name (`inspect_evals/gsm8k`) or file (`tasks.py@mine`)."""

    task: str = Field(min_length=1)
    args: dict[str, Any] = {}
    limit: int | None = Field(default=None, ge=1)
    metric: str | None = None


class Options(Section):
    """The task that is run."""

    inspect: InspectTask


WORDS = {"c": 1.0, "p": 0.5, "i": 0.0, "n": 0.0}
WORDS |= dict.fromkeys(("yes", "true"), 1.0) | dict.fromkeys(("no", "false"), 0.0)


def gather(brief: Project, deployments: list[Deployment], run: Path) -> pd.DataFrame:
    """Run the brief's Inspect task against every deployment and return its samples as answers.

    The task decides how it asks: the brief's prompt, temperature and token limit are not used,
    only what a deployment's own `options` say, and the brief's concurrency, timeout and retries.
    A log in `04_inspect/` of the same task, endpoint and options is not run again, unless more
    than 2 % of its samples failed. Keys are taken out of a log before it reaches the run.

    Args:
        brief: Of kind `inspect`.
        deployments: Those that may be asked.
        run: The run directory.

    Returns:
        One row per deployment, sample and epoch: the columns of `answers.ask`, where `item_id`
        is the sample's id, with `/epoch` if there are several; then `input`, `scorer`,
        `graded` (the scorer's value as JSON text), `answer` and `detail` (its explanation).

    Raises:
        PlaybookError: Inspect is not installed, the task does not run, a key is unset, the
            brief sets a budget, or the logs are of different tasks.
    """
    task = options_of(brief).inspect
    assert task is not None
    frames, tasks = [], {}
    for deployment in deployments:
        if deployment.endpoint is not None and deployment.endpoint.recorded:
            path = recorded_path(deployment, brief.folder)
        else:
            path = _run(brief, deployment, run)
        frame = read_log(
            path, deployment=deployment, metric=task.metric, group=brief.evaluation.group
        )
        tasks[frame.attrs["task"]] = deployment.name
        frames.append(frame)
    if len(tasks) > 1:
        (one, first), (other, second) = list(tasks.items())[:2]
        raise PlaybookError(
            f"deployment {first!r} has a log of task {one!r} and {second!r} one of {other!r};"
            " only logs of one task can be compared"
        )
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)


def _run(brief: Project, deployment: Deployment, run: Path) -> Path:
    evaluation, task = brief.evaluation, options_of(brief).inspect
    assert task is not None
    if evaluation.max_usd is not None:
        raise PlaybookError(
            "evaluation.max_usd cannot be kept for kind 'inspect', which calls the endpoint by"
            " itself; remove it and use evaluation.inspect.limit"
        )
    # What is run and on what; a local server has another address every time.
    place, _, _ = task.task.partition("@")
    code = brief.folder / place
    source = code.read_text(encoding="utf-8", errors="replace") if code.is_file() else ""
    options = deployment.options.model_dump()
    asked = identity(deployment, brief.folder), options, task.model_dump(exclude={"metric"})
    path = run / LOGS / f"{deployment.name}-{key_of(*asked, source)[:12]}.eval"
    if path.is_file() and _settled(path, deployment):
        return path
    if importlib.util.find_spec("inspect_ai") is None:
        raise PlaybookError(f"evaluation.kind 'inspect' needs Inspect: {INSTALL}")
    with (
        serving(deployment, logs=run / "logs") as served,
        tempfile.TemporaryDirectory() as folder,
    ):
        connections = deployment.limits.concurrency or evaluation.concurrency
        _perform(brief, deployment, served, Path(folder), connections)
        logs = sorted(Path(folder).glob("logs/*.eval"))
        if len(logs) != 1:
            raise PlaybookError(
                f"evaluation.inspect.task {task.task!r} left {len(logs)} logs; name one task"
            )
        write_bytes(path, _without_key(logs[0], served))
    return path


def _settled(path: Path, deployment: Deployment) -> bool:
    """Whether a log is whole and few of its samples failed."""
    try:
        found = read_log(path, deployment=deployment)
    except PlaybookError:
        return False
    return bool((found["error"] != "").mean() <= MAX_FAILED_SHARE)


def _perform(
    brief: Project, deployment: Deployment, served: Served, place: Path, connections: int
) -> None:
    """Run Inspect in a process of its own: it changes the event loop and the environment."""
    evaluation, task = brief.evaluation, options_of(brief).inspect
    assert task is not None
    options = deployment.options.model_dump(exclude_none=True)
    options = {("stop_seqs" if k == "stop" else k): v for k, v in options.items() if v}
    options |= {"max_connections": connections, "max_retries": evaluation.max_retries}
    options |= {"attempt_timeout": math.ceil(evaluation.timeout_s)}
    if evaluation.total_timeout_s:
        options["timeout"] = math.ceil(evaluation.total_timeout_s)
    settings = {"generate": options, "task": task.args}
    for name, values in settings.items():
        (place / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
    command = [sys.executable, "-m", "inspect_ai", "eval", task.task]
    command += ["--model", f"openai-api/playbook/{served.model}", "--display", "none"]
    command += ["--log-dir", str(place / "logs"), "--log-format", "eval", "--no-log-realtime"]
    command += ["--no-fail-on-error", "--generate-config", str(place / "generate.json")]
    command += ["--task-config", str(place / "task.json")] if task.args else []
    command += ["--limit", str(task.limit)] if task.limit else []
    secret = os.environ.get(served.api_key_env, "") if served.api_key_env else "none"
    env = {k: v for k, v in os.environ.items() if not k.startswith("INSPECT_")}
    env |= {"PLAYBOOK_BASE_URL": served.base_url, "PLAYBOOK_API_KEY": secret}
    # Traces, which may hold what an endpoint sends back, go where they are thrown away.
    env |= {"XDG_DATA_HOME": str(place / "data"), "INSPECT_TRACE_FILE": str(place / "trace")}
    if served.base_url.startswith("http://127.0.0.1"):
        env["NO_PROXY"] = env["no_proxy"] = "127.0.0.1"
    with writing(place):
        done = subprocess.run(
            command, cwd=brief.folder, env=env, capture_output=True, text=True,
            errors="replace", stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    if done.returncode or not list(place.glob("logs/*.eval")):
        said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        reason = scrub(said[-1] if said else f"exit status {done.returncode}", served)
        raise PlaybookError(
            f"evaluation.inspect.task {task.task!r} did not run with {deployment.name!r}: {reason}"
        )


def _without_key(log: Path, served: Served) -> bytes:
    """A log with the key taken out, compressed so that any Python can read it."""
    key = os.environ.get(served.api_key_env, "") if served.api_key_env else ""
    secrets = {key.encode(), json.dumps(key)[1:-1].encode()} - {b""}
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members(log):
            for secret in secrets:
                content = content.replace(secret, b"***")
            made.writestr(name, content)
    return target.getvalue()


def _share(value: Any) -> float | None:
    """A scorer's value from 0 to 1: C is 1, P a half, I and N 0; None where it is none of these."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        if (word := value.strip().casefold()) in WORDS:
            return WORDS[word]
        try:
            value = float(word)
        except ValueError:
            return None
    usable = isinstance(value, int | float) and 0 <= value <= 1
    return float(value) if usable else None


def score(brief: Project, asked: pd.DataFrame, **_: Any) -> pd.DataFrame:
    """What Inspect's scorer said, as a score from 0 to 1; see `lib.scoring` for columns.

    C counts 1, P a half, I 0; N, no answer, is `unparsed`. An answer that the token limit cut
    off counts as truncated and scores 0 like everywhere here, which Inspect may see otherwise.

    Raises:
        PlaybookError: The scorer's values do not lie between 0 and 1.
    """
    values = [json.loads(text) for text in asked["graded"]]
    scores = [_share(value) for value in values]
    for value, share, scorer in zip(values, scores, asked["scorer"], strict=True):
        if share is None:
            raise PlaybookError(
                f"Inspect's scorer {scorer!r} gives {str(value)[:80]!r}, not C, I, P, N or a"
                " number from 0 to 1; name another one, or scorer/key, in evaluation.inspect.metric"
            )
    return pd.DataFrame(
        {
            "outcome": ["unparsed" if value == "N" else "answered" for value in values],
            "predicted": asked["answer"].where(asked["answer"] != "", asked["output"]),
            "score": scores,
            "detail": asked["detail"],
        },
        index=asked.index,
    )


def metrics(brief: Project, scored: pd.DataFrame) -> list[dict[str, Any]]:
    """The mean score with its interval: `accuracy` where a sample is right or wrong."""
    whole = scored["score"].dropna().isin((0.0, 1.0)).all()
    return [measured("accuracy" if whole else "mean score", scored["score"], scored, primary=True)]
