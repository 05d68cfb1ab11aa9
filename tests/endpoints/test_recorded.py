"""Outputs that are there already: read, never asked, and each bad line one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai_stub
import pytest
from asking import ask, brief, items, outcomes

from lib.endpoints import store
from lib.endpoints.runner import STORE
from lib.errors import PlaybookError
from lib.evaluate import answers


def write(folder: Path, *lines: Any) -> None:
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "old.jsonl").write_text("\n".join(text) + "\n", encoding="utf-8")


def load(folder: Path, *item_ids: str) -> list[dict[str, Any]]:
    project = brief({"recorded": "old.jsonl"}, folder=folder)
    return store.recorded_answers(project.deployments[0], folder, list(item_ids))


def test_recorded_answers_stand_beside_asked_ones(tmp_path: Path) -> None:
    full = {"latency_s": 0.5, "prompt_tokens": 9, "completion_tokens": 2, "finish_reason": "stop"}
    write(
        tmp_path,
        {"id": "i2", "output": "positive", **full},
        {"item_id": "i0", "output": "negative", "extra": 1},
        {"id": "elsewhere", "output": "positive"},
        {"id": "i1", "error": "the service was down"},
    )
    (tmp_path / "run").mkdir()
    with openai_stub.running() as stub:
        project = brief({"recorded": "old.jsonl"}, {"base_url": stub.url}, folder=tmp_path)
        asked = ask(project, tmp_path / "run", items(4))
        assert len(stub.requests) == 4
    assert list(asked.columns) == answers.COLUMNS
    assert set(asked["shared_with"]) == {""}
    own = asked[asked["deployment"] == "a"].set_index("item_id")
    assert list(own.loc[["i0", "i2"], "output"]) == ["negative", "positive"]
    assert own.loc["i2", list(full)].to_dict() == full
    assert own.at["i1", "error"] == "the service was down"
    assert own.at["i3", "error"].startswith("not recorded")
    assert outcomes(project, asked) == {"answered": 6, "failed": 2}


@pytest.mark.parametrize(
    ("tokens", "unknown"),
    [
        ({}, ""),
        ({"cached_tokens": 80}, ""),
        ({"cached_tokens": 101}, "prompt_tokens"),
        ({"prompt_tokens": 0}, "prompt_tokens"),
        ({"completion_tokens": 0}, "completion_tokens"),
        ({"completion_tokens": 0, "output": ""}, ""),
    ],
)
def test_tokens_that_cannot_be_are_not_known_and_cost_no_0(
    tmp_path: Path, tokens: dict[str, Any], unknown: str
) -> None:
    full = {"output": "positive", "prompt_tokens": 100, "completion_tokens": 2} | tokens
    write(tmp_path, {"id": "i0", **full})
    project = brief({"recorded": "old.jsonl"}, folder=tmp_path)
    (row,) = ask(project, tmp_path, items(1)).to_dict("records")
    for name in ("prompt_tokens", "completion_tokens", "cached_tokens"):
        same = [None, full.get(name)][name != unknown]
        assert row[name] == same or (same is None and row[name] != row[name])


def test_a_recorded_reason_is_read_like_any(tmp_path: Path) -> None:
    words = ["EOS", "MAX_TOKENS", "SAFETY", "network_error", "who knows", None]
    lines = [{"id": f"i{i}", "output": "positive", "finish_reason": w} for i, w in enumerate(words)]
    write(tmp_path, *lines)
    project = brief({"recorded": "old.jsonl"}, folder=tmp_path)
    counts = outcomes(project, ask(project, tmp_path, items(6)))
    assert counts == {"answered": 2, "truncated": 1, "refused": 1, "failed": 2}


def test_nothing_is_asked(tmp_path: Path) -> None:
    write(tmp_path, {"id": "i0", "output": "positive"})
    project = brief({"recorded": "old.jsonl"}, folder=tmp_path)
    assert len(ask(project, tmp_path, items(1))) == 1
    assert not (tmp_path / STORE).exists()


def test_tool_calls_in_both_forms(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"id": "i0", "tool_calls": [{"name": "f", "arguments": {"x": 1}}]},
        {"id": "i1", "tool_calls": [openai_stub.called("f", '{"x": 1}')], "output": "as well"},
    )
    project = brief({"recorded": "old.jsonl"}, folder=tmp_path)
    asked = ask(project, tmp_path, items(2))
    for output in asked["output"]:
        assert json.loads(output) == [{"name": "f", "arguments": '{"x": 1}'}]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: not JSON"),
        ("[" * 100_000, "line 2: not usable JSON: nested"),
        ("[]", "line 2: must be an object"),
        ('{"output": "x"}', "line 2: item_id: Field required"),
        ('{"id": 7, "output": "x"}', "line 2: id: Input should be a valid string"),
        ('{"id": "i1"}', "neither output nor tool_calls nor error"),
        ('{"id": "i1", "output": ["x"]}', "output: Input should be a valid string"),
        (
            '{"id": "i1", "output": "x", "latency_s": "fast"}',
            "latency_s: Input should be a valid number",
        ),
        ('{"id": "i1", "output": "x", "latency_s": NaN}', "not usable JSON: NaN"),
        (
            '{"id": "i1", "output": "x", "prompt_tokens": 1e300}',
            "prompt_tokens: Input should be (less|greater) than",
        ),
        (
            '{"id": "i1", "output": "x", "prompt_tokens": -1}',
            "prompt_tokens: Input should be (less|greater) than",
        ),
        ('{"id": "i1", "tool_calls": ["f"]}', "tool_calls.0: Input should be"),
        ('{"id": "i1", "output": "\\ud800"}', "not usable JSON: half a surr"),
        ('{"id": "i0", "output": "x"}', "line 2: 'i0' is there twice"),
        ('{"id": "i1", "output": "' + "x" * 1_000_001 + '"}', "too long; .* at most 1 MB"),
    ],
)
def test_a_bad_line_is_one_sentence(tmp_path: Path, line: str, said: str) -> None:
    write(tmp_path, {"id": "i0", "output": "positive"}, line)
    with pytest.raises(PlaybookError, match=rf"old\.jsonl.*{said}") as told:
        load(tmp_path, "i0", "i1")
    assert "\n" not in str(told.value) and len(str(told.value)) < 400


def test_a_file_that_is_missing_or_of_other_items(tmp_path: Path) -> None:
    with pytest.raises(PlaybookError, match=r"old.jsonl: no such file; endpoint.recorded of 'a'"):
        load(tmp_path, "i0")
    write(tmp_path, {"id": "other", "output": "positive"})
    with pytest.raises(PlaybookError, match="has no line for any item, such as 'i0'"):
        load(tmp_path, "i0")


def test_the_item_s_id_counts_before_the_completion_s(tmp_path: Path) -> None:
    write(tmp_path, {"id": "chatcmpl-1", "item_id": "i0", "output": "positive"})
    assert load(tmp_path, "i0")[0]["output"] == "positive"


def test_lines_of_no_item_are_named_before_anything_is_asked(tmp_path: Path) -> None:
    write(tmp_path, {"id": "i0", "output": "x"}, {"id": "1o", "output": "x"})
    project = brief({"recorded": "old.jsonl"}, folder=tmp_path)
    (row,) = answers.dry_run(project, project.deployments, items(2), tmp_path).to_dict("records")
    assert row["basis"] == "recorded: nothing is asked; 1 lines of no item, such as '1o'"


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    write(tmp_path, "\ufeff" + '{"id": "i0", "output": "x"}')
    assert load(tmp_path, "i0")[0]["output"] == "x"
