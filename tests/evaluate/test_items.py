"""The items: every unusable line is refused by file, line and reason before anything is asked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from briefs import brief, load_project, write_items

from lib.errors import PlaybookError
from lib.evaluate.items import load_items
from lib.evaluate.kinds.exact import _answers as accepted

GOOD = {"id": "1", "input": "Works well", "target": "positive"}


def other(**changes: Any) -> dict[str, Any]:
    return {k: v for k, v in ({**GOOD, "id": "2"} | changes).items() if v is not ...}


def test_items_with_further_fields(tmp_path: Path) -> None:
    write_items(tmp_path, GOOD, "", "  \t", other(target="negative", source="x"))
    items = load_items(brief(tmp_path))
    assert list(items["item_id"]) == ["1", "2"]
    assert list(items["target"]) == ["positive", "negative"]
    assert list(items.columns) == ["item_id", "input", "target", "group", "source"]
    assert list(items["source"]) == ["", "x"]
    assert list(items["group"]) == ["", ""]


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
        (b"[" * 100_000, "not usable JSON: nested more than 64 levels deep"),
        ([GOOD], "must be an object with id, input and target"),
        (b"null", "must be an object with id, input and target"),
        (b'{"id": "caf\xe9"}', "not UTF-8 (byte 11); save as UTF-8"),
        (b'{"id": "2", "input": "\\ud800", "target": "positive"}', "not usable JSON: half a surr"),
        (b'{"id": "2", "input": "x", "target": NaN}', "not usable JSON: NaN is no finite number"),
        (b'{"id": "2", "input": "x", "n": 1e999}', "not usable JSON: 1e999 is no finite number"),
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
        PlaybookError, match=r"items\.jsonl line 2: too long; an item has at most 1 MB$"
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
    assert list(items.columns) == ["item_id", "input", "target", "group"]


@pytest.mark.parametrize("name", ["hosted-template", "review-sentiment"])
def test_shipped_items(name: str) -> None:
    project = load_project(name)
    items = load_items(project)
    assert set(items["target"]) == set(project.evaluation.labels)


def of_kind(tmp_path: Path, kind: str, *rows: Any, **more: Any) -> pd.DataFrame:
    """The items of a brief of some kind, from rows or from the file that is there."""
    if rows:
        write_items(tmp_path, *rows)
    judge = {"model": "org/judge", "endpoint": {"base_url": "https://host/v1"}, "user": "{output}"}
    needs: dict[str, Any] = {
        "classification": {"labels": ["positive", "negative"]},
        "extraction": {"schema": SCHEMA},
        "tool_call": {"tools": TOOLS},
        "judged": {"judge": judge},
    }
    evaluation = {"kind": kind, "items": "items.jsonl", **needs.get(kind, {}), **more}
    return load_items(brief(tmp_path, "evaluation", evaluation))


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
                "required": ["city", "unit"],
                "additionalProperties": False,
            },
        },
    },
    {"name": "time"},
]


def refused(tmp_path: Path, kind: str, message: str, line: Any, **more: Any) -> None:
    where = f"^{re.escape(str(tmp_path))}/items\\.(jsonl|csv) (line|item) [0-9]+: "
    with pytest.raises(PlaybookError, match=where + re.escape(message)):
        of_kind(tmp_path, kind, line, **more)


def test_a_field_group_that_is_not_named(tmp_path: Path) -> None:
    items = of_kind(tmp_path, "classification", other(group="plain"))
    assert items[["group", "file_group"]].to_numpy().tolist() == [["", "plain"]]


def test_groups(tmp_path: Path) -> None:
    rows = [{**GOOD, "shop": "x"}, other(shop=7)]
    items = of_kind(tmp_path, "classification", *rows, group="shop")
    assert list(items["group"]) == ["x", "7"]
    assert list(items["shop"]) == ["x", "7"]
    named = of_kind(tmp_path, "classification", other(group="x"), group="group")
    assert list(named["group"]) == ["x"]
    assert "file_group" not in named


@pytest.mark.parametrize("value", [..., None, "", "  "])
def test_a_missing_group(tmp_path: Path, value: Any) -> None:
    refused(tmp_path, "exact", "shop is missing; evaluation.group", other(shop=value), group="shop")


def test_further_fields_are_text(tmp_path: Path) -> None:
    items = of_kind(tmp_path, "exact", other(n=1, tags=["é", {"b": 1, "a": None}], none=None))
    row = items.iloc[0]
    assert (row["n"], row["tags"], row["none"]) == ("1", '["é", {"a": null, "b": 1}]', "")


def test_columns_of_the_file(tmp_path: Path) -> None:
    row = {"qid": "7", "q": {"text": "Why?"}, "a.b": "so", "input": "not this", "x": "y"}
    columns = {"id": "qid", "input": "q.text", "target": "a.b"}
    items = of_kind(tmp_path, "exact", row, columns=columns)
    assert items.iloc[0][["item_id", "input", "target", "x"]].to_list() == ["7", "Why?", "so", "y"]
    message = "no field 'q.words', which evaluation.columns names as input; there are qid, q, a.b"
    refused(tmp_path, "exact", message, row, columns=columns | {"input": "q.words"})


def test_several_accepted_answers(tmp_path: Path) -> None:
    items = of_kind(tmp_path, "exact", GOOD | {"target": ["b", "a"]}, other(target='["x", "y"]'))
    assert [accepted(t) for t in items["target"]] == [["b", "a"], ['["x", "y"]']]


@pytest.mark.parametrize("target", [[], [""], [1], ["a", None], {"a": 1}, 3, None])
def test_no_accepted_answer(tmp_path: Path, target: Any) -> None:
    refused(tmp_path, "exact", "target must be text", other(target=target))


@pytest.mark.parametrize("target", [..., None, "", "a reference"])
def test_judged_items_need_no_target(tmp_path: Path, target: Any) -> None:
    items = of_kind(tmp_path, "judged", other(target=target))
    assert items.iloc[0]["target"] == ("a reference" if target == "a reference" else "")


def test_judged_targets_are_text(tmp_path: Path) -> None:
    refused(tmp_path, "judged", "target must be text, not 3", other(target=3))


def test_extraction_targets(tmp_path: Path) -> None:
    items = of_kind(tmp_path, "extraction", other(target={"name": "Zoé", "age": 3}))
    assert items.iloc[0]["target"] == '{"age": 3, "name": "Zoé"}'
    assert len(of_kind(tmp_path, "extraction", other(target={"age": 3}))) == 1  # states some only


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({}, "target must be an object with the expected fields, not {}"),
        ("{}", "target must be an object with the expected fields, not '{}'"),
        (None, "target must be an object"),
        ([{"name": "x"}], "target must be an object"),
        ({"age": "3"}, "target does not fit evaluation.schema: age: '3' is not of type 'integer'"),
        ({"nmae": "x"}, "target does not fit evaluation.schema: Additional properties are not"),
    ],
)
def test_wrong_extraction_targets(tmp_path: Path, target: Any, message: str) -> None:
    refused(tmp_path, "extraction", message, other(target=target))


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ({"name": "weather", "arguments": {"city": "Rome"}}, None),
        ([{"name": "time"}, {"name": "time", "arguments": {}}], None),
        (None, "null"),
        ([], "null"),
    ],
)
def test_tool_call_targets(tmp_path: Path, target: Any, text: str | None) -> None:
    items = of_kind(tmp_path, "tool_call", other(target=target))
    assert items.iloc[0]["target"] == (text or json.dumps(target, sort_keys=True))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (..., "target is missing; write null where no call is expected"),
        ("weather", "target.0: Input should be a valid dictionary, not 'weather'"),
        ({"name": "wether"}, "target names 'wether', not one of evaluation.tools: weath"),
        ({"name": ["x"]}, "target.0.name: Input should be a valid string, not ['x']"),
        ({"name": "weather", "argument": {}}, "target.0.argument: Extra inputs are not permitted"),
        ({"name": "weather", "arguments": "{}"}, "target.0.arguments: Input should be a valid di"),
        ({"name": "weather", "arguments": None}, "target.0.arguments: Input should be a valid di"),
        ({"name": "weather", "arguments": {"unit": "K"}}, "arguments of 'weather' do not fit: un"),
        ({"name": "weather", "arguments": {"town": "x"}}, "arguments of 'weather' do not fit: Add"),
    ],
)
def test_wrong_tool_call_targets(tmp_path: Path, target: Any, message: str) -> None:
    refused(tmp_path, "tool_call", message, other(target=target))


def test_reranking_items(tmp_path: Path) -> None:
    documents = [{"id": "a", "text": "x", "extra": 1}, {"id": "b", "text": "y"}]
    rows = [
        GOOD | {"documents": documents, "target": {"b": 2, "a": 0}},
        other(documents=["x", "y", "z"], target=["3", "1"]),
    ]
    items = of_kind(tmp_path, "reranking", *rows)
    assert list(items.columns) == ["item_id", "input", "target", "group", "documents"]
    assert list(items["target"]) == ['{"a": 0, "b": 2}', '{"1": 1, "3": 1}']
    assert json.loads(items["documents"][0]) == [{"id": "a", "text": "x"}, {"id": "b", "text": "y"}]
    assert [d["id"] for d in json.loads(items["documents"][1])] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"documents": ...}, "documents: List should have at least 2 items"),
        ({"documents": ["x"]}, "documents: List should have at least 2 items"),
        ({"documents": ["x", 3]}, "documents.1: Input should be a valid dictionary, not 3"),
        (
            {"documents": [{"id": 1, "text": "x"}] * 2},
            "documents.0.id: Input should be a valid string, not 1",
        ),
        ({"documents": [{"id": "1", "text": "x"}] * 2}, "the document id '1' is used 2 times"),
        ({"target": ...}, "target: Input should be a valid dictionary, not None"),
        ({"target": []}, "target: Dictionary should have at least 1 item"),
        ({"target": ["9"]}, "target names '9', which is no document: 1, 2"),
        ({"target": {"1": 0.5}}, "target.1: Input should be a valid integer, not 0.5"),
        ({"target": {"1": True}}, "target.1: Input should be a valid integer, not True"),
        ({"target": {"1": 0}}, "no document is relevant"),
    ],
)
def test_wrong_reranking_items(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    line = other(**({"documents": ["x", "y"], "target": ["1"]} | changes))
    refused(tmp_path, "reranking", message, line)


def csv_items(tmp_path: Path, text: str | bytes, kind: str = "exact", **more: Any) -> pd.DataFrame:
    (tmp_path / "items.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return of_kind(tmp_path, kind, items="items.csv", format="csv", **more)


def test_csv(tmp_path: Path) -> None:
    text = '\ufeffid,question,answer,n\r\n1,"a, ""b""\nc",007,NA\r\n,,,\r\n2,x,y,\r\n'
    items = csv_items(tmp_path, text, columns={"input": "question", "target": "answer"})
    assert items[["item_id", "input", "target", "n"]].to_numpy().tolist() == [
        ["1", 'a, "b"\nc', "007", "NA"],
        ["2", "x", "y", ""],
    ]


def test_csv_with_json_cells(tmp_path: Path) -> None:
    call = '"{""name"": ""time""}"'
    items = csv_items(tmp_path, f"id,input,target\n1,x,{call}\n2,y,null\n", kind="tool_call")
    assert list(items["target"]) == ['{"name": "time"}', "null"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "items.csv: empty; its first line must name the columns"),
        ("id,input,target\n", "items.csv: empty; write one"),
        (
            "id,text,target\n1,x,y\n",
            "no line has a field 'input', they have id, target, text; evaluatio",
        ),
        ("id;input;target\n1;x;y\n", "separate the columns by commas"),
        ("id,input,input\n1,x,y\n", "items.csv line 1: the column 'input' is there twice"),
        ("id,input,target\n1,x,y,z\n", "items.csv line 2: 4 cells, but the header has 3; put quot"),
        ('id,input,target\n1,"x"y,z\n', "items.csv line 2: not CSV: "),
        ('id,input,target\n1,"x', "items.csv line 2: not CSV: unexpected end of data"),
        ("id,input,target\n1,x,\n", "items.csv line 2: target must be text, not ''"),
        ("id,input\n1,x\n", "items.csv line 2: target must be text, not None; no line has a field"),
        (b"id,input,target\n1,caf\xe9,x\n", "items.csv: not UTF-8 (invalid continuation byte)"),
        (f"id,input,target\n1,{'x' * 1_000_001},y\n", "line 2: too long; an item has"),
    ],
)
def test_a_wrong_csv_file(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(PlaybookError, match=re.escape(message)):
        csv_items(tmp_path, text)


def test_csv_cells_must_be_json(tmp_path: Path) -> None:
    with pytest.raises(PlaybookError, match=r"csv line 2: target must be JSON text: Expecting"):
        csv_items(tmp_path, "id,input,target\n1,x,y\n", kind="tool_call")


def test_inspect_needs_no_items(tmp_path: Path) -> None:
    evaluation = {"kind": "inspect", "inspect": {"task": "inspect_evals/gsm8k"}}
    assert load_items(brief(tmp_path, "evaluation", evaluation)).empty


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
            "a Git LFS pointer, not the file itself: run git lfs pull",
        ),
        (b'[{"id": "1"}]', "a JSON array; write one object a line"),
        (b'\xef\xbb\xbf [\n {"id": "1"}]', "a JSON array; write one object a line"),
        (b'{\n "id": "1"\n}', "line 1: not JSON: .*; every line must be one whole object"),
        (b"id,input,target\n1,x,positive", "line 1: not JSON: .*; every line must be one whole"),
        (b"PK\x03\x04xlsx", "a zip file or a spreadsheet: save it as JSON lines or CSV"),
        ('{"id": "1"}'.encode("utf-16"), "not UTF-8 but UTF-16: save it as UTF-8"),
    ],
)
def test_a_file_that_is_something_else_is_told(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "items.jsonl").write_bytes(content)
    with pytest.raises(PlaybookError, match=rf"items\.jsonl:? {message}"):
        load_items(brief(tmp_path))
    if message.startswith("a Git"):
        with pytest.raises(PlaybookError, match=message):
            load_items(brief(tmp_path, "evaluation.format", "csv"))


def test_a_csv_file_is_known_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("id,input,target\n1,x,positive\n")
    assert list(load_items(brief(tmp_path, "evaluation.items", "items.csv"))["input"]) == ["x"]


def test_numbers_and_yes_are_told_to_be_quoted(tmp_path: Path) -> None:
    write_items(tmp_path, other(target=5))
    with pytest.raises(PlaybookError, match=r'target must be text, not 5; put it in quotes: "5"$'):
        load_items(brief(tmp_path))
    with pytest.raises(PlaybookError, match=r"labels\.0: .* put quotes around it"):
        brief(tmp_path, "evaluation.labels", [True, False])
