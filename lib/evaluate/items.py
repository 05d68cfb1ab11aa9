"""The brief's items: read from JSON lines or CSV, and checked before anything is asked."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from lib.artifacts import path_name
from lib.brief import Project
from lib.errors import PlaybookError
from lib.evaluate import kinds
from lib.evaluate.kinds.defaults import Reader
from lib.json_values import canonical, parse_json
from lib.lines import read_csv_lines, read_json_lines

COLUMNS = ["item_id", "input", "target", "group"]
TAKEN = ("item_id", "deployment", "repo_id")


def load_items(brief: Project) -> pd.DataFrame:
    """Read the items of a brief, a file of JSON lines or CSV (`evaluation.format`).

    `evaluation.columns` names the file's field for each of ours, such as `{input: question}`.

    Returns:
        One row per item, all text: `item_id input target group`, what the kind of task adds
        (`documents`) and the file's further fields, as canonical JSON where they are no text.
        `group` is the field that `evaluation.group` names; another of that name is `file_group`.

    Raises:
        PlaybookError: A line is not usable; names the file, the line and what is wrong.
    """
    kind = kinds.of(brief.evaluation.kind)
    if not kind.ASKS_ITEMS:
        return pd.DataFrame(columns=COLUMNS, dtype="str")
    where = path_name(path := brief.items_path)
    if not path.is_file():
        raise PlaybookError(f"{where}: no such file; evaluation.items in project.yaml names it")
    read = kind.item_reader(brief)
    rows = [_item(raw, place, brief, read) for place, raw in _lines(path, brief)]
    if not rows:
        raise PlaybookError(f'{where}: empty; write one {{"id", "input", "target"}} a line')
    name, count = Counter(row["item_id"] for row in rows).most_common(1)[0]
    if count > 1:
        raise PlaybookError(f"{where}: the id {name!r} is used {count} times")
    items = pd.DataFrame(rows)
    columns = dict.fromkeys([*COLUMNS, *kind.JSON_FIELDS, *items])
    items = items.reindex(columns=list(columns)).fillna("").astype("str")
    shots = {shot.input.strip().casefold() for shot in brief.evaluation.shots}
    shown_too = items["input"].str.strip().str.casefold().isin(shots)
    for name in items.loc[shown_too, "item_id"]:
        raise PlaybookError(f"{where}: item {name!r} is also a shot; a worked example is no test")
    return items


def _lines(path: Path, brief: Project) -> Iterator[tuple[str, dict[str, Any]]]:
    if brief.evaluation.format == "jsonl":
        for where, item in read_json_lines(path, wanted="id, input and target"):
            yield where, _mapped(item, brief, where)
        return
    columns = brief.evaluation.columns
    wanted = {name: columns.get(name, name) for name in ("id", "input", *columns)}
    for where, item in read_csv_lines(path, wanted=wanted):
        yield where, _decoded(_mapped(item, brief, where), where, brief)


def _decoded(item: dict[str, Any], where: str, brief: Project) -> dict[str, Any]:
    """Cells that hold JSON for this kind, as what they say."""
    for key in kinds.of(brief.evaluation.kind).JSON_FIELDS:
        if item.get(key, "").strip():
            try:
                item[key] = parse_json(item[key])
            except ValueError as error:
                raise PlaybookError(f"{where}: {key} must be JSON text: {error}") from None
    return item


def _mapped(raw: dict[str, Any], brief: Project, where: str) -> dict[str, Any]:
    """The item under our names; a field of the file that has one of them gives way."""
    columns = brief.evaluation.columns
    fields = {}
    for name, field in columns.items():
        value: Any = raw
        for part in [field] if field in raw else field.split("."):
            if not isinstance(value, dict) or part not in value:
                raise PlaybookError(
                    f"{where}: no field {field!r}, which evaluation.columns names as {name};"
                    f" there are {', '.join(map(str, raw))}"[:400]
                )
            value = value[part]
        fields[name] = value
    # The group may be a field that has one of our names too.
    used = set(columns.values()) - {brief.evaluation.group}
    return {key: value for key, value in raw.items() if key not in used} | fields


def _item(item: dict[str, Any], where: str, brief: Project, read: Reader) -> dict[str, str]:
    for key in ("id", "input"):
        if not isinstance(item.get(key), str) or not item[key].strip():
            raise PlaybookError(f"{where}: {key} must be text, not {item.get(key)!r:.200}")
    if taken := [key for key in TAKEN if key in item]:
        raise PlaybookError(f"{where}: the key {taken[0]} is taken; the item's name is its id")
    field = brief.evaluation.group
    group = _text(item.get(field)) if field else ""
    if field and not group.strip():
        raise PlaybookError(f"{where}: {field} is missing; evaluation.group names it")
    item |= read(item, where)
    if "group" in item and field != "group":
        item["file_group"] = item["group"]
    texts = {key: _text(value) for key, value in item.items() if key not in ("id", "group")}
    return {"item_id": item["id"], **texts, "group": group}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else canonical(value)
