"""Answers in JSON: do they fit the schema, and which of the expected fields are right?"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jsonschema.protocols import Validator

from lib.brief.project import Project
from lib.endpoints.requests import schema_of
from lib.evaluate.json_values import canonical, find_object, misfit, validator_of
from lib.evaluate.labels import RULES, normalise
from lib.evaluate.scoring import measured

__all__ = ["flatten", "metrics", "same", "score"]

CURRENCY = "$€£¥ "


def flatten(value: Mapping[str, Any], whole: Container[str] = (), at: str = "") -> dict[str, Any]:
    """An object's fields by dotted name (`address.city`); a list is one field, and so is {}.

    Args:
        value: The object.
        whole: Names of objects that are compared as a whole and so stay one field.
        at: The name the object itself has.
    """
    fields: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{at}.{key}" if at else key
        if isinstance(inner, dict) and inner and name not in whole:
            fields |= flatten(inner, whole, name)
        else:
            fields[name] = inner
    return fields


def same(wanted: Any, found: Any, rule: str = "", rules: Sequence[str] = RULES) -> bool:
    """Whether two JSON values are the same field value.

    Args:
        wanted: What the item expects.
        found: What the answer says.
        rule: `exact`: equal, where true is not 1 but 1 is 1.0; `normalised`: text by `rules`;
            `number`: equal to nine digits, also as text such as "$1,000.50"; `set`: lists of
            the same members, normalised, whatever their order and repeats. By default text is
            normalised, a list a set, and anything else exact.
        rules: Of `labels.normalise`.
    """
    rule = rule or ("normalised" if isinstance(wanted, str) else "")
    rule = rule or ("set" if isinstance(wanted, list) else "exact")
    if rule == "number":
        a, b = _number(wanted), _number(found)
        return a is not None and b is not None and math.isclose(a, b, rel_tol=1e-9)
    if rule == "set" and isinstance(wanted, list) and isinstance(found, list):
        return _members(wanted, rules) == _members(found, rules)
    if rule == "normalised" and isinstance(wanted, str) and isinstance(found, str):
        return normalise(wanted, rules) == normalise(found, rules)
    return _comparable(wanted) == _comparable(found)


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


def score(brief: Project, asked: pd.DataFrame, **_: Any) -> pd.DataFrame:
    """Score usable answers by the share of expected fields that are right; see `lib.scoring`.

    A field that is missing is wrong, unless null is expected. Fields nobody asked for cost
    nothing here: whether they are allowed is the schema's to say (`additionalProperties`), and
    "valid JSON" counts it. `predicted` is the object as canonical JSON; `detail` is JSON text:
    `valid` (fits the schema), the fields `right` and `wrong`, and the `problem` found.
    """
    validator = validator_of(schema_of(brief), "evaluation.schema")
    expected = {t: _expected(brief, t) for t in asked["target"].unique()}
    rows = [
        _score_one(brief, output, expected[target], validator)
        for output, target in zip(asked["output"], asked["target"], strict=True)
    ]
    columns = ["outcome", "predicted", "score", "detail"]
    return pd.DataFrame(rows, columns=columns, index=asked.index)


def _expected(brief: Project, target: str) -> dict[str, Any]:
    return flatten(json.loads(target), brief.evaluation.fields)


def _score_one(
    brief: Project, output: str, expected: Mapping[str, Any], validator: Validator
) -> tuple[str, str | None, float, str]:
    evaluation = brief.evaluation
    try:
        answer = find_object(output)
    except ValueError as error:
        return "unparsed", None, 0.0, canonical({"valid": False, "problem": str(error)})
    found = flatten(answer, evaluation.fields)
    right = [
        name
        for name, value in expected.items()
        if same(value, found.get(name), evaluation.fields.get(name, ""), evaluation.normalise)
    ]
    problem = misfit(answer, validator)
    detail = {
        "valid": not problem,
        "right": right,
        "wrong": [name for name in expected if name not in right],
        "problem": problem,
    }
    share = len(right) / len(expected)
    return "answered", canonical(answer), share, canonical(detail)


def metrics(brief: Project, scored: pd.DataFrame) -> list[dict[str, Any]]:
    """Field accuracy (the mean item), valid JSON, and the share right of every field.

    Of a field's items (its `n`) those count that expect it; an answer without JSON has all
    fields wrong.
    """
    details = [json.loads(text) if text else {} for text in _details(scored)]
    expected = {t: _expected(brief, t) for t in scored["target"].unique()}
    names = dict.fromkeys(name for fields in expected.values() for name in fields)
    rows = [
        measured("field accuracy", scored["score"], scored, primary=True),
        measured("valid JSON", [bool(d.get("valid")) for d in details], scored),
    ]
    for name in names:
        wanted = np.array([name in expected[target] for target in scored["target"]])
        right = [
            name in d.get("right", ()) for d, here in zip(details, wanted, strict=True) if here
        ]
        rows.append(measured(f"field: {name}", right, scored[wanted]))
    return rows


def _details(scored: pd.DataFrame) -> list[str]:
    # Where no answer was usable, none has a detail.
    return list(scored["detail"].fillna("")) if "detail" in scored else [""] * len(scored)
