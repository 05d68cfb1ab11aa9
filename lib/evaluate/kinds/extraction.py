"""Extraction: the answer is JSON that fits a schema; scored by the share of fields right."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from lib.brief import Deployment, Project
from lib.endpoints import Call, Item, json_schema_format
from lib.errors import PlaybookError
from lib.evaluate.kinds import exact, options_of
from lib.evaluate.kinds.defaults import Reader, by_metric, chat_per_item, score_each
from lib.evaluate.scoring import Figure, measured
from lib.json_values import canonical, find_object, json_of, misfit, validator_of
from lib.reading import RULES, normalise

JSON_FIELDS = ("target",)
CURRENCY = "$€£¥ "


def flatten(value: Mapping[str, Any], whole: Container[str] = (), at: str = "") -> dict[str, Any]:
    """An object's fields by dotted name (`address.city`); a list is one field, and so is {}.

    Objects named in `whole` are compared as a whole and stay one field; `at` names the object.
    """
    fields: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{at}.{key}" if at else key
        if isinstance(inner, dict) and inner and name not in whole:
            fields |= flatten(inner, whole, name)
        else:
            fields[name] = inner
    return fields


def same(wanted: Any, answer: Any, rule: str = "", rules: Sequence[str] = RULES) -> bool:
    """Whether the answer's JSON value of a field is the one the item expects.

    `exact`: equal, where true is not 1 but 1 is 1.0; `normalised`: text by `rules` of
    `reading.normalise`; `number`: equal to nine digits, also as text such as "$1,000.50"; `set`:
    lists of the same members, normalised, whatever their order and repeats. By default text is
    normalised, a list a set, and anything else exact.
    """
    by_type: dict[type, str] = {str: "normalised", list: "set"}
    rule = rule or by_type.get(type(wanted), "exact")
    if rule == "number":
        a, b = _number(wanted), _number(answer)
        return a is not None and b is not None and math.isclose(a, b, rel_tol=1e-9)
    if rule == "set" and isinstance(wanted, list) and isinstance(answer, list):
        return _members(wanted, rules) == _members(answer, rules)
    if rule == "normalised" and isinstance(wanted, str) and isinstance(answer, str):
        return normalise(wanted, rules) == normalise(answer, rules)
    return _comparable(wanted) == _comparable(answer)


def _members(values: list[Any], rules: Sequence[str]) -> set[Any]:
    return {normalise(v, rules) if isinstance(v, str) else (_comparable(v),) for v in values}


def _comparable(value: Any) -> str:
    """Canonical text in which 1 and 1.0 are one number, and true is another value."""
    if isinstance(value, dict):
        return canonical({key: _comparable(inner) for key, inner in value.items()})
    if isinstance(value, list):
        return canonical([_comparable(inner) for inner in value])
    whole = isinstance(value, float) and value.is_integer()
    return canonical(int(value) if whole else value)


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        text = normalise(value.strip().strip(CURRENCY), ["nfkc", "numbers"])
        value = text if re.fullmatch(r"-?[0-9]{1,300}(\.[0-9]+)?", text) else None
    if value is None or isinstance(value, bool | list | dict):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer of more than 308 digits
        return None


class Comparison(exact.Options):
    """`fields` says how a field is compared: see `same`."""

    fields: dict[str, Literal["exact", "normalised", "number", "set"]] = {}


class Options(Comparison):
    """`schema` is a JSON schema or the name of a file."""

    json_schema: dict[str, Any] | str = Field(alias="schema")
    constrained: bool = False


def _schema(brief: Project) -> dict[str, Any]:
    schema = json_of(options_of(brief).json_schema, brief.folder, "evaluation.schema")
    if not isinstance(schema, dict):
        raise PlaybookError("evaluation.schema must be a JSON schema: an object")
    return schema


def item_reader(brief: Project) -> Reader:
    """The target is an object: some of the fields perhaps, but none that no answer could give."""
    validator = validator_of(_schema(brief), "evaluation.schema")

    def read(item: dict[str, Any], where: str) -> dict[str, str]:
        target = item.get("target")
        if not isinstance(target, dict) or not target:
            raise PlaybookError(
                f"{where}: target must be an object with the expected fields, not {target!r:.200}"
            )
        if problem := misfit(target, validator, incomplete=True):
            raise PlaybookError(f"{where}: target does not fit evaluation.schema: {problem}")
        return {"target": canonical(target)}

    return read


def calls_of(brief: Project, deployment: Deployment) -> Callable[[Item], list[Call]]:
    """One chat an item, held to the schema where the brief says `constrained`."""
    held = json_schema_format(_schema(brief)) if options_of(brief).constrained else {}
    return chat_per_item(brief, deployment, **held)


def score(brief: Project, usable: pd.DataFrame, **_: Any) -> pd.DataFrame:
    """The share of expected fields that are right.

    A field that is missing is wrong, unless null is expected. Fields nobody asked for cost
    nothing here: whether they are allowed is the schema's to say (`additionalProperties`), and
    "valid JSON" counts it. `predicted` is the object as canonical JSON; `detail` is JSON text:
    `valid` (fits the schema), the fields `right` and `wrong`, and the `problem` found.
    """
    options, validator = options_of(brief), validator_of(_schema(brief), "evaluation.schema")
    expected = _expected(usable, options)

    def grade(output: str, target: str) -> tuple[str, str | None, float, str]:
        wanted = expected[target]
        try:
            answer = find_object(output)
        except ValueError as error:
            return "unparsed", None, 0.0, canonical({"valid": False, "problem": str(error)})
        fields = flatten(answer, options.fields)
        right = [
            name
            for name, value in wanted.items()
            if same(value, fields.get(name), options.fields.get(name, ""), options.normalise)
        ]
        wrong, problem = [n for n in wanted if n not in right], misfit(answer, validator)
        detail = {"valid": not problem, "right": right, "wrong": wrong, "problem": problem}
        return "answered", canonical(answer), len(right) / len(wanted), canonical(detail)

    return score_each(usable, grade)


def _expected(scored: pd.DataFrame, options: Options) -> dict[str, dict[str, Any]]:
    return {t: flatten(json.loads(t), options.fields) for t in scored["target"].unique()}


def metrics(brief: Project, scored: pd.DataFrame) -> list[dict[str, Any]]:
    """Field accuracy (the mean item), valid JSON, and the share right of every field.

    Of a field's items (its `n`) those count that expect it; an answer without JSON has all
    fields wrong.
    """
    # Where no answer was usable, none has a detail.
    texts = scored.get("detail", pd.Series("", scored.index)).fillna("")
    details = [json.loads(text or "{}") for text in texts]
    expected = _expected(scored, options_of(brief))
    rows = [
        measured("field accuracy", scored["score"], scored, primary=True),
        measured("valid JSON", [bool(d.get("valid")) for d in details], scored),
    ]
    for name in dict.fromkeys(name for fields in expected.values() for name in fields):
        wanted = np.array([name in expected[target] for target in scored["target"]])
        right = np.array([name in d.get("right", ()) for d in details])
        rows.append(measured(f"field: {name}", right[wanted], scored[wanted]))
    return rows


def figure(brief: Project, scored: pd.DataFrame, scores: pd.DataFrame, **_: Any) -> Figure:
    """Every field and valid JSON, the weakest fields first."""
    most = 6
    weakest = scores.groupby("metric", sort=False)["value"].mean().sort_values(kind="stable")
    fields = [name for name in weakest.index if name.startswith("field: ")]
    names = {"field accuracy": "all fields", "valid JSON": "valid JSON"}
    names |= {name: name.removeprefix("field: ") for name in fields[:most]}
    title = "Which fields go wrong, the weakest first"
    title += f" ({most} of {len(fields)} fields)" if len(fields) > most else ""
    return "multiples", {"tables": by_metric(scores, names, "field accuracy"), "title": title}
