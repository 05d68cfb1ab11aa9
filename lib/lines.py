"""Files of JSON lines or CSV, read with distrust: items, recorded answers, people's labels."""

import codecs
import csv
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, AnyStr, TypeVar

from pydantic import TypeAdapter, ValidationError

from lib.artifacts import path_name
from lib.errors import PlaybookError
from lib.json_values import parse_json

MAX_LINE_BYTES = 1_000_000
# What else a file may be, by its first bytes, and what to do with it.
OTHER_FILES = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: run git lfs pull",
    b"PK\3\4": "a zip file or a spreadsheet: save it as JSON lines or CSV",
    b"PAR1": "a Parquet file: save it as JSON lines or CSV",
    b"\x1f\x8b": "compressed: unpack it with gunzip",
    b"\xff\xfe": "not UTF-8 but UTF-16: save it as UTF-8",
}
T = TypeVar("T")


def required_file(path: Path, named_by: str) -> Path:
    """The path of a file that is there; a device, a pipe or a folder is none."""
    if not os.path.isfile(path):  # unlike Path's, also with a name that no file system takes
        raise PlaybookError(f"{path_name(path)}: no such file; {named_by} names it")
    return path


def read_json_lines(path: Path, *, wanted: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of a file with its place, such as `items.jsonl line 3`; blank lines are none.

    Any other line is a PlaybookError, with `wanted`, the keys it must have.
    """
    if _beginning(path).removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"[":
        way = "write one object a line, without brackets and commas: jq -c '.[]' does it"
        raise PlaybookError(f"{path_name(path)}: a JSON array; {way}")
    with path.open("rb") as stream:
        for where, line in _bounded(stream, path):
            if line.strip():
                yield where, _object(line, where, wanted)


def _bounded(stream: IO[AnyStr], path: Path) -> Iterator[tuple[str, AnyStr]]:
    """The lines of a file with their places; one that is too long is not read to its end."""
    for number in itertools.count(1):
        where, line = f"{path_name(path)} line {number}", stream.readline(MAX_LINE_BYTES + 1)
        if len(line) > MAX_LINE_BYTES:
            raise _too_long(where)
        if not line:
            return
        yield where, line


def _beginning(path: Path) -> bytes:
    """The first bytes of a file, which is none of `OTHER_FILES`."""
    with path.open("rb") as stream:
        first = stream.read(100)
    for start, text in OTHER_FILES.items():
        if first.startswith(start):
            raise PlaybookError(f"{path_name(path)}: {text}")
    return first


def _object(line: bytes, where: str, wanted: str) -> dict[str, Any]:
    try:
        value = parse_json(line.decode("utf-8-sig").rstrip())
    except UnicodeDecodeError as error:
        raise PlaybookError(f"{where}: not UTF-8 (byte {error.start}); save as UTF-8") from None
    except json.JSONDecodeError as error:
        part = line.strip() == b"{" or line.strip()[:1] != b"{"
        hint = "; every line must be one whole object" * part
        raise PlaybookError(f"{where}: not JSON: {error.msg}, column {error.colno}{hint}") from None
    except ValueError as error:
        raise PlaybookError(f"{where}: not usable JSON: {error}") from None
    if not isinstance(value, dict):
        raise PlaybookError(f"{where}: must be an object with {wanted}")
    return value


def read_csv_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every line of a CSV file with its place, as text by the names in its header.

    Whatever is wrong with the file or a line is a PlaybookError.
    """
    where = path_name(path)
    _beginning(path)
    csv.field_size_limit(MAX_LINE_BYTES)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader((line for _, line in _bounded(stream, path)), strict=True)
            header = next(reader, [])
            _check_header(header, where)
            for cells in (cells for cells in reader if any(cell.strip() for cell in cells)):
                place = f"{where} line {reader.line_num}"
                if len(cells) != len(header):
                    raise PlaybookError(
                        f"{place}: {len(cells)} cells, but the header has {len(header)};"
                        " put quotes around a cell that holds a comma"
                    )
                if sum(len(cell.encode()) for cell in cells) > MAX_LINE_BYTES:
                    raise _too_long(place)
                yield place, dict(zip(header, cells, strict=True))
    except UnicodeDecodeError as error:
        raise PlaybookError(f"{where}: not UTF-8 ({error.reason}); save as UTF-8") from None
    except csv.Error as error:
        raise PlaybookError(f"{where} line {reader.line_num}: not CSV: {error}") from None


def _check_header(header: list[str], where: str) -> None:
    if not header:
        raise PlaybookError(f"{where}: empty; its first line must name the columns")
    name, count = Counter(header).most_common(1)[0]
    if count > 1:
        raise PlaybookError(f"{where} line 1: the column {name!r} is there twice; rename one")
    if len(header) == 1:  # perhaps of a file that nobody should quote
        raise PlaybookError(f"{where} line 1: a single column; separate the columns by commas")


def _too_long(where: str) -> PlaybookError:
    return PlaybookError(f"{where}: too long; an item has at most {MAX_LINE_BYTES / 1e6:.0f} MB")


def validated(adapter: TypeAdapter[T], value: Any, where: str, key: str = "") -> T:
    """A value as pydantic reads it strictly, or a PlaybookError with its place and the key."""
    try:
        return adapter.validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, [key, *first["loc"]] if key else first["loc"]))
        text = first["msg"].removeprefix("Value error, ")
        if first["type"] not in ("missing", "value_error"):
            text += f", not {first['input']!r:.200}"
        raise PlaybookError(f"{where}: {place + ': ' if place else ''}{text}") from None


def required_text(value: Any, where: str, key: str) -> str:
    """A text that is not blank; PlaybookError for anything else, a number too."""
    if isinstance(value, str) and value.strip():
        return value
    quotes = f"; put it in quotes: {json.dumps(str(value))}" * isinstance(value, int | float)
    raise PlaybookError(f"{where}: {key} must be text, not {value!r:.200}{quotes}")
