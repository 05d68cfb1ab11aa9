"""The brief's items: read from JSON lines or CSV, and checked before anything is asked."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from lib.artifacts import shown
from lib.brief.project import Project
from lib.errors import PlaybookError
from lib.evaluate.item_targets import Checks, documents_text, target_text
from lib.evaluate.json_values import canonical, parse_json

__all__ = ["MAX_LINE_BYTES", "load_items"]

MAX_LINE_BYTES = 1_000_000
COLUMNS = ["item_id", "input", "target", "group"]
TAKEN = ("item_id", "deployment", "repo_id")


def load_items(brief: Project) -> pd.DataFrame:
    """Read the items of a brief.

    `evaluation.format` says what the file is: `jsonl` (an object a line) or `csv` (a header, then
    a line an item; structured targets as JSON text). `evaluation.columns` names the file's field
    for each of ours, such as `{input: question}`; `a.b` is the field b in a.

    Returns:
        One row per item, all text: `item_id input target group` (for `reranking` also
        `documents`) and the file's further fields. What a target may be depends on the kind:
        a label; text, or a list of texts of which any counts (`exact`); an object
        (`extraction`); a call, a list of calls or null for none (`tool_call`); grades by document
        or a list of relevant documents (`reranking`); or text, perhaps none (kinds with a judge).
        What is not text is canonical JSON text. `group` is the field that `evaluation.group`
        names, "" without one; a field of that name which it does not name is `file_group`.

    Raises:
        PlaybookError: A line is not usable; names the file, the line and what is wrong.
    """
    evaluation = brief.evaluation
    if evaluation.kind in ("published", "inspect"):
        return pd.DataFrame(columns=COLUMNS, dtype="str")
    path = brief.items_path
    where = shown(path)
    if not path.is_file():
        raise PlaybookError(f"{where}: no such file; evaluation.items in project.yaml names it")
    checks = Checks(brief)
    read = {"jsonl": _jsonl, "csv": _csv}[evaluation.format]
    rows = [_item(raw, place, checks) for place, raw in read(path, brief)]
    if not rows:
        raise PlaybookError(f'{where}: empty; write one {{"id", "input", "target"}} a line')
    counts = Counter(row["item_id"] for row in rows)
    if twice := [item for item, count in counts.items() if count > 1]:
        raise PlaybookError(f"{where}: the id {twice[0]!r} is used {counts[twice[0]]} times")
    first = [*COLUMNS, "documents"] if evaluation.kind == "reranking" else COLUMNS
    further = dict.fromkeys(key for row in rows for key in row if key not in first)
    table = {name: [row.get(name, "") for row in rows] for name in (*first, *further)}
    items = pd.DataFrame(table, dtype="str")
    shots = {shot.input.strip().casefold() for shot in evaluation.shots}
    shown_too = items["input"].str.strip().str.casefold().isin(shots)
    if shown_too.any():
        name = items.loc[shown_too, "item_id"].iloc[0]
        raise PlaybookError(f"{where}: item {name!r} is also a shot; a worked example is no test")
    return items


def _jsonl(path: Path, brief: Project) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                where = f"{shown(path)} line {number}"
                yield where, _mapped(_parse(line, where), brief, where)


def _parse(line: bytes, where: str) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise _too_long(where, len(line))
    try:
        item = parse_json(line.decode("utf-8-sig").rstrip())
    except UnicodeDecodeError as error:
        raise PlaybookError(f"{where}: not UTF-8 (byte {error.start}); save as UTF-8") from None
    except json.JSONDecodeError as error:
        raise PlaybookError(f"{where}: not JSON: {error.msg}, column {error.colno}") from None
    except ValueError as error:
        raise PlaybookError(f"{where}: not usable JSON: {error}") from None
    if not isinstance(item, dict):
        raise PlaybookError(f"{where}: must be an object with id, input and target")
    return item


def _too_long(where: str, size: int) -> PlaybookError:
    return PlaybookError(
        f"{where}: {size / 1e6:.1f} MB long; an item has at most {MAX_LINE_BYTES / 1e6:.0f} MB"
    )


def _csv(path: Path, brief: Project) -> Iterator[tuple[str, dict[str, Any]]]:
    where = shown(path)
    csv.field_size_limit(MAX_LINE_BYTES)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = next(reader, [])
            _check_header(header, where, brief)
            for cells in reader:
                place = f"{where} line {reader.line_num}"
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(header):
                    raise PlaybookError(
                        f"{place}: {len(cells)} cells, but the header has {len(header)};"
                        " put quotes around a cell that holds a comma"
                    )
                if (size := sum(len(cell.encode()) for cell in cells)) > MAX_LINE_BYTES:
                    raise _too_long(place, size)
                item = _mapped(dict(zip(header, cells, strict=True)), brief, place)
                yield place, _decoded(item, place, brief)
    except UnicodeDecodeError as error:
        raise PlaybookError(f"{where}: not UTF-8 ({error.reason}); save as UTF-8") from None
    except csv.Error as error:
        raise PlaybookError(f"{where} line {reader.line_num}: not CSV: {error}") from None


def _check_header(header: list[str], where: str, brief: Project) -> None:
    if not header:
        raise PlaybookError(f"{where}: empty; its first line must name the columns")
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise PlaybookError(f"{where} line 1: the column {twice[0]!r} is there twice; rename one")
    columns = brief.evaluation.columns
    for name in ("id", "input", *columns):
        if (field := columns.get(name, name)) not in header:
            hint = f"; evaluation.columns can say which is: {{{name}: …}}"
            raise PlaybookError(
                f"{where} line 1: no column {field!r} among {header}"[:400]
                + ("; separate the columns by commas" if len(header) == 1 else hint)
            )


def _decoded(item: dict[str, Any], where: str, brief: Project) -> dict[str, Any]:
    """Cells that hold JSON for this kind, as what they say."""
    structured = brief.evaluation.kind in ("extraction", "tool_call", "reranking")
    for key in ("target", "documents") if structured else ():
        if item.get(key, "").strip():
            try:
                item[key] = parse_json(item[key])
            except ValueError as error:
                raise PlaybookError(f"{where}: {key} must be JSON text: {error}") from None
    return item


def _mapped(raw: dict[str, Any], brief: Project, where: str) -> dict[str, Any]:
    """The item under our names; a field of the file that has one of them gives way."""
    columns = brief.evaluation.columns
    found = {}
    for name, field in columns.items():
        value: Any = raw
        for part in [field] if field in raw else field.split("."):
            if not isinstance(value, dict) or part not in value:
                raise PlaybookError(
                    f"{where}: no field {field!r}, which evaluation.columns names as {name};"
                    f" there are {', '.join(map(str, raw))}"[:400]
                )
            value = value[part]
        found[name] = value
    # The group may be a field that has one of our names too.
    used = set(columns.values()) - {brief.evaluation.group}
    return {key: value for key, value in raw.items() if key not in used} | found


def _item(item: dict[str, Any], where: str, checks: Checks) -> dict[str, str]:
    for key in ("id", "input"):
        if not isinstance(item.get(key), str) or not item[key].strip():
            raise PlaybookError(f"{where}: {key} must be text, not {item.get(key)!r:.200}")
    if taken := [key for key in TAKEN if key in item]:
        raise PlaybookError(f"{where}: the key {taken[0]} is taken; the item's name is its id")
    evaluation = checks.brief.evaluation
    group = _group(item, evaluation.group, where)
    item["target"] = target_text(item, where, checks)
    if evaluation.kind == "reranking":
        item["documents"] = documents_text(item, where)
    if "group" in item and evaluation.group != "group":
        item["file_group"] = item["group"]
    texts = {key: _text(value) for key, value in item.items() if key not in ("id", "group")}
    return {"item_id": item["id"], **texts, "group": group}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else canonical(value)


def _group(item: dict[str, Any], field: str | None, where: str) -> str:
    if field is None:
        return ""
    if not _text(item.get(field)).strip():
        raise PlaybookError(f"{where}: {field} is missing; evaluation.group names it")
    return _text(item[field])
