"""What is sent for an item: the body of every request, and the key it is stored under."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from lib.artifacts import runs_root, shown
from lib.brief.project import Deployment, Project
from lib.endpoints.serving import identity, pinned, request_options, turns
from lib.endpoints.store import key_of
from lib.errors import PlaybookError

__all__ = ["Call", "Plan", "cache_path", "of_item", "response_format", "schema_of", "tools_of"]

ANSWER_SCHEMA = "answer"  # servers want a name for the schema; nothing depends on it
Item = Mapping[str, Any]


class Call(NamedTuple):
    """One request: its key, the endpoint's path, the body without the model's name.

    `part` is the document of a pointwise ranking, otherwise empty.
    """

    key: str
    api: Literal["chat", "rerank"]
    body: dict[str, Any]
    part: str = ""


class Plan:
    """All calls of a deployment, made when they are looped over.

    A hundred thousand bodies would fill the memory, so only their keys are kept.

    Attributes:
        parts: Of every item, its calls as (part, key).
    """

    def __init__(self, brief: Project, deployment: Deployment, items: pd.DataFrame) -> None:
        self._make, self._items = _maker(brief, deployment), items
        who = identity(deployment, brief.folder)
        self.parts = [[(r.part, _key(who, r)) for r in self._make(i)] for i in _rows(items)]

    def __iter__(self) -> Iterator[Call]:
        for item, parts in zip(_rows(self._items), self.parts, strict=True):
            for request, (_, key) in zip(self._make(item), parts, strict=True):
                yield request._replace(key=key)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def keys(self) -> Iterator[str]:
        """The keys of all calls, in their order."""
        return (key for parts in self.parts for _, key in parts)


def of_item(brief: Project, deployment: Deployment, item: Item) -> list[Call]:
    """The calls of one item: one, or for a pointwise ranking one a document.

    The identity of the endpoint, the messages, the options and what constrains the output are
    all in the key: the same model with thinking on and off, or worded in two ways, is asked
    twice; under another name it is not.

    Args:
        brief: The brief.
        deployment: One of its deployments, with its own prompt and options.
        item: A row of `items.load_items`.

    Raises:
        PlaybookError: A schema or tools file is not usable, or an option is not allowed.
    """
    who = identity(deployment, brief.folder)
    return [call._replace(key=_key(who, call)) for call in _maker(brief, deployment)(item)]


def _key(who: dict[str, Any], call: Call) -> str:
    return key_of(who, call.body, *([] if call.api == "chat" else [call.api]))


def cache_path(deployment: Deployment) -> Path | None:
    """The file that answers of these weights are shared in by all runs, or None.

    Only where the weights are certain (embedded, a GGUF file at a revision, an endpoint that
    declares its `revision`): what else answers under a name may change any day. The environment
    variable `PLAYBOOK_CACHE=off` switches it off.
    """
    if not pinned(deployment) or os.environ.get("PLAYBOOK_CACHE", "").lower() in ("off", "0"):
        return None
    return runs_root() / ".answers" / f"{key_of(identity(deployment))}.jsonl"


def _rows(items: pd.DataFrame) -> Iterator[Item]:
    columns = [str(name) for name in items.columns]
    for row in items.itertuples(index=False, name=None):
        yield dict(zip(columns, row, strict=True))


def _maker(brief: Project, deployment: Deployment) -> Callable[[Item], list[Call]]:
    """A function of an item to its calls, without keys; what is the same for all is done once."""
    evaluation = brief.evaluation
    ranking = evaluation.kind == "reranking"
    if ranking and evaluation.ranking.method == "rerank":
        extra = {k: v for k, v in deployment.options.extra_body.items() if v is not None}
        return lambda item: [_rerank(item, extra)]
    before, wording = turns(brief, deployment)
    options = request_options(brief, deployment) | response_format(brief)
    if evaluation.kind == "tool_call":
        options |= {"tools": tools_of(brief), "tool_choice": "auto"}

    def chat(text: str, part: str = "") -> Call:
        body = {"messages": [*before, {"role": "user", "content": text}], **options}
        return Call("", "chat", body, part)

    if ranking:
        from lib.evaluate import reranking

        return lambda item: [
            chat(text, part) for part, text in reranking.prompts(brief, deployment, item)
        ]
    return lambda item: [chat(wording.replace("{input}", item["input"]))]


def _rerank(item: Item, extra: dict[str, Any]) -> Call:
    from lib.evaluate import reranking

    texts = [text for _, text in reranking.documents(item)]
    body = {"query": item["input"], "documents": texts, "top_n": len(texts), **extra}
    return Call("", "rerank", body)


def response_format(brief: Project) -> dict[str, Any]:
    """What holds an endpoint to a schema where the brief says `constrained`; otherwise nothing.

    A label comes as `{"label": "positive"}`: OpenAI accepts an object at the root only, and
    llama.cpp and vLLM accept it too.
    """
    evaluation = brief.evaluation
    if not evaluation.constrained or evaluation.kind not in ("classification", "extraction"):
        return {}
    schema = schema_of(brief)
    if evaluation.kind == "classification":
        schema = {
            "type": "object",
            "properties": {"label": {"type": "string", "enum": list(evaluation.labels)}},
            "required": ["label"],
            "additionalProperties": False,
        }
    form = {"name": ANSWER_SCHEMA, "schema": schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": form}}


def schema_of(brief: Project) -> dict[str, Any]:
    """The JSON schema of an extraction, from the brief or the file it names.

    Raises:
        PlaybookError: The file is missing or holds no object.
    """
    schema = _written(brief, brief.evaluation.json_schema or {}, "evaluation.schema")
    if not isinstance(schema, dict):
        raise PlaybookError("evaluation.schema must be a JSON schema: an object")
    return schema


def tools_of(brief: Project) -> list[dict[str, Any]]:
    """The tools a model may call, in OpenAI's form; a bare function is wrapped into it.

    Raises:
        PlaybookError: The file is missing, or a tool has no name.
    """
    written = _written(brief, brief.evaluation.tools, "evaluation.tools")
    tools = []
    for place, tool in enumerate(written if isinstance(written, list) else [written]):
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise PlaybookError(
                f"evaluation.tools.{place}: must be a function with name, description and"
                f" parameters, not {str(tool)[:80]!r}"
            )
        tools.append({"type": "function", "function": function})
    return tools


def _written(brief: Project, value: Any, key: str) -> Any:
    """A value of the brief, read from the file beside it where it is a file's name."""
    if not isinstance(value, str):
        return value
    path = brief.folder / value
    try:
        return json.loads(path.read_bytes())
    except OSError:
        raise PlaybookError(
            f"{shown(path)}: no such file; {key} in project.yaml names it"
        ) from None
    except (ValueError, RecursionError) as error:
        raise PlaybookError(f"{shown(path)}: not JSON: {error}") from None
