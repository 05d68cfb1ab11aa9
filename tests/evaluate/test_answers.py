"""Asking: once, resumable, and calm about everything an endpoint may send back."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import openai_stub
import pandas as pd
import pytest
from asking import KEY, ask, assert_no_key, brief, items, outcomes
from openai_stub import Reply, Request, Stub, error
from scored import score_answers

from lib import artifacts, endpoints, tables
from lib.brief.deployment import Price
from lib.endpoints import store
from lib.endpoints.runner import GIVE_UP_AFTER, STORE
from lib.errors import PlaybookError
from lib.evaluate import answers, steps
from lib.evaluate.items import load_items


def only_first_time(first: Reply) -> Any:
    """Each item gets `first` when it is asked for the first time, then a proper answer."""
    seen: set[str] = set()

    def behave(request: Request) -> Reply:
        new = request.text not in seen
        seen.add(request.text)
        return first if new else Reply()

    return behave


def test_asks_every_item_once_and_then_nothing(tmp_path: Path) -> None:
    with openai_stub.running() as one, openai_stub.running(Reply("Negative.")) as two:
        project = brief({"base_url": one.url}, {"base_url": two.url, "model": "m2"})
        asked = ask(project, tmp_path)
        assert Counter(one.texts) == Counter(two.texts) == Counter(items()["input"])
        assert {r.body["model"] for r in one.requests} == {"acme/a"}
        assert {r.body["model"] for r in two.requests} == {"m2"}
        again = ask(project, tmp_path)
        assert len(one.requests) == len(two.requests) == 20
    pd.testing.assert_frame_equal(asked, again)
    assert list(asked["item_id"]) == list(items()["item_id"]) * 2
    assert set(asked.loc[asked["deployment"] == "b", "output"]) == {"Negative."}
    assert asked["latency_s"].gt(0).all() and set(asked["prompt_tokens"]) == {10}


@pytest.mark.usefixtures("virtual_time")
def test_concurrency_is_bounded_and_used(tmp_path: Path) -> None:
    with openai_stub.running(Reply(delay_s=0.03)) as stub:
        ask(brief({"base_url": stub.url}, concurrency=7), tmp_path, items(60))
        assert stub.most_active == 7


@pytest.mark.usefixtures("virtual_time")
def test_hosted_deployments_run_at_the_same_time(tmp_path: Path) -> None:
    slow = Reply(delay_s=5)
    with openai_stub.running(slow) as one, openai_stub.running(slow) as two:
        ask(brief({"base_url": one.url}, {"base_url": two.url}, concurrency=2), tmp_path)
    start = one.requests[0].at
    for stub in (one, two):
        sent = [request.at - start for request in stub.requests]
        assert sent == pytest.approx([n // 2 * 5 for n in range(20)])


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": {"user": "Judge: {input}", "answer": "{target}"}},
        {"max_tokens": 5},
        {"temperature": 0.5},
        {"stop": ["x"]},
        {"shots": [{"input": "fine", "target": "positive"}]},
    ],
)
def test_a_changed_question_is_asked_again(tmp_path: Path, change: dict[str, Any]) -> None:
    with openai_stub.running() as stub:
        ask(brief({"base_url": stub.url}), tmp_path)
        ask(brief({"base_url": stub.url}, **change), tmp_path)
        assert len(stub.requests) == 40


def test_another_endpoint_or_model_is_asked_again_and_a_new_name_is_not(tmp_path: Path) -> None:
    with openai_stub.running() as one, openai_stub.running() as two:
        ask(brief({"base_url": one.url, "model": "m"}), tmp_path)
        ask(brief({"base_url": two.url, "model": "m"}), tmp_path)
        assert len(two.requests) == 20
        ask(brief({"base_url": one.url, "model": "n"}), tmp_path)
        assert len(one.requests) == 40
        renamed = brief({"base_url": one.url, "model": "m"}, concurrency=3, timeout_s=9)
        first = renamed.deployments[0].model_copy(update={"name": "renamed"})
        ask(renamed.model_copy(update={"deployments": [first]}), tmp_path)
        assert len(one.requests) == 40


def test_equal_questions_are_asked_once(tmp_path: Path) -> None:
    twice = pd.concat([items(5), items(5).assign(item_id=[f"again{i}" for i in range(5)])])
    with openai_stub.running() as stub:
        same = {"base_url": stub.url, "model": "m"}
        asked = ask(brief(same, same), tmp_path, twice.reset_index(drop=True))
        assert len(stub.requests) == 5
    assert len(asked) == 20 and set(asked["output"]) == {"positive"}


SCRIPT = """
import sys, pathlib
sys.path.insert(0, sys.argv[1])
from asking import ask, brief, items
ask(brief({"base_url": sys.argv[2]}, concurrency=4), pathlib.Path(sys.argv[3]), items(60))
"""


def test_killed_in_the_middle_it_asks_only_what_is_missing(tmp_path: Path) -> None:
    def behave(request: Request) -> Reply:
        return Reply(request.text) if request.number <= 20 else openai_stub.HANG

    with openai_stub.running(behave) as stub:
        here = str(Path(__file__).parents[1] / "stubs")
        (tmp_path / "killed").mkdir()
        child = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, here, stub.url, str(tmp_path / "killed")]
        )
        # Four workers hang with the last four, so the twenty before are written down.
        while len(stub.requests) < 24 and child.poll() is None:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert len(store.read_records(tmp_path / "killed" / STORE)) == 20
        stub.behave = lambda request: Reply(request.text)
        project = brief({"base_url": stub.url}, concurrency=4)
        resumed = ask(project, tmp_path / "killed", items(60))
        assert len(stub.requests) == 24 + 40
        (tmp_path / "calm").mkdir()
        calm = ask(project, tmp_path / "calm", items(60))
    volatile = ["latency_s", "retries"]
    pd.testing.assert_frame_equal(resumed.drop(columns=volatile), calm.drop(columns=volatile))


def test_a_record_torn_by_a_crash_costs_that_one_only(tmp_path: Path) -> None:
    with openai_stub.running() as stub:
        ask(brief({"base_url": stub.url}), tmp_path)
        path = tmp_path / STORE
        path.write_bytes(path.read_bytes()[:-30])
        assert len(ask(brief({"base_url": stub.url}), tmp_path)) == 20
        assert len(stub.requests) == 21
        ask(brief({"base_url": stub.url}), tmp_path)
        assert len(stub.requests) == 21


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (error(500, "out of order"), "HTTP 500: .*out of order"),
        (error(400, "too long"), "HTTP 400"),
        (openai_stub.HTML, "not a chat completion"),
        (openai_stub.EMPTY, ""),
        (openai_stub.BROKEN_JSON, ""),
        (openai_stub.DROP, "Connection"),
        (Reply(action="cut"), "Connection"),
        (Reply(body=b"{}"), "not a chat completion"),
        (Reply(body=b"[]"), "not a chat completion"),
        (Reply(body=b"null"), "not a chat completion"),
        (Reply(body=b'{"choices": []}'), "no choices"),
        (Reply(body=b'{"choices": [{}]}'), "not a chat completion"),
        (Reply({"a": 1}), "not a chat completion"),
        (Reply(["positive"]), "not a chat completion"),
        (Reply(finish_reason=7), "finish_reason '7' is no known one"),
    ],
)
def test_a_failed_call_is_recorded_asked_again_and_costs_no_other(
    tmp_path: Path, reply: Reply, said: str
) -> None:
    broken = {"text 3", "text 7"}
    sick = [True]

    def behave(request: Request) -> Reply:
        return reply if sick[0] and request.text in broken else Reply()

    with openai_stub.running(behave) as stub:
        project = brief({"base_url": stub.url})
        asked = ask(project, tmp_path)
        assert outcomes(project, asked) == {"answered": 18, "failed": 2}
        failed = asked[asked["error"] != ""]
        assert set(failed["item_id"]) == {"i3", "i7"}
        assert failed["error"].str.contains(said).all(), failed["error"].iloc[0]
        artifacts.save(score_answers(project, asked), tmp_path, "04_answers")
        sick[0] = False
        before = len(stub.requests)
        assert outcomes(project, ask(project, tmp_path)) == {"answered": 20}
        assert set(stub.texts[before:]) == broken and len(stub.requests) == before + 2


@pytest.mark.usefixtures("virtual_time")
def test_a_call_that_hangs_fails_after_the_timeout(tmp_path: Path) -> None:
    with openai_stub.running(lambda r: openai_stub.HANG if r.number == 2 else Reply()) as stub:
        project = brief({"base_url": stub.url}, timeout_s=50)
        asked = ask(project, tmp_path)
        assert outcomes(project, asked) == {"answered": 19, "failed": 1}
        assert "Timeout" in "".join(asked["error"])


def test_no_server_at_all_is_a_failed_call_each(tmp_path: Path) -> None:
    project = brief({"base_url": "http://127.0.0.1:9/v1"})
    asked = ask(project, tmp_path, items(3))
    assert outcomes(project, asked) == {"failed": 3}


def test_retries_what_passes(tmp_path: Path) -> None:
    with openai_stub.running(only_first_time(error(429, "slow", retry_after="0.05"))) as stub:
        project = brief({"base_url": stub.url}, max_retries=2)
        asked = ask(project, tmp_path)
        assert outcomes(project, asked) == {"answered": 20}
        assert set(asked["retries"]) == {1} and len(stub.requests) == 40


def test_outcomes_beside_an_answer(tmp_path: Path) -> None:
    replies = {
        "text 0": Reply("posit", finish_reason="length"),
        "text 1": Reply(None, finish_reason="content_filter"),
        "text 2": Reply(None, refusal="I cannot"),
        "text 3": Reply("who knows"),
        "text 4": Reply(usage=None),
        "text 5": Reply(None),
    }
    with openai_stub.running(lambda r: replies.get(r.text, Reply())) as stub:
        project = brief({"base_url": stub.url})
        asked = ask(project, tmp_path)
    assert outcomes(project, asked) == {
        "truncated": 1,
        "refused": 2,
        "unparsed": 1,
        "empty": 1,
        "answered": 15,
    }
    assert asked.loc[asked["item_id"] == "i4", "prompt_tokens"].isna().all()


def test_tokens_from_a_cache_reach_the_price(tmp_path: Path) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010}
    hit = usage | {"prompt_tokens_details": {"cached_tokens": 800}}
    replies = {"text 0": Reply(usage=usage), "text 1": Reply(usage=hit)}
    with openai_stub.running(lambda r: replies[r.text]) as stub:
        project = brief({"base_url": stub.url})
        asked = ask(project, tmp_path, items(2))
    assert asked["cached_tokens"].isna().tolist() == [True, False]
    assert asked["cached_tokens"].iloc[1] == 800
    by_provider = Price(provider="deepseek", model="deepseek-v4-flash")
    deployment = project.deployments[0].model_copy(update={"price": by_provider})
    rate = endpoints.price_of(deployment, tables.hardware())
    full, less = endpoints.usd_of_answers(deployment, rate, asked)
    assert 0 < less < full


def test_a_path_that_is_not_there_may_lack_its_v1(tmp_path: Path) -> None:
    with openai_stub.running(error(404, "no route")) as stub:
        project = brief({"base_url": stub.url.removesuffix("/v1")})
        with pytest.raises(PlaybookError, match="404 no route") as caught:
            ask(project, tmp_path)
    text = str(caught.value)
    assert "calls without a key, or endpoint.base_url should end in /v1: " in text


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_key_stops_with_one_sentence_and_keeps_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ACME_API_KEY", KEY)

    def refuse(request: Request) -> Reply:
        assert request.headers["authorization"] == f"Bearer {KEY}"
        if request.number <= 5:
            return Reply()
        return error(status, f"no entry for {request.headers['authorization']}")

    with openai_stub.running() as good, openai_stub.running(refuse) as bad:
        project = brief(
            {"base_url": good.url}, {"base_url": bad.url, "api_key_env": "ACME_API_KEY"}
        )
        with pytest.raises(PlaybookError) as caught:
            answers.ask(project, project.deployments, items(), tmp_path)
        assert len(bad.requests) <= 5 + project.evaluation.concurrency
        assert len(store.read_records(tmp_path / STORE)) == 25
        bad.behave, before = Reply(), len(bad.requests)
        assert outcomes(project, ask(project, tmp_path)) == {"answered": 40}
        assert len(good.requests) == 20 and len(bad.requests) == before + 15
    text = str(caught.value)
    assert "'b'" in text and "ACME_API_KEY" in text and str(status) in text
    assert "\n" not in text and "--from" not in text
    why = "does not accept the key in ACME_API_KEY"
    if status == 404:
        why = f"does not serve endpoint.model {project.deployments[1].model!r}, or not for the key"
        assert "should end in /v1" not in text  # it does
    assert f"{bad.url} {why}" in text and ("endpoint.api_key_env" in text) == (status != 404)
    assert_no_key(tmp_path, text, *capfd.readouterr())


@pytest.mark.parametrize("status", [200, 400, 500])
def test_a_key_sent_back_is_written_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ACME_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_LOG", "debug")

    def echo(request: Request) -> Reply:
        said = request.headers["authorization"]
        return Reply(f"positive {said}") if status == 200 else error(status, said, x_said=said)

    with openai_stub.running(echo) as stub:
        project = brief({"base_url": stub.url, "api_key_env": "ACME_API_KEY"})
        asked = answers.ask(project, project.deployments, items(12), tmp_path)
    artifacts.save(score_answers(project, asked), tmp_path, "04_answers")
    assert_no_key(tmp_path, asked.to_csv(), *capfd.readouterr())
    assert "***" in asked["output" if status == 200 else "error"].iloc[0]


def test_an_endpoint_that_is_down_is_given_up(tmp_path: Path) -> None:
    with openai_stub.running(error(500)) as stub:
        project = brief({"base_url": stub.url}, concurrency=2, max_retries=0)
        with pytest.raises(PlaybookError, match=r"'a'.*the first 20 calls all failed, HTTP 500"):
            answers.ask(project, project.deployments, items(200), tmp_path)
        assert len(stub.requests) <= GIVE_UP_AFTER + 2


def test_an_unset_key_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACME_API_KEY", raising=False)
    with openai_stub.running() as stub:
        project = brief({"base_url": stub.url, "api_key_env": "ACME_API_KEY"})
        with pytest.raises(PlaybookError, match=r"'a'.*ACME_API_KEY is not set"):
            ask(project, tmp_path)
        assert not stub.requests


@pytest.mark.parametrize("key", [f"{KEY}\n", f" {KEY}", f"{KEY}é"])
def test_a_key_that_no_header_can_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("ACME_API_KEY", key)
    with openai_stub.running() as stub:
        project = brief({"base_url": stub.url, "api_key_env": "ACME_API_KEY"})
        try:
            said = ask(project, tmp_path, items(3)).to_csv()
        except PlaybookError as problem:
            said = str(problem)
            assert "ACME_API_KEY" in said
        assert_no_key(tmp_path, said)


def test_a_full_disk_is_one_sentence_and_what_is_there_stays_readable(tmp_path: Path) -> None:
    path = tmp_path / STORE
    with openai_stub.running() as stub:
        project = brief({"base_url": stub.url})
        ask(project, tmp_path, items(10))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 700, hard))
        try:
            with pytest.raises(PlaybookError, match=r"04_answers.jsonl: cannot write: .*kept"):
                ask(project, tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        kept = store.read_records(path)
        assert 10 < len(kept) < 20
        assert len(kept) == len(path.read_bytes().splitlines())
        before = len(stub.requests)
        assert outcomes(project, ask(project, tmp_path)) == {"answered": 20}
        assert len(stub.requests) - before == 20 - len(kept)


def test_two_runs_in_one_directory_are_refused(tmp_path: Path) -> None:
    with openai_stub.running() as stub, store.appending_records(tmp_path / STORE):
        script = SCRIPT.replace("ask(brief", "import lib.errors\ntry:\n    ask(brief").rstrip()
        script += "\nexcept lib.errors.PlaybookError as e:\n    print(e)\n"
        command = [sys.executable, "-c", script, str(Path(__file__).parents[1] / "stubs"), stub.url]
        done = subprocess.run(
            [*command, str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert "being written by another process" in done.stdout
        assert not stub.requests


def test_hostile_answers_are_kept_as_text(tmp_path: Path) -> None:
    hostile = [
        "positive\x00\x1b[2J\x07",
        "x" * 1_000_000,
        "<script>alert(1)</script>",
        "{{ config }} {input}",
        "line\nbreak\r\n\u2028\u202e",
        "\ud800 half a character",
    ]

    def behave(request: Request) -> Reply:
        number = int(request.text.split()[1])
        return Reply(hostile[number] if number < len(hostile) else "positive")

    with openai_stub.running(behave) as stub:
        project = brief({"base_url": stub.url})
        asked = ask(project, tmp_path)
        ask(project, tmp_path)
        assert len(stub.requests) == 20
    expected = [*hostile[:5], "? half a character"]
    assert list(asked["output"][:6]) == expected
    artifacts.save(score_answers(project, asked), tmp_path, "04_answers")
    assert list(artifacts.load(tmp_path, "04_answers")["output"][:6]) == expected


@pytest.mark.parametrize(
    "text", ["{target} {input} {}", "{0.__class__}", "%s %(input)s", "{{input}}", "\x00\x1b[31m"]
)
def test_an_item_is_text_and_never_a_template(tmp_path: Path, text: str) -> None:
    line = {"id": "i", "input": text, "target": "positive"}
    (tmp_path / "items.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    with openai_stub.running() as stub:
        project = brief(
            {"base_url": stub.url},
            folder=tmp_path,
            prompt={"user": "Review: {input} ({input})", "answer": "it is {target}"},
            shots=[{"input": "{target}", "target": "positive"}],
        )
        ask(project, tmp_path, load_items(project))
        assert [m["content"] for m in stub.requests[0].body["messages"]] == [
            "Review: {target} ({target})",
            "it is positive",
            f"Review: {text} ({text})",
        ]


def test_a_published_brief_asks_nothing(tmp_path: Path) -> None:
    project = brief({"base_url": "http://127.0.0.1:9/v1"})
    published = project.evaluation.model_copy(update={"kind": "published"})
    project = project.model_copy(update={"evaluation": published})
    gathered = steps.gather(project, project.deployments, items(), tmp_path)
    assert gathered.answers.empty and "output" in gathered.answers


def test_many_requests_do_not_trip_over_each_other(tmp_path: Path, stub: Stub) -> None:
    asked = ask(brief({"base_url": stub.url}, concurrency=100), tmp_path, items(600))
    assert not asked["error"].any() and len(stub.requests) == 600


@pytest.fixture
def stub() -> Any:
    with openai_stub.running(lambda r: Reply(r.text)) as running:
        yield running


def test_answers_belong_to_their_item(tmp_path: Path, stub: Stub) -> None:
    asked = ask(brief({"base_url": stub.url}, concurrency=50), tmp_path, items(200))
    assert list(asked["output"]) == [f"text {i}" for i in range(200)]
    assert os.listdir(tmp_path)
