"""Dollars: said before anything is asked, and never more than the budget."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import openai_stub
import pandas as pd
import pytest
from asking import IN, OUT, ask, brief, items, priced
from openai_stub import Reply, error

from lib.brief.project import Project
from lib.brief.sections import Size
from lib.endpoints import price as spending
from lib.endpoints import runner, store
from lib.endpoints.requests import Call
from lib.errors import PlaybookError
from lib.evaluate import answers
from lib.evaluate import answers as forecast

CALL = (10 * IN + 1 * OUT) / 1e6  # a call of 10 and 1 tokens costs $0.012


def worst(project: Project) -> float:
    call = next(iter(answers.plan(project, project.deployments[0], items(1))))
    rate = spending.Budget(Path(), max_usd=1).rate(project.deployments[0])
    return spending.worst_usd(rate, call, "a")


def spent(run: Path) -> float:
    return sum(record["usd"] for record in store.read_records(run / spending.LEDGER).values())


@pytest.mark.usefixtures("virtual_time")
@pytest.mark.parametrize("concurrency", [1, 8])
def test_it_stops_before_the_budget_is_exceeded_and_uses_it_up(
    tmp_path: Path, concurrency: int
) -> None:
    with openai_stub.running(Reply(delay_s=0.005)) as stub:
        plain = priced(brief({"base_url": stub.url}, concurrency=concurrency))
        limit = worst(plain) + 10.5 * CALL
        project = priced(brief({"base_url": stub.url}, concurrency=concurrency, max_usd=limit))
        with pytest.raises(PlaybookError, match=r"max_usd of \$.* would be exceeded") as told:
            ask(project, tmp_path)
        # The eleventh call still fits with its worst case, the twelfth does not.
        assert len(stub.requests) == 11
        assert spent(tmp_path) == pytest.approx(11 * CALL) and spent(tmp_path) <= limit
        assert "9 of 20 answers are not asked yet" in str(told.value)
        with pytest.raises(PlaybookError, match="would be exceeded"):
            ask(project, tmp_path)  # what is spent stays spent
        assert len(stub.requests) == 11
        more = priced(brief({"base_url": stub.url}, max_usd=10.0))
        asked = ask(more, tmp_path)
        assert len(stub.requests) == 20 and not asked["error"].any()
        assert spent(tmp_path) == pytest.approx(20 * CALL)


def test_a_budget_that_suffices_changes_nothing(tmp_path: Path) -> None:
    with openai_stub.running() as stub:
        asked = ask(priced(brief({"base_url": stub.url}, max_usd=5)), tmp_path)
    assert not asked["error"].any() and len(asked) == 20
    usd = [record["usd"] for record in store.read_records(tmp_path / runner.STORE).values()]
    assert usd == pytest.approx([CALL] * 20)


def test_an_unknown_price_is_an_error_and_nothing_is_asked(tmp_path: Path) -> None:
    with openai_stub.running() as stub:
        project = brief({"base_url": stub.url}, max_usd=5)
        unknown = project.deployments[0].model_copy(update={"hardware": "nobody-knows"})
        project = project.model_copy(update={"deployments": [unknown]})
        with pytest.raises(PlaybookError, match=r"max_usd needs every price; deployment 'a': .*"):
            ask(project, tmp_path)
        unlisted = priced(project, provider="openai", model="no-such-model")
        with pytest.raises(PlaybookError, match=r"max_usd needs every price; .*genai-prices"):
            ask(unlisted, tmp_path)
        assert not stub.requests


def test_an_hourly_price_does_not_count(tmp_path: Path) -> None:
    with openai_stub.running() as stub:
        project = priced(brief({"base_url": stub.url}, max_usd=1e-9), usd_per_hour=5.0)
        assert len(ask(project, tmp_path)) == 20
    assert spent(tmp_path) == 0


def test_usage_that_is_not_reported_counts_with_its_worst_case(tmp_path: Path) -> None:
    with openai_stub.running(Reply(usage=None)) as stub:
        project = priced(brief({"base_url": stub.url}, max_usd=5))
        ask(project, tmp_path, items(5))
    assert spent(tmp_path) == pytest.approx(5 * worst(project))


@pytest.mark.usefixtures("virtual_time")
@pytest.mark.parametrize(
    ("reply", "charged"),
    [
        (error(429), False),
        (error(400), False),
        (error(500), True),
        (openai_stub.HTML, True),
        (openai_stub.DROP, True),
        (openai_stub.HANG, True),
    ],
)
def test_a_failed_try_counts_where_it_may_have_been_charged(
    tmp_path: Path, reply: Reply, charged: bool
) -> None:
    with openai_stub.running(lambda r: reply if r.number == 1 else Reply()) as stub:
        project = priced(brief({"base_url": stub.url}, max_usd=5, timeout_s=30, concurrency=1))
        ask(project, tmp_path, items(3))
    assert spent(tmp_path) == pytest.approx(2 * CALL + (worst(project) if charged else 0))


KILLED = """
import sys, pathlib
sys.path.insert(0, sys.argv[1])
from asking import ask, brief, items, priced
project = priced(brief({"base_url": sys.argv[2]}, max_usd=100, concurrency=4))
ask(project, pathlib.Path(sys.argv[3]), items(20))
"""


def test_calls_in_flight_at_a_kill_count_with_their_worst_case(tmp_path: Path) -> None:
    hanging = openai_stub.HANG
    with openai_stub.running(lambda r: hanging if r.number > 6 else Reply()) as stub:
        here = str(Path(__file__).parents[1] / "stubs")
        child = subprocess.Popen([sys.executable, "-c", KILLED, here, stub.url, str(tmp_path)])
        # Four workers hang with the last four, so the six before are written down.
        while len(stub.requests) < 10 and child.poll() is None:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        project = priced(brief({"base_url": stub.url}, max_usd=100))
        expected = 6 * CALL + 4 * worst(project)
        assert spent(tmp_path) == pytest.approx(expected)
        budget = spending.Budget(tmp_path, max_usd=100)
        with budget.opened():
            assert budget.spent == pytest.approx(expected)


def test_a_judge_spends_from_the_same_budget(tmp_path: Path) -> None:
    """Two performs of one run, as answers and their judge are."""
    with openai_stub.running() as stub:
        project = priced(brief({"base_url": stub.url}))
        deployment, limit = project.deployments[0], worst(project) + 10.5 * CALL
        evaluation = project.evaluation.model_copy(update={"max_usd": limit})
        project = project.model_copy(update={"evaluation": evaluation})
        runner.perform(
            [(deployment, answers.plan(project, deployment, items(8)))],
            tmp_path, brief=project, progress=False,
        )  # fmt: skip
        again = items(8).assign(input=[f"judge {i}" for i in range(8)])
        with pytest.raises(PlaybookError, match="5 of 8 verdicts are not asked"):
            runner.perform(
                [(deployment, answers.plan(project, deployment, again))],
                tmp_path, brief=project, label="verdicts", progress=False,
            )  # fmt: skip
        assert len(stub.requests) == 11 and spent(tmp_path) <= limit


def test_a_call_waits_for_room_that_others_in_flight_free(tmp_path: Path) -> None:
    async def work(budget: spending.Budget) -> list[str]:
        done: list[str] = []
        first, second = await budget.reserve(0.4), await budget.reserve(0.4)

        async def third() -> None:
            ticket = await budget.reserve(0.4)
            done.append("third")
            budget.settle(ticket, 0.1)

        waiting = asyncio.create_task(third())
        await asyncio.sleep(0.01)
        done.append("waited")
        budget.settle(first, 0.1)
        await waiting
        budget.settle(second, 0.1)
        with pytest.raises(spending.Exhausted):
            await budget.reserve(0.8)
        return done

    budget = spending.Budget(tmp_path, max_usd=1.0)
    with budget.opened():
        assert asyncio.run(work(budget)) == ["waited", "third"]
        assert budget.spent == pytest.approx(0.3)


def test_a_dry_run_says_calls_and_dollars_and_asks_nothing(tmp_path: Path) -> None:
    with openai_stub.running() as stub:
        project = priced(
            brief({"base_url": stub.url}, {"base_url": stub.url}, {"recorded": "x.jsonl"}), "a"
        )
        project = project.model_copy(update={"folder": tmp_path})
        lines = [json.dumps({"item_id": name, "output": "x"}) for name in ("stranger", "i0")]
        (tmp_path / "x.jsonl").write_text("\n".join(lines))
        rows = forecast.dry_run(project, project.deployments, items(), tmp_path)
        assert not stub.requests
        assert list(rows.columns) == (
            "deployment calls cached prompt_tokens completion_tokens usd_low usd_high basis".split()
        )
        ask(project.model_copy(update={"deployments": project.deployments[:1]}), tmp_path, items(5))
        after = forecast.dry_run(project, project.deployments, items(), tmp_path)
    table, later = rows.set_index("deployment"), after.set_index("deployment")
    assert table["calls"].to_dict() == {"a": 20, "b": 20, "c": 0}
    assert later["cached"].to_dict() == {"a": 5, "b": 0, "c": 0}
    assert table.at["a", "completion_tokens"] == 20 * 16
    assert 0 < table.at["a", "usd_low"] < table.at["a", "usd_high"] <= 20 * worst(project)
    assert later.at["a", "usd_high"] == pytest.approx(0.75 * table.at["a", "usd_high"], rel=0.01)
    assert pd.isna(table.at["b", "usd_high"]) and "not counted" in table.at["b", "basis"]
    assert table.at["c", "basis"].endswith("1 lines of no item, such as 'stranger'")


def test_a_dry_run_with_an_unknown_price_says_so(tmp_path: Path) -> None:
    project = priced(brief({"base_url": "http://127.0.0.1:9/v1"}), provider="openai", model="no")
    (row,) = forecast.dry_run(project, project.deployments, items(), tmp_path).to_dict("records")
    assert row["calls"] == 20 and pd.isna(row["usd_high"]) and row["basis"].startswith("not known")


JUDGE = {
    "model": "gpt-5-mini",
    "endpoint": {"base_url": "http://127.0.0.1:9/v1"},
    "price": {"input_usd_per_million": IN, "output_usd_per_million": OUT},
}


LABELLED = (
    '{{"id": "1", "output": "x", "human": {}}}\n\n{{"id": "2", "output": "y", "human": {}}}\n'
)


@pytest.mark.parametrize(
    ("kind", "user", "human", "calls"),
    [
        ("scoring", "Rate {output}", "12", 3 * 20 + 2),
        ("judged", "Grade {output}", ['"pass"', '"fail"'], 3 * 20 + 2),
        ("comparison", "{first} or {second}", "12", 3 * 20 * 2),  # whose judge nobody labels
    ],
)
def test_a_dry_run_counts_the_judge(
    tmp_path: Path, kind: str, user: str, human: Any, calls: int
) -> None:
    (tmp_path / "human.jsonl").write_text(LABELLED.format(*human))
    url = {"base_url": "http://127.0.0.1:9/v1"}
    judge = JUDGE | {"user": user, "calibration": "human.jsonl"}
    project = brief(url, url, url, kind=kind, judge=judge, folder=tmp_path)
    table = forecast.dry_run(project, project.deployments, items(), tmp_path)
    row = table.set_index("deployment").loc["judge"]
    assert row["calls"] == calls and row["completion_tokens"] == calls * 16
    assert 0 < row["usd_low"] < row["usd_high"]


def test_the_ledger_holds_numbers_only(tmp_path: Path) -> None:
    with openai_stub.running() as stub:
        ask(priced(brief({"base_url": stub.url}, max_usd=5)), tmp_path, items(2))
    for line in (tmp_path / spending.LEDGER).read_text().splitlines():
        assert set(json.loads(line.split(" ", 1)[1])) == {"key", "usd"}
    assert os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("sized", "length", "most", "tokens"),
    [
        (8192, 30, 16, (40, 150)),  # short calls cannot fill what the brief sizes
        (512, 3000, 16, (1000, 1100)),  # more than the brief sizes, if the call is likely to
        (2000, 3000, 16, (2000, 2000)),
        (8192, 100_000, 4096, (37_000, 38_000)),
        (8192, 30, None, (8192, 8192)),  # an answer without a limit
    ],
)
def test_the_context_of_a_local_server(
    sized: int, length: int, most: int | None, tokens: tuple[int, int]
) -> None:
    body = {"messages": [{"role": "user", "content": "x" * length}]}
    calls = [Call("", "chat", body | ({"max_tokens": most} if most else {}))] * 2
    low, high = tokens
    assert low <= spending.context_tokens(calls, Size(tier="low", context_tokens=sized)) <= high
