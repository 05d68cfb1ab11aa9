"""JSON schemas and other JSON files that a brief names, and whether a value fits one."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
from jsonschema.exceptions import SchemaError
from jsonschema.protocols import Validator
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012, specification_with

from lib.artifacts import path_name
from lib.errors import PlaybookError
from lib.json_values import MAX_CHARACTERS, parse_json
from lib.lines import required_file


def validator_of(schema: Mapping[str, Any], where: str) -> Validator:
    """A validator of one JSON schema that never leaves it; a wrong one is a PlaybookError."""
    draft = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        draft.check_schema(schema)
        _check_references(schema, draft.META_SCHEMA, where)
        # An empty registry: the default one would fetch whatever a $ref names.
        validator = draft(schema, registry=Registry())
        validator.is_valid({})
    except SchemaError as error:
        place = ".".join(str(part) for part in error.absolute_path) or "the top"
        raise PlaybookError(f"{where}: not a JSON schema: {place}: {error.message[:200]}") from None
    except RecursionError:
        raise PlaybookError(f"{where}: a $ref leads back to itself without end") from None
    return validator


def _check_references(schema: Mapping[str, Any], draft: Mapping[str, Any], where: str) -> None:
    dialect = specification_with(draft.get("$id", draft.get("id", "")), default=DRAFT202012)
    resolver = Registry().with_resource("", dialect.create_resource(schema)).resolver()
    for text in re.findall(r'"\$ref": ("(?:[^"\\]|\\.)*")', json.dumps(schema)):
        reference = json.loads(text)
        try:
            resolver.lookup(reference)
        except Unresolvable:
            problem = f"{where}: $ref {reference!r} names nothing in the schema"
            way = "nothing is fetched; copy what it names into $defs"
            raise PlaybookError(f"{problem}, and {way}") from None


def misfit(value: Any, validator: Validator, *, incomplete: bool = False) -> str:
    """Why a value does not fit a schema, "" if it fits; an `incomplete` one may lack fields."""
    try:
        for error in validator.iter_errors(value):
            if not (incomplete and error.validator == "required"):
                place = ".".join(str(part) for part in error.absolute_path)
                return (f"{place}: " if place else "") + str(error.message)[:200]
    except RecursionError:
        return "nested too deeply for the schema"
    except Unresolvable:
        return "the schema points to what it does not hold"
    return ""


def json_of(value: Any, folder: Path, key: str) -> Any:
    """A value of the brief, or of the JSON file beside it that it names; `key` is its place."""
    if not isinstance(value, str):
        return value
    path = required_file(folder / value, f"{key} in project.yaml")
    try:
        with path.open("rb") as stream:
            return parse_json(stream.read(MAX_CHARACTERS + 1).decode("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise PlaybookError(f"{path_name(path)}: not JSON: {error}") from None
