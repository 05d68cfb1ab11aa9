"""What is said before anything is asked: no bound that what a deployment may write exceeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai_stub
import pandas as pd
import pytest
from asking import IN, OUT, brief, items, priced
from openai_stub import Reply

from lib.brief.deployment import Endpoint, Options
from lib.brief.project import Project
from lib.endpoints.price import BYTES_PER_TOKEN
from lib.evaluate import answers, steps

URL = {"base_url": "http://127.0.0.1:9/v1"}
JUDGE = {
    "model": "gpt-5-mini",
    "endpoint": URL,
    "price": {"input_usd_per_million": IN, "output_usd_per_million": OUT},
}


def planned(project: Project, run: Path, name: str) -> dict[str, Any]:
    table = answers.dry_run(project, project.deployments, items(), run)
    return dict(table.set_index("deployment").loc[name])


def test_nobody_knows_what_a_task_of_inspect_asks(tmp_path: Path) -> None:
    """Blank, never 0; what is recorded is not asked."""
    (tmp_path / "log.json").write_text("{}")
    project = brief(URL, {"recorded": "log.json"}, kind="inspect", inspect={"task": "t"})
    table = answers.dry_run(project, project.deployments, pd.DataFrame(), tmp_path)
    task, recorded = table.to_dict("records")
    assert task["basis"] == "not known: the task decides what it asks"
    assert all(pd.isna(value) for key, value in task.items() if key not in ("deployment", "basis"))
    assert (recorded["calls"], recorded["basis"]) == (0, "recorded: nothing is asked")


@pytest.mark.parametrize(
    ("kind", "user", "shown"),
    [
        ("judged", "{output}", 20 * 4000),
        ("judged", "{output} and again {output}", 2 * 20 * 4000),
        ("comparison", "{first} or {second}", 2 * 20 * 4000),
    ],
)
def test_the_judge_may_be_shown_the_longest_answers(
    tmp_path: Path, kind: str, user: str, shown: int
) -> None:
    """Of what each deployment may write: its own options, not the brief's; or what is recorded."""
    (tmp_path / "said.jsonl").write_text(
        "".join(json.dumps({"id": f"i{n}", "output": "x" * 4016 * 4}) + "\n" for n in range(20))
    )
    judge = JUDGE | {"user": user, "options": {"reasoning_effort": "low"}}
    project = brief(URL, URL, kind=kind, judge=judge, folder=tmp_path)

    def with_second(**changes: Any) -> dict[str, Any]:
        first, second = project.deployments
        deployments = [first, second.model_copy(update=changes)]
        return planned(project.model_copy(update={"deployments": deployments}), tmp_path, "judge")

    usual, longer = with_second(), with_second(options=Options(max_tokens=4016))
    assert longer["prompt_tokens"] - usual["prompt_tokens"] == pytest.approx(shown, abs=2)
    assert longer["usd_high"] > usual["usd_high"] and longer["usd_low"] == usual["usd_low"]
    assert usual["completion_tokens"] == 16 * usual["calls"]
    recorded = with_second(endpoint=Endpoint(recorded="said.jsonl"))
    assert recorded["prompt_tokens"] == longer["prompt_tokens"]
    endless = with_second(options=Options(extra_body={"max_tokens": None}))
    assert pd.isna(endless["prompt_tokens"]) and pd.isna(endless["usd_high"])


def test_the_judges_bound_holds_what_is_sent(tmp_path: Path) -> None:
    """Its worked examples repeat the wording, and every placeholder is filled."""
    shots = [{"output": "yes", "verdict": "pass"}] * 5
    with openai_stub.running(Reply("pass")) as stub:
        wording = "Question {input}, again {input}. " * 10 + "Grade {output}"
        judge = JUDGE | {"user": wording, "shots": shots, "endpoint": {"base_url": stub.url}}
        project = brief({"base_url": stub.url}, kind="judged", judge=judge, folder=tmp_path)
        bound = planned(project, tmp_path, "judge")["prompt_tokens"] * BYTES_PER_TOKEN
        asked = items().assign(group="")
        steps.gather(project, project.deployments, asked, tmp_path)
        sent = [r.body["messages"] for r in stub.requests if r.body["model"] == "gpt-5-mini"]
    assert len(sent) == 20
    assert bound >= sum(len(json.dumps(turns)) for turns in sent)


def test_what_it_has_cost_holds_the_judge_and_retries_apart(tmp_path: Path) -> None:
    """A try that is put off costs nothing; one that fails may have, at a price nobody told."""
    counts = {"prompt_tokens": 1000, "completion_tokens": 500}

    def answer(request: openai_stub.Request) -> Reply:
        failures = {1: openai_stub.error(429, retry_after="0"), 2: openai_stub.error(500)}
        return failures.get(request.number, Reply("yes", usage=counts))

    with openai_stub.running(answer) as stub, openai_stub.running(Reply("pass")) as judging:
        judge = JUDGE | {"user": "Grade {output}", "endpoint": {"base_url": judging.url}}
        how: Any = {"kind": "judged", "judge": judge, "max_retries": 3, "concurrency": 1}
        project = priced(brief({"base_url": stub.url}, folder=tmp_path, **how))
        steps.gather(project, project.deployments, items().assign(group=""), tmp_path)
        judged = len(judging.requests)
    usd, usd_of_judge = 19 * (1000 * IN + 500 * OUT) / 1e6, judged * (10 * IN + OUT) / 1e6
    assert answers.spending(tmp_path) == [
        f"Asked of the deployments: 20 calls, 2 tries again, ${usd:g} at token prices,"
        " 1 at no known price.",
        f"Asked of the judge: {judged} calls, 0 tries again, ${usd_of_judge:g} at token prices.",
    ]
    assert answers.spending(tmp_path / "nothing") == []
