"""Files of JSON lines, read with distrust: items, recorded answers, answers people labelled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from lib.artifacts import shown
from lib.errors import PlaybookError
from lib.json_values import parse_json

MAX_LINE_BYTES = 1_000_000
T = TypeVar("T")


def read_json_lines(path: Path, *, wanted: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of a file with its place, such as `items.jsonl line 3`; blank lines are none.

    `wanted` says which keys a line must have, for the sentence that says a line is no object.

    Raises:
        PlaybookError: A line is not UTF-8, not JSON, too long or no object.
    """
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                where = f"{shown(path)} line {number}"
                yield where, _object(line, where, wanted)


def _object(line: bytes, where: str, wanted: str) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise too_long(where, len(line))
    try:
        value = parse_json(line.decode("utf-8-sig").rstrip())
    except UnicodeDecodeError as error:
        raise PlaybookError(f"{where}: not UTF-8 (byte {error.start}); save as UTF-8") from None
    except json.JSONDecodeError as error:
        raise PlaybookError(f"{where}: not JSON: {error.msg}, column {error.colno}") from None
    except ValueError as error:
        raise PlaybookError(f"{where}: not usable JSON: {error}") from None
    if not isinstance(value, dict):
        raise PlaybookError(f"{where}: must be an object with {wanted}")
    return value


def too_long(where: str, size: int) -> PlaybookError:
    """The error of a line that is too long."""
    return PlaybookError(
        f"{where}: {size / 1e6:.1f} MB long; an item has at most {MAX_LINE_BYTES / 1e6:.0f} MB"
    )


def validated(adapter: TypeAdapter[T], value: Any, where: str, key: str = "") -> T:
    """A value as pydantic reads it strictly, or one sentence with its place and the key.

    Raises:
        PlaybookError: The value does not fit.
    """
    try:
        return adapter.validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, [key, *first["loc"]] if key else first["loc"]))
        text = first["msg"].removeprefix("Value error, ")
        if first["type"] not in ("missing", "value_error"):
            text += f", not {first['input']!r:.200}"
        raise PlaybookError(f"{where}: {place + ': ' if place else ''}{text}") from None
