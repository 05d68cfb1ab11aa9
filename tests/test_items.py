"""The items: every unusable line is refused by file, line and reason before anything is asked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from briefs import brief, write_items

from lib.errors import PlaybookError
from lib.items import load_items
from lib.project import load_project

GOOD = {"id": "1", "input": "Works well", "target": "positive"}


def other(**changes: Any) -> dict[str, Any]:
    return {k: v for k, v in ({**GOOD, "id": "2"} | changes).items() if v is not ...}


def test_items_with_further_fields(tmp_path: Path) -> None:
    write_items(tmp_path, GOOD, "", "  \t", other(target="negative", source="x"))
    items = load_items(brief(tmp_path))
    assert list(items["item_id"]) == ["1", "2"]
    assert list(items["target"]) == ["positive", "negative"]
    assert list(items.columns) == ["item_id", "input", "target", "source"]


def test_windows_line_ends_and_no_last_one(tmp_path: Path) -> None:
    text = json.dumps(GOOD) + "\r\n" + json.dumps(other())
    (tmp_path / "items.jsonl").write_bytes(text.encode())
    assert len(load_items(brief(tmp_path))) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (other(target="positve"), "target 'positve' is not one of ['positive', 'negative']"),
        (other(target="Positive"), "target 'Positive' is not one of ['positive', 'negative']"),
        (other(id=...), "id must be text, not None"),
        (other(input=...), "input must be text, not None"),
        (other(target=...), "target must be text, not None"),
        (other(id=2), "id must be text, not 2"),
        (other(input=["a"]), "input must be text, not ['a']"),
        (other(input="  "), "input must be text, not '  '"),
        (other(target=True), "target must be text, not True"),
        (other(item_id="9"), "the key item_id is taken; the item's name is its id"),
        (b"{'id': 1}", "not JSON: Expecting property name enclosed in double quotes, column 2"),
        (b'{"id": "2", "input": "x', "not JSON: Unterminated string starting at, column 22"),
        (b"[" * 100_000, "not usable JSON: maximum recursion depth"),
        ([GOOD], "must be an object with id, input and target"),
        (b"null", "must be an object with id, input and target"),
        (b'{"id": "caf\xe9"}', "not UTF-8 (byte 11); save as UTF-8"),
        (b'{"id": "2", "input": "\\ud800", "target": "positive"}', "half a surrogate pair"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: Any, message: str) -> None:
    write_items(tmp_path, GOOD, "", line)
    with pytest.raises(
        PlaybookError, match=f"^{re.escape(f'{tmp_path}/items.jsonl line 3: {message}')}"
    ):
        load_items(brief(tmp_path))


def test_a_line_of_ten_megabytes(tmp_path: Path) -> None:
    write_items(tmp_path, GOOD, other(input="x" * 10_000_000))
    with pytest.raises(
        PlaybookError, match=r"items\.jsonl line 2: 10\.0 MB long; an item has at most 1 MB$"
    ):
        load_items(brief(tmp_path))


def test_an_item_just_within_the_limit(tmp_path: Path) -> None:
    write_items(tmp_path, other(input="x" * 999_900))
    assert len(load_items(brief(tmp_path))) == 1


def test_duplicate_ids(tmp_path: Path) -> None:
    write_items(tmp_path, GOOD, other(id="1"), other())
    with pytest.raises(PlaybookError, match=r"items\.jsonl: the id '1' is used 2 times$"):
        load_items(brief(tmp_path))


@pytest.mark.parametrize("content", [b"", b"\n\n  \n"])
def test_an_empty_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "items.jsonl").write_bytes(content)
    with pytest.raises(PlaybookError, match=r'items\.jsonl: empty; write one \{"id", "input", "ta'):
        load_items(brief(tmp_path))


def test_a_missing_file(tmp_path: Path) -> None:
    message = r"items\.jsonl: no such file; evaluation\.items in project\.yaml names it"
    with pytest.raises(PlaybookError, match=message):
        load_items(brief(tmp_path))
    (tmp_path / "items.jsonl").mkdir()
    with pytest.raises(PlaybookError, match=message):
        load_items(brief(tmp_path))


@pytest.mark.parametrize("text", ["Great value.", "  great VALUE.\t"])
def test_a_worked_example_is_no_item(tmp_path: Path, text: str) -> None:
    write_items(tmp_path, GOOD, other(input=text))
    shots = [{"input": "Great value.", "target": "positive"}]
    with pytest.raises(PlaybookError, match=r"items\.jsonl: item '2' is also a shot; a worked exa"):
        load_items(brief(tmp_path, "evaluation.shots", shots))


def test_exact_items_need_no_labels(tmp_path: Path) -> None:
    write_items(tmp_path, other(target="42"))
    items = load_items(brief(tmp_path, "evaluation", {"kind": "exact", "items": "items.jsonl"}))
    assert list(items["target"]) == ["42"]


def test_published_figures_have_no_items() -> None:
    items = load_items(load_project("article"))
    assert items.empty
    assert list(items.columns) == ["item_id", "input", "target"]


@pytest.mark.parametrize("name", ["hosted-template", "review-sentiment"])
def test_shipped_items(name: str) -> None:
    project = load_project(name)
    items = load_items(project)
    assert set(items["target"]) == set(project.evaluation.labels)
