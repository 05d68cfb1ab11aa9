"""Extraction: the answer is JSON that fits a schema; scored by the share of fields right."""

import json
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from lib.brief import Deployment, Project
from lib.endpoints import Call, Item, json_schema_format
from lib.errors import PlaybookError
from lib.evaluate.kinds import defaults, exact, options_of
from lib.evaluate.kinds.defaults import Reader, by_metric, score_each
from lib.evaluate.schemas import json_of, misfit, validator_of
from lib.evaluate.scoring import Figure, metric_row
from lib.json_values import canonical, find_object, flatten, same

JSON_FIELDS = ("target",)


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
            shape = "an object with the expected fields"
            raise PlaybookError(f"{where}: target must be {shape}, not {target!r:.200}")
        if problem := misfit(target, validator, incomplete=True):
            raise PlaybookError(f"{where}: target does not fit evaluation.schema: {problem}")
        return {"target": canonical(target)}

    return read


def calls_of(brief: Project, deployment: Deployment) -> Callable[[Item], list[Call]]:
    """One chat an item, held to the schema where the brief says `constrained`."""
    extra = json_schema_format(_schema(brief)) if options_of(brief).constrained else {}
    return defaults.calls_of(brief, deployment, **extra)


def score(brief: Project, usable: pd.DataFrame, **_: Any) -> pd.DataFrame:
    """The share of expected fields that are right.

    A field that is missing is wrong, unless null is expected; those nobody asked for are the
    schema's to allow. `predicted` is the object as canonical JSON; `detail` is JSON text: `valid`
    (fits the schema), the fields `right` and `wrong`, and the `problem` found.
    """
    options, validator = options_of(brief), validator_of(_schema(brief), "evaluation.schema")
    expected = _expected_fields(usable, options)

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


def _expected_fields(scored: pd.DataFrame, options: Options) -> dict[str, dict[str, Any]]:
    return {t: flatten(json.loads(t), options.fields) for t in scored["target"].unique()}


def metrics(brief: Project, scored: pd.DataFrame) -> list[dict[str, Any]]:
    """Field accuracy (the mean item), valid JSON, and of every field the share of its items."""
    details = [json.loads(text or "{}") for text in scored["detail"]]
    expected = _expected_fields(scored, options_of(brief))
    rows = [
        metric_row("field accuracy", scored["score"], scored),
        metric_row("valid JSON", [bool(d.get("valid")) for d in details], scored),
    ]
    for name in dict.fromkeys(name for fields in expected.values() for name in fields):
        wanted = np.array([name in expected[target] for target in scored["target"]])
        right = np.array([name in d.get("right", ()) for d in details])
        rows.append(metric_row(f"field: {name}", right[wanted], scored[wanted]))
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
