"""What one request of load is, what it may cost, and what is said before any is sent."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import openai_stub
import pandas as pd
import pytest
from openai_stub import Reply, Request, error

from lib import evaluate, speed
from lib.brief.project import Project
from lib.endpoints import price, store
from lib.errors import PlaybookError
from lib.speed import measurement, summary

pytestmark = pytest.mark.usefixtures("virtual_time")
TOKENS = {"input_usd_per_million": 1000.0, "output_usd_per_million": 2000.0}
CALL_USD = 0.012  # of the stub's 10 and 1 tokens


def brief(*endpoints: dict[str, Any], evaluation: Any = None, **sections: Any) -> Project:
    """Deployments a, b, … under light loads; `deployment` is what all of them have besides."""
    more = {"hardware": "cpu-1"} | sections.pop("deployment", {})
    named = zip("abc", endpoints, strict=False)
    raw = {
        "name": "t",
        "task": "t",
        "policy": {},
        "size": {"tier": "low"},
        "evaluation": {"kind": "exact", "items": "i.jsonl", "timeout_s": 30} | (evaluation or {}),
        "deployments": [{"name": n, "model": f"acme/{n}", "endpoint": e, **more} for n, e in named],
        "speed": {"budget_requests": 60},
        "requirements": {"max_p95_s": 20},
    }
    return Project.model_validate(raw | sections)


def items(n: int = 30) -> pd.DataFrame:
    rows = [{"item_id": f"i{i}", "input": f"text {i}", "target": "x"} for i in range(n)]
    return pd.DataFrame(rows)


def queries(n: int = 7, documents: int = 3) -> pd.DataFrame:
    texts = [{"id": f"d{i}", "text": f"document {i}"} for i in range(documents)]
    facts = {"target": json.dumps({"d0": 1}), "documents": json.dumps(texts)}
    return pd.DataFrame([{"item_id": f"i{i}", "input": f"query {i}"} | facts for i in range(n)])


RANKING = {"kind": "reranking", "ranking": {"method": "pointwise"}}


def measure(project: Project, run: Path, table: pd.DataFrame | None = None) -> pd.DataFrame:
    table = items() if table is None else table
    return speed.measure(project, table, project.deployments, run, progress=False)


def dry_run(project: Project, run: Path, table: pd.DataFrame | None = None) -> pd.DataFrame:
    table = items() if table is None else table
    return speed.dry_run(project, table, project.deployments, run)


def spent(run: Path) -> float:
    return sum(record["usd"] for record in store.read_records(run / price.LEDGER).values())


# --- one request is one item with all its calls


def test_a_pointwise_query_is_one_request_however_many_documents_it_has(tmp_path: Path) -> None:
    with openai_stub.running() as stub:
        project = brief({"base_url": stub.url}, evaluation=RANKING)
        requests = measure(project, tmp_path, queries())
        asked = len(stub.requests)
    assert asked == 3 * len(requests)
    loaded = requests["offered_rps"] > 0  # queries, but for the warm-up
    assert speed.summarise(requests, slo_s=20)["n"].sum() == loaded.sum()


def test_a_query_takes_as_long_as_its_slowest_document_and_fails_with_any(tmp_path: Path) -> None:
    def last_is_slow(request: Request) -> Reply:
        return Reply(delay_s=0.5 if "document 2" in request.text else 0)

    with openai_stub.running(last_is_slow) as stub:
        project = brief({"base_url": stub.url}, evaluation=RANKING)
        requests = measure(project, tmp_path / "slow", queries())
    assert (requests["outcome"] == "ok").all() and requests["latency_s"].between(0.499, 0.501).all()

    def one_fails(request: Request) -> Reply:
        broken = "document 1" in request.text and "query 3" in request.text
        return error(500) if broken else Reply()

    with openai_stub.running(one_fails) as stub:
        project = brief({"base_url": stub.url}, evaluation=RANKING)
        requests = measure(project, tmp_path / "broken", queries())
    failed = requests[requests["outcome"] == "failed"]
    assert len(failed) and set(failed["error"]) == {"InternalServerError"}
    assert (requests["outcome"] == "ok").any()


def test_a_page_instead_of_a_ranking_is_a_failure(tmp_path: Path) -> None:
    ranking = {"kind": "reranking", "ranking": {"method": "rerank"}}
    with openai_stub.running() as stub:
        project = brief({"base_url": stub.url}, evaluation=ranking)
        assert (measure(project, tmp_path / "a", queries())["outcome"] == "ok").all()
        stub.behave = openai_stub.HTML
        with pytest.raises(PlaybookError, match="no request of the first probe was answered"):
            measure(project, tmp_path / "b", queries())


def test_step_5_sends_the_options_that_step_4_does(tmp_path: Path) -> None:
    options = {"options": {"extra_body": {"top_k": 3, "chat_template_kwargs": {"think": False}}}}
    with openai_stub.running() as stub:
        project = brief({"base_url": stub.url}, deployment=options)
        assert (measure(project, tmp_path)["outcome"] == "ok").all()
        bodies = [request.body for request in stub.requests]
    assert all(b["top_k"] == 3 and b["chat_template_kwargs"] == {"think": False} for b in bodies)
    assert all(b["stream"] and b["model"] == "acme/a" and b["messages"] for b in bodies)


# --- nothing to load


@pytest.mark.parametrize(
    ("endpoint", "evaluation"),
    [
        ({"recorded": "answers.jsonl"}, {}),
        ({"base_url": "http://127.0.0.1:9/v1"}, {"kind": "inspect", "inspect": {"task": "t.py"}}),
    ],
    ids=["recorded", "inspect"],
)
def test_nothing_to_load_gives_tables_with_their_columns(
    tmp_path: Path, endpoint: dict[str, Any], evaluation: dict[str, Any]
) -> None:
    project = brief(endpoint, evaluation={"max_usd": 1.0} | evaluation)
    table = items() if not evaluation else evaluate.load_items(project)
    requests = measure(project, tmp_path, table)
    assert requests.empty and list(requests) == measurement.COLUMNS
    assert list(speed.summarise(requests, slo_s=1)) == summary.LOAD
    assert list(speed.capacity(project, requests)) == summary.CAPACITY
    (row,) = dry_run(project, tmp_path, table).to_dict("records")
    assert row["deployment"] == "a" and row["calls"] == 0
    assert row["basis"] == "nothing to send: no endpoint, or no items of the brief"


# --- what it may cost


def test_a_dry_run_says_the_most_that_is_sent(tmp_path: Path) -> None:
    with openai_stub.running() as stub:
        live = brief({"base_url": stub.url}, deployment={"price": TOKENS})
        (before,) = dry_run(live, tmp_path).to_dict("records")
        assert not stub.requests
        requests = measure(live, tmp_path)
        assert len(requests) == len(stub.requests) <= before["calls"]
        assert before["usd_low"] < before["usd_high"]
        (after,) = dry_run(live, tmp_path).to_dict("records")
    assert (after["calls"], after["usd_high"]) == (0, 0)  # all of it is on disk


def test_a_dry_run_counts_every_call_of_an_item_and_knows_the_hour(tmp_path: Path) -> None:
    urls = [{"base_url": "http://127.0.0.1:9/v1"}]
    rows = [
        dry_run(brief(*urls, **more), tmp_path, table).iloc[0]
        for more, table in (({}, items(7)), ({"evaluation": RANKING}, queries(7, 3)))
    ]
    assert rows[1]["calls"] == 3 * rows[0]["calls"] > 0
    assert pd.isna(rows[0]["usd_high"]) and "by the hour, not counted" in rows[0]["basis"]


def test_step_5_spends_from_the_same_budget(tmp_path: Path) -> None:
    with openai_stub.running() as stub:
        project = brief(
            {"base_url": stub.url}, evaluation={"max_usd": 100.0}, deployment={"price": TOKENS}
        )
        requests = measure(project, tmp_path)
    assert len(stub.requests) == len(requests)
    assert spent(tmp_path) == pytest.approx(len(requests) * CALL_USD)


@pytest.mark.parametrize(
    ("reply", "free"),
    [(Reply(usage=None), False), (error(500), False), (error(429), True)],
    ids=["uncounted", "failed", "refused"],
)
def test_what_nobody_counted_costs_the_most(tmp_path: Path, reply: Reply, free: bool) -> None:
    """Every fourth request comes back without usage, or not at all."""
    with openai_stub.running(lambda r: reply if r.number % 4 == 0 else Reply()) as stub:
        project = brief(
            {"base_url": stub.url},
            evaluation={"max_usd": 1000.0},
            deployment={"price": TOKENS},
        )
        measure(project, tmp_path)
        counted = len(stub.requests) * CALL_USD
    call = next(iter(evaluate.plan(project, project.deployments[0], items())))
    worst = price.worst_usd(price.Rate(None, *TOKENS.values(), ""), call, "a")
    uncounted = spent(tmp_path) - counted
    assert (uncounted < 3 * worst) is free


def test_a_load_that_could_exceed_the_budget_is_not_sent(tmp_path: Path) -> None:
    usage: list[dict[str, int]] = []  # without one a call counts with the most that it can cost
    with openai_stub.running(lambda _: Reply() if usage else Reply(usage=None)) as stub:
        price_of = {"price": TOKENS}
        tight = brief({"base_url": stub.url}, evaluation={"max_usd": 0.5}, deployment=price_of)
        with pytest.raises(
            PlaybookError, match=r"max_usd of \$0.5 would be exceeded: \$0 is spent"
        ):
            measure(tight, tmp_path)
        assert not stub.requests and spent(tmp_path) == 0
        # What the first load may cost at most; a later one finds too little left.
        call = next(iter(evaluate.plan(tight, tight.deployments[0], items())))
        worst = price.worst_usd(price.Rate(None, *TOKENS.values(), ""), call, "a")
        enough = {"max_usd": 25 * worst}
        some = brief({"base_url": stub.url}, evaluation=enough, deployment=price_of)
        with pytest.raises(PlaybookError, match="the next load of 'a' may take"):
            measure(some, tmp_path)
        assert 16 <= len(stub.requests) < 60 and 0 < spent(tmp_path) <= enough["max_usd"]
        usage.append({})
        more = brief({"base_url": stub.url}, evaluation={"max_usd": 99.0}, deployment=price_of)
        assert measure(more, tmp_path)["probe"].nunique() > 2
        assert stub.requests[16:], "the first load is used again"


def test_every_price_is_known_before_anything_is_sent(tmp_path: Path) -> None:
    with openai_stub.running() as stub:
        project = brief(
            {"base_url": stub.url},
            evaluation={"max_usd": 1.0},
            deployment={"price": {"provider": "together", "model": "no-such-model"}},
        )
        with pytest.raises(PlaybookError, match="max_usd needs every price"):
            measure(project, tmp_path)
        assert not stub.requests


def test_by_the_hour_nothing_counts_toward_the_budget(tmp_path: Path) -> None:
    with openai_stub.running() as stub:
        project = brief({"base_url": stub.url}, evaluation={"max_usd": 1e-9})
        assert len(measure(project, tmp_path)) and spent(tmp_path) == 0


def test_an_endpoint_that_will_not_count_tokens_is_measured_all_the_same(tmp_path: Path) -> None:
    def strict(request: Request) -> Reply:
        return error(400, "unknown stream_options") if "stream_options" in request.body else Reply()

    with openai_stub.running(strict) as stub:
        project = brief({"base_url": stub.url})
        requests = measure(project, tmp_path)
    assert (requests["outcome"] == "ok").all()


# --- what the endpoint allows


def limited(
    url: str, limits: dict[str, Any], *, budget_s: float = 300, evaluation: Any = None
) -> Project:
    return brief(
        {"base_url": url},
        evaluation=evaluation,
        deployment={"limits": limits},
        speed={"budget_requests": 1000, "budget_s": budget_s},
    )


@pytest.mark.parametrize(
    ("limits", "evaluation", "reply"),
    [
        ({"requests_per_minute": 120}, None, Reply(delay_s=0.1)),
        ({"tokens_per_minute": 1320}, None, Reply(delay_s=0.1)),  # of 11 each
        ({"requests_per_minute": 360}, RANKING, Reply(delay_s=0.1)),  # three calls each
    ],
)
def test_less_is_offered_than_the_endpoint_allows_and_that_bounds_its_capacity(
    tmp_path: Path, limits: dict[str, Any], evaluation: Any, reply: Reply
) -> None:
    with openai_stub.running(reply) as stub:
        project = limited(stub.url, limits, evaluation=evaluation)
        requests = measure(project, tmp_path, queries(30) if evaluation else None)
    assert requests["offered_rps"].max() == pytest.approx(1.8)
    (row,) = speed.capacity(project, requests).to_dict("records")
    assert row["low"] == pytest.approx(1.8) and row["high"] == pytest.approx(2.0)
    assert row["binds"] == "limits of the endpoint"


@pytest.mark.parametrize(
    ("limits", "budget_s", "low", "high"),
    [
        ({"requests_per_minute": 600}, 40, 9.0, 10.0),
        ({"requests_per_minute": 60}, 40, 0.0, 1.0),  # too few requests to show anything
        ({"requests_per_minute": 1}, 40, 0.0, 1 / 60),
        ({"tokens_per_minute": 600}, 40, 0.0, 0.91),
    ],
)
def test_what_limits_leave_no_time_for_is_not_resolved_and_never_failed(
    tmp_path: Path, limits: dict[str, Any], budget_s: float, low: float, high: float
) -> None:
    with openai_stub.running(Reply(delay_s=0.1)) as stub:
        project = limited(stub.url, limits, budget_s=budget_s)
        requests = measure(project, tmp_path)
        within = len(stub.requests)
    (row,) = speed.capacity(project, requests).to_dict("records")
    assert row["low"] == pytest.approx(low) and row["high"] == pytest.approx(high, rel=0.01)
    assert math.isnan(row["max_rps"]) == (low == 0)
    assert within < 2 * high * budget_s + 10


def test_tokens_that_are_not_counted_are_as_many_as_may_be(tmp_path: Path) -> None:
    with openai_stub.running(Reply(delay_s=0.1, usage={})) as stub:
        project = limited(stub.url, {"tokens_per_minute": 6000})
        (row,) = speed.capacity(project, measure(project, tmp_path)).to_dict("records")
    assert row["high"] < 6000 / 60 / 11 / 2


def test_no_more_calls_are_sent_at_once_than_the_endpoint_allows(tmp_path: Path) -> None:
    with openai_stub.running(Reply(delay_s=0.5)) as stub:
        project = brief(
            {"base_url": stub.url},
            deployment={"limits": {"concurrency": 2}},
            speed={"budget_requests": 900, "budget_s": 300},
        )
        (row,) = speed.capacity(project, measure(project, tmp_path)).to_dict("records")
        assert stub.most_active == 2
    assert 3.0 < row["low"] <= row["high"] < 4.2  # two slots of half a second
