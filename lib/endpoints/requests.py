"""Who may be asked, and what is sent: the body of every request and the key it is kept under."""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from lib.artifacts import runs_root
from lib.brief import Deployment, Project
from lib.endpoints.servers import identity, request_options
from lib.endpoints.store import key_of
from lib.errors import PlaybookError
from lib.legal import host_objection
from lib.sizing import OUTSIDE
from lib.tables import Row, rows

Item = Mapping[Any, Any]
SYSTEM = ("system", "developer")
FIELD = re.compile(r"(?<!\{)\{([A-Za-z_]\w*)\}(?!\})")  # pasted JSON, {{x}} and {3} are text


class Call(NamedTuple):
    """One request: its body without the model's name; `part` is a pointwise ranking's document."""

    key: str
    api: Literal["chat", "rerank"]
    body: dict[str, Any]
    part: str = ""


class Plan:
    """All calls of a deployment, made when they are looped over: bodies would fill the memory.

    A key is of the endpoint's identity and the body; `parts` has an item's calls as (part, key).
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

    def by_item(self) -> list[list[Call]]:
        """The calls of every item, without keys."""
        return [self._calls_of(item) for item in self._items]

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


def fill(wording: str, item: Item) -> str:
    """A wording with the item's fields in place, in one pass: a {word} in a text stays text."""
    return FIELD.sub(lambda match: str(item.get(match[1], match[0])), wording)


def chat_calls(
    brief: Project,
    deployment: Deployment,
    *,
    user: str | None = None,
    answer: Callable[[str], str] | None = None,
    **options: Any,
) -> Callable[..., Call]:
    """A function of an item (and a `part`) to its call: system, worked examples, its turns.

    An item's own `messages` are its turns, unless a kind has a wording of its own, `user`; `answer`
    words the examples' answers.
    """
    prompt = brief.prompt_of(deployment)
    question = prompt.user or "{input}"
    shots: list[dict[str, Any]] = []
    for shot in brief.evaluation.shots:
        texts = shot.model_dump()
        # A wording of a kind's own is for items: its worked examples are whole turns.
        shots.append({"role": "user", "content": fill("{input}" if user else question, texts)})
        reply = answer(shot.target) if answer else fill(prompt.answer or "{target}", texts)
        shots.append({"role": "assistant", "content": reply})
    body = request_options(brief, deployment) | options

    def call(item: Item, part: str = "") -> Call:
        turns = [{"role": "user", "content": fill(user or question, item)}]
        if item.get("messages") and not user:
            turns = json.loads(item["messages"])
        system = [turn for turn in turns if turn["role"] in SYSTEM]
        if prompt.system:  # the wording that is tried takes the place of the conversation's
            system = [{"role": "system", "content": fill(prompt.system, item)}]
        turns = [turn for turn in turns if turn["role"] not in SYSTEM]
        return Call("", "chat", {"messages": [*system, *shots, *turns], **body}, part)

    return call


def json_schema_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The option that holds an endpoint to a JSON schema, as OpenAI, vLLM and llama.cpp take it."""
    form = {"name": "answer", "schema": schema, "strict": True}  # servers want a name
    return {"response_format": {"type": "json_schema", "json_schema": form}}


def one_value(name: str, kind: str = "string", **limits: Any) -> dict[str, Any]:
    """The option for a JSON object of one value, such as a label of an `enum`."""
    parts = {"properties": {name: {"type": kind, **limits}}, "required": [name]}
    return json_schema_format({"type": "object", **parts, "additionalProperties": False})


def refuses_schema(status: int, words: str, body: Mapping[str, Any]) -> bool:
    """Whether an endpoint's error says that it takes no JSON schema, which the body asks for."""
    may_refuse = "response_format" in body and status in (400, 422)
    return may_refuse and bool(re.search("response_format|json_schema|guided|structured", words))


COLUMNS = ["deployment", "repo_id", "admitted", "verdict", "why", "exception"]
CLEARED = {
    "allowed": "on the shortlist",
    "conditional": "on the shortlist",
    "baseline": "what is in use today: compared with, not chosen",
}
UNKNOWN = "not in data/models.csv: add it, with its licence and source"


def admit(brief: Project, shortlist: pd.DataFrame, metadata: pd.DataFrame) -> pd.DataFrame:
    """Which deployments may be asked, and all that bars the others: a row each, with `COLUMNS`.

    Of step 2's `shortlist` and step 3's `metadata`, which may not know the baseline.
    """
    by_model = {row["repo_id"]: row for row in rows(shortlist)}
    facts_by_model = {row["repo_id"]: row for row in rows(metadata)}
    table = []
    for deployment in brief.deployments:
        row, facts = (each.get(deployment.model, {}) for each in (by_model, facts_by_model))
        verdict = facts.get("verdict") or ("baseline" if deployment.baseline else "")
        barred = "; ".join(filter(None, _objections(deployment, row, facts, verdict, brief)))
        why = facts.get("why") or ""
        cleared = why if why.startswith(OUTSIDE) else CLEARED.get(verdict)
        who = [deployment.name, deployment.model, "no" if barred else "yes", verdict]
        table.append([*who, barred or cleared, facts.get("exception") or ""])
    return pd.DataFrame(table, columns=COLUMNS)


def _objections(
    deployment: Deployment, row: Row, facts: Row, verdict: str, brief: Project
) -> Iterator[str]:
    """All that bars a deployment: licence, drift, supply chain, host, machine."""
    if verdict in CLEARED:
        yield model_objection(facts)
    else:
        rule = f"step 3: {verdict}" if verdict else row.get("why", UNKNOWN)
        reasons = (facts or row).get("reasons") if rule.startswith("step ") else ""
        yield f"{rule}: {reasons}" if reasons else rule
        yield model_objection(facts | {"shortlisted": True}) if facts else ""
    yield host_objection(deployment, brief.policy)
    for line in ((row | facts).get("too_small") or "").splitlines():
        name, _, text = line.partition(": ")
        yield text if name == deployment.name else ""


def admitted(brief: Project, verdicts: pd.DataFrame) -> list[Deployment]:
    """The deployments that `admit` lets through; PlaybookError where it lets no candidate."""
    names = set(verdicts.loc[verdicts["admitted"] == "yes", "deployment"])
    if not any(d.name in names for d in brief.deployments if not d.baseline):
        barred = verdicts[verdicts["admitted"] == "no"]
        told = f"no deployment of {brief.name!r} may be asked and chosen:"
        raise PlaybookError("\n- ".join([told, *(barred["deployment"] + ": " + barred["why"])]))
    return [deployment for deployment in brief.deployments if deployment.name in names]


def model_objection(facts: dict[str, Any]) -> str:
    """Why step 3 keeps a model out with the Hub's facts; empty where it does not."""
    if not facts.get("shortlisted", True):
        return f"step 3: {facts['why']}"
    if (supply := facts.get("supply_verdict", "pass")) == "pass":
        return ""
    state = "fail" if supply == "fail" else "unknown"
    hint = "" if supply == "fail" else "; run step 3 with the Hub reachable"
    return f"supply chain: {state}: {facts.get('supply_reasons') or 'not verified'}{hint}"
