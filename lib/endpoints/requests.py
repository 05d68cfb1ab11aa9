"""What is sent for an item: the body of every request, and the key it is stored under."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from lib.artifacts import runs_root
from lib.brief import Deployment, Project
from lib.endpoints.servers import identity, request_options
from lib.endpoints.store import key_of

Item = Mapping[Any, Any]


class Call(NamedTuple):
    """One request: its body without the model's name; `part` is a pointwise ranking's document."""

    key: str
    api: Literal["chat", "rerank"]
    body: dict[str, Any]
    part: str = ""


class Plan:
    """All calls of a deployment, made when they are looped over: bodies would fill the memory.

    The key of a call holds the identity of the endpoint and the body: the same model worded in two
    ways is asked twice; under another name it is not. `parts` has, of every item, its calls as
    (part, key).
    """

    def __init__(
        self, who: dict[str, Any], calls_of: Callable[[Item], list[Call]], items: pd.DataFrame
    ) -> None:
        self._calls_of, self._items = calls_of, items.to_dict("records")
        self.parts = [[(c.part, _key(who, c)) for c in calls_of(item)] for item in self._items]

    def __iter__(self) -> Iterator[Call]:
        for item, parts in zip(self._items, self.parts, strict=True):
            for call, (_, key) in zip(self._calls_of(item), parts, strict=True):
                yield call._replace(key=key)

    def keys(self) -> Iterator[str]:
        """The keys of all calls, in their order."""
        return (key for parts in self.parts for _, key in parts)


def _key(who: dict[str, Any], call: Call) -> str:
    return key_of(who, call.body, *([] if call.api == "chat" else [call.api]))


def cache_path(deployment: Deployment) -> Path | None:
    """The file that all runs share answers in, or None: weights unpinned, `PLAYBOOK_CACHE=off`."""
    endpoint = deployment.endpoint
    pinned = endpoint and (endpoint.embedded or endpoint.revision)
    if not pinned or os.environ.get("PLAYBOOK_CACHE", "").lower() in ("off", "0"):
        return None
    return runs_root() / ".answers" / f"{key_of(identity(deployment))}.jsonl"


def chat_calls(
    brief: Project,
    deployment: Deployment,
    *,
    user: str | None = None,
    answer: Callable[[str], str] | None = None,
    **options: Any,
) -> Callable[..., Call]:
    """A function of a user turn (and a `part`) to its call: system, worked examples, the turn.

    `user` and `answer` word the examples; `options` are sent beside those of the brief.
    """
    prompt = brief.prompt_of(deployment)
    question, wording = user or prompt.user or "{input}", prompt.answer or "{target}"
    before = [{"role": "system", "content": prompt.system}] if prompt.system else []
    for shot in brief.evaluation.shots:
        reply = answer(shot.target) if answer else wording.replace("{target}", shot.target)
        before.append({"role": "user", "content": question.replace("{input}", shot.input)})
        before.append({"role": "assistant", "content": reply})
    body = request_options(brief, deployment) | options

    def call(text: str, part: str = "") -> Call:
        turn = {"role": "user", "content": text}
        return Call("", "chat", {"messages": [*before, turn], **body}, part)

    return call


def json_schema_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The option that holds an endpoint to a JSON schema, as OpenAI, vLLM and llama.cpp take it."""
    # Servers want a name for the schema; nothing depends on it.
    form = {"name": "answer", "schema": schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": form}}
