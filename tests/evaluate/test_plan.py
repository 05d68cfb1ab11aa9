"""What is sent for an item, and what makes two requests the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from asking import brief
from scored import calls_of

from lib.brief.deployment import Deployment, Options, Prompt
from lib.brief.project import Project
from lib.endpoints import requests as calls
from lib.errors import PlaybookError
from lib.evaluate import answers

URL = {"base_url": "https://host/v1", "model": "m"}
ITEM = {"item_id": "i", "input": "text", "target": "positive"}
DOCUMENTS = json.dumps([{"id": "d1", "text": "one"}, {"id": "d2", "text": "two"}])
RANKED = {"item_id": "q", "input": "query", "target": '{"d1": 1}', "documents": DOCUMENTS}


def only(project: Project, item: Any = ITEM, **changes: Any) -> calls.Call:
    (call,) = calls_of(project, deployment(project, **changes), item)
    return call


def deployment(project: Project, **changes: Any) -> Deployment:
    return project.deployments[0].model_copy(update=changes)


def test_a_plain_request_is_the_briefs() -> None:
    call = only(brief(URL, stop=["\n"], prompt={"system": "S", "user": "Review: {input}"}))
    assert call.api == "chat" and call.body == {
        "messages": [
            {"role": "system", "content": "S"},
            {"role": "user", "content": "Review: text"},
        ],
        "temperature": 0.0,
        "max_tokens": 16,
        "stop": ["\n"],
    }


def test_a_deployments_own_options_come_before_the_briefs() -> None:
    own = Options(
        temperature=0.7,
        max_tokens=500,
        stop=[],
        reasoning_effort="high",
        extra_body={"chat_template_kwargs": {"enable_thinking": True}, "top_k": 20},
    )
    body = only(brief(URL, stop=["\n"]), options=own).body
    del body["messages"]
    assert body == {
        "temperature": 0.7,
        "max_tokens": 500,
        "reasoning_effort": "high",
        "chat_template_kwargs": {"enable_thinking": True},
        "top_k": 20,
    }


def test_null_in_extra_body_takes_an_option_away() -> None:
    extra = {"temperature": None, "max_tokens": None, "max_completion_tokens": 9}
    body = only(brief(URL), options=Options(extra_body=extra)).body
    assert set(body) == {"messages", "max_completion_tokens"}


@pytest.mark.parametrize("key", ["messages", "model", "stream", "n"])
def test_extra_body_may_not_set_what_the_playbook_sets(key: str) -> None:
    with pytest.raises(PlaybookError, match=rf"'a': options.extra_body may not set '{key}'"):
        only(brief(URL), options=Options(extra_body={key: 2}))


def test_what_makes_a_request_another_one() -> None:
    project = brief(URL)
    thinking = {"chat_template_kwargs": {"enable_thinking": True}}
    changed: list[dict[str, Any]] = [
        {},
        {"options": Options(extra_body=thinking)},
        {"options": Options(reasoning_effort="low")},
        {"options": Options(reasoning_effort="none")},
        {"options": Options(temperature=1.0)},
        {"options": Options(max_tokens=17)},
        {"prompt": Prompt(user="Another wording: {input}")},
        {"endpoint": project.deployments[0].endpoint.model_copy(update={"revision": "r2"})},  # type: ignore[union-attr]
    ]
    keys = {only(project, **change).key for change in changed}
    assert len(keys) == len(changed)


def test_what_does_not(tmp_path: Path) -> None:
    project = brief(URL)
    same: list[dict[str, Any]] = [
        {"name": "other", "precision": "fp8", "engine": "vllm 0.15", "baseline": True},
        {"hardware": "h100-8", "options": Options(temperature=0.0, max_tokens=16)},
    ]
    assert {only(project, **change).key for change in same} == {only(project).key}


def test_a_plan_holds_the_same_calls_as_asking_item_by_item() -> None:
    import pandas as pd

    project = brief(URL)
    table = pd.DataFrame([ITEM | {"item_id": f"i{n}", "input": f"text {n}"} for n in range(5)])
    plan = answers.plan(project, project.deployments[0], table)
    single = [only(project, item) for item in table.to_dict("records")]
    assert list(plan) == single == list(plan) and len(plan.parts) == 5
    assert list(plan.keys()) == [call.key for call in single]


def test_constrained_labels_and_shots_in_the_same_form() -> None:
    shots = [{"input": "Great", "target": "positive"}]
    project = brief(URL, constrained=True, shots=shots, prompt={"answer": "It is {target}"})
    body = only(project).body
    form = body["response_format"]["json_schema"]
    assert body["response_format"]["type"] == "json_schema" and form["strict"] is True
    assert form["schema"]["properties"]["label"]["enum"] == ["positive", "negative"]
    assert form["schema"]["additionalProperties"] is False
    assert body["messages"][1]["content"] == '{"label": "positive"}'
    assert "response_format" not in only(brief(URL, shots=shots)).body
    assert only(brief(URL, shots=shots)).body["messages"][1]["content"] == "positive"


def test_a_schema_from_the_brief_or_a_file(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"total": {"type": "number"}}}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    inline = brief(URL, kind="extraction", constrained=True, schema=schema)
    named = brief(URL, kind="extraction", constrained=True, schema="schema.json", folder=tmp_path)
    assert only(inline).body["response_format"]["json_schema"]["schema"] == schema
    assert only(inline).key == only(named).key
    free = brief(URL, kind="extraction", schema=schema)
    assert "response_format" not in only(free).body


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file; evaluation.schema"),
        ("{", "not JSON"),
        ("[1]", "must be a JSON schema"),
    ],
)
def test_a_schema_file_that_is_not_one(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "s.json").write_text(content)
    project = brief(URL, kind="extraction", constrained=True, schema="s.json", folder=tmp_path)
    with pytest.raises(PlaybookError, match=said):
        only(project)


def test_tools_are_sent_in_openais_form() -> None:
    function = {"name": "f", "parameters": {"type": "object", "properties": {}}}
    wrapped = {"type": "function", "function": function}
    project = brief(URL, kind="tool_call", tools=[function, wrapped])
    body = only(project).body
    assert body["tools"] == [wrapped, wrapped] and body["tool_choice"] == "auto"
    bad = brief(URL, kind="tool_call", tools=[function, {"type": "function"}])
    with pytest.raises(PlaybookError, match=r"evaluation\.tools\.1: must be a function with name"):
        only(bad)


def test_a_rerank_request_holds_the_documents() -> None:
    project = brief(URL, kind="reranking", ranking={"method": "rerank"})
    call = only(project, RANKED, options=Options(extra_body={"return_documents": False}))
    assert call.api == "rerank" and sorted(call.body["documents"]) == ["one", "two"]
    assert call.body["query"] == "query" and call.body["top_n"] == 2
    assert call.body["return_documents"] is False and "messages" not in call.body


def test_a_pointwise_ranking_asks_for_each_document_and_listwise_once() -> None:
    pointwise = brief(URL, kind="reranking", ranking={"method": "pointwise"})
    found = calls_of(pointwise, pointwise.deployments[0], RANKED)
    assert sorted(call.part for call in found) == ["d1", "d2"]
    text = {call.part: call.body["messages"][-1]["content"] for call in found}
    assert "one" in text["d1"] and "two" not in text["d1"] and "query" in text["d1"]
    listwise = brief(URL, kind="reranking", ranking={"method": "listwise"})
    assert only(listwise, RANKED).part == ""


def test_only_answers_of_certain_weights_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    def shared(**endpoint: Any) -> Any:
        return calls.cache_path(brief(endpoint).deployments[0])

    assert shared(**URL) is None
    found = [
        shared(**URL, revision="r1"),
        shared(**URL, revision="r2"),
        shared(embedded="smollm2-135m"),
        shared(gguf="a/b/c.gguf", revision="r1"),
    ]
    assert None not in found and len(set(found)) == 4
    monkeypatch.setenv("PLAYBOOK_CACHE", "off")
    assert shared(embedded="smollm2-135m") is None
