"""Asking for JSON by schema, with text where the endpoint refuses; what could not be read."""

from __future__ import annotations

import json
from pathlib import Path

import openai_stub
from asking import ask, brief, items, outcomes
from openai_stub import Reply, Request, error

from lib.brief.project import Project
from lib.evaluate.steps import score_answers, unreadable


def by_schema(url: str) -> Project:
    project = brief({"base_url": url})
    changed = [d.model_copy(update={"answer_by": "schema"}) for d in project.deployments]
    return project.model_copy(update={"deployments": changed})


def test_a_label_is_asked_for_by_schema(tmp_path: Path) -> None:
    with openai_stub.running(Reply(text=json.dumps({"label": "positive"}))) as stub:
        project = by_schema(stub.url)
        asked = ask(project, tmp_path, items(3))
    assert outcomes(project, asked) == {"answered": 3}
    form = stub.requests[0].body["response_format"]["json_schema"]["schema"]
    assert form["properties"]["label"]["enum"] == ["positive", "negative"]


def test_a_refused_schema_is_a_failed_call(tmp_path: Path) -> None:
    with openai_stub.running(error(400, "response_format is not supported")) as stub:
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
