"""Load: offered on schedule, counted honestly, measured once; all in virtual time."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openai_stub
import pandas as pd
import pytest
from openai_stub import Reply, Request, error

from lib.brief.project import Project, load_project
from lib.endpoints import Call, run_blocking, store
from lib.endpoints.servers import Served
from lib.errors import PlaybookError
from lib.speed import measurement as load
from lib.speed import summary as speed

pytestmark = pytest.mark.usefixtures("virtual_time")


def brief(
    url: str = "http://127.0.0.1:9/v1",
    *,
    slo_s: float = 0.5,
    min_rps: float = 25,
    timeout_s: float = 5,
    **settings: Any,
) -> Project:
    return Project.model_validate(
        {
            "name": "t",
            "task": "t",
            "policy": {},
            "size": {"tier": "low"},
            "evaluation": {"kind": "exact", "items": "items.jsonl", "timeout_s": timeout_s},
            "deployments": [
                {
                    "name": "d",
                    "model": "acme/d",
                    "endpoint": {"base_url": url},
                    "hardware": "cpu-1",
                }
            ],
            "speed": {"probe_s": 0.2, "min_requests": 20, "max_probes": 8} | settings,
            "requirements": {"max_p95_s": slo_s, "min_rps": min_rps},
        }
    )


def items(n: int = 30) -> pd.DataFrame:
    rows = [{"item_id": f"i{i}", "input": f"text {i}", "target": "x"} for i in range(n)]
    return pd.DataFrame(rows)


def measure(project: Project, run: Path, table: pd.DataFrame | None = None) -> pd.DataFrame:
    table = items() if table is None else table
    return load.measure(project, table, project.deployments, run, progress=False)


def offer(project: Project, url: str, rate: float, n: int) -> list[dict[str, Any]]:
    bodies = [{"messages": [{"role": "user", "content": f"text {i}"}]} for i in range(9)]
    calls, served = [[Call("", "chat", body)] for body in bodies], Served(url, "m", None)
    requests: list[dict[str, Any]] = run_blocking(load.offer, project, served, calls, rate, n)
    return requests


def frame(rate: float, *probes: tuple[int, list[float]], name: str = "d") -> pd.DataFrame:
    """Requests as `measure` returns them; infinite latency stands for a failed one."""
    rows = [
        {
            "deployment": name,
            "repo_id": "acme/d",
            "probe": number,
            "offered_rps": rate,
            "planned": planned,
            "due_s": i / rate,
            "ttft_s": 0.01,
            "latency_s": 0.01 if math.isinf(latency) else latency,
            "outcome": "failed" if math.isinf(latency) else "ok",
        }
        for number, (planned, latencies) in enumerate(probes, start=int(rate * 100))
        for i, latency in enumerate(latencies)
    ]
    return pd.DataFrame(rows)


def test_brackets_the_capacity_of_a_single_server_and_reuses_its_probes(tmp_path: Path) -> None:
    with openai_stub.running(service_s=0.04) as stub:  # 25 requests/s, and no more
        project = brief(stub.url, min_rps=5, probe_s=1.5)
        requests = measure(project, tmp_path)
        asked = len(stub.requests)
        again = measure(project, tmp_path)
        assert len(stub.requests) == asked
    pd.testing.assert_frame_equal(requests, again)
    (row,) = speed.capacity(project, requests).to_dict("records")
    # In 1.5 s a queue that grows does not yet miss: longer probes come nearer to 25.
    assert (row["max_rps"], row["low"], row["high"]) == (33.636, 33.636, 40)
    assert row["p95_low"] < row["p95_s"] < row["p95_high"] < 0.5
    assert row["n"] >= load.MIN_FOR_P95 and row["basis"] == "measured here"
    probes = speed.summarise(requests, slo_s=0.5)
    assert probes["offered_rps"].is_monotonic_increasing
    beyond = probes[probes["offered_rps"] >= row["high"]]
    assert not beyond["within_slo"].any() and beyond["stopped_early"].all()
    assert (probes["achieved_rps"].dropna() < 30).all()
    assert {r.body["stream"] for r in stub.requests} == {True}


@pytest.mark.parametrize(
    "change",
    [
        lambda p, other: p.model_copy(
            update={"requirements": p.requirements.model_copy(update={"max_p95_s": 0.4})}
        ),
        lambda p, other: p.model_copy(
            update={"evaluation": p.evaluation.model_copy(update={"max_tokens": 3})}
        ),
        lambda p, other: p.model_copy(
            update={"speed": p.speed.model_copy(update={"min_requests": 21})}
        ),
        lambda p, other: brief(other, max_probes=2),
    ],
    ids=["slo", "options", "settings", "endpoint"],
)
def test_measures_again_what_changed(
    tmp_path: Path, change: Callable[[Project, str], Project]
) -> None:
    with openai_stub.running() as stub, openai_stub.running() as other:
        project = brief(stub.url, max_probes=2)
        measure(project, tmp_path)
        before = len(stub.requests)
        measure(change(project, other.url), tmp_path)
        assert len(stub.requests) + len(other.requests) >= before + 20


def test_measures_again_with_other_items(tmp_path: Path) -> None:
    with openai_stub.running() as stub:
        project = brief(stub.url, max_probes=2)
        measure(project, tmp_path)
        before = len(stub.requests)
        measure(project, tmp_path, items(29))
        assert len(stub.requests) >= before + 20


def test_a_stopped_measurement_goes_on_where_it_was(tmp_path: Path) -> None:
    with openai_stub.running() as stub:
        project = brief(stub.url, max_probes=3)
        whole = measure(project, tmp_path)
        path = tmp_path / load.STORE
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:2]) + lines[2][:40])
        before = len(stub.requests)
        resumed = measure(project, tmp_path)
        third = whole.loc[whole["probe"] == 3, "planned"].iloc[0]
        assert len(stub.requests) - before == third + 1  # and one to warm up
    columns = ["probe", "offered_rps", "planned", "due_s"]
    pd.testing.assert_frame_equal(whole[columns], resumed[columns])


def test_requests_start_on_schedule_although_earlier_ones_hang() -> None:
    # The first is answered: it only warms the connection.
    with openai_stub.running(lambda r: Reply() if r.number == 1 else openai_stub.HANG) as stub:
        project = brief(stub.url, slo_s=30, timeout_s=1.5)
        requests = offer(project, stub.url, rate=40, n=20)
        assert len(stub.requests) == 21 and stub.most_active == 20
        due = np.array([r["due_s"] for r in requests])
        sent = np.array([r.at for r in stub.requests[1:]])
    assert sent - sent[0] == pytest.approx(due, abs=1e-4)
    # Two failures of twenty are too many for a p95: the others are cut at that moment.
    assert [r["outcome"] for r in requests] == ["failed"] * 2 + ["cut"] * 18
    assert [r["latency_s"] for r in requests[:2]] == [1.5, 1.5]


def test_latency_counts_from_when_a_request_was_due() -> None:
    with openai_stub.running(service_s=0.1) as stub:
        requests = offer(brief(stub.url, slo_s=30), stub.url, rate=100, n=20)
    assert {r["outcome"] for r in requests} == {"ok"}
    # Each is served in 0.1 s, but waits for all before it.
    ends = [r["due_s"] + r["latency_s"] for r in requests]
    assert ends == pytest.approx([0.1 * n for n in range(1, 21)], abs=1e-3)
    assert all(r["ttft_s"] == r["latency_s"] for r in requests)


def test_stops_early_and_marks_what_it_cut() -> None:
    with openai_stub.running(lambda r: Reply(delay_s=0 if r.number == 1 else 20)) as stub:
        requests = offer(brief(stub.url, slo_s=0.2, timeout_s=30), stub.url, rate=10, n=60)
    # Four of sixty are late: the others are left, and what was never sent is no measurement.
    assert [r["outcome"] for r in requests] == ["cut"] * 5 and len(stub.requests) == 6
    assert [r["latency_s"] >= 0.2 for r in requests] == [True] * 4 + [False]
    assert requests[3]["latency_s"] == 0.2 and requests[4]["latency_s"] > 0


@pytest.mark.parametrize(
    "bad",
    [
        error(500),
        error(429),
        openai_stub.HTML,
        openai_stub.EMPTY,
        openai_stub.DROP,
        Reply(action="cut"),
        Reply(body=b'data: {"choices": [{"mess\n\n', content_type="text/event-stream"),
        Reply(body=b"data: []\n\n", content_type="text/event-stream"),
        Reply(body=b'data: {"error": {"message": "no"}}\n\n', content_type="text/event-stream"),
        Reply(
            body=b'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n',
            content_type="text/event-stream",
        ),
    ],
    ids="500 429 html empty drop cut broken-json list error unfinished".split(),
)
def test_a_failed_request_is_a_miss_and_not_a_fast_answer(tmp_path: Path, bad: Reply) -> None:
    with openai_stub.running(lambda r: bad if r.number % 4 == 0 else Reply()) as stub:
        project = brief(stub.url, max_probes=2)
        requests = measure(project, tmp_path)
    assert (requests["outcome"] == "failed").any() and (requests["outcome"] == "ok").any()
    assert requests.loc[requests["outcome"] == "failed", "error"].str.len().gt(0).all()
    probes = speed.summarise(requests, slo_s=0.5)
    assert not probes["within_slo"].any() and probes["errors"].gt(0).all()
    assert speed.capacity(project, requests)["max_rps"].eq(0).all()


@pytest.mark.parametrize("bad", [error(401), error(500), openai_stub.HTML, openai_stub.DROP])
def test_an_endpoint_that_answers_nothing_is_one_sentence(tmp_path: Path, bad: Reply) -> None:
    with openai_stub.running(bad) as stub:
        project = brief(stub.url)
        with pytest.raises(PlaybookError, match="'d': no request of the first probe was answered"):
            measure(project, tmp_path)
        assert len(stub.requests) < 25 and not store.read_records(tmp_path / load.STORE)
        stub.behave = Reply()
        assert len(
            measure(project.model_copy(update={"speed": brief(max_probes=2).speed}), tmp_path)
        )


def test_a_later_probe_may_fail_whole(tmp_path: Path) -> None:
    def overloaded(request: Request) -> Reply:
        return Reply() if request.number <= 21 else error(503)

    with openai_stub.running(overloaded) as stub:
        project = brief(stub.url, max_probes=2)
        (row,) = speed.capacity(project, measure(project, tmp_path)).to_dict("records")
    assert (row["low"], row["high"]) == (50, 64)  # the ceiling


def test_nothing_passes(tmp_path: Path) -> None:
    with openai_stub.running(Reply(delay_s=0.4)) as stub:
        project = brief(stub.url, slo_s=0.05, max_probes=4)
        (row,) = speed.capacity(project, measure(project, tmp_path)).to_dict("records")
    assert row["max_rps"] == row["low"] == 0
    assert row["high"] == 25, "no load below what is asked for is tried"
    assert row["n"] == 0 and math.isnan(row["p95_s"])


def test_the_ceiling_is_reached(tmp_path: Path) -> None:
    with openai_stub.running() as stub:
        project = brief(stub.url, min_rps=10, ceiling_rps=35, slo_s=2)
        (row,) = speed.capacity(project, measure(project, tmp_path)).to_dict("records")
    assert row["max_rps"] == 35 and math.isnan(row["high"])
    assert row["n"] >= load.MIN_FOR_P95 and math.isfinite(row["p95_high"])


def test_p95_is_bounded_after_59_requests_and_the_same_load_may_come_twice(tmp_path: Path) -> None:
    with openai_stub.running() as stub:
        # The probe that completes the 59 has the very rate and number of the first one.
        project = brief(stub.url, min_rps=30, probe_s=0.5, ceiling_rps=60, slo_s=2)
        requests = measure(project, tmp_path)
        again = measure(project, tmp_path)
        assert len(stub.requests) == len(requests) + requests["probe"].nunique()
    pd.testing.assert_frame_equal(requests, again)
    assert requests.groupby("probe")["planned"].first().tolist() == [30, 30]
    (row,) = speed.capacity(project, requests).to_dict("records")
    assert row["n"] == 60 and row["p95_s"] <= row["p95_high"] < 2
    (probe,) = speed.summarise(requests, slo_s=2).to_dict("records")
    assert probe["n"] == 60 and probe["achieved_rps"] == pytest.approx(60, rel=0.2)


def test_58_requests_do_not_bound_p95() -> None:
    for n, bounded in ((58, False), (59, True)):
        requests = frame(10, (n, [0.1] * n))
        (row,) = speed.capacity(brief(min_rps=10), requests).to_dict("records")
        assert math.isfinite(row["p95_high"]) is bounded


def test_probes_of_one_load_count_together() -> None:
    twice = frame(10, (20, [0.1] * 19 + [9.0]), (41, [0.1] * 39 + [9.0] * 2))
    (row,) = speed.summarise(twice, slo_s=0.5).to_dict("records")
    assert row["within_slo"] and row["n"] == 61  # 3 of 61 missed
    one_more = frame(10, (20, [0.1] * 18 + [9.0] * 2), (41, [0.1] * 39 + [9.0] * 2))
    assert not speed.summarise(one_more, slo_s=0.5)["within_slo"].any()


def test_the_bracket_ignores_luck_above_a_failed_load() -> None:
    requests = pd.concat(
        [
            frame(5, (20, [0.1] * 20)),
            frame(10, (20, [9.0] * 20)),
            frame(20, (20, [0.1] * 20)),
        ]
    )
    (row,) = speed.capacity(brief(min_rps=5), requests).to_dict("records")
    assert (row["max_rps"], row["low"], row["high"], row["n"]) == (5, 5, 10, 20)


def test_failed_requests_count_in_the_summary() -> None:
    (row,) = speed.summarise(frame(10, (20, [0.1] * 18 + [math.inf] * 2)), slo_s=0.5).to_dict(
        "records"
    )
    assert row["errors"] == 2 and not row["within_slo"]
    assert speed.summarise(frame(10, (20, [0.1] * 19 + [math.inf])), slo_s=0.5)["within_slo"].all()


def test_published_figures_are_quoted_and_nothing_is_sent(tmp_path: Path) -> None:
    project = load_project("article")
    requests = load.measure(
        project, pd.DataFrame(columns=["input"]), project.deployments, tmp_path, progress=False
    )
    assert requests.empty and speed.summarise(requests, slo_s=1).empty
    table = speed.capacity(project, requests)
    assert dict(zip(table["deployment"], table["max_rps"], strict=True)) == {
        "deepseek-v3.2-8xgb200": 2,
        "qwen3-next-80b-4xh200": 10,
        "ministral-3-3b-2xh100": 20,
    }
    assert table[["low", "high", "p95_s"]].isna().all(axis=None)
    assert table["basis"].str.startswith("published (Together AI").all()
