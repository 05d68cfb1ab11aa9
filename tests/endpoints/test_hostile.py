"""Endpoints as they are: bounded whatever comes, and nothing travels where it should not."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import subprocess
import sys
import urllib.parse
import zlib
from pathlib import Path
from typing import Any

import openai_stub
import pytest
from asking import IN, KEY, OUT, ask, assert_no_key, brief, items, outcomes, priced
from openai_stub import Reply, Request, error
from virtual_time import VirtualLoop

from lib.endpoints import price, servers, store
from lib.endpoints.servers import Served, redact
from lib.errors import PlaybookError
from lib.evaluate import answers, steps

GZIP = {"Content-Encoding": "gzip"}
BOMB = gzip.compress(b" " * 2**28, 9)  # 256 MiB in 260 kB
DEEP = b"[" * 200_000


def asked_of(reply: Any, run: Path, n: int = 1, **evaluation: Any) -> Any:
    with openai_stub.running(reply) as stub:
        project = brief({"base_url": stub.url}, **{"timeout_s": 20, **evaluation})
        return ask(project, run, items(n))


# --- statuses and words


@pytest.mark.usefixtures("virtual_time")
@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 529])
def test_what_passes_is_tried_again(tmp_path: Path, status: int) -> None:
    busy = error(status, "busy")
    asked = asked_of(lambda r: busy if r.number == 1 else Reply(), tmp_path, max_retries=1)
    assert asked["error"][0] == "" and asked["retries"][0] == 1


@pytest.mark.usefixtures("virtual_time")
@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(status=422, body=b'{"detail": "max_tokens is too large"}'), "HTTP 422: max_"),
        (Reply(status=400, body=b'{"message": "no such option"}'), "HTTP 400: no such option"),
        (Reply(status=413, body=b"<h1>Too\tlarge</h1>", content_type="text/html"), "HTTP 413: Too"),
        (Reply(status=400, body=b"plain \x1b]0;title\x07 words"), "HTTP 400: plain words"),
        (Reply(status=418, body=b""), "HTTP 418: "),
        (Reply(body=b'{"error": "engine stopped"}'), "HTTP 500: engine stopped"),
    ],
)  # fmt: skip
def test_the_words_reach_the_reader(tmp_path: Path, reply: Reply, words: str) -> None:
    assert asked_of(reply, tmp_path)["error"][0].startswith(words)


@pytest.mark.usefixtures("virtual_time")
def test_an_error_in_a_200_is_tried_again_like_its_code(tmp_path: Path) -> None:
    def first(body: Any, text: str) -> Any:
        reply = Reply(body=json.dumps(body).encode())
        (run := tmp_path / text).mkdir()
        return asked_of(lambda r: reply if r.number == 1 else Reply(), run, max_retries=2)

    assert first({"error": {"code": 503, "message": "x"}}, "503")["retries"][0] == 1
    assert first({"choices": None}, "null")["retries"][0] == 1
    assert first({"error": {"code": 400, "message": "bad x"}}, "400")["error"][0].startswith(
        "HTTP 400: bad x"
    )
    with pytest.raises(PlaybookError, match="401 no key"):
        first({"error": {"code": 401, "message": "no key"}}, "401")


@pytest.mark.usefixtures("virtual_time")
def test_azure_refuses_a_prompt_with_a_400(tmp_path: Path) -> None:
    body = {"error": {"code": "content_filter", "message": "filtered"}}
    with openai_stub.running(Reply(status=400, body=json.dumps(body).encode())) as stub:
        project = brief({"base_url": stub.url})
        assert outcomes(project, ask(project, tmp_path, items(2))) == {"refused": 2}


def test_usage_that_nobody_told_is_charged_at_the_most(tmp_path: Path) -> None:
    """32 read and 103 written of a total of 135: 0.238 dollars; unknown: what was set aside."""
    usage = {"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135}
    dear = Reply(usage=usage)
    with openai_stub.running(lambda r: dear if r.text == "text 0" else Reply(usage={})) as stub:
        project = priced(brief({"base_url": stub.url}, max_usd=100.0), "a")
        asked = ask(project, tmp_path, items(2))
    assert asked["completion_tokens"][0] == 103 and asked["completion_tokens"].isna()[1]
    assert not asked["error"].any()
    spent = [record["usd"] for record in store.read_records(tmp_path / price.LEDGER).values()]
    call = list(answers.plan(project, project.deployments[0], items(2)))[1]
    worst = price.worst_usd(price.Rate(None, IN, OUT, ""), call, "a")
    assert sorted(spent) == pytest.approx(sorted([0.032 + 0.206, worst]))


# --- who answered


def test_another_model_than_asked_is_shown_and_a_change_is_not_comparable(tmp_path: Path) -> None:
    def named(*names: str) -> Any:
        body = {"choices": [{"message": {"content": "positive"}, "finish_reason": "stop"}]}

        def behave(request: Request) -> Reply:
            model = names[request.number % len(names)]
            return Reply(body=json.dumps(body | {"model": model}).encode())

        return behave

    for names, comparable, words in (
        (["acme/a"], "yes", []),
        (["m-2"], "yes", ["a: asked for acme/a, answered by m-2"]),
        (["m-2", "m-3"], "no", ["m-2 and m-3", "m-3 and m-2"]),
    ):
        (run := tmp_path / "-".join(names).replace("/", "")).mkdir()
        with openai_stub.running(named(*names)) as stub:
            project = brief({"base_url": stub.url})
            asked = ask(project, run)
        gathered = steps.Gathered(asked, None, {})
        notes = gathered.notes
        assert len(notes) == bool(words) and (not words or any(w in notes[0] for w in words))
        scored = steps.score(project, gathered, items())
        scores = steps.summarise(
            project, scored, asked.head(0), deployments=project.deployments, gathered=gathered
        )
        assert set(scores["comparable"]) == {comparable}
        assert set(asked["served_model"]) == set(names)


# --- bounds


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=BOMB, headers=GZIP),
        Reply(body=gzip.compress(BOMB, 9), headers={"Content-Encoding": "gzip, gzip"}),
        Reply(body=zlib.compress(b" " * 2**26), headers={"Content-Encoding": "deflate"}),
        Reply(status=500, body=BOMB, headers=GZIP),
        Reply(action="flood", body=b" " * 2**16),
        Reply(text="x" * 2_000_000),
        Reply(body=b'{"choices":' + DEEP),
        Reply(body=b'{"choices": "' + b"9" * 9_000_000),
    ],
    ids=["gzip", "twice", "deflate", "status", "endless", "long", "deep", "large"],
)
def test_a_reply_is_read_up_to_a_limit(tmp_path: Path, reply: Reply) -> None:
    asked = asked_of(reply, tmp_path, timeout_s=60)
    assert asked["error"][0] and asked["output"].isna()[0]


def test_what_is_packed_once_is_read(tmp_path: Path) -> None:
    body = b'{"choices": [{"message": {"content": "positive"}, "finish_reason": "stop"}]}'
    with openai_stub.running() as stub:
        for pack, name in ((gzip.compress, "gzip"), (zlib.compress, "deflate")):
            stub.behave = Reply(body=pack(body), headers={"Content-Encoding": name})
            (run := tmp_path / name).mkdir()
            assert list(ask(brief({"base_url": stub.url}), run, items(1))["output"]) == ["positive"]


def test_one_retry_after_of_a_day_costs_one_call(tmp_path: Path, virtual_time: VirtualLoop) -> None:
    day, start = error(429, "tomorrow", retry_after="86400"), virtual_time.now
    asked = asked_of(lambda r: day if r.number == 3 else Reply(), tmp_path, 30, concurrency=4)
    assert (asked["error"] != "").sum() == 1 and virtual_time.now - start < 60
    assert "it asks to wait 86,400 s" in "".join(asked["error"])


# --- what travels where


def headers_of(url: str = "", **endpoint: Any) -> dict[str, str]:
    with openai_stub.running() as stub:
        served = Served(url or stub.url, "m", **{"api_key_env": None, **endpoint})

        async def post() -> None:
            async with servers.client(served, timeout_s=20) as api:
                await api.post(
                    "/chat/completions", cast_to=object, body={"messages": [{"content": ""}]}
                )

        asyncio.run(post())
        return stub.requests[0].headers


def test_nothing_of_the_environment_travels_but_the_named_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "OPENAI_CUSTOM_HEADERS": "Authorization: Bearer stolen\nX-Secret: s\nHost: evil\nCookie: c",
        "OPENAI_ORG_ID": "org-secret",
        "OPENAI_PROJECT_ID": "proj-secret",
        "OPENAI_API_KEY": "sk-other",
        "OPENAI_ADMIN_KEY": "sk-admin",
        "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
        "NETRC": str(tmp_path / "netrc"),
        "ACME_API_KEY": KEY,
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "netrc").write_text("default login user password netrc-secret\n")
    for key, sent in ((None, "none"), ("ACME_API_KEY", KEY)):
        headers = headers_of(api_key_env=key)
        assert headers.pop("authorization") == f"Bearer {sent}"
        assert headers.pop("host").startswith("127.0.0.1:")
        assert set(headers) == {"accept", "content-length", "content-type", "user-agent"}


def test_a_redirect_is_followed_on_the_same_host_only(tmp_path: Path) -> None:
    with openai_stub.running() as stranger, openai_stub.running() as stub:
        place = f"{stranger.url}/chat/completions"

        def move(request: Request) -> Reply:
            target = place if "moved" not in request.path else ""
            return Reply(status=307, body=b"", headers={"Location": target})

        stub.behave = move
        asked = ask(brief({"base_url": stub.url}), tmp_path, items(2))
        assert not stranger.requests and all("another host" in e for e in asked["error"])
        place = f"{stub.url}/moved"
        stub.behave = lambda r: Reply() if "moved" in r.path else move(r)
        assert not ask(brief({"base_url": stub.url}), tmp_path, items(2))["error"].any()


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "localhost."])
def test_a_proxy_sees_nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    url = servers.httpx2.URL(f"http://{host}:8000/v1")
    assert servers._on_this_machine(url)
    assert not servers._on_this_machine(servers.httpx2.URL("http://localhost.evil.com/v1"))
    if host == "localhost":
        with openai_stub.running() as stub:
            served = Served(stub.url.replace("127.0.0.1", host), "m", None)

            async def post() -> None:
                async with servers.client(served, timeout_s=20) as api:
                    await api.post("/x", cast_to=object, body={"messages": [{"content": ""}]})

            asyncio.run(post())
            assert stub.requests


def test_a_query_stays_in_its_place(tmp_path: Path) -> None:
    with openai_stub.running() as stub:
        ask(brief({"base_url": f"{stub.url}?api-version=2026-01-01&x=a%20b"}), tmp_path, items(1))
        path = "/v1/chat/completions?api-version=2026-01-01&x=a"
        assert stub.requests[0].path.replace("%20", "+") == f"{path}+b"


@pytest.mark.parametrize(
    "url",
    ["http://u:hunter2@h/v1", "http://h:hunter2/v1", "http://u:hunter2/x@h/v1", "https://h:99999/v1",
     "http://hunter2@/v1", "http://h/v1\x1b[2J", "http://h/hunter 2", "ftp://h", "http://h/#hunter2"],
)  # fmt: skip
def test_a_url_with_a_secret_is_refused_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    with pytest.raises(ValueError, match="base_url must be http") as problem:
        brief({"base_url": url})
    monkeypatch.setenv("OUR_URL", url)
    with pytest.raises(PlaybookError, match="OUR_URL") as sentence:
        ask(brief({"base_url_env": "OUR_URL"}), tmp_path, items(1))
    assert "hunter2" not in str(sentence.value) + problem.value.errors()[0]["msg"]  # type: ignore[attr-defined]


def test_an_echoed_key_is_taken_out_in_every_spelling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-a/b+c=d~0123456789"
    monkeypatch.setenv("ACME_API_KEY", key)
    served = Served("http://h/v1", "m", "ACME_API_KEY")
    spellings = [key, urllib.parse.quote(key), urllib.parse.quote(key, safe="").lower()]
    for before in ("", "u", "u:", "Bearer ", "x" * 11):
        for after in ("", "z", "zz"):
            text = f"{before}{key}{after}".encode()
            spellings += [base64.b64encode(text).decode(), base64.urlsafe_b64encode(text).decode()]
    for spelling in spellings:
        out = redact(f"you sent {spelling}.", served)
        assert "***" in out and key not in out, spelling
        for n in range(3):  # nothing of the key is left to decode
            left = "".join(c for c in out.split()[2][n:] if c.isalnum())
            assert key[3:12].encode() not in base64.b64decode(left + "A" * (-len(left) % 4))
    assert redact("nothing here", served) == "nothing here"
    monkeypatch.setenv("ACME_API_KEY", KEY)
    hidden = "".join(f"\\u{ord(c):04x}" for c in KEY)
    body = f'{{"choices": [{{"message": {{"content": "{hidden}"}}}}], "model": "{hidden}"}}'
    with openai_stub.running(Reply(body=body.encode())) as stub:
        asked = ask(
            brief({"base_url": stub.url, "api_key_env": "ACME_API_KEY"}), tmp_path, items(1)
        )
    assert asked["output"][0] == "***"
    assert_no_key(tmp_path, asked.to_csv())


# --- the whole


SHAPES = [
    Reply(finish_reason="network_error"),
    Reply(finish_reason="who knows"),
    Reply(body=b'{"error": {"code": 503, "message": "busy"}}'),
    Reply(body=b'{"choices": null}'),
    Reply(body=b'{"choices": [' + DEEP),
    Reply(body=BOMB, headers=GZIP),
    Reply(text="x" * 3_000_000),
    Reply(action="flood", body=b" " * 2**16),
    Reply(action="trickle"),
    error(429, "tomorrow", retry_after="86400"),
    error(529, "overloaded"),
    openai_stub.HANG,
    openai_stub.HTML,
    openai_stub.DROP,
    Reply(None, reasoning="positive"),
    Reply(status=302, body=b"", headers={"Location": "http://192.0.2.1/v1/chat/completions"}),
]

RUN = """
import resource, sys, time, pathlib
sys.path.insert(0, sys.argv[1])
from asking import ask, brief, items, outcomes
from lib.evaluate import answers, steps
project = brief({"base_url": sys.argv[2]}, {"base_url": sys.argv[3]}, timeout_s=3, max_retries=1,
                concurrency=12)
asked = ask(project, pathlib.Path(sys.argv[4]), items(160))
scored = steps.score(project, steps.Gathered(asked, None, {}), None)
for name, rows in scored.groupby("deployment"):
    good = rows[rows["outcome"] == "answered"]
    print(name, len(good), good["score"].mean(), (rows["outcome"] == "failed").sum(), sep=",")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def hostile(request: Request) -> Reply:
    """Every item of 3 in 10 meets one of the shapes, each time it is asked."""
    tens, ones = divmod(int(request.text.split()[1]), 10)
    return Reply() if ones < 7 else SHAPES[(3 * tens + ones - 7) % len(SHAPES)]


def test_a_hostile_server_changes_no_score_and_takes_little_memory(tmp_path: Path) -> None:
    with openai_stub.running(hostile) as bad, openai_stub.running() as good:
        here = str(Path(__file__).parents[1] / "stubs")
        command = [sys.executable, "-c", RUN, here, bad.url, good.url, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert not done.returncode, done.stderr
    assert "Traceback" not in done.stderr and "exception" not in done.stderr.lower()
    a, b, memory = done.stdout.split()
    assert a == "a,112,1.0,48" and b == "b,160,1.0,0"
    assert int(memory) < 1000, f"{memory} MiB"
