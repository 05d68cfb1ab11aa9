"""lib.hub against a small Hub on loopback: nothing here leaves the machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from hub_stub import SHA, Answer, Stub, model, running

from lib import hub
from lib.artifacts import ROOT
from lib.errors import PlaybookError


def shortlist(*repo_ids: object, **changes: object) -> pd.DataFrame:
    row = {
        "license": "apache-2.0",
        "hub_license": "apache-2.0",
        "total_params_b": 8.1,
        "hub_params_b": 8.0,
        "context_length": 32768.0,
        "base_model": "acme/base",
        "source_url": "https://example.com",
        "checked_on": "2026-10-02",
    }
    return pd.DataFrame([{"repo_id": repo_id} | row | changes for repo_id in repo_ids])


def the_row(table: pd.DataFrame) -> dict[Any, Any]:
    assert len(table) == 1
    return table.astype(object).where(table.notna(), None).to_dict("records")[0]


def waits(monkeypatch: pytest.MonkeyPatch, sleep: Callable[[float], None]) -> None:
    """Replace the sleep between retries, and no other."""
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=sleep))


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    with running() as stub:
        monkeypatch.setattr(hub.constants, "ENDPOINT", stub.url)
        monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.delenv(proxy, raising=False)
            monkeypatch.delenv(proxy.lower(), raising=False)
        waits(monkeypatch, lambda seconds: None)
        yield stub


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def described(stub: Stub, tmp_path: Path, raw: object, **catalogue: object) -> dict[Any, Any]:
    stub.serve("acme/large", raw)
    return the_row(hub.pull(shortlist("acme/large", **catalogue), tmp_path, max_age_days=0))


def test_happy_path(stub: Stub, tmp_path: Path) -> None:
    row = described(stub, tmp_path, model("acme/large"))
    when = row.pop("retrieved_at")
    assert pd.Timestamp.now("UTC") - pd.Timestamp(when) < pd.Timedelta("1min")
    assert row == {
        "repo_id": "acme/large",
        "revision": SHA,
        "metadata_source": "hub",
        "license_on_hub": "apache-2.0",
        "drift": "",
        "license_drift": False,
        "gated": "no",
        "formats": "safetensors",
        "remote_code": False,
        "base_models": "acme/base",
        "lineage_verdict": "base: acme/base",
        "context_length": 32768,
        "downloads": 1234,
        "likes": 56,
        "last_modified": "2026-10-01T12:00:00.000Z",
        "providers": "together;novita",
        "library_name": "transformers",
        "params_b": 8.0,
        "renamed_to": None,
        "problem": "",
    }
    query = stub.asked[0][1]
    assert stub.paths == ["/api/models/acme/large"]  # one request, no telemetry
    assert query["expand"] == hub.EXPAND


def test_same_order_and_duplicates_asked_once(stub: Stub, tmp_path: Path) -> None:
    names = [f"acme/m{i}" for i in range(20)]
    for name in names:
        stub.serve(name, Answer(model(name), delay_s=0.001 * (hash(name) % 5)))
    table = hub.pull(shortlist(*names, names[0]), tmp_path, workers=4)
    assert list(table["repo_id"]) == [*names, names[0]]
    assert (table["metadata_source"] == "hub").all()
    assert len(stub.asked) == 20


def test_the_table_survives_parquet(stub: Stub, tmp_path: Path) -> None:
    stub.serve("acme/large", model("acme/large"))
    for source in ("auto", "catalogue"):
        table = hub.pull(shortlist("acme/large"), tmp_path, source=source)
        table.to_parquet(tmp_path / "t.parquet", index=False)
        back = pd.read_parquet(tmp_path / "t.parquet")
        assert list(back.columns) == list(hub.COLUMNS)
        assert back["license_drift"].dtype == bool
        assert not hub.relicense(LEGAL, back)["verdict"].eq("review").any()


def test_empty_shortlist(stub: Stub, tmp_path: Path) -> None:
    assert list(hub.pull(shortlist("a/b").iloc[:0], tmp_path).columns) == list(hub.COLUMNS)


@pytest.mark.parametrize(
    ("listed", "tags", "expected"),
    [
        ({"relation": "merge", "models": [{"id": "a/b"}, {"id": "c/d"}]}, [], "a/b;c/d"),
        (["a/b", "a/b", "c/d"], [], "a/b;c/d"),
        ([{"id": "a/b"}], [], "a/b"),
        (None, ["base_model:a/b", "base_model:quantized:a/b"], "a/b"),
        ({}, ["base_model:adapter:a/b"], "a/b"),
        (None, [], None),
        ("a/b", [], None),
        ({"models": "a/b"}, [7, None, {"base_model:": 1}], None),
        ([["a/b"], {"id": 3}, {"id": ["x"]}, "<script>", "../../etc"], [], None),
    ],
)
def test_base_models(
    stub: Stub, tmp_path: Path, listed: object, tags: list[Any], expected: str | None
) -> None:
    raw = model("acme/large", baseModels=listed, tags=tags)
    row = described(stub, tmp_path, raw, base_model=None)
    assert row["base_models"] == expected
    assert row["lineage_verdict"] == (f"base: {expected}" if expected else "")


@pytest.mark.parametrize(
    ("card", "tags", "expected"),
    [
        ({"license": "mit"}, ["license:apache-2.0"], "mit"),
        (None, ["license:mit"], "mit"),
        ({"license": "other", "license_name": "kimi-k3"}, [], "kimi-k3"),
        ({"license": "other"}, [], "other"),
        ({"license": ["mit", "apache-2.0"]}, [], "mit, apache-2.0"),
        ({"license": {"mit": 1}, "license_name": 3}, [], None),
        ({"license": "other", "license_name": "a; size: b"}, [], "a, size: b"),
    ],
)
def test_license_on_hub(
    stub: Stub, tmp_path: Path, card: object, tags: list[str], expected: str | None
) -> None:
    row = described(stub, tmp_path, model("acme/large", cardData=card, tags=tags))
    assert row["license_on_hub"] == expected


def files(*names: str) -> list[dict[str, str]]:
    return [{"rfilename": name} for name in names]


@pytest.mark.parametrize(
    ("changes", "formats", "remote_code"),
    [
        ({"siblings": files("q4/m.gguf", "pytorch_model.bin")}, "gguf;pickle", False),
        ({"siblings": files("m.safetensors", "modeling_x.py")}, "safetensors", True),
        ({"siblings": files("m.safetensors"), "config": {"auto_map": {"A": "b"}}}, None, True),
        ({"siblings": []}, "", False),
        ({"siblings": None}, None, None),
        ({"siblings": files("a.gguf"), "config": None}, "gguf", None),
        ({"siblings": [3, {"rfilename": [1]}, None], "config": []}, "", None),
    ],
)
def test_formats_and_remote_code(
    stub: Stub, tmp_path: Path, changes: dict[str, Any], formats: str | None, remote_code: object
) -> None:
    row = described(stub, tmp_path, model("acme/large", **changes))
    assert formats is None or row["formats"] == formats
    assert row["remote_code"] is remote_code


def test_gguf_context_and_provider_list(stub: Stub, tmp_path: Path) -> None:
    raw = model(
        "acme/large",
        gguf={"total": 8_000_000_000, "context_length": 131072},
        safetensors=None,
        inferenceProviderMapping=[{"provider": "groq", "status": "live"}, "x", {"status": "live"}],
    )
    row = described(stub, tmp_path, raw)
    assert (row["context_length"], row["params_b"], row["providers"]) == (131072, None, "groq")


JUNK: list[Any] = [None, "x", 3, -1, 1e9, 10**30, True, [], ["a", {"b": [None]}], {"id": {"x": 1}}]


@pytest.mark.parametrize("junk", JUNK, ids=repr)
def test_wrong_types_give_null_fields(stub: Stub, tmp_path: Path, junk: object) -> None:
    row = described(stub, tmp_path, dict.fromkeys(model("x"), junk))
    assert row["metadata_source"] == "hub"
    assert row["revision"] is None and "no revision" in row["problem"]
    assert row["gated"] in (None, "yes")
    assert row["downloads"] == (3 if junk == 3 and junk is not True else None)
    for field in ("safetensors", "gguf", "cardData", "config", "siblings", "tags", "baseModels"):
        inner = {"total": junk, "context_length": junk, "license": junk, "license_name": junk}
        raw = model("acme/large", **{field: inner | {"models": junk, "auto_map": junk}})
        assert described(stub, tmp_path, raw)["revision"] == SHA


def test_hostile_text(stub: Stub, tmp_path: Path) -> None:
    name = "ok\x1b[31m\x00\u202e\ud800\n<script>alert(1)</script>" + "x" * 500
    raw = model(
        "acme/large",
        cardData={"license": "other", "license_name": name},
        library_name=name,
        sha="../" * 20,
        id="../../../etc/passwd",
    )
    table = hub.pull(shortlist("acme/large"), tmp_path, source="catalogue")
    row = described(stub, tmp_path, raw)
    for field in ("license_on_hub", "library_name"):
        assert row[field].startswith("ok [31m <script>") and len(row[field]) == 200
        assert row[field].isprintable()
    assert (row["revision"], row["renamed_to"]) == (None, None)
    hub.pull(shortlist("acme/large"), tmp_path).to_parquet(tmp_path / "t.parquet")
    assert len(table) == 1


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (Answer({"error": "x"}, 404, {"X-Error-Code": "RepoNotFound"}), "not found on the Hub, or"),
        (Answer({"error": "Repository not found"}, 401), "not found on the Hub, or private"),
        (Answer({"error": "Access restricted"}, 403, {"X-Error-Code": "GatedRepo"}), "accept the"),
        (Answer({"error": "no"}, 403), "access refused"),
        (Answer(["no"], 403), "not the Hub's JSON"),  # breaks huggingface_hub's own error parser
        (Answer({"error": "slow down"}, 429), "too many requests"),
        (Answer(b"<html>", 503), "the Hub answered 503"),
        (Answer(b"", 500), "the Hub answered 500"),
        (Answer(b'{"id": "acme/lar'), "not the Hub's JSON"),
        (Answer(b'{"id": "acme/large"', length=99), "the answer broke off"),
        (Answer(b"[" * 100_000), "not the Hub's JSON"),
        (Answer(b"\xff\xfe\xff"), "not the Hub's JSON"),
        (Answer(["a"]), "not the Hub's JSON"),
        (Answer(b"", 302, {"Location": "/api/models/acme/bad"}), "the answer broke off"),
    ],
)
@pytest.mark.parametrize("source", ["auto", "hub"])
def test_one_failing_model_does_not_lose_the_others(
    stub: Stub, tmp_path: Path, answer: Answer, problem: str, source: str
) -> None:
    stub.serve("acme/bad", answer)
    stub.serve("acme/good", model("acme/good"))
    table = hub.pull(shortlist("acme/bad", "acme/good"), tmp_path, source=source)
    bad, good = the_row(table.iloc[:1]), the_row(table.iloc[1:])
    assert problem in bad["problem"]
    assert (bad["metadata_source"], bad["retrieved_at"]) == ("catalogue", "2026-10-02")
    assert bad["revision"] is None and bad["gated"] is None and bad["drift"] == ""
    assert (good["metadata_source"], good["problem"]) == ("hub", "")
    assert not (tmp_path / "acme--bad.json").exists()


@pytest.mark.parametrize(
    ("first", "seconds"),
    [
        (Answer({}, 429, {"Retry-After": "1"}), 2.0),
        (Answer({}, 429, {"RateLimit": '"api";r=0;t=7'}), 8.0),
        (Answer(b"", 503), 1.0),
        (Answer(b"{", length=9), 1.0),
    ],
)
def test_retried(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: Answer, seconds: float
) -> None:
    slept: list[float] = []
    waits(monkeypatch, slept.append)
    stub.serve("acme/large", first, model("acme/large"))
    row = the_row(hub.pull(shortlist("acme/large"), tmp_path))
    assert (row["metadata_source"], row["problem"], slept) == ("hub", "", [seconds])


def test_persistent_failure_is_given_up(stub: Stub, tmp_path: Path) -> None:
    stub.serve("acme/large", Answer(b"", 500))
    hub.pull(shortlist("acme/large"), tmp_path)
    assert len(stub.asked) == 1 + hub.REQUEST["max_retries"]


def test_timeout(stub: Stub, tmp_path: Path) -> None:
    stub.serve("acme/slow", Answer(model("acme/slow"), delay_s=0.6))
    stub.serve("acme/good", model("acme/good"))
    table = hub.pull(shortlist("acme/slow", "acme/good"), tmp_path, timeout_s=0.2)
    assert "no answer within 0.2 s" in table["problem"][0]
    assert list(table["metadata_source"]) == ["catalogue", "hub"]
    assert stub.paths.count("/api/models/acme/slow") == 1


def test_renamed(stub: Stub, tmp_path: Path) -> None:
    stub.serve("acme/old", Answer(b"", 307, {"Location": "/api/models/acme/new"}))
    stub.serve("acme/new", model("acme/new"))
    row = the_row(hub.pull(shortlist("acme/old"), tmp_path))
    assert (row["repo_id"], row["renamed_to"], row["revision"]) == ("acme/old", "acme/new", SHA)
    assert the_row(hub.pull(shortlist("acme/old"), tmp_path))["renamed_to"] == "acme/new"


def test_token_does_not_follow_to_another_host(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_allowed", lambda token: token)  # as if the stub were the Hub
    with running() as other:
        there = f"{other.url}/api/models/acme/large"
        stub.serve("acme/large", Answer(b"", 307, {"Location": there}))
        other.serve("acme/large", model("acme/large"))
        hub.pull(shortlist("acme/large"), tmp_path, token="hf_secret")
        assert stub.asked[0][2]["authorization"] == "Bearer hf_secret"
        assert "authorization" not in other.asked[0][2]


def test_token_not_sent_to_a_mirror(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_from_environment")
    stub.serve("acme/large", model("acme/large"))
    hub.pull(shortlist("acme/large"), tmp_path, token="hf_secret")
    hub.pull(shortlist("acme/large"), tmp_path, max_age_days=0)
    assert len(stub.asked) == 2
    assert all("authorization" not in headers for _, _, headers in stub.asked)


@pytest.mark.parametrize(
    ("endpoint", "sent"),
    [
        ("https://huggingface.co", True),
        ("https://hub-ci.huggingface.co", True),
        ("https://hf.co", True),
        ("http://huggingface.co", False),
        ("https://huggingface.co.evil.com", False),
        ("https://evilhuggingface.co", False),
        ("https://huggingface.co@evil.com", False),
        ("https://evil.com/huggingface.co", False),
        ("https://hf-mirror.com", False),
    ],
)
def test_which_endpoint_gets_the_token(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, sent: bool
) -> None:
    monkeypatch.setattr(hub.constants, "ENDPOINT", endpoint)
    assert hub._allowed(" hf_secret\n") == ("hf_secret" if sent else False)
    assert hub._allowed("") is (None if sent else False)


def test_a_token_never_reaches_the_table(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hub, "_allowed", lambda token: token)
    bad = "hf_secret\nX-Evil: 1"  # not a legal header: the client's error quotes it
    table = hub.pull(shortlist("acme/large"), tmp_path, token=bad)
    assert table["problem"][0] and "hf_secret" not in table.to_json()
    assert "hf_secret" not in "".join(capfd.readouterr())


def test_cache_asks_nothing_again(stub: Stub, tmp_path: Path) -> None:
    stub.serve("acme/large", model("acme/large"))
    first = the_row(hub.pull(shortlist("acme/large"), tmp_path))
    again = the_row(hub.pull(shortlist("acme/large"), tmp_path))
    assert len(stub.asked) == 1
    assert again.pop("metadata_source") == f"hub (cached {first['retrieved_at'][:10]})"
    assert again == {key: value for key, value in first.items() if key != "metadata_source"}


def test_killed_pull_goes_on(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"acme/m{i}" for i in range(6)]
    for name in names:
        stub.serve(name, model(name))
    kept = hub.write_bytes

    def die(path: Path, content: bytes) -> None:
        if "m3" in path.name:
            raise KeyboardInterrupt
        kept(path, content)

    monkeypatch.setattr(hub, "write_bytes", die)
    with pytest.raises(KeyboardInterrupt):
        hub.pull(shortlist(*names), tmp_path, workers=1)
    monkeypatch.setattr(hub, "write_bytes", kept)
    done = len(list(tmp_path.glob("acme--*.json")))
    assert done >= 3
    stub.asked.clear()
    hub.pull(shortlist(*names), tmp_path)
    assert len(stub.asked) == 6 - done


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"{}",
        b"[" * 100_000,
        b"\xff",
        b'{"asked": "acme/large", "host": "H", "answer": [], "retrieved_at": "2999-01-01T00:00Z"}',
        b'{"asked": "acme/large", "host": "H", "answer": {"a": 1}, "retrieved_at": 3}',
        b'{"asked": "acme/large", "host": "H", "answer": {"a": 1}, "retrieved_at": "2026-01-01"}',
        b'{"asked": "acme/other", "host": "H", "answer": {"a": 1}, "retrieved_at": "NOW"}',
        b'{"asked": "acme/large", "host": "hf.co", "answer": {"a": 1}, "retrieved_at": "NOW"}',
        b'{"asked": "acme/large", "host": "H", "answer": {"a": 1}, "retrieved_at": "2999-01-01T00:00Z"}',  # noqa: E501
    ],
    ids=range(13),
)
def test_useless_cache_is_asked_again(stub: Stub, tmp_path: Path, content: bytes) -> None:
    now = pd.Timestamp.now("UTC").isoformat().encode()
    content = content.replace(b'"H"', json.dumps(hub._host()).encode()).replace(b"NOW", now)
    (tmp_path / "acme--large.json").write_bytes(content)
    stub.serve("acme/large", model("acme/large"))
    assert the_row(hub.pull(shortlist("acme/large"), tmp_path))["metadata_source"] == "hub"
    assert len(stub.asked) == 1


@pytest.mark.parametrize(
    "name", ["../../secrets", "/etc/passwd", "a/b/c", "a/..", "", "a/b?x=1", "a b", "a/b\n", None]
)
def test_hostile_names_ask_and_write_nothing(stub: Stub, tmp_path: Path, name: object) -> None:
    cache = tmp_path / "run" / "hub"
    table = hub.pull(shortlist(name), cache)
    assert "not a repository name" in table["problem"][0]
    assert stub.asked == [] and not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("late", [True, False])
def test_offline_opens_no_socket(
    stub: Stub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    late: bool,
) -> None:
    stub.serve("acme/large", model("acme/large"))
    hub.pull(shortlist("acme/large"), tmp_path)
    request.getfixturevalue("no_sockets")
    if late:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    else:
        monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    table = hub.pull(shortlist("acme/large", "acme/other"), tmp_path, max_age_days=0)
    assert table["metadata_source"][0].startswith("hub (cached 20")
    assert table["metadata_source"][1] == "catalogue"
    with pytest.raises(PlaybookError, match="HF_HUB_OFFLINE is set"):
        hub.pull(shortlist("acme/other"), tmp_path, source="hub")
    with pytest.raises(PlaybookError, match="cannot be asked"):
        hub.download_gguf("acme/large/m.gguf", SHA)


def test_offline_in_a_fresh_process(tmp_path: Path) -> None:
    code = (
        "import socket, sys, pathlib, pandas as pd\n"
        "def refuse(*a): raise SystemExit('a socket was opened')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from lib import hub\n"
        "t = hub.pull(pd.read_json(sys.argv[1]), pathlib.Path(sys.argv[2]))\n"
        "print(t.metadata_source[0], hub.constants.HF_HUB_DISABLE_TELEMETRY)\n"
    )
    shortlist("acme/large").to_json(tmp_path / "s.json")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "s.json"), str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("catalogue True\n", "")


def test_catalogue_opens_no_socket(stub: Stub, tmp_path: Path, no_sockets: None) -> None:
    table = hub.pull(shortlist("acme/large"), tmp_path, source="catalogue")
    row = the_row(table)
    nulls = {key for key, value in row.items() if value is None}
    assert nulls == set(
        "revision gated formats remote_code downloads likes last_modified providers library_name"
        " renamed_to".split()
    )
    assert row["metadata_source"] == "catalogue" and row["retrieved_at"] == "2026-10-02"
    assert (row["license_on_hub"], row["context_length"]) == ("apache-2.0", 32768)
    assert (row["lineage_verdict"], row["params_b"]) == ("base: acme/base", 8.0)
    blank = "hub_license base_model context_length hub_params_b".split()
    for null in (None, float("nan"), pd.NA):
        nulls_only = shortlist("acme/x", **dict.fromkeys(blank, null))
        row = the_row(hub.pull(nulls_only, tmp_path, source="catalogue"))
        assert row["lineage_verdict"] == "not checked"
        assert row["license_on_hub"] is row["context_length"] is row["params_b"] is None
        assert row["base_models"] is None


def nothing_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(hub.constants, "ENDPOINT", f"http://me:hf_secret@127.0.0.1:{port}")


def test_falls_back_to_the_catalogue(
    stub: Stub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    nothing_listens(monkeypatch)
    table = hub.pull(shortlist("acme/large", "acme/small"), tmp_path)
    assert list(table["metadata_source"]) == ["catalogue"] * 2
    assert list(table["problem"]) == ["", ""]
    assert "".join(capfd.readouterr()) == ""
    with pytest.raises(PlaybookError) as caught:
        hub.pull(shortlist("acme/large", "acme/small"), tmp_path, source="hub")
    text = str(caught.value)
    assert "could not be asked about 2 of 2 models" in text and "source 'auto'" in text
    assert "hf_secret" not in text and "127.0.0.1" in text


def test_a_connection_lost_half_way_keeps_what_was_answered(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"acme/m{i}" for i in range(5)]
    for name in names:
        stub.serve(name, model(name))
    ask = hub.http_backoff

    def lost(method: str, url: str, **rest: object) -> object:
        if len(stub.asked) == 2:
            raise hub.httpx2.ConnectError("[Errno 101] Network is unreachable")
        return ask(method, url, **rest)

    monkeypatch.setattr(hub, "http_backoff", lost)
    table = hub.pull(shortlist(*names), tmp_path / "a", workers=1)
    assert list(table["metadata_source"]) == ["hub"] * 2 + ["catalogue"] * 3
    stub.asked.clear()
    with pytest.raises(PlaybookError, match=r"3 of 5 models \(\[Errno 101\] Network is unreach"):
        hub.pull(shortlist(*names), tmp_path / "b", source="hub", workers=1)


def test_stale_cache_beats_the_catalogue_when_unreachable(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.serve("acme/large", model("acme/large"))
    hub.pull(shortlist("acme/large"), tmp_path)
    path = tmp_path / "acme--large.json"
    nothing_listens(monkeypatch)
    entry = json.loads(path.read_bytes())
    path.write_text(
        json.dumps(entry | {"retrieved_at": "2026-01-02T00:00:00+00:00", "host": hub._host()})
    )
    table = hub.pull(shortlist("acme/large"), tmp_path)
    assert table["metadata_source"][0] == "hub (cached 2026-01-02)"
    assert table["revision"][0] == SHA


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9", "", "http://[bad", "ftp://x"])
def test_a_wrong_endpoint(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setattr(hub.constants, "ENDPOINT", endpoint)
    with pytest.raises(PlaybookError, match="HF_ENDPOINT"):
        hub.pull(shortlist("acme/large"), tmp_path, source="hub")


def test_arguments(tmp_path: Path, no_sockets: None) -> None:
    with pytest.raises(PlaybookError, match="source 'live' is unknown; use one of auto, hub, cat"):
        hub.pull(shortlist("acme/large"), tmp_path, source="live")
    with pytest.raises(PlaybookError, match="lacks the catalogue's column 'hub_license'"):
        hub.pull(shortlist("acme/large").drop(columns="hub_license"), tmp_path)
    with pytest.raises(PlaybookError, match="above zero"):
        hub.pull(shortlist("acme/large"), tmp_path, timeout_s=0)


@pytest.mark.parametrize(
    ("changes", "catalogue", "drift"),
    [
        ({}, {}, ""),
        ({}, {"hub_license": "Apache-2.0"}, ""),
        ({}, {"hub_license": "gemma"}, "licence: catalogue gemma, Hub apache-2.0"),
        ({}, {"hub_license": None, "license": "mit"}, "licence: catalogue mit, Hub apache-2.0"),
        ({}, {"hub_license": None, "license": None}, ""),
        ({"cardData": {}, "tags": []}, {}, "licence: catalogue apache-2.0, Hub none"),
        ({"cardData": {"license": "other", "license_name": "k"}}, {"hub_license": "k"}, ""),
        ({"cardData": {"license": "other", "license_name": "k"}}, {"hub_license": "other"}, ""),
        (
            {"cardData": {"license": ["mit", "cc-by-nc-4.0"]}},
            {"hub_license": "mit"},
            "licence: catalogue mit, Hub mit, cc-by-nc-4.0",
        ),
        ({"safetensors": {"total": 8_700_000_000}}, {}, ""),
        ({"safetensors": {"total": 12_000_000_000}}, {}, "size: catalogue 8B, Hub 12B"),
        ({}, {"hub_params_b": None, "total_params_b": 16.0}, "size: catalogue 16B, Hub 8B"),
        ({"safetensors": None}, {"hub_params_b": 99.0}, ""),
        ({}, {"base_model": "acme/other"}, "base model: catalogue acme/other, Hub acme/base"),
        ({}, {"base_model": "ACME/Base"}, ""),
        ({}, {"base_model": None}, ""),
        ({"gated": "manual"}, {}, "gated: manual"),
        ({"gated": True}, {}, "gated: yes"),
        (
            {"gated": "auto", "safetensors": {"total": 1_000_000_000}},
            {"hub_license": "mit"},
            "licence: catalogue mit, Hub apache-2.0; size: catalogue 8B, Hub 1B; gated: auto",
        ),
    ],
)
def test_drift(
    stub: Stub, tmp_path: Path, changes: dict[str, Any], catalogue: dict[str, Any], drift: str
) -> None:
    row = described(stub, tmp_path, model("acme/large", **changes), **catalogue)
    assert row["drift"] == drift
    assert row["license_drift"] is drift.startswith("licence")


LEGAL = pd.DataFrame(
    {
        "repo_id": ["acme/large", "acme/other", "acme/blocked"],
        "verdict": ["allowed", "allowed", "blocked"],
        "reasons": ["apache-2.0 is on the list", "", "country"],
    }
)


@pytest.mark.parametrize("reasons", [["on the list", "", "country"], ["on the list", None, None]])
def test_relicense(stub: Stub, tmp_path: Path, reasons: list[Any]) -> None:
    legal = LEGAL.assign(reasons=reasons)
    before = legal.copy()
    stub.serve("acme/large", model("acme/large", gated="auto"))
    stub.serve("acme/blocked", model("acme/blocked"))
    names = ["acme/large", "acme/large", "acme/blocked", "acme/absent"]
    metadata = hub.pull(shortlist(*names, hub_license="gemma"), tmp_path)
    table = hub.relicense(legal, metadata)
    note = "licence drift: catalogue gemma, Hub apache-2.0"
    assert list(table["verdict"]) == ["review", "allowed", "blocked"]
    assert table["reasons"][0] == f"on the list; {note}"
    assert table["reasons"][2] == (f"country; {note}" if reasons[2] else note)
    pd.testing.assert_frame_equal(legal, before)
    nothing = hub.relicense(legal, metadata.iloc[:0])
    pd.testing.assert_frame_equal(nothing, legal)


FILE = {"ETag": '"abc"', "X-Repo-Commit": SHA, "Content-Type": "application/octet-stream"}


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stub: Stub) -> Path:
    cache = tmp_path / "hf"
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(cache))
    template = stub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    return cache


def test_download_gguf(stub: Stub, hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    stub.answers[f"/acme/large/resolve/{SHA}/q4/m.gguf"] = [Answer(b"GGUF....", 200, FILE)]
    path = hub.download_gguf("acme/large/q4/m.gguf", SHA)
    assert path.read_bytes() == b"GGUF...." and SHA in path.parts
    assert all("authorization" not in headers for _, _, headers in stub.asked)
    stub.asked.clear()
    nothing_listens(monkeypatch)
    assert hub.download_gguf("acme/large/q4/m.gguf", SHA) == path and stub.asked == []


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (404, "RevisionNotFound", "has no commit"),
        (404, "EntryNotFound", "has no such file"),
        (404, "RepoNotFound", "not found on the Hub, or private"),
        (401, "GatedRepo", "accept the terms"),
        (403, "GatedRepo", "accept the terms"),
    ],
)
def test_download_refused(
    stub: Stub, hub_cache: Path, status: int, code: str, sentence: str
) -> None:
    answer = Answer(b"", status, {"X-Error-Code": code})
    stub.answers[f"/acme/large/resolve/{SHA}/m.gguf"] = [answer]
    with pytest.raises(PlaybookError, match=sentence) as caught:
        hub.download_gguf("acme/large/m.gguf", SHA)
    assert "'acme/large/m.gguf'" in str(caught.value)


def test_download_unreachable(stub: Stub, hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_listens(monkeypatch)
    template = hub.constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    with pytest.raises(PlaybookError, match="connect and run again") as caught:
        hub.download_gguf("acme/large/m.gguf", SHA)
    assert "hf_secret" not in str(caught.value)


@pytest.mark.parametrize(
    "spec", ["", "m.gguf", "a/m.gguf", "a/b/m.bin", "a/b/../m.gguf", "a/b//m.gguf", "../b/m.gguf"]
)
def test_download_wrong_spec(spec: str, no_sockets: None) -> None:
    with pytest.raises(PlaybookError, match=r"is not owner/name/file\.gguf"):
        hub.download_gguf(spec, SHA)


def test_download_wants_a_commit(no_sockets: None) -> None:
    with pytest.raises(PlaybookError, match=r"revision 'main' of .* can move"):
        hub.download_gguf("a/b/m.gguf", "main")
