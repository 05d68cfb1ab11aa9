"""Tool calls: the right function, with arguments that are valid and right."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from jsonschema.protocols import Validator
from scipy.optimize import linear_sum_assignment

from lib.brief.project import Deployment, Project
from lib.brief.sections import Section
from lib.endpoints.requests import Call, Item
from lib.errors import PlaybookError
from lib.evaluate.json_values import (
    canonical,
    find_object,
    from_brief,
    misfit,
    parse_json,
    validator_of,
)
from lib.evaluate.kinds import options_of
from lib.evaluate.kinds.defaults import chat_per_item, visible_or_record
from lib.evaluate.kinds.exact import Rule
from lib.evaluate.kinds.extraction import same
from lib.evaluate.scoring import Figure, measured, shares

JSON_FIELDS = ("target",)
visible = visible_or_record
MOST_CALLS = 64  # in one answer; more is an engine that repeats itself
MARKER = re.compile(r"<\|?(?:tool_call|function_call|function=|python_tag)|\[TOOL_CALLS\]", re.I)
NAMES = ("name", "function", "tool", "tool_name")
ARGUMENTS = ("arguments", "parameters", "args")
PYTHON = re.compile(r"\W{0,20}([A-Za-z_][\w.-]{0,200})\(")


class Malformed(Exception):
    """An answer that calls a tool in a way that no program could follow."""


class Called(NamedTuple):
    """One call: the function and its arguments."""

    name: str
    arguments: dict[str, Any]


class Options(Section):
    """`tools` in OpenAI's form or a file's name; `fields` says how an argument is compared."""

    tools: list[dict[str, Any]] | str
    fields: dict[str, Literal["exact", "normalised", "number", "set"]] = {}
    normalise: list[Rule] = ["nfkc", "casefold", "whitespace", "punctuation"]


def check(brief: Project, options: Options) -> None:
    """There is a tool."""
    if not options.tools:
        raise ValueError("kind 'tool_call' needs tools")


def _tools(brief: Project) -> list[dict[str, Any]]:
    """The tools a model may call, in OpenAI's form; a bare function is wrapped into it."""
    given = from_brief(brief, options_of(brief).tools, "evaluation.tools")
    tools = []
    for place, tool in enumerate(given if isinstance(given, list) else [given]):
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise PlaybookError(
                f"evaluation.tools.{place}: must be a function with name, description and"
                f" parameters, not {str(tool)[:80]!r}"
            )
        tools.append({"type": "function", "function": function})
    return tools


def _validators(brief: Project) -> dict[str, Validator]:
    """What checks the arguments of each tool, by the tool's name.

    Raises:
        PlaybookError: A schema is wrong, or two tools have one name.
    """
    checks: dict[str, Validator] = {}
    for place, tool in enumerate(_tools(brief)):
        function = tool["function"]
        name, schema = function["name"], function.get("parameters") or {}
        where = f"evaluation.tools.{place}: {name!r}"
        if name in checks:
            raise PlaybookError(f"{where} is there twice; every tool needs its own name")
        if not isinstance(schema, dict):
            raise PlaybookError(f"{where}: parameters must be a JSON schema, not {schema!r:.80}")
        checks[name] = validator_of(schema, where)
    return checks


def item_reader(brief: Project) -> Callable[[dict[str, Any], str], dict[str, str]]:
    """The target is a call, a list of calls, or null where none is expected."""
    checks = _validators(brief)

    def read(item: dict[str, Any], where: str) -> dict[str, str]:
        if "target" not in item or item["target"] == "":
            raise PlaybookError(f"{where}: target is missing; write null where no call is expected")
        for call in _wanted_calls(item["target"]):
            _check_target(call, where, checks)
        return {"target": canonical(item["target"] or None)}

    return read


def _check_target(call: Any, where: str, checks: Mapping[str, Validator]) -> None:
    if not isinstance(call, dict) or set(call) - {"name", "arguments"} or "name" not in call:
        raise PlaybookError(
            f'{where}: target must be {{"name", "arguments"}}, a list of them, or null,'
            f" not {call!r:.200}"
        )
    if not isinstance(call["name"], str) or call["name"] not in checks:
        raise PlaybookError(
            f"{where}: target names {call['name']!r:.200}, which is not one of"
            f" evaluation.tools: {', '.join(checks)}"
        )
    arguments = call.get("arguments", {})
    if not isinstance(arguments, dict):
        raise PlaybookError(
            f"{where}: arguments of {call['name']!r} must be an object, not {arguments!r:.200}"
        )
    if problem := misfit(arguments, checks[call["name"]], incomplete=True):
        raise PlaybookError(f"{where}: arguments of {call['name']!r} do not fit: {problem}")


def calls_of(brief: Project, deployment: Deployment) -> Callable[[Item], list[Call]]:
    """One chat an item, with the tools."""
    return chat_per_item(brief, deployment, tools=_tools(brief), tool_choice="auto")


def _wanted_calls(target: Any) -> list[dict[str, Any]]:
    """An item's target as a list of `name` and perhaps `arguments`; null is no call at all."""
    return [] if target is None else target if isinstance(target, list) else [target]


def score(brief: Project, usable: pd.DataFrame, **_: Any) -> pd.DataFrame:
    """Score usable answers as right or wrong.

    Right is an answer with exactly the calls that the item expects, in any order: the function,
    arguments that fit its schema, and every argument the item states, equal by its rule in
    `evaluation.fields` (default: exactly, where true is not 1 but 1 is 1.0). Arguments the item
    does not state are allowed as far as the schema allows them, and listed. Where no call is
    expected, an answer in words is right.

    A malformed call is `unparsed` and its `detail` starts with "malformed": arguments that are
    no JSON object, an unknown function, a call written into the text. Engines differ here, so
    it is counted apart from what the model knows. `predicted` is the calls as canonical JSON.
    """
    options, checks = options_of(brief), _validators(brief)
    wanted = {target: _wanted_calls(json.loads(target)) for target in usable["target"].unique()}
    rows = [
        _grade(options, output, wanted[target], checks)
        for output, target in zip(usable["output"], usable["target"], strict=True)
    ]
    columns = ["outcome", "predicted", "score", "detail"]
    return pd.DataFrame(rows, columns=columns, index=usable.index)


def _grade(
    options: Options, output: str, wanted: list[dict[str, Any]], checks: Mapping[str, Validator]
) -> tuple[str, str | None, float, str]:
    try:
        calls = _calls(output, checks)
    except Malformed as error:
        return "unparsed", None, 0.0, f"malformed: {error}"
    predicted = canonical([{"name": c.name, "arguments": c.arguments} for c in calls])
    for call in calls:
        if problem := misfit(call.arguments, checks[call.name]):
            return "answered", predicted, 0.0, f"invalid: {call.name}: {problem}"
    if wrong := _functions(calls, wanted):
        return "answered", predicted, 0.0, wrong
    pairs = _paired(options, calls, wanted)
    details = [d for call, one in pairs if (d := _different(options, call, one))]
    if details:
        return "answered", predicted, 0.0, "; ".join(details)
    return (
        "answered",
        predicted,
        1.0,
        "; ".join(d for call, one in pairs if (d := _more(call, one))),
    )


def _calls(output: str, checks: Mapping[str, Validator]) -> list[Called]:
    """The calls an answer makes; none where it is words."""
    made = _record(output)
    if made is None:
        if written := _written(output, checks):
            raise Malformed(f"a call written into the text: {written}")
        return []
    if len(made) > MOST_CALLS:
        raise Malformed(f"{len(made)} calls, more than {MOST_CALLS}")
    calls = []
    for call in made:
        if call["name"] not in checks:
            raise Malformed(f"no tool is called {call['name'][:80]!r}")
        try:
            # An engine may send nothing for a function that takes nothing.
            arguments = parse_json(call["arguments"]) if call["arguments"].strip() else {}
        except ValueError as error:
            raise Malformed(f"arguments of {call['name']!r}: {str(error)[:200]}") from None
        if not isinstance(arguments, dict):
            kind = type(arguments).__name__
            raise Malformed(f"arguments of {call['name']!r} are no object but {kind}")
        calls.append(Called(call["name"], arguments))
    return calls


def _record(output: str) -> list[dict[str, str]] | None:
    """The calls as the runner writes them, arguments as raw text; None for anything else."""
    if not output.lstrip().startswith("["):
        return None
    try:
        value = json.loads(output)
    except (ValueError, RecursionError):
        return None
    kept = isinstance(value, list) and all(
        isinstance(call, dict)
        and isinstance(call.get("name"), str)
        and isinstance(call.get("arguments"), str)
        for call in value
    )
    return value if kept and value else None


def _written(output: str, checks: Mapping[str, Validator]) -> str:
    """The call that an answer in words spells out, shortened; "" where it spells none."""
    if found := MARKER.search(output):
        return output[found.start() : found.start() + 80]
    if (found := PYTHON.match(output)) and found[1] in checks:
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


def _functions(calls: list[Called], wanted: list[dict[str, Any]]) -> str:
    """Which functions are called that should not be, or the other way round; "" if right."""
    made = Counter(call.name for call in calls)
    asked = Counter(call["name"] for call in wanted)
    if made == asked:
        return ""
    if not calls:
        return f"no call; expected {_listed(asked)}"
    return f"called {_listed(made)}; expected {_listed(asked) or 'no call'}"


def _listed(names: Counter[str]) -> str:
    return ", ".join(sorted(names.elements()))


def _paired(
    options: Options, calls: list[Called], wanted: list[dict[str, Any]]
) -> list[tuple[Called, dict[str, Any]]]:
    """Each call with the expected one it meets, so that as many as can be are right."""
    far = 2  # further than different arguments: another function
    cost = np.array(
        [
            [far if c.name != w["name"] else bool(_different(options, c, w)) for w in wanted]
            for c in calls
        ],
        dtype=float,
    ).reshape(len(calls), len(wanted))
    return [(calls[i], wanted[j]) for i, j in zip(*linear_sum_assignment(cost), strict=True)]


def _different(options: Options, call: Called, wanted: Mapping[str, Any]) -> str:
    for key, value in wanted.get("arguments", {}).items():
        place = f"{call.name}.{key}"
        if key not in call.arguments:
            return f"{place} is missing"
        rule = options.fields.get(key, "exact")
        if not same(value, call.arguments[key], rule, options.normalise):
            return f"{place} is {canonical(call.arguments[key])[:80]}, not {canonical(value)[:80]}"
    return ""


def _more(call: Called, wanted: Mapping[str, Any]) -> str:
    more = [key for key in call.arguments if key not in wanted.get("arguments", call.arguments)]
    return f"also given to {call.name}: {', '.join(more)[:200]}" if more else ""


def metrics(brief: Project, scored: pd.DataFrame) -> list[dict[str, Any]]:
    """Correct calls, right function, valid arguments and malformed calls, as shares.

    "valid arguments" is of the answers that make a call, malformed ones included (its `n`);
    the others are of all items. Of malformed calls fewer are better.
    """
    details = list(scored["detail"].fillna("")) if "detail" in scored else [""] * len(scored)
    malformed = [text.startswith("malformed") for text in details]
    predicted = [json.loads(t) if isinstance(t, str) else None for t in scored["predicted"]]
    right = [
        calls is not None
        and Counter(c["name"] for c in calls)
        == Counter(c["name"] for c in _wanted_calls(json.loads(target)))
        for calls, target in zip(predicted, scored["target"], strict=True)
    ]
    called = np.array([bool(p) or m for p, m in zip(predicted, malformed, strict=True)], dtype=bool)
    valid = [
        not text.startswith(("malformed", "invalid"))
        for text, here in zip(details, called, strict=True)
        if here
    ]
    return [
        measured("correct calls", scored["score"], scored, primary=True),
        measured("right function", right, scored),
        measured("valid arguments", valid, scored[called]),
        measured("malformed calls", malformed, scored),
    ]


def figure(brief: Project, scored: pd.DataFrame, scores: pd.DataFrame, **_: Any) -> Figure:
    """What is wrong with the calls."""
    tones = {
        **{"correct": "good", "wrong arguments": "fair", "wrong function": "doubt"},
        **{"malformed": "bad", "no usable answer": "light", "failed": "pale"},
    }
    categories = [_category(row) for row in scored.to_dict("records")]
    title = "Where calls go wrong"
    return shares(scored, categories, tones, title=title, metric="correct calls")


def _category(row: Mapping[Any, Any]) -> str:
    detail = row["detail"] if isinstance(row.get("detail"), str) else ""
    if row["outcome"] == "failed":
        return "failed"
    if detail.startswith("malformed"):
        return "malformed"
    if row["outcome"] != "answered":
        return "no usable answer"
    if row["score"] == 1:
        return "correct"
    function = detail.startswith(("no call; expected", "called "))
    return "wrong function" if function else "wrong arguments"
