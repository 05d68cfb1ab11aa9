"""What an item becomes: its fields in the wording, or its own conversation, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from briefs import changed, write, write_items

from lib import evaluate
from lib.errors import PlaybookError
from lib.opening import open_project

ITEM = {"id": "1", "input": "x", "target": "t", "context": "C {question}", "question": "Q"}
HI = {"role": "user", "content": "hi"}
HO = {"role": "assistant", "content": "ho", "weight": 1}
SYSTEM = {"role": "system", "content": "S"}


def sent(folder: Path, *lines: Any, **evaluation: Any) -> list[list[dict[str, Any]]]:
    """The messages of every item, as the first deployment gets them."""
    raw = changed("evaluation.kind", "exact", without="evaluation.labels")
    raw["evaluation"] |= evaluation
    write_items(folder, *lines)
    brief = open_project(write(folder, raw))
    items = evaluate.load_items(brief)
    return [call.body["messages"] for call in evaluate.plan(brief, brief.deployments[0], items)]


def refusal(folder: Path, *lines: Any, **evaluation: Any) -> str:
    with pytest.raises(PlaybookError) as error:
        sent(folder, *lines, **evaluation)
    return str(error.value)


def test_any_field_of_the_item_has_its_place_in_the_wording(tmp_path: Path) -> None:
    wording = 'Context: {context}\n{"a": 1} {{b}} \\d{3}\nQuestion: {question}'
    shot = {"context": "c", "question": "q", "target": "y"}
    prompt = {"system": "About {question}.", "user": wording}
    (messages,) = sent(tmp_path, ITEM, prompt=prompt, shots=[shot])
    assert [(m["role"], m["content"]) for m in messages] == [
        ("system", "About Q."),
        ("user", 'Context: c\n{"a": 1} {{b}} \\d{3}\nQuestion: q'),
        ("assistant", "y"),
        # A field's own braces stay text.
        ("user", 'Context: C {question}\n{"a": 1} {{b}} \\d{3}\nQuestion: Q'),
    ]


def test_a_field_that_is_no_text_comes_as_json(tmp_path: Path) -> None:
    (messages,) = sent(tmp_path, ITEM | {"facts": {"b": [1, None]}}, prompt={"user": "{facts}"})
    assert messages[-1]["content"] == '{"b": [1, null]}'


@pytest.mark.parametrize(
    ("evaluation", "sentence"),
    [
        (
            {"prompt": {"user": "{kontext}"}},
            "prompt.user: no item has {kontext}; they have context",
        ),
        ({"prompt": {"user": "{input}", "system": "{who}"}}, "prompt: no item has {who}"),
        ({"prompt": {"user": "{input} {{context}}"}}, "write {context}, with one brace on each"),
        ({"prompt": {"user": "{input} {output}"}}, "no item has {output}"),
        ({"prompt": {"user": "{input} {document}"}}, "no item has {document}"),
        ({"prompt": {"user": "{input} {target}"}}, "{target} would give the answer away"),
        ({"prompt": {"user": "{some}"}}, "prompt.user: item '2' has no {some}, and 0 more"),
        (
            {"prompt": {"user": "{context}"}, "shots": [{"input": "i", "target": "t"}]},
            "shots: one has no 'context', which prompt.user names",
        ),
    ],
)
def test_a_field_that_is_not_there_is_told(
    tmp_path: Path, evaluation: dict[str, Any], sentence: str
) -> None:
    lines = ITEM | {"some": "s"}, ITEM | {"id": "2"}
    assert sentence in refusal(tmp_path, *lines, **evaluation)


def test_all_problems_of_the_wordings_come_at_once(tmp_path: Path) -> None:
    text = refusal(tmp_path, ITEM, prompt={"user": "{a} {b} {{input}}"})
    assert text.count("no item has") == 2 and "one brace" in text


def test_a_conversation_is_sent_as_it_is(tmp_path: Path) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    parts = {"role": "user", "content": [{"type": "text", "text": "look"}, picture]}
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    asked = {"role": "assistant", "content": None, "tool_calls": calls}
    tool = {"role": "tool", "content": "42", "tool_call_id": "c"}
    turns = [SYSTEM, HI, asked, tool, HO, parts]
    (messages,) = sent(tmp_path, {"id": "1", "messages": turns, "target": "t"})
    assert messages == [SYSTEM, HI, asked, tool, {"role": "assistant", "content": "ho"}, parts]


def test_a_file_for_fine_tuning_loads_as_it_is(tmp_path: Path) -> None:
    write_items(tmp_path, {"messages": [SYSTEM, HI, HO]}, {"messages": [HI, HO, HI, HO]})
    raw = changed("evaluation.kind", "exact", without="evaluation.labels")
    items = evaluate.load_items(open_project(write(tmp_path, raw)))
    assert list(items["item_id"]) == ["line 1", "line 2"]
    assert list(items["target"]) == ["ho", "ho"]
    assert list(items["input"]) == ["hi", "user: hi\nassistant: ho\nuser: hi"]
    assert [len(json.loads(text)) for text in items["messages"]] == [2, 3]


def test_a_stored_completion_brings_its_answer_as_target(tmp_path: Path) -> None:
    stored = {"id": "chatcmpl-1", "messages": [HI], "choices": [{"message": HO}], "model": "m"}
    write_items(tmp_path, stored)
    raw = changed("evaluation.kind", "exact", without="evaluation.labels")
    (item,) = evaluate.load_items(open_project(write(tmp_path, raw))).to_dict("records")
    assert (item["item_id"], item["input"], item["target"]) == ("chatcmpl-1", "hi", "ho")


def test_the_target_of_tools_is_the_calls_of_the_last_turn(tmp_path: Path) -> None:
    function = {"name": "weather", "arguments": '{"city": "Oslo"}'}
    last = {"role": "assistant", "tool_calls": [{"id": "c", "function": function}]}
    write_items(tmp_path, {"messages": [HI, last]})
    tool = {"name": "weather", "parameters": {"properties": {"city": {"type": "string"}}}}
    raw = changed("evaluation.kind", "tool_call", without="evaluation.labels")
    raw["evaluation"]["tools"] = [{"type": "function", "function": tool}]
    (item,) = evaluate.load_items(open_project(write(tmp_path, raw))).to_dict("records")
    assert json.loads(item["target"]) == [{"name": "weather", "arguments": {"city": "Oslo"}}]


def test_an_own_target_counts_before_the_last_turn(tmp_path: Path) -> None:
    write_items(tmp_path, {"messages": [HI, HO], "target": "own"})
    raw = changed("evaluation.kind", "exact", without="evaluation.labels")
    (item,) = evaluate.load_items(open_project(write(tmp_path, raw))).to_dict("records")
    assert item["target"] == "own" and len(json.loads(item["messages"])) == 1


def test_the_brief_s_system_takes_the_place_of_the_conversation_s(tmp_path: Path) -> None:
    developer = {"role": "developer", "content": "D"}
    prompt = {"system": "New.", "user": "{input}"}
    (messages,) = sent(tmp_path, {"messages": [developer, HI], "target": "t"}, prompt=prompt)
    assert messages == [{"role": "system", "content": "New."}, HI]


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ([], "messages must hold a turn of the user to answer"),
        ([HO], "messages must hold a turn of the user to answer"),
        ([SYSTEM], "messages must hold a turn of the user to answer"),
        ([{"role": "usr", "content": "x"}], "messages.0.role: Input should be 'system', "),
        ([{"content": "x"}], "messages.0.role"),
        ("[", "messages must be JSON text: "),
        ([{"role": "user", "content": 3}], "messages.0.content"),
    ],
)
def test_what_is_no_conversation_is_told(tmp_path: Path, messages: Any, sentence: str) -> None:
    text = refusal(tmp_path, {"messages": messages, "target": "t"})
    assert "items.jsonl line 1: " in text and sentence in text
