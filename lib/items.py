"""The brief's items: one JSON object a line, checked before anything is asked."""

from __future__ import annotations

import json
from collections import Counter

import pandas as pd

from lib.artifacts import shown
from lib.errors import PlaybookError
from lib.project import Project

__all__ = ["MAX_LINE_BYTES", "load_items"]

MAX_LINE_BYTES = 1_000_000


def load_items(brief: Project) -> pd.DataFrame:
    """Read the items of a brief: `item_id`, `input`, `target` and any further fields.

    Raises:
        PlaybookError: A line is not usable; names the file, the line and what is wrong.
    """
    if brief.evaluation.kind == "published":
        return pd.DataFrame(columns=["item_id", "input", "target"])
    path = brief.items_path
    where = shown(path)
    if not path.is_file():
        raise PlaybookError(f"{where}: no such file; evaluation.items in project.yaml names it")
    rows = []
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                rows.append(_parse(line, f"{where} line {number}", brief))
    if not rows:
        raise PlaybookError(f'{where}: empty; write one {{"id", "input", "target"}} a line')
    counts = Counter(row["item_id"] for row in rows)
    if twice := [item for item, count in counts.items() if count > 1]:
        raise PlaybookError(f"{where}: the id {twice[0]!r} is used {counts[twice[0]]} times")
    items = pd.DataFrame(rows)
    shots = {shot.input.strip().casefold() for shot in brief.evaluation.shots}
    shown_too = items["input"].str.strip().str.casefold().isin(shots)
    if shown_too.any():
        first = items.loc[shown_too, "item_id"].iloc[0]
        raise PlaybookError(f"{where}: item {first!r} is also a shot; a worked example is no test")
    return items


def _parse(line: bytes, where: str, brief: Project) -> dict[str, object]:
    if len(line) > MAX_LINE_BYTES:
        raise PlaybookError(
            f"{where}: {len(line) / 1e6:.1f} MB long; an item has at most"
            f" {MAX_LINE_BYTES / 1e6:.0f} MB"
        )
    try:
        item = json.loads(line.decode("utf-8").rstrip())
        json.dumps(item, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise PlaybookError(f"{where}: not UTF-8 (byte {error.start}); save as UTF-8") from None
    except UnicodeEncodeError:
        raise PlaybookError(f"{where}: half a surrogate pair (\\ud800 to \\udfff)") from None
    except json.JSONDecodeError as error:
        raise PlaybookError(f"{where}: not JSON: {error.msg}, column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise PlaybookError(f"{where}: not usable JSON: {error}") from None
    if not isinstance(item, dict):
        raise PlaybookError(f"{where}: must be an object with id, input and target")
    for key in ("id", "input", "target"):
        if not isinstance(item.get(key), str) or not item[key].strip():
            raise PlaybookError(f"{where}: {key} must be text, not {item.get(key)!r}")
    if "item_id" in item:
        raise PlaybookError(f"{where}: the key item_id is taken; the item's name is its id")
    labels = brief.evaluation.labels
    if brief.evaluation.kind == "classification" and item["target"] not in labels:
        raise PlaybookError(f"{where}: target {item['target']!r} is not one of {labels}")
    return {"item_id": item.pop("id"), **item}
