"""What the calls of a race share: servers that stay up, and one time for all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai_stub
import pytest
from asking import ask, brief, items

from lib.endpoints import runner
from lib.endpoints.attempts import Job
from lib.endpoints.requests import Call
from lib.evaluate import answers


def test_a_server_is_started_again_only_for_a_longer_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = list[str]()

    @contextlib.contextmanager
    def serving(deployment: Any, *, logs: Path, context_tokens: int) -> Iterator[Any]:
        log.append(f"start {context_tokens > 9000}")
        yield object()
        log.append("stop")

    monkeypatch.setattr(runner, "serving", serving)
    project = brief({"embedded": "smollm2-135m"})

    def job(text: str) -> Job:
        calls = [Call("k", "chat", {"messages": [{"role": "user", "content": text}]})]
        who = project.deployments[0]
        return Job(who, calls, {"k"}, project.evaluation, project.size, None, None)

    with runner.Session(project, tmp_path).opened() as session:
        first = session.serve(job("short"))
        assert session.serve(job("shorter")) is first
        longer = session.serve(job("word " * 9000))
        assert longer is not first and session.serve(job("short")) is longer
    assert log == ["start False", "stop", "start True", "stop"]


def test_the_time_of_a_session_is_one_for_all_its_calls(tmp_path: Path) -> None:
    with openai_stub.running() as stub:
        project = brief({"base_url": stub.url}, total_timeout_s=600)
        with runner.Session(project, tmp_path).opened() as session:
            how: dict[str, Any] = {"progress": False, "session": session}
            answers.ask(project, project.deployments, items(3), tmp_path, **how)
            session.stop_at = 0.0  # it is over
            late = answers.ask(project, project.deployments, items(5), tmp_path, **how)
        assert len(stub.requests) == 3
        assert list(late["error"] != "") == [False] * 3 + [True] * 2
        assert late["error"].iloc[-1].startswith("not asked: evaluation.total_timeout_s of 600")
        assert not ask(project, tmp_path, items(5))["error"].any()
