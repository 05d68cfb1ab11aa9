"""The runner: calm about failures, gentle to endpoints, and able to go on from any moment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import openai_stub
import pandas as pd
import pytest
from asking import KEY, ask, assert_no_key, brief, items, outcomes
from openai_stub import Reply, Request, called, error
from virtual_time import VirtualLoop

from lib.brief.deployment import Limits, Options
from lib.brief.project import Project
from lib.endpoints import runner, store
from lib.errors import PlaybookError
from lib.evaluate import answers

SIX_WAYS = [
    error(429, "slow", retry_after="2"),
    error(500, "out of order"),
    openai_stub.DROP,
    openai_stub.HANG,
    openai_stub.HTML,
    openai_stub.BROKEN_JSON,
]


in_virtual_time = pytest.mark.usefixtures("virtual_time")


def with_deployment(project: Project, **changes: Any) -> Project:
    """The brief with all its deployments changed."""
    changed = [d.model_copy(update=changes) for d in project.deployments]
    return project.model_copy(update={"deployments": changed})


def way(request: Request) -> Reply | None:
    """Which of the six ways an item fails in; 30 % of them do."""
    number = int(request.text.split()[1])
    return SIX_WAYS[number // 10 % 6] if number % 10 in (1, 4, 7) else None


@in_virtual_time
def test_failures_of_six_kinds_that_pass_change_no_answer(tmp_path: Path) -> None:
    """Each of 30 % of the items fails at first, then answers: only `retries` shows it."""
    seen: set[str] = set()

    def behave(request: Request) -> Reply:
        first = request.text not in seen
        seen.add(request.text)
        return (way(request) if first else None) or Reply(f"answer to {request.text}")

    with openai_stub.running(behave) as stub:
        project = brief({"base_url": stub.url}, max_retries=4, timeout_s=20, concurrency=30)
        asked = ask(project, tmp_path, items(120))
    assert list(asked["output"]) == [f"answer to text {i}" for i in range(120)]
    assert not asked["error"].any()
    assert (asked["retries"] > 0).sum() == 36 and len(stub.requests) == 156
    assert asked["latency_s"].max() == 0, "waits before a try are no latency of the endpoint"


@in_virtual_time
def test_failures_of_six_kinds_that_stay_cost_only_their_own_items(tmp_path: Path) -> None:
    calm = Reply("positive")
    (tmp_path / "calm").mkdir()
    with openai_stub.running(lambda r: way(r) or calm) as stub:
        project = brief({"base_url": stub.url}, max_retries=1, timeout_s=20, concurrency=30)
        asked = ask(project, tmp_path, items(120))
        stub.behave = calm
        whole = ask(project, tmp_path / "calm", items(120))
    assert outcomes(project, asked) == {"answered": 84, "failed": 36}
    good = asked[asked["error"] == ""]
    assert set(asked["error"].str[:8]) == {
        "", "HTTP 429", "HTTP 500", "APIConne", "Timeout:", "the answ"
    }  # fmt: skip
    facts = ["deployment", "item_id", "output", "finish_reason", "prompt_tokens"]
    expected = whole.loc[good.index, facts]
    pd.testing.assert_frame_equal(good[facts], expected, check_dtype=False)


KILLS = """
import os, pathlib, random, signal, sys, time
sys.path.insert(0, sys.argv[1])
from asking import ask, brief, items
from lib.endpoints import runner, store
run, log = pathlib.Path(sys.argv[3]), pathlib.Path(sys.argv[4])
# Everything is imported before: the kills must come in the middle of asking.
ask(brief({"base_url": sys.argv[2]}), log.parent, items(1).assign(input="warm up"))
for number in range(20):
    done = sorted(k for k, r in store.read_records(run / runner.STORE).items() if not r["error"])
    child = os.fork()  # a process without threads: whatever ran them is dead
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        ask(brief({"base_url": sys.argv[2]}, concurrency=4), run, items(400))
        os._exit(0)
    # Killed wherever it is after some more bytes, however slow the machine; some at the start.
    dice, path = random.Random(number), run / runner.STORE
    size = path.stat().st_size if path.exists() else 0
    more = dice.choice([0, *range(1, 2000)])
    while more and not (path.exists() and path.stat().st_size >= size + more):
        time.sleep(0.001)
    time.sleep(dice.uniform(0, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with log.open("a") as stream:
        print(len(done), file=stream)
"""


def test_killed_at_twenty_moments_it_asks_nothing_twice_and_ends_the_same(tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    run.mkdir()
    asked_when_done: list[str] = []
    lock = threading.Lock()

    def behave(request: Request) -> Reply:
        # Which items the store already holds as answered, the moment this one is asked.
        with lock:
            text = (run / runner.STORE).read_text() if (run / runner.STORE).exists() else ""
            if f'"output":"answer to {request.text}"' in text:
                asked_when_done.append(request.text)
        # A child is answered 19 times at most: none is done before it is killed.
        kills = len(log.read_text().split()) if log.exists() else 0
        if kills < 20 and request.number > 19 * (kills + 1):
            return openai_stub.HANG
        return Reply(f"answer to {request.text}", delay_s=0.01)

    with openai_stub.running(behave) as stub:
        here = str(Path(__file__).parents[1] / "stubs")
        command = [sys.executable, "-c", KILLS, here, stub.url, str(run), str(log)]
        subprocess.run(command, check=True, env=os.environ | {"TQDM_DISABLE": "1"})
        progress = [int(line) for line in log.read_text().split()]
        assert len(progress) == 20 and progress == sorted(progress)
        assert 0 < progress[-1] < 400, f"the kills came before or after the work: {progress}"
        project = brief({"base_url": stub.url}, concurrency=4)
        resumed = ask(project, run, items(400))
        before = len(stub.requests)
        again = ask(project, run, items(400))
        assert len(stub.requests) == before
    assert not asked_when_done
    assert list(resumed["output"]) == [f"answer to text {i}" for i in range(400)]
    # At most the calls in flight at each kill were asked once more.
    assert len(stub.requests) <= 401 + 20 * 4
    resumed.to_parquet(tmp_path / "a.parquet")
    again.to_parquet(tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


@in_virtual_time
def test_an_endpoint_that_refuses_at_eight_in_flight_is_met_there(tmp_path: Path) -> None:
    def behave(request: Request) -> Reply:
        busy = stub.active > 8
        return error(429, "busy", retry_after="1") if busy else Reply(delay_s=2)

    with openai_stub.running(behave) as stub:
        project = brief({"base_url": stub.url}, concurrency=32, max_retries=2)
        asked = ask(project, tmp_path, items(300))
    assert not asked["error"].any()
    assert len(stub.requests) < 300 * 1.35, "many calls were sent in vain"
    assert asked["retries"].sum() == len(stub.requests) - 300


@in_virtual_time
def test_retry_after_is_waited_for_by_every_call(tmp_path: Path) -> None:
    def behave(request: Request) -> Reply:
        return error(429, "slow", retry_after="20") if request.number == 1 else Reply()

    with openai_stub.running(behave) as stub:
        project = brief({"base_url": stub.url}, concurrency=1, max_retries=1)
        ask(project, tmp_path, items(5))
    gaps = [request.at - stub.requests[0].at for request in stub.requests[1:]]
    assert gaps == pytest.approx([20] * 5)


def test_who_asks_for_hours_is_not_waited_for(tmp_path: Path, virtual_time: VirtualLoop) -> None:
    slow, start = error(429, "come back tomorrow", retry_after="7200"), virtual_time.now
    with openai_stub.running(lambda r: slow if r.number == 5 else Reply()) as stub:
        asked = ask(brief({"base_url": stub.url}, concurrency=1), tmp_path, items(5))
    assert virtual_time.now == start
    assert list(asked["error"])[:4] == [""] * 4 and "tomorrow" in asked["error"].iloc[4]


def test_a_quota_that_is_used_up_stops_the_deployment(tmp_path: Path) -> None:
    body = json.dumps({"error": {"message": "no money", "code": "insufficient_quota"}}).encode()
    with openai_stub.running(Reply(status=429, body=body)) as stub:
        with pytest.raises(PlaybookError, match=r"'a'.*does not answer: 429.*no money"):
            ask(brief({"base_url": stub.url}, concurrency=2, max_retries=4), tmp_path)
        assert len(stub.requests) <= 2


@in_virtual_time
def test_requests_and_tokens_a_minute_are_kept(tmp_path: Path) -> None:
    with openai_stub.running() as stub:
        plain = brief({"base_url": stub.url})
        ask(with_deployment(plain, limits=Limits(requests_per_minute=30)), tmp_path, items(20))
        sent = [request.at - stub.requests[0].at for request in stub.requests]
        assert sent == pytest.approx([2 * n for n in range(20)])
        # 11 tokens are used of the 40 or so that are set aside: corrected, not forgotten.
        limits = Limits(tokens_per_minute=11 * 30, concurrency=1)
        ask(with_deployment(brief({"base_url": stub.url}, stop=["x"]), limits=limits),
            tmp_path, items(20))  # fmt: skip
        sent = [request.at - stub.requests[20].at for request in stub.requests[20:]]
        assert sent == pytest.approx([2 * n for n in range(20)])


@in_virtual_time
def test_a_deployments_own_concurrency(tmp_path: Path) -> None:
    with openai_stub.running(Reply(delay_s=0.01)) as stub:
        project = brief({"base_url": stub.url}, concurrency=9)
        ask(with_deployment(project, limits=Limits(concurrency=3)), tmp_path, items(30))
        assert stub.most_active == 3


def test_a_trickle_of_bytes_ends_with_the_timeout(
    tmp_path: Path, virtual_time: VirtualLoop
) -> None:
    """Each byte restarts the client's own clock; ours counts the whole request."""
    start = virtual_time.now
    with openai_stub.running(Reply(action="trickle")) as stub:
        asked = ask(brief({"base_url": stub.url}, timeout_s=30), tmp_path, items(1))
    assert virtual_time.now - start == pytest.approx(30)
    assert asked["error"].iloc[0] == "Timeout: no answer in 30 s"


@in_virtual_time
def test_the_total_timeout_keeps_what_is_there_and_goes_on_from_it(tmp_path: Path) -> None:
    with openai_stub.running(Reply(delay_s=10)) as stub:
        project = brief({"base_url": stub.url}, total_timeout_s=45, concurrency=5)
        asked = ask(project, tmp_path, items(100))
        late = asked["error"].str.startswith("not asked: evaluation.total_timeout_s of 45 s")
        assert (~late).sum() == 20 and not asked.loc[~late, "error"].any()
        assert len(store.read_records(tmp_path / runner.STORE)) == 20
        stub.behave, before = Reply(), len(stub.requests)
        unlimited = brief({"base_url": stub.url}, concurrency=5)
        assert outcomes(project, ask(unlimited, tmp_path, items(100))) == {"answered": 100}
        assert len(stub.requests) - before == 80


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLAYBOOK_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs" / ".answers"


def runs(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).mkdir()
    return [folder / name for name in names]


def test_answers_of_pinned_weights_are_shared_by_runs(tmp_path: Path, shared: Path) -> None:
    one, two, three = runs(tmp_path, "one", "two", "three")
    with openai_stub.running(lambda r: Reply(r.text)) as stub:
        pinned = {"base_url": stub.url, "revision": "2026-08-07"}
        first = ask(brief(pinned), one)
        assert not first["cached"].any() and len(list(shared.glob("*.jsonl"))) == 1
        second = ask(brief(pinned), two)
        assert second["cached"].all() and len(stub.requests) == 20
        pd.testing.assert_frame_equal(first.drop(columns="cached"), second.drop(columns="cached"))
        # A run stands for itself: what it took from elsewhere stays, and says so.
        for path in shared.glob("*"):
            path.unlink()
        pd.testing.assert_frame_equal(ask(brief(pinned), two), second)
        ask(brief({**pinned, "revision": "2026-09-01"}), three)
        assert len(stub.requests) == 40


def test_a_model_that_may_change_behind_its_name_is_asked_again(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three, four = runs(tmp_path, "one", "two", "three", "four")
    with openai_stub.running() as stub:
        ask(brief({"base_url": stub.url}), one)
        ask(brief({"base_url": stub.url}), two)
        assert len(stub.requests) == 40 and not shared.exists()
        monkeypatch.setenv("PLAYBOOK_CACHE", "off")
        ask(brief({"base_url": stub.url, "revision": "r"}), three)
        ask(brief({"base_url": stub.url, "revision": "r"}), four)
        assert len(stub.requests) == 80 and not shared.exists()


def test_a_failure_is_not_shared_and_a_crash_shares_later(tmp_path: Path, shared: Path) -> None:
    one, two = runs(tmp_path, "one", "two")
    bad = {"text 3"}
    with openai_stub.running(lambda r: error(500) if r.text in bad else Reply()) as stub:
        pinned = {"base_url": stub.url, "revision": "r"}
        ask(brief(pinned), one)
        for path in shared.glob("*"):  # as if the run had been killed before it shared anything
            path.unlink()
        ask(brief(pinned), one)
        bad.clear()
        asked = ask(brief(pinned), two)
        assert len(stub.requests) == 22 and asked["cached"].sum() == 19


def test_the_same_model_with_thinking_on_and_off_is_two_deployments(tmp_path: Path) -> None:
    def behave(request: Request) -> Reply:
        thinks = request.body["chat_template_kwargs"]["enable_thinking"]
        return Reply("negative" if thinks else "positive", reasoning="hm" if thinks else None)

    with openai_stub.running(behave) as stub:
        same = {"base_url": stub.url, "model": "m"}
        project = brief(same, same)
        options = [
            Options(extra_body={"chat_template_kwargs": {"enable_thinking": on}})
            for on in (True, False)
        ]
        both = [
            d.model_copy(update={"options": o})
            for d, o in zip(project.deployments, options, strict=True)
        ]
        asked = ask(project.model_copy(update={"deployments": both}), tmp_path)
    assert len(stub.requests) == 40
    assert asked.groupby("deployment")["output"].first().to_dict() == {
        "a": "negative",
        "b": "positive",
    }


def test_reasoning_sent_apart_is_no_output(tmp_path: Path) -> None:
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "positive"}]
    replies = {"text 0": Reply("positive", reasoning="negative?"), "text 1": Reply(parts)}
    with openai_stub.running(lambda r: replies[r.text]) as stub:
        asked = ask(brief({"base_url": stub.url}), tmp_path, items(2))
    assert list(asked["output"]) == ["positive", "positive"]


def test_tool_calls_become_text(tmp_path: Path) -> None:
    tools = [{"name": "weather", "parameters": {"type": "object"}}]
    replies = {
        "text 0": Reply(None, tool_calls=[called("weather", '{"city": "Oslo"}')]),
        "text 1": Reply(None, tool_calls=[called("weather", {"city": "Oslo"}), called("b", None)]),
        "text 2": Reply("no tool", tool_calls=[]),
        "text 3": Reply(None, tool_calls=[called("weather", "not {json")]),
        "text 4": Reply(None, tool_calls=[called(7, "{}")]),
        "text 5": Reply(None, tool_calls="weather()"),
    }
    with openai_stub.running(lambda r: replies[r.text]) as stub:
        project = brief({"base_url": stub.url}, kind="tool_call", tools=tools)
        asked = ask(project, tmp_path, items(6)).set_index("item_id")
        assert stub.requests[0].body["tools"][0]["function"]["name"] == "weather"
    assert json.loads(asked.at["i0", "output"]) == [
        {"name": "weather", "arguments": '{"city": "Oslo"}'}
    ]
    assert [c["name"] for c in json.loads(asked.at["i1", "output"])] == ["weather", "b"]
    assert asked.at["i2", "output"] == "no tool"
    assert json.loads(asked.at["i3", "output"])[0]["arguments"] == "not {json"
    assert list(asked.loc[["i4", "i5"], "error"].str[:17]) == ["the answer is not"] * 2


def ranked(n: int = 3) -> pd.DataFrame:
    documents = json.dumps([{"id": f"d{i}", "text": f"document {i}"} for i in range(4)])
    rows = [
        {"item_id": f"q{i}", "input": f"query {i}", "target": '{"d1": 1}', "documents": documents}
        for i in range(n)
    ]
    return pd.DataFrame(rows)


def test_a_rerank_endpoint_gives_a_score_a_document(tmp_path: Path) -> None:
    def behave(request: Request) -> Reply:
        assert request.path == "/v1/rerank" and request.body["model"] == "acme/a"
        if request.text == "query 2":
            return Reply(scores=[0.1] * 3 + [float("nan")])
        return Reply(scores=[float(text.split()[1]) for text in request.body["documents"]])

    with openai_stub.running(behave) as stub:
        project = brief({"base_url": stub.url}, kind="reranking", ranking={"method": "rerank"})
        asked = ask(project, tmp_path, ranked())
    assert json.loads(asked["output"][0]) == {"d0": 0.0, "d1": 1.0, "d2": 2.0, "d3": 3.0}
    assert list(asked["prompt_tokens"])[:2] == [10, 10]
    assert "not a ranking" in asked["error"][2]


def test_a_pointwise_ranking_puts_its_answers_together(tmp_path: Path) -> None:
    def behave(request: Request) -> Reply:
        if "query 2" in request.text and "document 3" in request.text:
            return error(400, "too long")
        return Reply("yes" if "document 1" in request.text else "no")

    with openai_stub.running(behave) as stub:
        project = brief({"base_url": stub.url}, kind="reranking")
        asked = ask(project, tmp_path, ranked())
        assert len(stub.requests) == 12
    assert json.loads(asked["output"][0]) == {"d0": "no", "d1": "yes", "d2": "no", "d3": "no"}
    assert asked["completion_tokens"][0] == 4 and asked["finish_reason"][0] == "stop"
    assert "too long" in asked["error"][2] and asked["output"].isna()[2]


def test_two_jobs_of_one_deployment_are_both_done(tmp_path: Path) -> None:
    with openai_stub.running() as stub:
        project = brief({"base_url": stub.url})
        deployment, table = project.deployments[0], items(6)
        jobs = [(deployment, answers.plan(project, deployment, table[i : i + 3])) for i in (0, 3)]
        records = runner.perform(jobs, tmp_path, brief=project, progress=False)
    assert len(records) == 6 == len(stub.requests)
    assert Counter(record["output"] for record in records.values()) == {"positive": 6}


def test_no_key_is_in_any_file(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACME_API_KEY", KEY)

    def echo(request: Request) -> Reply:
        said = request.headers["authorization"]
        if request.text == "text 1":
            return error(500, said)
        reason = said if request.text == "text 2" else "stop"
        return Reply(said, tool_calls=[called(said, {"key": said})], finish_reason=reason)

    (run,) = runs(tmp_path, "one")
    with openai_stub.running(echo) as stub:
        endpoint = {"base_url": stub.url, "revision": "r", "api_key_env": "ACME_API_KEY"}
        asked = ask(brief(endpoint), run, items(5))
    assert list(shared.glob("*.jsonl"))
    assert_no_key(tmp_path, asked.to_csv())
