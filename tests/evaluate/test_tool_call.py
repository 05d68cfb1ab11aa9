"""Answers that call tools: right, wrong, invalid and malformed are kept apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from answer_rows import metrics_of, scored_one
from briefs import brief

from lib.brief.project import Project
from lib.errors import PlaybookError
from lib.stats import intervals as stats

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer"},
                    "unit": {"enum": ["C", "F"]},
                },
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    },
    {"name": "time", "parameters": {"type": "object"}},
]
ROME = {"name": "weather", "arguments": {"city": "Rome", "days": 2}}
OSLO = {"name": "weather", "arguments": {"city": "Oslo"}}
TIME = {"name": "time"}


def project(tmp_path: Path, **more: Any) -> Project:
    evaluation = {"kind": "tool_call", "items": "items.jsonl", "tools": TOOLS, **more}
    return brief(tmp_path, "evaluation", evaluation)


def made(*calls: Any) -> str:
    """The runner's record of calls: (name, arguments), text as it is and objects as JSON."""
    return json.dumps(
        [{"name": n, "arguments": a if isinstance(a, str) else json.dumps(a)} for n, a in calls]
    )


def scored(project: Project, output: str, target: Any) -> tuple[str, float, str]:
    row = scored_one(project, output=output, target=json.dumps(target, sort_keys=True))
    return row["outcome"], row["score"], row["detail"]


@pytest.mark.parametrize(
    ("output", "target", "score", "detail"),
    [
        (made(("weather", {"days": 2.0, "city": "Rome"})), ROME, 1.0, ""),
        (made(("weather", {"city": "Rome"})), ROME, 0.0, "weather.days is missing"),
        (made(("weather", {"city": "rome", "days": 2})), ROME, 0.0, 'weather.city is "rome", not'),
        (made(("weather", {"city": "Rome", "days": 3})), ROME, 0.0, "weather.days is 3, not 2"),
        (
            made(("weather", {"city": "Rome", "days": "2"})),
            ROME,
            0.0,
            "invalid: weather: days: '",
        ),
        (
            made(("weather", {"city": "Rome", "days": True})),
            ROME,
            0.0,
            "invalid: weather: days: T",
        ),
        (
            made(("weather", {"city": "Rome", "days": 2, "x": 1})),
            ROME,
            0.0,
            "invalid: weather: Ad",
        ),
        (made(("weather", {"days": 2})), ROME, 0.0, "invalid: weather: 'city' is a required"),
        (made(("time", {})), ROME, 0.0, "called time; expected weather"),
        (made(("weather", ROME["arguments"])) * 1, [ROME], 1.0, ""),
        (made(("time", "")), TIME, 1.0, ""),
        (made(("time", {"zone": "UTC"})), TIME, 1.0, ""),
        (made(("time", {"zone": "UTC"})), TIME | {"arguments": {}}, 1.0, ""),
        (made(("weather", {"city": "Rome", "days": 2, "unit": "C"})), ROME, 1.0, ""),
        (made(("weather", {"city": "x"})), {"name": "weather"}, 1.0, ""),
        (made(("time", {}), ("weather", {"city": "Oslo"})), [OSLO, TIME], 1.0, ""),
        (made(("time", {})), [TIME, TIME], 0.0, "called time; expected time, time"),
        (made(("time", {}), ("time", {})), TIME, 0.0, "called time, time; expected time"),
        ("I do not know.", ROME, 0.0, "no call; expected weather"),
        ("It is sunny.", None, 1.0, ""),
        ('{"answer": "sunny"}', None, 1.0, ""),
        ("[1, 2]", None, 1.0, ""),
        ("I would look up the weather (in Rome).", None, 1.0, ""),
        (made(("time", {})), None, 0.0, "called time; expected no call"),
        ("[]", None, 1.0, ""),
    ],
)
def test_calls(tmp_path: Path, output: str, target: Any, score: float, detail: str) -> None:
    outcome, found, why = scored(project(tmp_path), output, target)
    assert (outcome, found) == ("answered", score)
    assert why.startswith(detail) if detail else not why


def test_calls_of_one_function_go_in_any_order(tmp_path: Path) -> None:
    # A greedy match would give the loose expectation the only call that the strict one can take.
    loose = {"name": "weather", "arguments": {}}
    output = made(("weather", {"city": "Oslo"}), ("weather", {"city": "Bern"}))
    assert scored(project(tmp_path), output, [loose, OSLO])[1] == 1.0
    assert scored(project(tmp_path), output, [OSLO, loose])[1] == 1.0
    assert scored(project(tmp_path), output, [OSLO, OSLO])[1] == 0.0


@pytest.mark.parametrize(
    ("output", "detail"),
    [
        (made(("weather", '{"city": "Rome"')), "malformed: arguments of 'weather': Expecting"),
        (made(("weather", "Rome")), "malformed: arguments of 'weather': Expecting value"),
        (made(("weather", '["Rome"]')), "malformed: arguments of 'weather' are no object but list"),
        (made(("weather", "null")), "malformed: arguments of 'weather' are no object but NoneType"),
        (made(("weather", '{"days": NaN}')), "malformed: arguments of 'weather': NaN is no finite"),
        (made(("time", '{"a":' * 50_000)), "malformed: arguments of 'time': nested more than 64"),
        (made(("time", '{"a": "\\ud800"}')), "malformed: arguments of 'time': half a surrogate"),
        (made(("wether", {})), "malformed: no tool is called 'wether'"),
        (made(("", {})), "malformed: no tool is called ''"),
        (made(*[("time", {})] * 65), "malformed: 65 calls, more than 64"),
        (json.dumps(ROME), "malformed: a call written into the text: {"),
        (json.dumps([ROME]), "malformed: a call written into the text: {"),
        (f"```json\n{json.dumps(ROME)}\n```", "malformed: a call written into the text: {"),
        (
            f"<tool_call>{json.dumps(ROME)}</tool_call>",
            "malformed: a call written into the text: <",
        ),
        ("[TOOL_CALLS] weather", "malformed: a call written into the text: [TOOL_CALLS]"),
        ("<function=weather>{}</function>", "malformed: a call written into the text: <function"),
        ('[weather(city="Rome", days=2)]', "malformed: a call written into the text: [weather("),
        ('{"name": "unknown", "parameters": {}}', "malformed: a call written into the text: {"),
        ('{"type": "function", "function": {"name": "time"}}', "malformed: a call written into"),
    ],
)
@pytest.mark.parametrize("target", [ROME, None])
def test_malformed_calls(tmp_path: Path, output: str, detail: str, target: Any) -> None:
    outcome, score, why = scored(project(tmp_path), output, target)
    assert (outcome, score) == ("unparsed", 0.0)
    assert why.startswith(detail)
    why.encode()


def test_reasoning_is_no_call(tmp_path: Path) -> None:
    thought = f"<think>{json.dumps(ROME)}</think>It is sunny."
    assert scored(project(tmp_path), thought, None) == ("answered", 1.0, "")
    tagged = made(("weather", {"city": "<think>Rome"}))
    target = {"name": "weather", "arguments": {"city": "<think>Rome"}}
    assert scored(project(tmp_path), tagged, target)[1] == 1.0


def test_empty_is_empty(tmp_path: Path) -> None:
    row = scored_one(project(tmp_path), output="", target="null")
    assert (row["outcome"], row["score"]) == ("empty", 0.0)


def test_rules_of_the_brief(tmp_path: Path) -> None:
    own = project(tmp_path, fields={"city": "normalised"})
    assert scored(own, made(("weather", {"city": "ROME.", "days": 2})), ROME)[1] == 1.0


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ([TIME, TIME], "evaluation.tools.1: 'time' is there twice; every tool needs its own name"),
        ([TIME | {"parameters": []}], None),
        (
            [TIME | {"parameters": ["x"]}],
            "evaluation.tools.0: 'time': parameters must be a JSON s",
        ),
        (
            [TIME | {"parameters": {"type": "x"}}],
            "evaluation.tools.0: 'time': not a JSON schema: ",
        ),
        (
            [TIME | {"parameters": {"$ref": "http://x/y"}}],
            "'http://x/y' names nothing in the schema, and nothing is fetched",
        ),
    ],
)
def test_tools(tmp_path: Path, tools: Any, message: str | None) -> None:
    own = project(tmp_path, tools=tools)
    if message is None:
        assert scored(own, made(("time", {})), TIME)[1] == 1.0
        return
    with pytest.raises(PlaybookError) as caught:
        scored(own, "x", None)
    assert message in str(caught.value)


def test_a_file_of_tools(tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_text(json.dumps(TOOLS))
    own = project(tmp_path, tools="tools.json")
    assert scored(own, made(("weather", ROME["arguments"])), ROME)[1] == 1.0


def test_metrics(tmp_path: Path) -> None:
    rome, none = json.dumps(ROME), "null"
    rows: list[dict[str, Any]] = [
        {"output": made(("weather", {"city": "Rome", "days": 2})), "target": rome},
        {"output": made(("weather", {"city": "Rome", "days": 3})), "target": rome},
        {"output": made(("weather", {"city": "Rome", "days": "2"})), "target": rome},
        {"output": made(("weather", "{")), "target": rome},
        {"output": json.dumps(ROME), "target": rome},
        {"output": "No idea.", "target": rome},
        {"output": "Sunny.", "target": none},
        {"output": made(("time", {})), "target": none},
        {"output": "", "target": none},
        {"output": "x", "target": none, "error": "HTTP 500"},
    ]
    scores = metrics_of(project(tmp_path), *rows)
    assert scores["value"].to_dict() == {
        "correct calls": 2 / 9,
        "right function": 4 / 9,
        "valid arguments": 3 / 6,
        "malformed calls": 2 / 9,
    }
    assert scores["n"].to_list() == [9, 9, 6, 9]
    assert scores["primary"].to_list() == [True, False, False, False]
    first = scores.iloc[0]
    assert (first["low"], first["high"]) == stats.wilson(2, 9)
    assert first[["n_failed", "n_unparsed", "n_empty"]].to_list() == [1, 2, 1]


def test_metrics_of_nothing(tmp_path: Path) -> None:
    words = metrics_of(project(tmp_path), {"output": "Sunny.", "target": "null"})
    assert words.loc["correct calls", "value"] == 1.0
    assert words.loc["valid arguments", ["low", "high", "n"]].to_list() == [0.0, 1.0, 0]
    failed = metrics_of(project(tmp_path), {"error": "x", "target": "null"})
    assert set(failed["n"]) == {0}
