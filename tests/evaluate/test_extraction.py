"""Answers in JSON: what is read as one, what fits the schema, and which fields are right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from answer_rows import metrics_of, scored_one
from briefs import brief
from effort import little_work

from lib import json_values
from lib.brief.project import Project
from lib.errors import PlaybookError
from lib.evaluate import schemas
from lib.json_values import canonical, find_object, parse_json
from lib.stats import intervals as stats

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": ["integer", "null"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "address": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
    "required": ["name"],
    "additionalProperties": False,
}
TARGET = canonical(
    {"name": "Zoé Li", "age": 30, "tags": ["a", "b"], "address": {"city": "Rome", "zip": "00100"}}
)
RIGHT = {"name": "zoé  li.", "age": 30.0, "tags": ["B", "a", "a"]}
WHOLE = RIGHT | {"address": {"city": "Rome", "zip": "00100"}}


def project(tmp_path: Path, schema: Any = None, **more: Any) -> Project:
    evaluation = {"kind": "extraction", "items": "items.jsonl", "schema": schema or SCHEMA, **more}
    return brief(tmp_path, "evaluation", evaluation)


def scored(project: Project, output: Any, target: str = TARGET) -> dict[str, Any]:
    text = output if isinstance(output, str) else json.dumps(output)
    row = scored_one(project, output=text, target=target)
    return row | {"detail": json.loads(row["detail"])}


def test_all_fields_right(tmp_path: Path) -> None:
    row = scored(project(tmp_path), WHOLE)
    assert (row["outcome"], row["score"]) == ("answered", 1.0)
    assert row["predicted"] == canonical(WHOLE)
    assert row["detail"] == {
        "valid": True,
        "right": ["address.city", "address.zip", "age", "name", "tags"],
        "wrong": [],
        "problem": "",
    }


@pytest.mark.parametrize(
    ("changes", "wrong", "valid"),
    [
        ({"name": "Zoe"}, ["name"], True),
        ({"age": "30"}, ["age"], False),
        ({"age": True}, ["age"], False),
        ({"age": ...}, ["age"], True),
        ({"age": None}, ["age"], True),
        ({"tags": ["a"]}, ["tags"], True),
        ({"tags": "a, b"}, ["tags"], False),
        ({"tags": {"a": "b"}}, ["tags"], False),
        ({"address": {"city": "Paris", "zip": "100"}}, ["address.city", "address.zip"], True),
        ({"address": "Rome"}, ["address.city", "address.zip"], False),
        ({"address": {}}, ["address.city", "address.zip"], True),
        ({"name": ...}, ["name"], False),
        ({"nickname": "Z"}, [], False),
        ({"name": {"first": "Zoé"}}, ["name"], False),
    ],
)
def test_wrong_fields(tmp_path: Path, changes: Any, wrong: list[str], valid: bool) -> None:
    answer = {k: v for k, v in (WHOLE | changes).items() if v is not ...}
    row = scored(project(tmp_path), answer)
    assert row["outcome"] == "answered"
    assert row["detail"]["wrong"] == wrong
    assert row["score"] == pytest.approx(1 - len(wrong) / 5)
    assert row["detail"]["valid"] is valid
    assert bool(row["detail"]["problem"]) is not valid


def test_expected_null_is_met_by_nothing(tmp_path: Path) -> None:
    target = canonical({"name": "x", "age": None})
    assert scored(project(tmp_path), {"name": "x"}, target)["score"] == 1.0
    assert scored(project(tmp_path), {"name": "x", "age": 0}, target)["score"] == 0.5


@pytest.mark.parametrize(
    ("wanted", "found", "rule", "same"),
    [
        (1, 1.0, "", True),
        (1, True, "", False),
        (0, False, "exact", False),
        (None, None, "", True),
        (None, "", "", False),
        ("A b", "a  B.", "", True),
        ("A b", "a b", "exact", False),
        ("1", 1, "", False),
        (1000.5, "$1,000.50", "number", True),
        ("1,000", 1000, "number", True),
        (0.1, 0.1 + 1e-12, "number", True),
        (0.1, 0.1001, "number", False),
        (5, "5 km", "number", False),
        (5, True, "number", False),
        (5, None, "number", False),
        (5, "1" * 400, "number", False),
        (5, 10**400, "number", False),
        ("x", "x", "number", False),
        (["a", "b"], ["B", "a", "a"], "", True),
        (["a", "b"], ["a", "b", "c"], "set", False),
        (["a", "b"], ["b", "a"], "exact", False),
        ([1, {"x": [2]}], [{"x": [2.0]}, 1.0], "set", True),
        ([1], [True], "set", False),
        (["1"], [1], "set", False),
        ({"a": 1, "b": 2}, {"b": 2.0, "a": 1}, "exact", True),
        ({"a": 1}, {"a": "1"}, "exact", False),
    ],
)
def test_same(wanted: Any, found: Any, rule: str, same: bool) -> None:
    assert json_values.same(wanted, found, rule) is same


def test_rules_of_the_brief(tmp_path: Path) -> None:
    rules = {"age": "number", "name": "exact", "address": "exact"}
    own = project(tmp_path, fields=rules)
    row = scored(own, WHOLE | {"age": "30"})
    assert row["detail"]["right"] == ["address", "age", "tags"]
    assert row["detail"]["wrong"] == ["name"]
    loose = project(tmp_path, normalise=["casefold", "whitespace", "articles"])
    assert scored(loose, {"name": "the Zoé Li"})["detail"]["right"] == ["name"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1}', {"a": 1}),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ('Here it is: {"a": {"b": "}"}} and more {"c": 2}', {"a": {"b": "}"}}),
        ('Fill in {name}: {"a": 1}', {"a": 1}),
        ('[{"a": 1}, {"a": 2}]', {"a": 1}),
        ("{}", {}),
        ("no", "no JSON object"),
        ("[1, 2]", "no JSON object"),
        ('{"a": {"b": 1}, oops}', "not JSON: Expecting property name"),
        ('{"a": oops, "b": {"c": 1}}', "not JSON: Expecting value"),
        ('{"a": {"b": 1}', "not JSON: Expecting ',' delimiter"),
        ("{'a': 1}", "not JSON: Expecting property name"),
        ('{"a": NaN, "b": {"c": 1}}', "NaN is no finite number"),
        ('{"a": -Infinity}', "-Infinity is no finite number"),
        ('{"a": 1e999}', "1e999 is no finite number"),
        ('{"a": "\\ud800"}', "half a surrogate pair"),
        ('{"\\udfff": 1}', "half a surrogate pair"),
        ('{"a": ' + "9" * 5000 + "}", "Exceeds the limit"),
        ('{"a":' * 100_000, "nested more than 64 levels deep"),
        ('{"a":' * 80 + "1" + "}" * 80, "nested more than 64 levels deep"),
        ('{"a": ' + "[" * 100_000, "nested more than 64 levels deep"),
        ('{"a": "' + "x" * 1_000_000 + '"}', "longer than 1,000,000 characters"),
    ],
)
def test_find_object(text: str, found: Any) -> None:
    if isinstance(found, dict):
        assert find_object(text) == found
    else:
        with pytest.raises(ValueError, match="^" + found.replace("[", r"\[")):
            find_object(text)


@pytest.mark.parametrize("piece", ["{", "{}", '{"', '{"a":', "{x}", '{"a{', "}{"])
def test_hostile_text_takes_no_time(tmp_path: Path, piece: str) -> None:
    with little_work():
        row = scored(project(tmp_path), piece * (990_000 // len(piece)))
    assert row["score"] == 0.0


def test_a_key_given_twice_is_no_json() -> None:
    with pytest.raises(ValueError, match=r"^a key is given twice$"):
        find_object('I say {"a": 1, "a": 2}')


def test_parse_json_is_one_value() -> None:
    assert parse_json(' [1, "a"] ') == [1, "a"]
    with pytest.raises(ValueError, match="Extra data"):
        parse_json('{"a": 1} {"a": 2}')


def test_unparsed(tmp_path: Path) -> None:
    row = scored(project(tmp_path), "I cannot.")
    assert (row["outcome"], row["predicted"], row["score"]) == ("unparsed", None, 0.0)
    assert row["detail"] == {"valid": False, "problem": "no JSON object"}


def test_a_recursive_schema(tmp_path: Path) -> None:
    tree = {"type": "object", "properties": {"next": {"$ref": "#"}}, "additionalProperties": False}
    target = canonical({"next": {"next": {}}})
    assert scored(project(tmp_path, tree), {"next": {"next": {}}}, target)["detail"]["valid"]
    assert not scored(project(tmp_path, tree), {"next": {"nxt": {}}}, target)["detail"]["valid"]


def test_references_within(tmp_path: Path) -> None:
    old, new = "http://json-schema.org/", "https://json-schema.org/draft/"
    drafts = [f"{old}draft-04/schema#", f"{old}draft-07/schema#", f"{new}2020-12/schema", "urn:x"]
    for name in drafts:
        text = {"definitions": {"t": {"type": "string"}}}
        schema = {"$schema": name, "properties": {"a": {"$ref": "#/definitions/t"}}, **text}
        validator = schemas.validator_of(schema, "here")
        assert schemas.misfit({"a": 1}, validator) == "a: 1 is not of type 'string'", name
        assert not schemas.misfit({"a": "x"}, validator)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "objct"}, "evaluation.schema: not a JSON schema: type: 'objct' is not valid"),
        ({"properties": []}, "evaluation.schema: not a JSON schema: properties: "),
        (
            {"properties": {"a": {"$ref": "https://host/x.json"}}},
            "names nothing in the schema, and nothing is fetched",
        ),
        (
            {"properties": {"a": {"$ref": "file:///etc/passwd"}}},
            "names nothing in the schema, and nothing is fetched",
        ),
        (
            {"properties": {"a": {"$ref": "#/$defs/b"}}},
            "'#/$defs/b' names nothing in the sch",
        ),
        (
            {"type": "string", "not": {"$ref": "#/$defs/b"}},
            "'#/$defs/b' names nothing in the sch",
        ),
        ({"$ref": "#"}, "evaluation.schema: a $ref leads back to itself without end"),
    ],
)
def test_a_wrong_schema(tmp_path: Path, schema: Any, message: str) -> None:
    with pytest.raises(PlaybookError) as caught:
        scored(project(tmp_path, schema), {})
    assert message in str(caught.value)


def test_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: Any, **__: Any) -> None:
        raise AssertionError("fetched")

    monkeypatch.setattr("urllib.request.urlopen", fetch)
    hidden = {"properties": {"a": {"$dynamicRef": "https://host/x.json"}}}
    validator = schemas.validator_of(hidden, "here")
    assert schemas.misfit({"a": 1}, validator) == "the schema points to what it does not hold"


def test_a_schema_file(tmp_path: Path) -> None:
    (tmp_path / "person.json").write_text(json.dumps(SCHEMA))
    assert scored(project(tmp_path, "person.json"), WHOLE)["detail"]["valid"]
    (tmp_path / "person.json").unlink()
    with pytest.raises(PlaybookError, match=r"person\.json: no such file; evaluation\.schema"):
        scored(project(tmp_path, "person.json"), WHOLE)


def test_metrics(tmp_path: Path) -> None:
    name_only = canonical({"name": "x"})
    rows: list[dict[str, Any]] = [
        {"output": json.dumps(WHOLE), "target": TARGET},
        {"output": json.dumps(WHOLE | {"extra": 1, "age": 31}), "target": TARGET},
        {"output": "no", "target": TARGET},
        {"output": '{"name": "x"}', "target": name_only},
        {"output": '{"name": "x"}', "target": name_only, "finish_reason": "length"},
        {"output": '{"name": "x"}', "target": name_only, "error": "HTTP 500"},
    ]
    scores = metrics_of(project(tmp_path), *rows)
    fields = ["address.city", "address.zip", "age", "name", "tags"]
    assert list(scores.index) == ["field accuracy", "valid JSON", *[f"field: {f}" for f in fields]]
    assert scores["primary"].to_list() == [True] + [False] * 6
    assert scores["value"].to_list() == pytest.approx(
        [(1 + 0.8 + 0 + 1 + 0) / 5, 2 / 5, 2 / 3, 2 / 3, 1 / 3, 3 / 5, 2 / 3]
    )
    assert scores["n"].to_list() == [5, 5, 3, 3, 3, 5, 3]
    assert (scores.loc["valid JSON", "low"], scores.loc["valid JSON", "high"]) == stats.wilson(2, 5)
    first = scores.iloc[0]
    assert first["low"] < first["value"] < first["high"]
    assert first[["n_failed", "n_truncated", "n_unparsed"]].to_list() == [1, 1, 1]


def test_metrics_of_nothing(tmp_path: Path) -> None:
    failed = metrics_of(project(tmp_path), {"error": "x", "target": TARGET})
    assert list(failed.index) == ["field accuracy", "valid JSON"]
    assert failed[["low", "high", "n"]].iloc[0].to_list() == [0.0, 1.0, 0]
    cut = metrics_of(project(tmp_path), {"finish_reason": "length", "target": TARGET})
    assert set(cut["value"]) == {0.0}
