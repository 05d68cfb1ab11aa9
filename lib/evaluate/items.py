"""The brief's items: read from JSON lines or CSV, and checked before anything is asked."""

import contextlib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NotRequired

import pandas as pd
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from lib.artifacts import path_name
from lib.brief import Project
from lib.endpoints import FIELD, fill
from lib.errors import PlaybookError, did_you_mean, in_one_list
from lib.evaluate import judge as judge_model
from lib.evaluate import kinds
from lib.evaluate.kinds import defaults
from lib.evaluate.kinds.defaults import Reader
from lib.json_values import canonical, parse_json, text_of
from lib.lines import read_csv_lines, read_json_lines, required_file, required_text, validated
from lib.untrusted import as_dict, as_list

COLUMNS = ["item_id", "input", "target", "group"]
OURS = ("id", "input", "target", "documents")
MOST_FAULTS = 8  # named of a file, one by one
DOUBLED = re.compile(r"\{\{(\w+)\}\}")


class _Turn(TypedDict):
    """A message in OpenAI's shape; other keys, such as a weight for training, are left out."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: NotRequired[str | list[dict[str, Any]] | None]
    name: NotRequired[str]
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_call_id: NotRequired[str]


TURNS = TypeAdapter(list[_Turn])


def load_items(brief: Project) -> pd.DataFrame:
    """Read the items of a brief, a file of JSON lines or CSV, with our names for its fields.

    A line may hold a conversation instead (`messages`, in OpenAI's shape): an assistant's turn at
    its end is the target where there is no other. An `input` is needed where the wording names it.

    Returned is a row per item, all text: `item_id input target group`, what the kind of task adds
    (`documents`) and the file's further fields, as canonical JSON where they are no text; one that
    is called `group` but not by the brief is `file_group`. Other lines are a PlaybookError.
    """
    kind = kinds.of(brief.evaluation.kind)
    if not kind.ASKS_ITEMS:
        return pd.DataFrame(columns=COLUMNS, dtype="str")
    path = required_file(brief.items_path, "evaluation.items in project.yaml")
    where = path_name(path)
    rows, fields, unreadable = list[dict[str, str]](), list[list[str]](), list[str]()
    faults, read = dict[str, list[str]](), defaults.any_item  # places of lines by what is wrong
    with contextlib.suppress(ValidationError):  # of the kind's options: `kinds.problems` says why
        read = kind.item_reader(brief)
    try:
        for place, raw in _lines(path, brief):
            fields.append(list(raw))
            try:
                rows.append(_item(raw, place, brief, read))
            except PlaybookError as error:
                faults.setdefault(str(error).removeprefix(f"{place}: "), []).append(place)
    except PlaybookError as error:  # a line that cannot be read ends the file
        unreadable = [str(error)]
    problems = [*_line_problems(faults, fields, where), *unreadable]
    if not fields and not unreadable:
        problems.append(f'{where}: empty; write one {{"id", "input", "target"}} a line')
    counts = Counter(row["item_id"] for row in rows).most_common(MOST_FAULTS)
    problems += [f"{where}: the id {name!r} is used {n} times" for name, n in counts if n > 1]
    if rows:
        wordings = dict.fromkeys(_wording_problems(brief, rows))
        problems += [f"{brief.file}: evaluation: {text}" for text in wordings]
    items = pd.DataFrame(rows)
    columns = dict.fromkeys([*COLUMNS, *kind.JSON_FIELDS, *items])
    items = items.reindex(columns=list(columns)).astype(object).fillna("").astype("str")
    shots = {shot.input.strip().casefold() for shot in brief.evaluation.shots}
    shown_too = items.loc[items["input"].str.strip().str.casefold().isin(shots), "item_id"]
    no_test = "is also a shot; a worked example is no test"
    problems += [f"{where}: item {name!r} {no_test}" for name in shown_too[:MOST_FAULTS]]
    if problems:
        raise PlaybookError(in_one_list(problems))
    return items


def _line_problems(
    faults: dict[str, list[str]], fields: list[list[str]], where: str
) -> Iterator[str]:
    """A sentence for each fault, up to `MOST_FAULTS`, however many lines have it."""
    for text, places in list(faults.items())[:MOST_FAULTS]:
        text += f"; so {len(places) - 1} more" * (len(places) > 1)
        if (key := re.split("[ :]", text)[0]) in OURS and not any(key in names for names in fields):
            way = "evaluation.columns says which is yours: {id: …, input: …, target: …}"
            text += f"; no line has a field {key!r}, {_in_common(fields)}; {way}"
        yield f"{places[0]}: {text}"
    if more := sum(map(len, list(faults.values())[MOST_FAULTS:])):
        yield f"{where}: {more} more lines are not usable"


def _in_common(rows: Sequence[Iterable[str]]) -> str:
    """The fields that all rows have, and those that some have."""
    counts = Counter(itertools.chain.from_iterable(rows))
    names = sorted(counts.keys() - {"item_id", "group"})
    everywhere = ", ".join(name for name in names if counts[name] == len(rows)) or "none in common"
    some = ", ".join(name for name in names if counts[name] < len(rows))
    return f"they have {everywhere}{some and f'; some have {some}'}"[:300]


def _lines(path: Path, brief: Project) -> Iterator[tuple[str, dict[str, Any]]]:
    if brief.evaluation.format == "jsonl" and path.suffix != ".csv":
        for where, item in read_json_lines(path, wanted="id, input and target"):
            yield where, _our_fields(item, brief, where)
        return
    for where, cells in read_csv_lines(path):
        item = _our_fields(cells, brief, where)
        keys = [k for k in kinds.of(brief.evaluation.kind).JSON_FIELDS if item.get(k, "").strip()]
        yield where, item | {key: _json(item[key], where, key) for key in keys}


def _json(text: str, where: str, key: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise PlaybookError(f"{where}: {key} must be JSON text: {error}") from None


def _our_fields(raw: dict[str, Any], brief: Project, where: str) -> dict[str, Any]:
    """The item under our names; a field of the file that has one of them gives way."""
    columns = brief.evaluation.columns
    fields = {}
    for name, field in columns.items():
        value: Any = raw
        for part in [field] if field in raw else field.split("."):
            if not isinstance(value, dict) or part not in value:
                raise PlaybookError(
                    f"{where}: no field {field!r:.80}, which evaluation.columns names as {name};"
                    f" there are {', '.join(map(str, raw)):.200}"
                )
            value = value[part]
        fields[name] = value
    # The group may be a field that has one of our names too.
    our_columns = set(columns.values()) - {brief.evaluation.group}
    return {key: value for key, value in raw.items() if key not in our_columns} | fields


def _conversation(item: dict[str, Any], where: str) -> dict[str, Any]:
    """An item with the turns to send, what they say as `input`, and a target from their end."""
    raw = item["messages"]
    turns = _json(raw, where, "messages") if isinstance(raw, str) else raw
    completion = [as_dict(choice).get("message") for choice in as_list(item.get("choices"))[:1]]
    turns = validated(TURNS, [*as_list(turns), *completion], where, "messages")
    item = {"id": f"line {where.rpartition(' ')[2]}"} | item
    if turns and turns[-1]["role"] == "assistant":
        last = turns.pop()
        calls = [as_dict(call.get("function")) for call in last.get("tool_calls", [])]
        for call in calls:
            call["arguments"] = _json(str(call.get("arguments") or "{}"), where, "arguments")
        item = {"target": calls or _words_of(last)} | item
    if not turns or turns[-1]["role"] not in ("user", "tool"):
        raise PlaybookError(f"{where}: messages must hold a turn of the user to answer")
    speech = [turn for turn in turns if turn["role"] not in ("system", "developer")]
    lines = [f"{turn['role']}: {_words_of(turn)}" for turn in speech]
    text = _words_of(speech[0]) if len(speech) == 1 else "\n".join(lines)
    return {"input": text} | item | {"messages": canonical(turns)}


def _words_of(turn: _Turn) -> str:
    """The words of a turn; of a part that is none, its type."""
    content = turn.get("content")
    parts = [part.get("text") or f"[{part.get('type')}]" for part in as_list(content)]
    return content if isinstance(content, str) else "\n".join(map(str, parts)) or "[no text]"


def _wording_problems(brief: Project, rows: list[dict[str, str]]) -> Iterator[str]:
    """A sentence for each field that a wording or slice names and an item, or example, lacks."""
    fields, evaluation = set().union(*rows), brief.evaluation
    talks = all("messages" in row for row in rows)
    # Every wording with its words that are no fields, and the worked examples it is for.
    judge, wordings = evaluation.judge, list[tuple[str, str | None, Any, Any]]()
    if judge:
        wordings = [("judge.system", judge.system, judge_model.TEXTS, [])]
        wordings += [("judge.user", judge.user, judge_model.TEXTS, judge.shots)]
    places = kinds.of(evaluation.kind).PLACES
    for prompt in map(brief.prompt_of, brief.deployments):
        wordings += [("prompt.system", prompt.system, (), [])]
        wordings += [("prompt.user", prompt.user, places, evaluation.shots)]
        if talks and not places and prompt.user != "{input}":
            yield "prompt.user is not used: the messages of the items are sent; take it out"
    for key, text, words, shots in wordings:
        for name in sorted(fields.union(words).intersection(DOUBLED.findall(text or ""))):
            yield f"{key}: write {{{name}}}, with one brace on each side"
        # A conversation is sent as it is, so the wording of a turn is for the other items.
        of_turns = key == "prompt.user" and not words
        worded_rows = [row for row in rows if not (of_turns and "messages" in row)]
        secret = "human" if key.startswith("judge") else "target"
        for name in sorted({*FIELD.findall(text or "")}.difference(words)):
            ids_without = [row["item_id"] for row in worded_rows if name not in row]
            if name == secret:
                yield f"{key}: {{{secret}}} would give the answer away"
            elif ids_without and len(ids_without) == len(worded_rows):
                yield f"{key}: no item has {{{name}}}; {_in_common(worded_rows)}"
            elif ids_without:
                more = f"and {len(ids_without) - 1} more"
                yield f"{key}: item {ids_without[0]!r} has no {{{name}}}, {more}"
            elif any(name not in shot.model_dump() for shot in shots):
                yield f"shots: one has no {name!r}, which {key} names"
    for name in evaluation.slices:
        if name not in fields | {"length"} and not (name == "group" and "file_group" in fields):
            choices = [*sorted(fields - {"item_id", "group"}), "length"]
            yield f"slices: no item has {name!r}; {did_you_mean(name, choices)}"


def _question(brief: Project) -> str:
    return brief.evaluation.prompt.user or "{input}"


def _item(item: dict[str, Any], where: str, brief: Project, read: Reader) -> dict[str, str]:
    if "messages" in item:
        item = _conversation(item, where)
    if "input" not in item and "input" not in FIELD.findall(_question(brief)):
        # What is read and judged is then the worded question.
        texts = {key: text_of(value) for key, value in item.items()}
        item = {"input": fill(_question(brief), texts)} | item
    for key in ("id", "input"):
        required_text(item.get(key), where, key)
    if reserved_keys := [key for key in ("item_id", "deployment", "repo_id") if key in item]:
        raise PlaybookError(
            f"{where}: the key {reserved_keys[0]} is taken; the item's name is its id"
        )
    field = brief.evaluation.group
    group = text_of(item.get(field)) if field else ""
    if field and not group.strip():
        raise PlaybookError(f"{where}: {field} is missing; evaluation.group names it")
    item |= read(item, where)
    if "group" in item and field != "group":
        item["file_group"] = item["group"]
    texts = {key: text_of(value) for key, value in item.items() if key not in ("id", "group")}
    return {"item_id": item["id"], **texts} | ({"group": group} if field else {})
