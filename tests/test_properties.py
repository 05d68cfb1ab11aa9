"""Whatever a brief, an item or a reply holds: it is read, or it is refused in sentences."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pandas as pd
import pytest
import yaml
from asking import brief as asked_brief
from asking import items as some_items
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import endpoints
from lib.brief import Project
from lib.endpoints import attempts
from lib.endpoints.servers import Served
from lib.errors import PlaybookError
from lib.evaluate import answers, load_items, steps
from lib.opening import open_project

bounded = settings(max_examples=150, derandomize=True, deadline=None, database=None)
OUTCOMES = {"answered", "truncated", "refused", "failed", "empty", "unparsed"}
TOOL = {"name": "look", "parameters": {"type": "object"}}
KINDS: dict[str, dict[str, Any]] = {
    "classification": {"labels": ["positive", "negative"]},
    "exact": {},
    "extraction": {"schema": {"type": "object"}},
    "tool_call": {"tools": [TOOL]},
    "reranking": {"ranking": {"method": "rerank"}},
}
BRIEF: dict[str, Any] = {
    "name": "tiny",
    "task": "t",
    "policy": {"licenses": ["permissive"], "countries": ["France"], "use": "product"},
    "company": {"revenue": {"amount": 1, "currency": "USD", "period": "year"}},
    "exceptions": [],
    "models": [{"repo_id": "acme/a", "base_model": "none"}],
    "size": {"tier": "any"},
    "hub": {"accept_drift": []},
    "evaluation": {
        "kind": "classification", "items": "items.jsonl", "labels": ["positive", "negative"],
        "columns": {"input": "input"}, "slices": ["length"], "stop": ["\n"],
        "prompt": {"user": "{input}"}, "shots": [{"input": "a", "target": "positive"}],
        "judge": {"model": "a/b", "endpoint": {"base_url": "http://h/v1"}, "user": "{output}"},
    },
    "deployments": [
        {
            "name": "d", "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
            "endpoint": {"base_url": "http://h/v1", "api_key_env": "NO_KEY"},
            "options": {"extra_body": {"a": 1}}, "limits": {"concurrency": 1},
            "host": {"provider": "p", "country": "France"}, "price": {"usd_per_hour": 1},
        }
    ],
    "speed": {"budget_s": 1}, "traffic": {"requests_per_day": 1},
    "requirements": {"min_quality": 0.5}, "objective": "best",
}  # fmt: skip
ITEM = {"id": "1", "input": "fine", "target": "positive"}


def nested(words: list[str], scalars: Any) -> st.SearchStrategy[Any]:
    """Lists and mappings of scalars, whose keys are mostly words that mean something."""
    keys = st.sampled_from(words) | st.text(max_size=5)
    return st.recursive(
        scalars | st.sampled_from(words),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=12,
    )


NUMBERS = st.integers() | st.floats() | st.sampled_from([0, -1, 2**63, 10**30, 1e308])
TEXTS = st.text(st.characters(exclude_categories=()), max_size=20)  # surrogates too
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything in a value."""
    yield at
    lists = enumerate(value) if isinstance(value, list) else ()
    for key, part in value.items() if isinstance(value, dict) else lists:
        yield from places(part, (*at, key))


def replaced(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    if not at:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[at[0]] = replaced(value[at[0]], at[1:], new)
    return copy


def assert_sentences(error: PlaybookError) -> None:
    for line in str(error).split("\n"):
        assert line.strip() and len(line) < 600 and line.isprintable(), line


PLACES = [at for at in places(BRIEF) if at]
WORDS = sorted({str(key) for at in PLACES for key in at} | {"..", "/", "{input}", "on"})
DATES = st.dates() | st.datetimes() | st.binary(max_size=3)  # which YAML has as well


@bounded
@given(st.sampled_from(PLACES), nested(WORDS, SCALARS | DATES))
def test_any_value_in_a_brief_is_taken_or_refused(at: tuple[Any, ...], value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "brief.yaml"
        path.write_text(yaml.safe_dump(replaced(BRIEF, at, value), allow_unicode=False), "utf-8")
        (Path(folder) / "items.jsonl").write_text(json.dumps(ITEM))
        try:
            assert isinstance(open_project(path), Project)
        except PlaybookError as error:
            assert_sentences(error)


ITEM_WORDS = """id input target messages role content user assistant system tool_calls function name
    arguments documents relevance relevant choices message text group deployment positive look
    1""".split()
FIELDS = nested(ITEM_WORDS, SCALARS)
OBJECTS = st.fixed_dictionaries(
    {"id": st.just("1") | FIELDS},
    optional={key: FIELDS for key in ("input", "target", "messages", "documents", "choices")},
)
LINES = st.lists(
    (OBJECTS | FIELDS).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=20),
    min_size=1,
    max_size=3,
)


@pytest.mark.parametrize("kind", KINDS)
def test_any_line_of_an_items_file_is_taken_or_refused(kind: str, tmp_path: Path) -> None:
    project = asked_brief({"base_url": "http://h/v1"}, folder=tmp_path, kind=kind, **KINDS[kind])

    @settings(bounded, max_examples=150)
    @given(LINES)
    def read(lines: list[bytes]) -> None:
        (tmp_path / "items.jsonl").write_bytes(b"\n".join(lines))
        try:
            items = load_items(project)
        except PlaybookError as error:
            assert_sentences(error)
        else:
            assert len(items) and items["item_id"].str.strip().all()
            answers.plan(project, project.deployments[0], items)

    read()


REPLY_WORDS = """choices message content finish_reason error code status usage prompt_tokens
    completion_tokens total_tokens tool_calls function name arguments look model results index
    relevance_score stop length content_filter text type refusal reasoning_content output
    <think> {} [] ```json positive A""".split()
REPLIES = nested(REPLY_WORDS, SCALARS)
ANSWERS = st.just("positive") | st.text(st.sampled_from("{}[]\"':,<>/thinkpositive10 "))
MESSAGES = st.fixed_dictionaries({"content": ANSWERS}) | st.dictionaries(
    st.sampled_from(["content", "tool_calls", "refusal", "reasoning_content"]), REPLIES
)
CALLED = st.fixed_dictionaries({"name": st.just("look") | REPLIES, "arguments": REPLIES})
CALLS = st.lists(CALLED.map(lambda function: {"function": function}), min_size=1, max_size=2)
CHOICES = st.fixed_dictionaries(
    {"message": MESSAGES | CALLS.map(lambda calls: {"tool_calls": calls})},
    optional={"finish_reason": st.just("stop") | REPLIES},
)
COMPLETIONS = st.fixed_dictionaries(
    {"choices": st.lists(CHOICES, min_size=1, max_size=2)},
    optional={key: REPLIES for key in ("usage", "model", "error", "system_fingerprint")},
)
RANKED = st.fixed_dictionaries({"index": NUMBERS | st.just(0), "relevance_score": NUMBERS})
ORDER = st.permutations([{"index": n, "relevance_score": n / 7} for n in range(2)])
RANKINGS = st.fixed_dictionaries({"results": ORDER | st.lists(RANKED | REPLIES, max_size=3)})
TARGETS = {"extraction": '{"a":1}', "tool_call": '{"name":"look"}', "reranking": '{"d1":1}'}


@pytest.mark.parametrize("kind", KINDS)
def test_any_reply_is_an_outcome(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    project = asked_brief({"base_url": "http://h/v1"}, folder=tmp_path, kind=kind, **KINDS[kind])
    items = some_items(1).assign(target=TARGETS.get(kind, "positive"))
    items["documents"] = '[{"id":"d1","text":"a"},{"id":"d2","text":"b"}]'
    served = Served("http://h/v1", "m", None)
    (call, *_) = answers.plan(project, project.deployments[0], items)
    seen = set[str]()

    @bounded
    @given(COMPLETIONS | RANKINGS | REPLIES)
    def answered(reply: Any) -> None:
        response = httpx2.Response(200, content=json.dumps(reply).encode())
        attempt = attempts._read(served, call.api, response, 1.0)

        def perform(jobs: Any, *_: Any, **__: Any) -> dict[str, Any]:
            facts = {"error": "", "retries": 0, "cached": False, "usd": None, **attempt.facts}
            return {call.key: attempts.blank(call.key, "m") | facts for call in jobs[0][1]}

        monkeypatch.setattr(endpoints, "perform", perform)
        asked = answers.ask(project, project.deployments, items, tmp_path)
        scored = steps.score(project, steps.Gathered(asked, None, {}), items)
        assert len(scored) == 1 and set(scored["outcome"]) <= OUTCOMES
        assert scored["score"].isna()[0] or 0 <= scored["score"][0] <= 1
        seen.update(scored["outcome"])
        pd.DataFrame(scored).to_parquet(tmp_path / "scored.parquet")

    answered()
    assert {"answered", "failed"} <= seen, seen
