"""lib.hub_http and lib.pace: the token, the attempts, and a limit that threads keep to together."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx2
import pandas as pd
import pytest
from hub_stub import Answer, Stub, model, point_at, running
from test_pull import no_sockets, shortlist  # noqa: F401  (a fixture)

from lib.hub import http as hub_http
from lib.hub import pace
from lib.hub import pull as hub
from lib.hub.http import Failed, Session, Unreachable


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    with running() as stub:
        point_at(stub, monkeypatch)
        monkeypatch.setattr(pace, "SLACK_S", 0.05)
        yield stub


def pulled(stub: Stub, cache: Path, count: int, **options: Any) -> tuple[pd.DataFrame, list[str]]:
    names, said = [f"acme/m{i}" for i in range(count)], []
    for name in names:
        stub.answers.setdefault(f"/api/models/{name}", [Answer(model(name))])
    return hub.pull(shortlist(*names), cache, say=said.append, **options).metadata, said


@pytest.mark.parametrize(
    ("endpoint", "is_hub"),
    [
        ("https://huggingface.co", True),
        ("https://hub-ci.huggingface.co", True),
        ("https://hf.co", True),
        ("http://huggingface.co", False),
        ("https://huggingface.co.evil.example", False),
        ("https://evil.example/huggingface.co", False),
        ("https://evilhuggingface.co", False),
        ("https://huggingface.co@evil.example", False),
        ("https://huggingface.co:444", False),
        ("https://mirror.example", False),
        ("", False),
    ],
)
def test_only_the_hub_gets_the_token(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, is_hub: bool
) -> None:
    monkeypatch.setattr(hub_http.constants, "ENDPOINT", endpoint)
    monkeypatch.delenv("PLAYBOOK_ROUTER_URL", raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_from_environment")
    assert hub_http.is_hub() is is_hub
    for token in ("hf_given", None, " "):
        session = Session(timeout_s=1, token=hub_http.allowed(token))
        assert session.with_token is is_hub
    assert not Session(timeout_s=1).with_token  # the router's
    assert bool(hub._router_url()) is is_hub


def test_the_limit_is_kept_by_all_threads(stub: Stub, tmp_path: Path) -> None:
    stub.quota, stub.window_s, stub.delay_s = 20, 0.9, 0.01
    started = time.monotonic()
    table, said = pulled(stub, tmp_path, 12, workers=10)  # 24 API requests
    assert (table["metadata_source"] == "hub").all() and (table["problem"] == "").all()
    assert 429 not in stub.statuses  # ten on their way at once, and still none too many
    assert said == ["the limit of 20 requests is used up: going on in 1 s"]
    assert 0.9 < time.monotonic() - started < 10


def test_the_bar_says_so_until_it_goes_on(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[float, str]] = []

    class Bar(contextlib.nullcontext[Any]):
        def set_description_str(self, text: str, refresh: bool = True) -> None:
            shown.append((time.monotonic(), text))

        def update(self) -> None:
            time.sleep(0.01)  # falls behind, as a notebook does

    monkeypatch.setattr(hub, "bar", lambda *args, **options: Bar())
    monkeypatch.setattr(Bar, "__enter__", lambda self: self)
    stub.quota, stub.window_s = 20, 0.9
    names = [f"acme/m{i}" for i in range(12)]
    for name in names:
        stub.serve(name, model(name))
    hub.pull(shortlist(*names), tmp_path, workers=2)
    place = next(i for i, (_, text) in enumerate(shown) if "is used up" in text)
    assert shown[place + 1][1] == "models"
    assert shown[place + 1][0] - shown[place][0] > 0.5


def test_more_threads_than_the_limit_allows(stub: Stub, tmp_path: Path) -> None:
    stub.quota, stub.window_s, stub.delay_s = 5, 0.5, 0.05
    table, said = pulled(stub, tmp_path, 8, workers=8)  # 16 API requests, 5 a window
    assert (table["metadata_source"] == "hub").all() and (table["problem"] == "").all()
    assert stub.statuses.count(429) <= 6  # only those sent before the limit was known
    assert 1 <= len(said) <= 4 and all("limit of 5 requests is used up" in one for one in said)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_waited_for_and_said_once(stub: Stub, tmp_path: Path, status: int) -> None:
    stub.delay_s = 0.05
    for place in range(10):
        name = f"acme/m{place}"
        busy = Answer({"error": "slow down"}, status, {"Retry-After": "1"})
        stub.serve(name, busy, model(name))
    started = time.monotonic()
    table, said = pulled(stub, tmp_path, 10, workers=10)
    assert 1.0 <= time.monotonic() - started < 10
    assert (table["metadata_source"] == "hub").all() and (table["problem"] == "").all()
    assert said == ["the Hub asks to wait: going on in 1 s"]
    assert stub.statuses.count(status) <= 10 and len(stub.asked) <= 40


def test_nobody_waits_for_an_hour(stub: Stub, tmp_path: Path) -> None:
    stub.serve("acme/m0", Answer(b"", 429, {"Retry-After": "3600"}))
    started = time.monotonic()
    table, said = pulled(stub, tmp_path, 3, workers=1)
    assert time.monotonic() - started < 5 and said == []
    assert table["problem"].str.contains("asks to wait 60 minutes: run the step again then").all()
    assert len(stub.asked) == 1


def test_a_used_up_limit_of_files_does_not_stop_questions(stub: Stub) -> None:
    headers = {"RateLimit": '"resolvers";r=0;t=60'}
    stub.script("/file", Answer({}, 200, headers))
    stub.script("/question", Answer({"a": 1}))
    session = Session(timeout_s=5)
    session.get(f"{stub.url}/file", bucket="resolvers")
    assert session.waits
    assert session.get(f"{stub.url}/question").body == b'{"a": 1}'


def test_stop_ends_the_wait(stub: Stub) -> None:
    stub.script("/a", Answer({}, 200, {"RateLimit": '"api";r=0;t=200'}))
    said, ended = [], []
    session = Session(timeout_s=5, say=said.append)
    session.get(f"{stub.url}/a")

    def ask() -> None:
        with pytest.raises(Failed, match="stopped"):
            session.get(f"{stub.url}/a")
        ended.append(True)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    while not said:
        time.sleep(0.01)
    session.stop()
    for thread in threads:
        thread.join(5)
    assert len(ended) == 8 and len(said) == 1 and len(stub.asked) == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("17", 17), (" 17 ", 17), ("", None), ("-1", None), ("1e9", None), ("soon", None),
     ("9" * 5000, None), ("\u0661\u0667", None), ("Thu, 01 Jan 1970 00:00:00 GMT", 0)],
)  # fmt: skip
def test_retry_after(text: str, seconds: float | None) -> None:
    response = httpx2.Response(429, headers={"Retry-After": text.encode()})
    assert pace._retry_after(response) == seconds


def test_retry_after_a_date() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    waited = pace._retry_after(httpx2.Response(503, headers={"Retry-After": date}))
    assert waited is not None and 25 < waited <= 30


def test_attempts(stub: Stub) -> None:
    stub.script("/a", Answer(b"", 503), Answer(b"", 500), Answer({"a": 1}))
    assert Session(timeout_s=5).get(f"{stub.url}/a").body == b'{"a": 1}'
    assert stub.statuses == [503, 500, 200]


def test_an_endless_answer_is_not_read(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.script("/big", Answer(b"x" * 100_000))
    with pytest.raises(Failed, match=r"larger than 0\.05 MB"):
        Session(timeout_s=5).get(f"{stub.url}/big", most_bytes=50_000)
    monkeypatch.setattr(hub_http, "DRIP", -1)
    with pytest.raises(Failed, match="no answer within 5 s"):
        Session(timeout_s=5).get(f"{stub.url}/big")
    assert len(stub.asked) == 2


@pytest.mark.usefixtures("no_sockets")
def test_offline_set_in_the_middle(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(timeout_s=5)
    monkeypatch.setenv("HF_HUB_OFFLINE", "yes")
    with pytest.raises(Unreachable, match="HF_HUB_OFFLINE is set"):
        session.get(f"{stub.url}/a")
    assert stub.asked == []


def test_no_connection_is_tried_once(monkeypatch: pytest.MonkeyPatch, stub: Stub) -> None:
    tried: list[str] = []

    class Client:
        def stream(self, method: str, url: str, **options: object) -> None:
            tried.append(url)
            raise httpx2.ConnectError("refused")

    monkeypatch.setattr(hub_http, "get_session", Client)
    session = Session(timeout_s=5)
    for _ in range(3):
        with pytest.raises(Unreachable, match="refused"):
            session.get("https://x.example")
    assert len(tried) == 1
