"""Ask every deployment every item: concurrent, resumable, nothing asked twice."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pandas as pd
from anyio.from_thread import start_blocking_portal

from lib import store
from lib.deployments import (
    Served,
    client,
    identity,
    messages,
    redacted,
    request_options,
    scrub,
    serving,
)
from lib.errors import PlaybookError
from lib.progress import bar as progress_bar
from lib.project import Deployment, Project

__all__ = ["admitted", "ask", "run_blocking"]

STORE = "04_answers.jsonl"
COLUMNS = """deployment repo_id item_id target output finish_reason error retries prompt_tokens
    completion_tokens latency_s""".split()
GIVE_UP_AFTER = 20  # calls without one answer: the endpoint is down, not unlucky
HOPELESS = (
    openai.AuthenticationError,
    openai.PermissionDeniedError,
    openai.NotFoundError,
)


def ask(
    brief: Project,
    deployments: list[Deployment],
    items: pd.DataFrame,
    run: Path,
    *,
    progress: bool = True,
) -> pd.DataFrame:
    """Ask every deployment every item and return all answers.

    Answers go to `04_answers.jsonl` in the run directory the moment they arrive; what is
    there is not asked again unless the weights, the endpoint, the wording or the options
    changed. A failed call is asked again next time.

    Args:
        brief: The brief; of kind `published` nothing is asked.
        deployments: Those of the brief that may be asked, from `admitted`.
        items: From `items.load_items`.
        run: The run directory.
        progress: Show a bar with rate and time left.

    Returns:
        One row per deployment and item: `deployment repo_id item_id target output
        finish_reason error retries prompt_tokens completion_tokens latency_s`.

    Raises:
        PlaybookError: A key is unset, a server does not start, or an endpoint refuses the key.
    """
    path = run / STORE
    if brief.evaluation.kind == "published":
        deployments = []
    plan = {d.name: _requests(brief, d, items) for d in deployments}
    total = sum(len(requests) for requests in plan.values())
    with store.appending(path) as append:
        kept = store.read(path)
        bar = progress_bar(total, "answers", show=progress)
        todo: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        planned: set[str] = set()
        for name, requests in plan.items():
            # Equal requests, of two items or of two names for one endpoint, are asked once.
            new = {k: body for k, body in requests if k not in planned and not _done(kept.get(k))}
            planned |= set(new)
            todo[name] = list(new.items())
        bar.update(total - len(planned))
        with bar:
            for group in _groups([d for d in deployments if todo[d.name]]):
                with ExitStack() as stack:
                    served = {
                        d.name: stack.enter_context(serving(d, logs=run / "logs")) for d in group
                    }

                    def keep(record: dict[str, Any]) -> None:
                        append(record)
                        kept[record["key"]] = record
                        bar.update()

                    run_blocking(_ask_group, brief, served, todo, keep)
    rows = []
    targets = items.set_index("item_id")["target"]
    for deployment in deployments:
        for (key, _), item_id in zip(plan[deployment.name], items["item_id"], strict=True):
            record = {k: v for k, v in kept[key].items() if k not in ("key", "served")}
            rows.append(
                {
                    "deployment": deployment.name,
                    "repo_id": deployment.model,
                    "item_id": item_id,
                    "target": targets[item_id],
                    **record,
                }
            )
    return pd.DataFrame(rows, columns=COLUMNS)


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


def run_blocking(function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Run a coroutine function to its end from a notebook, whose own event loop is busy."""
    with start_blocking_portal() as portal:
        return portal.call(function, *args)


def _done(record: dict[str, Any] | None) -> bool:
    return record is not None and not record["error"]


def _requests(
    brief: Project, deployment: Deployment, items: pd.DataFrame
) -> list[tuple[str, dict[str, Any]]]:
    who, options = identity(deployment), request_options(brief)
    requests = []
    for text in items["input"]:
        body = {"messages": messages(brief, deployment, text), **options}
        requests.append((store.key_of(who, body), body))
    return requests


def _groups(deployments: list[Deployment]) -> list[list[Deployment]]:
    """Who is asked at the same time: hosted ones together, local ones as cores allow."""
    groups: list[list[Deployment]] = []
    hosted: list[Deployment] = []
    free = 0
    for deployment in sorted(deployments, key=lambda d: d.endpoint.threads if d.endpoint else 0):
        assert deployment.endpoint is not None
        threads = deployment.endpoint.threads
        if not deployment.endpoint.local:
            hosted.append(deployment)
        elif threads <= free:
            groups[-1].append(deployment)
            free -= threads
        else:
            groups.append([deployment])
            free = (os.cpu_count() or 1) - threads
    return [*groups, *([hosted] if hosted else [])]


async def _ask_group(
    brief: Project,
    served: dict[str, Served],
    todo: dict[str, list[tuple[str, dict[str, Any]]]],
    keep: Callable[[dict[str, Any]], None],
) -> None:
    work = [
        _ask_deployment(brief, name, endpoint, todo[name], keep)
        for name, endpoint in served.items()
    ]
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _ask_deployment(
    brief: Project,
    name: str,
    served: Served,
    requests: list[tuple[str, dict[str, Any]]],
    keep: Callable[[dict[str, Any]], None],
) -> None:
    """Workers take requests from one queue; an endpoint that refuses or is down stops them all."""
    evaluation = brief.evaluation
    waiting = iter(requests)
    refused: list[str] = []
    failed, answered = 0, 0

    async def worker(api: openai.AsyncOpenAI) -> None:
        nonlocal failed, answered
        for key, body in waiting:
            if refused:
                return
            record = await _ask_one(api, served, key, body)
            if record.pop("hopeless"):
                refused.append(record["error"])
                return
            keep(record)
            failed, answered = failed + bool(record["error"]), answered + (not record["error"])
            if failed >= GIVE_UP_AFTER and not answered:
                refused.append(f"the first {failed} calls all failed, {record['error']}")

    api = client(served, timeout_s=evaluation.timeout_s, max_retries=evaluation.max_retries)
    async with api:
        await asyncio.gather(*(worker(api) for _ in range(evaluation.concurrency)))
    if refused:
        raise PlaybookError(
            f"deployment {name!r}: {served.base_url} does not answer: {refused[0]};"
            f" check {served.api_key_env or 'the URL and the model name'}, then run step 4 again"
        )


async def _ask_one(
    api: openai.AsyncOpenAI, served: Served, key: str, body: dict[str, Any]
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "key": key,
        "served": served.model,
        "output": None,
        "finish_reason": None,
        "error": "",
        "retries": None,
        "prompt_tokens": None,
        "completion_tokens": None,
        "latency_s": None,
        "hopeless": False,
    }
    start = time.perf_counter()
    try:
        raw = await api.chat.completions.with_raw_response.create(model=served.model, **body)
        record["retries"] = raw.retries_taken
        reply: Any = raw.parse()
        choice = reply.choices[0]
        refusal, reason = choice.message.refusal, choice.finish_reason
        record["output"] = redacted(_text(choice.message.content), served)
        record["finish_reason"] = "refusal" if refusal else _text(reason) or None
        if reply.usage is not None:
            record["prompt_tokens"] = int(reply.usage.prompt_tokens)
            record["completion_tokens"] = int(reply.usage.completion_tokens)
        record["latency_s"] = round(time.perf_counter() - start, 4)
    except HOPELESS as error:
        record |= {"error": scrub(f"{error.status_code} {error.message}", served), "hopeless": True}
    except openai.APIStatusError as error:
        record["error"] = scrub(f"HTTP {error.status_code}: {error.message}", served)
    except openai.APIError as error:
        record["error"] = scrub(f"{type(error).__name__}: {error.message}", served)
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        # Not an OpenAI-shaped answer: an HTML page, an empty object, a list.
        kind = type(error).__name__
        record["error"] = scrub(f"the answer is not a chat completion ({kind})", served)
    return record


def _text(value: Any) -> str:
    """What an endpoint calls text, in a form that every file can hold."""
    if not isinstance(value, str | None):
        raise TypeError("not text")
    return (value or "").encode("utf-8", "replace").decode()
