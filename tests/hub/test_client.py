"""lib.hub.client: the token, the attempts, and a limit that threads keep to together."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx2
import pandas as pd
import pytest
from hub_stub import Answer, Clock, Stub, model, point_at, running
from test_models import heard, no_sockets, shortlist  # noqa: F401  (a fixture)

from lib.hub import client
from lib.hub import client as endpoint
from lib.hub import models as hub
from lib.hub.client import Client, Failed, Unreachable


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    with running() as stub:
        point_at(stub, monkeypatch)
        yield stub


@pytest.fixture
def clock(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Windows and waits in a time that only waiting moves."""
    clock = Clock()
    clock.install(stub, monkeypatch)
    return clock


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return heard(monkeypatch)


def pulled(stub: Stub, cache: Path, count: int) -> pd.DataFrame:
    names = [f"acme/m{i}" for i in range(count)]
    for name in names:
        stub.answers.setdefault(f"/api/models/{name}", [Answer(model(name))])
    return hub.pull(shortlist(*names), cache).metadata


@pytest.mark.parametrize(
    ("address", "is_hub"),
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
    monkeypatch: pytest.MonkeyPatch, address: str, is_hub: bool
) -> None:
    monkeypatch.setattr(hub.constants, "ENDPOINT", address)
    monkeypatch.delenv("PLAYBOOK_ROUTER_URL", raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_from_environment")
    assert endpoint.is_hub() is is_hub
    assert Client(600).with_token is is_hub
    assert not Client(1, token=False).with_token  # the router's
    assert bool(hub._router_url()) is is_hub


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("https://huggingface.co", "huggingface.co"),
        ("http://me:hf_secret@127.0.0.1:80/x", "127.0.0.1:80"),
        ("http://me:hf_sec/ret@127.0.0.1:80/x", "127.0.0.1:80"),
        ("me:hf_secret@127.0.0.1", "127.0.0.1"),
        ("127.0.0.1:9", "127.0.0.1:9"),
        ("", ""),
    ],
)
def test_no_password_in_a_message(monkeypatch: pytest.MonkeyPatch, address: str, host: str) -> None:
    monkeypatch.setattr(hub.constants, "ENDPOINT", address)
    assert endpoint.host() == host


def test_the_limit_is_kept_by_all_threads(
    stub: Stub, tmp_path: Path, said: list[str], clock: Clock
) -> None:
    stub.quota, stub.window_s, stub.delay_s = 20, 300, 0.01
    start = clock.now
    table = pulled(stub, tmp_path, 12)  # 24 API requests
    assert (table["metadata_source"] == "hub").all() and (table["problem"] == "").all()
    assert 429 not in stub.statuses  # many on their way at once, and still none too many
    assert said == ["the Hub asks to wait: going on in 302 s"]
    assert clock.now - start == 302  # the Hub counts whole seconds, and one is to be sure


def test_the_bar_says_so_until_it_goes_on(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    shown: list[tuple[float, str]] = []

    class Bar(contextlib.nullcontext[Any]):
        def set_description_str(self, text: str) -> None:
            shown.append((clock.now, text))

        def update(self) -> None:
            time.sleep(0.01)  # falls behind, as a notebook does

    monkeypatch.setattr(hub, "bar", lambda *args, **options: Bar())
    monkeypatch.setattr(Bar, "__enter__", lambda self: self)
    monkeypatch.setattr(client, "THREADS", 2)
    stub.quota, stub.window_s = 20, 300
    names = [f"acme/m{i}" for i in range(12)]
    for name in names:
        stub.serve(name, model(name))
    hub.pull(shortlist(*names), tmp_path)
    place = next(i for i, (_, text) in enumerate(shown) if "asks to wait" in text)
    assert shown[place + 1][1] == "models"
    assert shown[place + 1][0] - shown[place][0] > 300


def test_more_threads_than_the_limit_allows(
    stub: Stub, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr(client, "THREADS", 8)
    stub.quota, stub.window_s, stub.delay_s = 5, 300, 0.05
    table = pulled(stub, tmp_path, 8)  # 16 API requests, 5 a window
    assert (table["metadata_source"] == "hub").all() and (table["problem"] == "").all()
    assert stub.statuses.count(429) <= 6  # only those sent before the limit was known
    assert 1 <= len(said) <= 4 and all("asks to wait: going on in" in text for text in said)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_waited_for(
    stub: Stub, tmp_path: Path, said: list[str], status: int, clock: Clock
) -> None:
    stub.delay_s, start = 0.05, clock.now
    for place in range(10):
        name = f"acme/m{place}"
        busy = Answer({"error": "slow down"}, status, {"Retry-After": "100"})
        stub.serve(name, busy, model(name))
    table = pulled(stub, tmp_path, 10)
    assert clock.now - start >= 100
    assert (table["metadata_source"] == "hub").all() and (table["problem"] == "").all()
    assert said[0] == "the Hub asks to wait: going on in 100 s"
    assert stub.statuses.count(status) <= 10 and len(stub.asked) <= 41  # and one base


def test_a_wait_of_many_threads_is_said_once(clock: Clock) -> None:
    said: list[str] = []
    limit = client.Limit(said.append, client.threading.Event())
    for _ in range(10):
        limit.heed(httpx2.Response(503, headers={"Retry-After": "100"}))

    def turn(number: int) -> None:
        with limit.turn():
            pass

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(turn, range(50)))
    assert said == ["the Hub asks to wait: going on in 100 s", "models"]


def test_nobody_waits_for_an_hour(
    stub: Stub, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr(client, "THREADS", 1)
    stub.serve("acme/m0", Answer(b"", 429, {"Retry-After": "3600"}))
    start = clock.now
    table = pulled(stub, tmp_path, 3)
    assert clock.now == start and said == []
    assert table["problem"].str.contains("asks to wait 60 minutes: run it again then").all()
    assert len(stub.asked) == 1


def test_a_used_up_limit_of_files_does_not_stop_questions(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "MOST_WAIT_MIN", 0.5)
    stub.script("/resolve/file", Answer({}, 200, {"RateLimit": '"resolvers";r=0;t=60'}))
    stub.script("/question", Answer({"a": 1}))
    asking = Client(600)
    asking.get(f"{stub.url}/resolve/file", {})
    with pytest.raises(Failed, match="asks to wait 1 minutes"):
        asking.get(f"{stub.url}/resolve/file", {})
    assert asking.get(f"{stub.url}/question", {}) == ({"a": 1}, None)


def test_an_error_ends_every_wait(stub: Stub) -> None:
    stub.script("/a", Answer({}, 200, {"RateLimit": '"api";r=0;t=200'}))
    said: list[str] = []
    asking = Client(600, say=said.append)
    asking.get(f"{stub.url}/a", {})

    def ask(path: str) -> object:
        if path == "/error":
            while not said:
                time.sleep(0.01)
            raise KeyboardInterrupt
        return asking.get(f"{stub.url}{path}", {})

    with pytest.raises(KeyboardInterrupt):
        list(asking.each(ask, ["/error", *["/a"] * 20]))
    # Nobody waited to the end: then it would have said that it goes on, and asked.
    assert len(said) == 1 and "going on in 20" in said[0] and len(stub.asked) == 1


LONG_AGO = "Thu, 01 Jan 1970 00:00:00 GMT"


@pytest.mark.parametrize("text", ["0", "", "-1", "soon", "9" * 5000, LONG_AGO])
def test_a_retry_after_that_asks_for_no_wait(stub: Stub, text: str, clock: Clock) -> None:
    stub.script("/a", Answer({}, 429, {"Retry-After": text}), Answer({"a": 1}))
    start = clock.now
    assert Client(600).get(f"{stub.url}/a", {})[0] == {"a": 1}
    assert clock.now == start


def test_retry_after_a_date(stub: Stub, clock: Clock) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=300), usegmt=True)
    stub.script("/a", Answer({}, 503, {"Retry-After": date}), Answer({"a": 1}))
    start = clock.now
    assert Client(600).get(f"{stub.url}/a", {})[0] == {"a": 1}
    assert 0 < clock.now - start <= 300


def test_attempts(stub: Stub) -> None:
    stub.script("/a", Answer(b"", 503), Answer(b"", 500), Answer({"a": 1}))
    assert Client(600).get(f"{stub.url}/a", {})[0] == {"a": 1}
    assert stub.statuses == [503, 500, 200]


def test_an_endless_answer_is_not_read(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.script("/resolve/big", Answer(b"x" * 100_000))
    monkeypatch.setitem(client.MOST_BYTES, "resolvers", 50_000)
    with pytest.raises(Failed, match=r"larger than 0\.05 MB"):
        Client(600).get(f"{stub.url}/resolve/big", {})
    monkeypatch.setattr(client, "DRIP", -1)
    stub.script("/big", Answer(b"x" * 100_000))
    with pytest.raises(Failed, match="no answer within 600 s"):
        Client(600).get(f"{stub.url}/big", {})
    assert len(stub.asked) == 2


@pytest.mark.usefixtures("no_sockets")
def test_offline_set_in_the_middle(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    asking = Client(600)
    monkeypatch.setenv("HF_HUB_OFFLINE", "yes")
    with pytest.raises(Unreachable, match="HF_HUB_OFFLINE is set"):
        asking.get(f"{stub.url}/a", {})
    assert stub.asked == []


def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    tried: list[str] = []

    class Session:
        def stream(self, method: str, url: str, **options: object) -> None:
            tried.append(url)
            raise httpx2.ConnectError("refused")

    monkeypatch.setattr(client.hf, "get_session", Session)
    return tried


def test_no_connection_is_tried_once(monkeypatch: pytest.MonkeyPatch, stub: Stub) -> None:
    tried, asking = no_network(monkeypatch), Client(600)
    for _ in range(3):
        with pytest.raises(Unreachable, match="refused"):
            asking.get("https://x.example", {})
    assert len(tried) == 1


def test_a_connection_that_was_there_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, stub: Stub
) -> None:
    asking = Client(600)
    stub.script("/a", Answer({"a": 1}))
    asking.get(f"{stub.url}/a", {})
    tried = no_network(monkeypatch)
    with pytest.raises(Unreachable, match="refused"):
        asking.get(f"{stub.url}/a", {})
    assert len(tried) == len(client.PAUSES_S)


def test_a_client_that_goes_away_is_no_traceback(
    stub: Stub, capfd: pytest.CaptureFixture[str]
) -> None:
    before = set(threading.enumerate())
    with socket.create_connection(("127.0.0.1", int(stub.url.rpartition(":")[2]))) as gone:
        gone.sendall(b"GET /api/models/a HTTP/1.1\r\n\r\n")
        while not stub.statuses:
            time.sleep(0.01)
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
    for thread in set(threading.enumerate()) - before:
        thread.join()
    assert "".join(capfd.readouterr()) == ""
