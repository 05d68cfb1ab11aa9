"""Tool calls: the right function, with arguments that are valid and right."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NotRequired

import numpy as np
import pandas as pd
from jsonschema.protocols import Validator
from pydantic import Field, TypeAdapter, with_config
from scipy.optimize import linear_sum_assignment
from typing_extensions import TypedDict

from lib.brief import Deployment, Project
from lib.endpoints import Call, Item
from lib.errors import PlaybookError
from lib.evaluate.kinds import defaults, extraction, options_of
from lib.evaluate.kinds.defaults import Reader, json_or_none, score_each, visible_or_record
from lib.evaluate.schemas import json_of, misfit, validator_of
from lib.evaluate.scoring import Figure, metric_row, shares
from lib.json_values import canonical, find_object, parse_json, same
from lib.lines import validated
from lib.untrusted import as_dict, as_list

JSON_FIELDS = ("target",)
visible = visible_or_record
MOST_CALLS = 64  # in one answer; more is an engine that repeats itself
MARKER = re.compile(r"<\|?(?:tool_call|function_call|function=|python_tag)|\[TOOL_CALLS\]", re.I)
NAMES = ("name", "function", "tool", "tool_name")
ARGUMENTS = ("arguments", "parameters", "args")
PYTHON = re.compile(r"\W{0,20}([A-Za-z_][\w.-]{0,200})\(")


class Options(extraction.Comparison):
    """`tools` in OpenAI's form or a file's name."""

    tools: list[dict[str, Any]] | str = Field(min_length=1)


@with_config(extra="forbid")
class _Wanted(TypedDict):
    name: str
    arguments: NotRequired[dict[str, Any]]


WANTED = TypeAdapter(list[_Wanted])  # calls that an item expects


def _tools(brief: Project) -> list[dict[str, Any]]:
    """The tools a model may call, in OpenAI's form; a bare function is wrapped into it."""
    tools = json_of(options_of(brief).tools, brief.folder, "evaluation.tools")
    tools = tools if isinstance(tools, list) else [tools]
    functions = [as_dict(tool).get("function", tool) for tool in tools]
    for place, function in enumerate(functions):
        if not isinstance(as_dict(function).get("name"), str):
            shape = "must be a function with name, description and parameters"
            kind = type(function).__name__
            raise PlaybookError(f"evaluation.tools.{place}: {shape}, not {kind}")
    return [{"type": "function", "function": function} for function in functions]


def _validators(brief: Project) -> dict[str, Validator]:
    """What checks the arguments of each tool, by the tool's name."""
    checks: dict[str, Validator] = {}
    for place, tool in enumerate(_tools(brief)):
        name, schema = tool["function"]["name"], tool["function"].get("parameters") or {}
        where = f"evaluation.tools.{place}: {name!r}"
        if name in checks:
            raise PlaybookError(f"{where} is there twice; every tool needs its own name")
        if not isinstance(schema, dict):
            raise PlaybookError(f"{where}: parameters must be a JSON schema, not {schema!r:.80}")
        checks[name] = validator_of(schema, where)
    return checks


def item_reader(brief: Project) -> Reader:
    """The target is a call, a list of calls, or null where none is expected."""
    checks = _validators(brief)

    def read(item: dict[str, Any], where: str) -> dict[str, str]:
        if "target" not in item or item["target"] == "":
            raise PlaybookError(f"{where}: target is missing; write null where no call is expected")
        for call in validated(WANTED, _wanted_calls(item["target"]), where, "target"):
            if (name := call["name"]) not in checks:
                tools = f"evaluation.tools: {', '.join(checks)}"
                raise PlaybookError(f"{where}: target names {name!r:.200}, not one of {tools}")
            if problem := misfit(call.get("arguments", {}), checks[name], incomplete=True):
                raise PlaybookError(f"{where}: arguments of {name!r} do not fit: {problem}")
        return {"target": canonical(item["target"] or None)}

    return read


def _wanted_calls(target: Any) -> list[Any]:
    return [] if target is None else target if isinstance(target, list) else [target]


def calls_of(brief: Project, deployment: Deployment) -> Callable[[Item], list[Call]]:
    """One chat an item, with the tools."""
    return defaults.calls_of(brief, deployment, tools=_tools(brief), tool_choice="auto")


def score(brief: Project, usable: pd.DataFrame, **_: Any) -> pd.DataFrame:
    """Right is an answer with exactly the calls that the item expects, in any order.

    These have the function, arguments that fit its schema, and every argument the item states,
    equal by its rule in `evaluation.fields`. Where no call is expected, an answer in words is
    right. A malformed call is `unparsed`, its `detail` starting with "malformed".
    """
    options, checks = options_of(brief), _validators(brief)
    wanted = {target: _wanted_calls(json.loads(target)) for target in usable["target"].unique()}

    def grade(output: str, target: str) -> tuple[str, str | None, float, str]:
        try:
            calls = _calls(output, checks)
        except ValueError as error:
            return "unparsed", None, 0.0, f"malformed: {error}"
        right, detail = _verdict(calls, wanted[target], checks, options)
        return "answered", canonical(calls), float(right), detail

    return score_each(usable, grade)


def _calls(output: str, checks: Mapping[str, Validator]) -> list[dict[str, Any]]:
    """The calls an answer makes, as `name` and parsed `arguments`; none where it is words.

    A ValueError where it calls a tool in a way that no program could follow.
    """
    record = as_list(json_or_none(output))
    texts = [as_dict(call).get(key) for call in record for key in ("name", "arguments")]
    if not record or not all(isinstance(text, str) for text in texts):
        if spelt := _spelt_call(output, checks):
            raise ValueError(f"a call written into the text: {spelt}")
        return []
    if len(record) > MOST_CALLS:
        raise ValueError(f"{len(record)} calls, more than {MOST_CALLS}")
    calls = []
    for name, text in ((call["name"], call["arguments"]) for call in record):
        if name not in checks:
            raise ValueError(f"no tool is called {name[:80]!r}")
        try:
            # An engine may send nothing for a function that takes nothing.
            arguments = parse_json(text) if text.strip() else {}
        except ValueError as error:
            raise ValueError(f"arguments of {name!r}: {str(error)[:200]}") from None
        if not isinstance(arguments, dict):
            kind = type(arguments).__name__
            raise ValueError(f"arguments of {name!r} are no object but {kind}")
        calls.append({"name": name, "arguments": arguments})
    return calls


def _spelt_call(output: str, checks: Mapping[str, Validator]) -> str:
    """The call that an answer in words spells out, shortened; "" where it spells none."""
    if marker := MARKER.search(output):
        return output[marker.start() : marker.start() + 80]
    if (python := PYTHON.match(output)) and python[1] in checks:
        return output[:80]
    try:
        value = find_object(output)
    except ValueError:
        return ""
    value = value["function"] if isinstance(value.get("function"), dict) else value
    name = next((value[key] for key in NAMES if isinstance(value.get(key), str)), None)
    # An answer may well hold JSON that is no call.
    is_call = name in checks or (name is not None and any(key in value for key in ARGUMENTS))
    return canonical(value)[:80] if is_call else ""


def _verdict(
    calls: list[dict[str, Any]],
    wanted: list[dict[str, Any]],
    checks: Mapping[str, Validator],
    options: Options,
) -> tuple[bool, str]:
    """Whether the calls are those wanted, and what differs."""
    for call in calls:
        if problem := misfit(call["arguments"], checks[call["name"]]):
            return False, f"invalid: {call['name']}: {problem}"
    names, wanted_names = (sorted(call["name"] for call in many) for many in (calls, wanted))
    if names != wanted_names:
        what = f"called {', '.join(names)}" if names else "no call"
        return False, f"{what}; expected {', '.join(wanted_names) or 'no call'}"
    if not calls:
        return True, ""
    # Each call with the expected one it meets, so that as many as can be are right.
    differences = [
        [_difference(c, w, options) if c["name"] == w["name"] else None for w in wanted]
        for c in calls
    ]
    cost = [[2 if text is None else bool(text) for text in row] for row in differences]
    pairs = list(zip(*linear_sum_assignment(np.array(cost)), strict=True))
    wrong = [text for i, j in pairs if (text := differences[i][j])]
    return not wrong, "; ".join(wrong)


def _difference(call: dict[str, Any], wanted: Mapping[str, Any], options: Options) -> str:
    for key, value in wanted.get("arguments", {}).items():
        place = f"{call['name']}.{key}"
        if key not in call["arguments"]:
            return f"{place} is missing"
        argument, rule = call["arguments"][key], options.fields.get(key, "exact")
        if not same(value, argument, rule, options.normalise):
            return f"{place} is {canonical(argument)[:80]}, not {canonical(value)[:80]}"
    return ""


def metrics(brief: Project, scored: pd.DataFrame) -> list[dict[str, Any]]:
    """Shares of all items, but "valid arguments" of those whose answer makes a call."""
    detail = scored["detail"].str
    malformed, invalid = detail.startswith("malformed"), detail.startswith("invalid")
    predicted = [json.loads(t) if isinstance(t, str) else None for t in scored["predicted"]]
    wanted = [_wanted_calls(json.loads(target)) for target in scored["target"]]
    right = [
        calls is not None and sorted(c["name"] for c in calls) == sorted(w["name"] for w in many)
        for calls, many in zip(predicted, wanted, strict=True)
    ]
    has_calls = np.array([bool(calls) for calls in predicted], dtype=bool) | malformed
    return [
        metric_row("correct calls", scored["score"], scored),
        metric_row("right function", right, scored),
        metric_row("valid arguments", ~(malformed | invalid)[has_calls], scored[has_calls]),
        metric_row("malformed calls", malformed, scored),
    ]


TONES = {"correct": "good", "wrong arguments": "fair", "wrong function": "doubt"}
TONES |= {"malformed": "bad", "no usable answer": "light", "failed": "pale"}


def figure(brief: Project, scored: pd.DataFrame, scores: pd.DataFrame, **_: Any) -> Figure:
    """What is wrong with the calls."""
    detail = scored["detail"]
    conditions = {
        "failed": scored["outcome"] == "failed",
        "malformed": detail.str.startswith("malformed"),
        "no usable answer": scored["outcome"] != "answered",
        "correct": (scored["score"] == 1).fillna(False),
        "wrong function": detail.str.startswith(("no call; expected", "called ")),
    }
    masks = [mask.to_numpy(dtype=bool) for mask in conditions.values()]
    categories = np.select(masks, list(conditions), "wrong arguments")
    return shares(scored, categories, TONES, title="Where calls go wrong", metric="correct calls")
