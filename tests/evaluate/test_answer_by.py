"""Asking for JSON by schema, with text where the endpoint refuses; what could not be read."""

from __future__ import annotations

import json
from pathlib import Path

import openai_stub
import pytest
from asking import ask, brief, items, outcomes
from openai_stub import Reply, Request, error
from scored import score_answers

from lib.brief.project import Project
from lib.evaluate.steps import unreadable

REFUSALS = [(400, "response_format is not supported"), (422, "json_schema: extra field")]


def by_schema(url: str) -> Project:
    project = brief({"base_url": url})
    changed = [d.model_copy(update={"answer_by": "schema"}) for d in project.deployments]
    return project.model_copy(update={"deployments": changed})


def test_a_label_is_asked_for_by_schema(tmp_path: Path) -> None:
    with openai_stub.running(Reply(text=json.dumps({"label": "positive"}))) as stub:
        project = by_schema(stub.url)
        asked = ask(project, tmp_path, items(3))
    assert set(asked["asked_by"]) == {"schema"}
    assert outcomes(project, asked) == {"answered": 3}
    form = stub.requests[0].body["response_format"]["json_schema"]["schema"]
    assert form["properties"]["label"]["enum"] == ["positive", "negative"]


@pytest.mark.parametrize(("status", "words"), REFUSALS)
def test_text_is_asked_for_where_a_schema_is_refused(
    tmp_path: Path, status: int, words: str
) -> None:
    def behave(request: Request) -> Reply:
        return error(status, words) if "response_format" in request.body else Reply()

    with openai_stub.running(behave) as stub:
        project = by_schema(stub.url).model_copy(deep=True)
        asked = ask(project, tmp_path, items(40))
    assert set(asked["asked_by"]) == {"text"}
    assert outcomes(project, asked) == {"answered": 40}
    refused = sum("response_format" in request.body for request in stub.requests)
    assert refused <= project.evaluation.concurrency  # those in flight, and no more


def test_another_400_is_no_reason_to_ask_in_text(tmp_path: Path) -> None:
    with openai_stub.running(error(400, "the prompt is too long")) as stub:
        project = by_schema(stub.url)
        asked = ask(project, tmp_path, items(3))
    assert outcomes(project, asked) == {"failed": 3}
    assert all("response_format" in request.body for request in stub.requests)


def test_three_examples_of_what_could_not_be_read(tmp_path: Path) -> None:
    def behave(request: Request) -> Reply:
        return Reply(text="who knows" if request.number <= 5 else "positive")

    with openai_stub.running(behave) as stub:
        project = brief({"base_url": stub.url})
        scored = score_answers(project, ask(project, tmp_path, items(20)))
    table = unreadable(scored)
    assert list(table["share"]) == [0.25] * 3
    assert set(table["output"]) == {"who knows"}
    assert unreadable(scored[scored["outcome"] == "answered"]).empty
