"""lib.hub against a small Hub on loopback: nothing here leaves the machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hub_stub import (
    CONFIG,
    GATED_FILE,
    NOT_FOUND,
    ROUTED,
    SHA,
    Answer,
    Stub,
    files,
    model,
    point_at,
    running,
)  # fmt: skip

from lib.artifacts import ROOT
from lib.errors import PlaybookError
from lib.hub import client
from lib.hub import client as endpoint
from lib.hub import models as hub


@pytest.fixture(autouse=True)
def base_in_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the stub's models are made from is known, so that nothing else is asked."""
    monkeypatch.setattr(hub, "same_names", lambda models: {"acme/base": "acme/base"})


def shortlist(*repo_ids: object, **changes: object) -> pd.DataFrame:
    row = {
        "hub_license": "apache-2.0",
        "hub_params_b": 8.0,
        "context_length": 32768.0,
        "layers": 40.0,
        "kv_heads": None,
        "head_dim": 64.0,
        "base_model": "acme/base",
        "checked_on": "2026-10-02",
    }
    return pd.DataFrame([{"repo_id": repo_id} | row | changes for repo_id in repo_ids])


def the_row(table: pd.DataFrame) -> dict[Any, Any]:
    assert len(table) == 1
    return table.astype(object).where(table.notna(), None).to_dict("records")[0]


def metadata(*args: Any, **options: Any) -> pd.DataFrame:
    return hub.pull(*args, **options).metadata


def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the pull says on its bar, besides what it counts."""
    said: list[str] = []

    class Bar(contextlib.nullcontext[Any]):
        def set_description_str(self, text: str) -> None:
            said.extend([text] if text != "models" else [])

        def update(self) -> None:
            pass

    bar = Bar()
    bar.enter_result = bar
    monkeypatch.setattr(hub, "bar", lambda *args, **options: bar)
    return said


def send_token(monkeypatch: pytest.MonkeyPatch, token: str = "hf_secret") -> None:
    """A token that is sent as if the stub were the Hub."""
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr(client, "is_hub", lambda: True)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    with running() as stub:
        point_at(stub, monkeypatch)
        yield stub


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def described(stub: Stub, tmp_path: Path, raw: object, **catalogue: object) -> dict[Any, Any]:
    stub.serve("acme/large", raw)
    return the_row(metadata(shortlist("acme/large", **catalogue), tmp_path, max_age_days=0))


def calls(stub: Stub) -> list[str]:
    """What was asked, with the two questions to the API apart."""
    return [stub.key(path, query) for path, query, _ in stub.asked]


def three(repo_id: str) -> list[str]:
    api = f"/api/models/{repo_id}"
    return [api, f"{api}?blobs", f"/{repo_id}/resolve/{SHA}/config.json"]


def test_happy_path(stub: Stub, tmp_path: Path) -> None:
    row = described(stub, tmp_path, model("acme/large"))
    when = row.pop("retrieved_at")
    assert pd.Timestamp.now("UTC") - pd.Timestamp(when) < pd.Timedelta("1min")
    of_config = {key: row.pop(key) for key in ("kv_layout", "quantization")}
    assert of_config["kv_layout"] == "32x2048"
    assert row == {
        "repo_id": "acme/large",
        "revision": SHA,
        "metadata_source": "hub",
        "license_on_hub": "apache-2.0",
        "license_name": None,
        "gated": "no",
        "formats": "safetensors",
        "remote_code": False,
        "context_length": 131072,
        "layers": 32,
        "kv_heads": 8,
        "head_dim": 128,
        "base_models": "acme/base",
        "lineage_verdict": "base: acme/base",
        "created_at": None,
        "last_modified": "2026-10-01T12:00:00.000Z",
        "downloads": 1234,
        "likes": 56,
        "params_b": 8.0,
        "params_by_dtype": "BF16:8000000000",
        "gguf_params_b": None,
        "weights_gb": 16.0,
        "security": "clean",
        "security_issues": None,
        "providers": "together;novita",
        "renamed_to": None,
        "ancestry": None,
        "license_sha256": None,
        "problem": "",
    }
    assert calls(stub) == three("acme/large")  # and no telemetry
    assert stub.asked[0][1]["expand"] == hub.EXPAND
    assert stub.asked[1][1] == {"securityStatus": ["true"], "blobs": ["true"]}


def test_what_the_catalogue_lacks_of_the_lineage_is_asked_too(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "same_names", lambda models: {"acme/root": "acme/root"})
    stub.serve("acme/large", model("acme/large"))
    made_from = {"baseModels": ["acme/root", "acme/gone", "./x"], "tags": ["license:gemma"]}
    stub.serve("acme/base", model("acme/base", cardData=None, **made_from))
    row = the_row(metadata(shortlist("acme/large"), tmp_path))
    (base,) = json.loads(row["ancestry"])
    assert (base["repo_id"], base["license_on_hub"]) == ("acme/base", "gemma")
    assert base["base_models"] == "acme/root;acme/gone;./x"
    assert calls(stub)[3:] == ["/api/models/acme/base", "/api/models/acme/gone"]


def test_the_licence_text_is_hashed_whatever_its_line_ends(stub: Stub, tmp_path: Path) -> None:
    raw = model("acme/large", cardData={"license": "llama3"})
    raw["siblings"] = [*raw["siblings"], {"rfilename": "LICENSE.txt"}]
    stub.serve("acme/large", raw)
    stub.script(f"/acme/large/resolve/{SHA}/LICENSE.txt", b"Be good,\r\n  or ELSE.")
    row = the_row(metadata(shortlist("acme/large"), tmp_path))
    assert row["license_sha256"] == hashlib.sha256(b"be good or else").hexdigest()


def test_same_order_and_duplicates_asked_once(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"acme/m{i}" for i in range(20)]
    for place, name in enumerate(names):
        stub.serve(name, Answer(model(name), delay_s=0.002 * (place % 5)))
    monkeypatch.setattr(client, "THREADS", 4)
    stub.held_from = 1  # until all four threads ask

    def release() -> None:
        while stub.in_flight < 4:
            time.sleep(0.01)
        stub.let_go.set()

    threading.Thread(target=release, daemon=True).start()
    table = metadata(shortlist(*names, names[0]), tmp_path)
    assert list(table["repo_id"]) == [*names, names[0]]
    assert (table["metadata_source"] == "hub").all()
    assert sorted(calls(stub)) == sorted(call for name in names for call in three(name))
    assert stub.most_in_flight == 4


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_tables_survive_parquet(stub: Stub, tmp_path: Path, count: int) -> None:
    stub.serve("acme/large", model("acme/large"))
    for source in ("auto", "catalogue"):
        models = shortlist("acme/large", "acme/large").iloc[:count]
        pulled = hub.pull(models, tmp_path, source=source)
        for table, columns in zip(pulled, (hub.COLUMNS, hub.PROVIDERS), strict=True):
            table.to_parquet(tmp_path / "t.parquet", index=False)
            back = pd.read_parquet(tmp_path / "t.parquet")
            assert list(back.columns) == list(columns)
            assert {c: str(t).lower() for c, t in back.dtypes.items()} == {
                c: t.lower().replace("float", "float64") for c, t in columns.items()
            }
        asked = bool(count) and source == "auto"
        assert len(pulled.metadata) == count
        assert len(pulled.providers) == (3 if asked else 0)


REFUSALS = [
    (Answer({"error": "x"}, 404, {"X-Error-Code": "RepoNotFound"}), "not found on the Hub, or", 1),
    (Answer({"error": "Repository not found"}, 401), "not found on the Hub, or private", 1),
    (Answer({"error": "restricted"}, 403, {"X-Error-Code": "GatedRepo"}), "accept the", 1),
    (Answer(["no"], 403), "access refused", 1),
    (Answer({"error": "slow down"}, 429), "too many requests", 5),
    (Answer(b"<html>", 503), "the Hub answered 503", 5),
    (Answer(b"", 500), "the Hub answered 500", 5),
    (Answer(b"", 418), "the Hub answered 418", 1),
    (Answer(b'{"id": "acme/lar'), "not the Hub's JSON", 1),
    (Answer(b'{"id": "acme/large"', length=99), "the answer broke off", 5),
    (Answer(b"[" * 100_000), "not the Hub's JSON", 1),
    (Answer(b"\xff\xfe\xff"), "not the Hub's JSON", 1),
    (Answer(["a"]), "not the Hub's JSON", 1),
    (Answer(b'{"a": ' + b"9" * 5000 + b"}"), "not the Hub's JSON", 1),
    (Answer({}, 200, {"RateLimit": '"api";r=' + "9" * 5000 + ";t=1"}), "not the Hub's JSON", 1),
]


@pytest.mark.parametrize(("answer", "problem", "times"), REFUSALS)
@pytest.mark.parametrize("source", ["auto", "hub"])
def test_one_failing_model_does_not_lose_the_others(
    stub: Stub, tmp_path: Path, answer: Answer, problem: str, times: int, source: str
) -> None:
    stub.serve("acme/bad", answer)
    stub.serve("acme/good", model("acme/good"))
    table = metadata(shortlist("acme/bad", "acme/good"), tmp_path, source=source)
    bad, good = the_row(table.iloc[:1]), the_row(table.iloc[1:])
    assert problem in bad["problem"]
    assert (bad["metadata_source"], bad["retrieved_at"]) == ("catalogue", "2026-10-02")
    assert bad["revision"] is None and bad["gated"] is None and bad["params_b"] == 8.0
    assert (good["metadata_source"], good["problem"]) == ("hub", "")
    assert calls(stub).count("/api/models/acme/bad") == times
    assert not list(tmp_path.rglob("acme--bad*"))


def test_a_circle_of_redirects(stub: Stub, tmp_path: Path) -> None:
    row = described(stub, tmp_path, Answer(b"", 302, {"Location": "/api/models/acme/large"}))
    assert "the answer broke off" in row["problem"]


@pytest.mark.parametrize(("answer", "problem", "times"), REFUSALS)
def test_a_model_without_its_files_or_config(
    stub: Stub, tmp_path: Path, answer: Answer, problem: str, times: int
) -> None:
    for place in ("files", "config"):
        stub.serve("acme/large", model("acme/large"))
        stub.serve_files("acme/large", answer if place == "files" else files("acme/large"))
        stub.serve_config("acme/large", answer if place == "config" else CONFIG)
        row = the_row(metadata(shortlist("acme/large"), tmp_path / place))
        assert (row["metadata_source"], row["revision"], row["params_b"]) == ("hub", SHA, 8.0)
        known = {"files": row["weights_gb"], "config": row["layers"]}
        assert known.pop(place) is None and None not in known.values()
        assert row["security"] == ("clean" if place == "config" else None)
        gated = place == "config" and "accept" in problem
        empty = place == "config" and answer.body == {}  # a config.json that says nothing
        said = "" if gated else problem
        assert said in row["problem"] and (bool(row["problem"]) != gated or empty)
    assert not list(tmp_path.glob("files/files/*")) and not list(tmp_path.glob("config/config/*"))


def test_no_config_json_is_kept_as_such(stub: Stub, tmp_path: Path) -> None:
    stub.serve_config("acme/large", Answer(b"", 404, {"X-Error-Code": "EntryNotFound"}))
    row = described(stub, tmp_path, model("acme/large"))
    assert row["layers"] is None and row["problem"] == ""
    described(stub, tmp_path, model("acme/large"))
    assert calls(stub).count(three("acme/large")[2]) == 1


def test_files_of_another_commit_are_not_this_ones(stub: Stub, tmp_path: Path) -> None:
    stub.serve_files("acme/large", files("acme/large", sha="f" * 40))
    row = described(stub, tmp_path, model("acme/large"))
    assert row["weights_gb"] is row["security"] is None
    assert "changed meanwhile" in row["problem"] and row["layers"] == 32


def test_timeout(stub: Stub, tmp_path: Path) -> None:
    stub.serve("acme/slow", model("acme/slow"))
    stub.held_from = 1
    row = the_row(metadata(shortlist("acme/slow"), tmp_path, timeout_s=0.5))
    assert "no answer within 0.5 s" in row["problem"] and row["metadata_source"] == "catalogue"
    assert stub.paths == ["/api/models/acme/slow"]


def test_renamed(stub: Stub, tmp_path: Path) -> None:
    stub.serve("acme/old", Answer(b"", 307, {"Location": "/api/models/acme/new"}))
    stub.serve("acme/new", model("acme/new"))
    row = the_row(metadata(shortlist("acme/old"), tmp_path))
    assert (row["repo_id"], row["renamed_to"], row["revision"]) == ("acme/old", "acme/new", SHA)
    assert (row["layers"], row["weights_gb"], row["problem"]) == (32, 16.0, "")
    asked = len(stub.asked)
    assert the_row(metadata(shortlist("acme/old"), tmp_path))["renamed_to"] == "acme/new"
    assert len(stub.asked) == asked


@pytest.mark.parametrize("gated", ["auto", "manual", True])
@pytest.mark.parametrize("token", [None, "hf_not_accepted"])
def test_gated(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gated: object, token: str | None
) -> None:
    if token:
        send_token(monkeypatch, token)
    stub.serve("acme/large", model("acme/large", gated=gated))
    stub.serve_config("acme/large", GATED_FILE)
    row = the_row(metadata(shortlist("acme/large"), tmp_path))
    assert row["gated"] == (gated if isinstance(gated, str) else "yes")
    assert row["layers"] is row["context_length"] is None  # nor of the catalogue
    assert (row["params_b"], row["weights_gb"], row["problem"]) == (8.0, 16.0, "")
    assert calls(stub) == three("acme/large")[: 3 if token else 2]


def test_token_does_not_follow_to_another_host(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_token(monkeypatch)
    with running() as other:
        for call in three("acme/large"):
            away = Answer(b"", 307, {"Location": f"{other.url}{call.replace('?', '?x=1&')}=1"})
            stub.script(call, away)
        stub.script(
            three("acme/large")[0],
            Answer(b"", 307, {"Location": f"{other.url}/api/models/acme/large"}),
        )
        other.serve("acme/large", model("acme/large"))
        metadata(shortlist("acme/large"), tmp_path)
        assert len(stub.asked) == len(other.asked) == 3
        assert all(headers["authorization"] == "Bearer hf_secret" for _, _, headers in stub.asked)
        assert all("hf_secret" not in json.dumps(asked) for asked in other.asked)


def test_the_router_is_asked_once_and_without_a_token(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_token(monkeypatch)
    for name in ("acme/large", "acme/other"):
        stub.serve(name, model(name))
    with running() as router:
        monkeypatch.setenv("PLAYBOOK_ROUTER_URL", router.url + "/v1/models")
        router.serve_router({"data": [ROUTED]})
        pulled = hub.pull(shortlist("acme/large", "acme/other"), tmp_path)
        assert router.paths == ["/v1/models"] and len(stub.asked) == 6
        assert not any(text in json.dumps(router.asked) for text in ("hf_secret", "authorization"))
        assert all(headers["authorization"] == "Bearer hf_secret" for _, _, headers in stub.asked)
    offers = pulled.providers.set_index(["repo_id", "provider"])
    assert offers.loc[("acme/large", "together"), "input_usd_per_million"] == 0.6
    assert offers.loc["acme/other", "input_usd_per_million"].isna().all()
    assert len(offers) == 6
    # On the Hub's own host as well: the session, not the host, is without a token.
    monkeypatch.setenv("PLAYBOOK_ROUTER_URL", stub.url)
    stub.asked.clear()
    hub.pull(shortlist("acme/large"), tmp_path / "b")
    assert [path for path, _, headers in stub.asked if "authorization" not in headers] == [
        "/v1/models"
    ]


@pytest.mark.parametrize(
    "answer", [NOT_FOUND, Answer(b"", 503), Answer(b"<html>"), Answer([]), Answer({"data": 3})]
)
def test_a_missing_router_costs_only_prices(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    monkeypatch.setenv("PLAYBOOK_ROUTER_URL", stub.url)
    stub.serve("acme/large", model("acme/large"))
    stub.serve_router(answer)
    said = heard(monkeypatch)
    pulled = hub.pull(shortlist("acme/large"), tmp_path, source="hub")
    assert list(pulled.providers["provider"]) == ["together", "fal-ai", "novita"]
    assert pulled.providers["input_usd_per_million"].isna().all()
    assert the_row(pulled.metadata)["problem"] == ""
    assert said == [] if answer.body == {"data": 3} else "router's list could not be" in said[0]


def test_a_kept_list_of_the_router_outlives_the_router(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAYBOOK_ROUTER_URL", stub.url)
    stub.serve("acme/large", model("acme/large"))
    stub.serve_router({"data": [ROUTED]}, Answer(b"", 503))
    hub.pull(shortlist("acme/large"), tmp_path)
    said = heard(monkeypatch)
    pulled = hub.pull(shortlist("acme/large"), tmp_path, max_age_days=0)
    assert pulled.providers["input_usd_per_million"].notna().any() and said == []


def test_token_not_sent_to_a_mirror(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_from_environment")
    stub.serve("acme/large", model("acme/large"))
    metadata(shortlist("acme/large"), tmp_path)
    metadata(shortlist("acme/large"), tmp_path, max_age_days=0)
    assert len(stub.asked) == 5
    assert all("authorization" not in headers for _, _, headers in stub.asked)


def test_a_token_never_reaches_the_table(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for token in ("hf_secret", "hf_secret\u20ac"):  # the second is no legal header
        send_token(monkeypatch, token)
        stub.serve("acme/large", Answer({"error": token}, 403, {"X-Error-Message": "hf_secret"}))
        table = metadata(shortlist("acme/large"), tmp_path)
        assert table["problem"][0] and "hf_secret" not in table.to_json()
    assert "hf_secret" not in "".join(capfd.readouterr())


def test_cache_asks_nothing_again(stub: Stub, tmp_path: Path) -> None:
    stub.serve("acme/large", model("acme/large"))
    first = the_row(metadata(shortlist("acme/large"), tmp_path))
    again = the_row(metadata(shortlist("acme/large"), tmp_path))
    assert len(stub.asked) == 3
    assert again.pop("metadata_source") == f"hub (cached {first['retrieved_at'][:10]})"
    assert again == {key: value for key, value in first.items() if key != "metadata_source"}


def test_an_old_answer_is_asked_again_but_not_what_belongs_to_a_commit(
    stub: Stub, tmp_path: Path
) -> None:
    stub.serve("acme/large", model("acme/large"), model("acme/large", downloads=9))
    metadata(shortlist("acme/large"), tmp_path)
    for path in tmp_path.rglob("acme--large*.json"):
        entry = json.loads(path.read_bytes())
        path.write_text(json.dumps(entry | {"retrieved_at": "2026-01-02T00:00:00+00:00"}))
    row = the_row(metadata(shortlist("acme/large"), tmp_path))
    assert calls(stub) == [*three("acme/large"), *three("acme/large")[:2]]
    assert (row["metadata_source"], row["downloads"], row["layers"]) == ("hub", 9, 32)
    assert row["retrieved_at"] > "2026-01-03"


def test_interrupted_pull_goes_on(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"acme/m{i}" for i in range(6)]
    for name in names:
        stub.serve(name, model(name))
    write = client.write_bytes

    def die(path: Path, content: bytes) -> None:
        if "m3" in path.name:
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(client, "write_bytes", die)
    monkeypatch.setattr(client, "THREADS", 1)
    with pytest.raises(KeyboardInterrupt):
        metadata(shortlist(*names), tmp_path)
    monkeypatch.setattr(client, "write_bytes", write)
    for thread in threading.enumerate():  # what was on its way still lands
        if thread.name.startswith("ThreadPoolExecutor"):
            thread.join()
    kept = len(list(tmp_path.rglob("*.json")))
    assert kept >= 9
    stub.asked.clear()
    assert (metadata(shortlist(*names), tmp_path)["problem"] == "").all()
    assert len(stub.asked) == 18 - kept


def test_killed_pull_goes_on(stub: Stub, tmp_path: Path) -> None:
    names = [f"acme/m{i}" for i in range(40)]
    for name in names:
        stub.serve(name, model(name))
    stub.held_from = 51
    code = (
        "import sys, pathlib, pandas as pd\n"
        "from lib.hub import client, models\n"
        "client.THREADS = 4\n"
        "models.pull(pd.read_json(sys.argv[1]), pathlib.Path(sys.argv[2]))\n"
    )
    shortlist(*names).to_json(tmp_path / "s.json")
    cache, environment = tmp_path / "hub", os.environ | {"HF_ENDPOINT": stub.url}
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "s.json"), str(cache)],
        cwd=ROOT,
        env=environment | {"HF_HUB_OFFLINE": "0"},
    )
    # Its four threads wait for ever: whatever was answered is kept, and nothing is on its way.
    while len(stub.asked) < 54 and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    stub.let_go.set()
    kept = len(list(cache.rglob("[!.]*.json")))
    assert kept == 50
    stub.asked.clear()
    assert (metadata(shortlist(*names), cache)["problem"] == "").all()
    assert len(stub.asked) == 120 - kept


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
        b'{"asked": "H/acme/large", "answer": [], "retrieved_at": "NOW"}',
        b'{"asked": "H/acme/large", "answer": {"a": 1}, "retrieved_at": 3}',
        b'{"asked": "H/acme/large", "answer": {"a": 1}, "retrieved_at": "2026-01-01"}',
        b'{"asked": "H/acme/other", "answer": {"a": 1}, "retrieved_at": "NOW"}',
        b'{"asked": "hf.co/api/models/acme/large", "answer": {"a": 1}, "retrieved_at": "NOW"}',
        b'{"asked": "H/acme/large", "answer": {"a": 1}, "retrieved_at": "2999-01-01T00:00Z"}',
    ],
    ids=range(13),
)
def test_useless_cache_is_asked_again(stub: Stub, tmp_path: Path, content: bytes) -> None:
    now = pd.Timestamp.now("UTC").isoformat().encode()
    here = f'"{endpoint.host()}/api/models/'.encode()
    content = content.replace(b'"H/', here).replace(b"NOW", now)
    for kind in ("model", "files"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "acme--large.json").write_bytes(content)
    stub.serve("acme/large", model("acme/large"))
    row = the_row(metadata(shortlist("acme/large"), tmp_path))
    assert (row["metadata_source"], row["weights_gb"], row["problem"]) == ("hub", 16.0, "")
    assert calls(stub) == three("acme/large")


JUNK: list[Any] = [None, "x", -1, 10**30, 1e308, True, [], {}, [{"a": [None]}], {"id": {"x": 1}}]


def test_hostile_answers(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Wrong types everywhere become null, and nothing of them breaks a table."""
    monkeypatch.setenv("PLAYBOOK_ROUTER_URL", stub.url)
    names = [f"acme/m{i}" for i in range(len(JUNK))]
    for name, junk in zip(names, JUNK, strict=True):
        stub.serve(name, {key: junk for key in model(name)} | {"sha": SHA})
        stub.serve_files(name, dict.fromkeys(files(name), junk))
        stub.serve_config(name, dict.fromkeys(CONFIG, junk) | {"text_config": junk})
        stub.serve_config("x", CONFIG)
    routed = [{"id": name, "providers": [{"provider": "p", "pricing": j, "throughput": j,
               "context_length": j}, j]} for name, j in zip(names, JUNK, strict=True)]  # fmt: skip
    stub.serve_router({"data": [*routed, *JUNK]})
    pulled = hub.pull(shortlist(*names), tmp_path)
    assert (pulled.metadata["revision"] == SHA).all()
    assert pulled.metadata[["layers", "weights_gb", "license_on_hub"]].isna().all(axis=None)
    assert list(pulled.providers["provider"]) == ["p"] * 9 + ["id", "p"]  # a mapping names one
    for table in pulled:
        table.to_parquet(tmp_path / "t.parquet")
    assert "".join(capfd.readouterr()) == ""


def test_a_hostile_card(stub: Stub, tmp_path: Path) -> None:
    evil = "a\x1b[2J\x00\u202e\ud800\n; <img src=x onerror=alert(1)>" + "x" * 9999
    card = {"license": "other", "license_name": evil}
    raw = model("acme/large", id="../../../etc/passwd", cardData=card,
                baseModels=[evil, "../../x"], tags=[f"base_model:{evil}"])  # fmt: skip
    raw["inferenceProviderMapping"] = {evil: {"status": "live"}, "ok": {"status": evil}}
    row = described(stub, tmp_path, raw)
    assert row["renamed_to"] is None and row["providers"] == ""
    assert row.pop("base_models").isprintable() and row.pop("lineage_verdict").isprintable()
    for text in filter(None, (value for value in row.values() if isinstance(value, str))):
        assert text.isprintable() and len(text) <= 200
    assert ";" not in row["license_name"]
    assert {path.parent.name for path in tmp_path.rglob("*.json")} == {"model", "files", "config"}
    assert calls(stub) == three("acme/large")


@pytest.mark.parametrize(
    "name", ["../../secrets", "/etc/passwd", "a/b/c", "a/..", "", "a/b?x=1", "a b", "a/b\n", None]
)
def test_hostile_names_ask_and_write_nothing(stub: Stub, tmp_path: Path, name: object) -> None:
    cache = tmp_path / "run" / "hub"
    table = metadata(shortlist(name), cache)
    assert "not a repository name" in table["problem"][0]
    assert stub.asked == [] and not list(tmp_path.rglob("*.json"))
    assert hub.budget(shortlist(name), cache).startswith("0 models, ")


@pytest.mark.parametrize("late", [True, False])
def test_offline_opens_no_socket(
    stub: Stub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    late: bool,
) -> None:
    monkeypatch.setenv("PLAYBOOK_ROUTER_URL", stub.url)
    stub.serve("acme/large", model("acme/large"))
    metadata(shortlist("acme/large"), tmp_path)
    request.getfixturevalue("no_sockets")
    if late:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    else:
        monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    table = metadata(shortlist("acme/large", "acme/other"), tmp_path, max_age_days=0)
    assert table["metadata_source"][0].startswith("hub (cached 20")
    assert (table["layers"][0], table["weights_gb"][0], table["problem"][0]) == (32, 16.0, "")
    assert table["metadata_source"][1] == "catalogue"
    # What is kept and young enough needs no Hub, so that also `hub` is content.
    assert metadata(shortlist("acme/large"), tmp_path, source="hub")["revision"][0] == SHA
    with pytest.raises(PlaybookError, match="HF_HUB_OFFLINE is set") as caught:
        metadata(shortlist("acme/other"), tmp_path, source="hub")
    assert "HF_HUB_OFFLINE and run it again" in str(caught.value)
    with pytest.raises(PlaybookError, match="cannot be asked"):
        hub.download_gguf("acme/large/m.gguf", SHA)
    assert "nothing is asked" in hub.budget(shortlist("acme/other"), tmp_path)


def test_offline_in_a_fresh_process(tmp_path: Path) -> None:
    code = (
        "import socket, sys, pathlib, pandas as pd\n"
        "def refuse(*a): raise SystemExit('a socket was opened')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from lib.hub import models as hub\n"
        "t = hub.pull(pd.read_json(sys.argv[1]), pathlib.Path(sys.argv[2])).metadata\n"
        "print(t.metadata_source[0], hub.constants.HF_HUB_DISABLE_TELEMETRY)\n"
    )
    shortlist("acme/large").to_json(tmp_path / "s.json")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "s.json"), str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (done.stdout, done.stderr) == ("catalogue True\n", "")


def test_offline_says_nothing_of_the_router(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_sockets: None
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PLAYBOOK_ROUTER_URL", stub.url)
    said = heard(monkeypatch)
    hub.pull(shortlist("acme/large"), tmp_path)
    assert said == []


def test_catalogue_opens_no_socket(stub: Stub, tmp_path: Path, no_sockets: None) -> None:
    row = the_row(metadata(shortlist("acme/large"), tmp_path, source="catalogue"))
    assert {key: value for key, value in row.items() if value is not None} == {
        "repo_id": "acme/large",
        "metadata_source": "catalogue",
        "retrieved_at": "2026-10-02",
        "license_on_hub": "apache-2.0",
        "params_b": 8.0,
        "context_length": 32768,
        "layers": 40,
        "head_dim": 64,
        "base_models": "acme/base",
        "lineage_verdict": "base: acme/base",
        "problem": "",
    }
    blank = "hub_license base_model context_length hub_params_b".split()
    for null in (None, float("nan"), pd.NA):
        nulls_only = shortlist("acme/x", **dict.fromkeys(blank, null))
        row = the_row(metadata(nulls_only, tmp_path, source="catalogue"))
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
    table = metadata(shortlist("acme/large", "acme/small"), tmp_path)
    assert list(table["metadata_source"]) == ["catalogue"] * 2
    assert list(table["problem"]) == ["", ""]
    assert "".join(capfd.readouterr()) == ""
    with pytest.raises(PlaybookError) as caught:
        metadata(shortlist("acme/large", "acme/small"), tmp_path, source="hub")
    text = str(caught.value)
    assert "could not be asked about 2 of 2 models" in text and "source 'auto'" in text
    assert "hf_secret" not in text and "127.0.0.1" in text


class Losing:
    """The client, whose network goes once the stub was asked so often."""

    def __init__(self, stub: Stub, after: int) -> None:
        self.stub, self.after, self.client = stub, after, client.hf.get_session()

    def stream(self, *args: Any, **options: Any) -> Any:
        if len(self.stub.asked) >= self.after:
            raise hub.httpx2.ConnectError("[Errno 101] Network is unreachable")
        return self.client.stream(*args, **options)


def test_a_connection_lost_half_way_keeps_what_was_answered(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"acme/m{i}" for i in range(5)]
    for name in names:
        stub.serve(name, model(name))
    losing = Losing(stub, 7)
    monkeypatch.setattr(client.hf, "get_session", lambda: losing)
    monkeypatch.setattr(client, "THREADS", 1)
    table = metadata(shortlist(*names), tmp_path / "a")
    assert list(table["metadata_source"]) == ["hub"] * 3 + ["catalogue"] * 2
    assert "file sizes and security scan: the Hub could not be reached" in table["problem"][2]
    assert list(table["problem"].drop(2)) == [""] * 4
    stub.asked.clear()
    with pytest.raises(PlaybookError, match=r"3 of 5 models \(\[Errno 101\] Network is unreach"):
        metadata(shortlist(*names), tmp_path / "b", source="hub")


def test_files_that_could_not_be_asked_are_missed(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.serve_files("acme/large", files("acme/large", sha="f" * 40))  # kept, of another commit
    described(stub, tmp_path, model("acme/large"))
    losing = Losing(stub, 0)
    monkeypatch.setattr(client.hf, "get_session", lambda: losing)
    with pytest.raises(PlaybookError, match="could not be asked about 1 of 1 models"):
        metadata(shortlist("acme/large"), tmp_path, source="hub")
    assert metadata(shortlist("acme/large"), tmp_path)["security"].isna().all()


def test_stale_cache_beats_the_catalogue_when_unreachable(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.serve("acme/large", model("acme/large"))
    metadata(shortlist("acme/large"), tmp_path)
    nothing_listens(monkeypatch)
    path = tmp_path / "model" / "acme--large.json"
    old = {"retrieved_at": "2026-01-02T00:00:00+00:00"}
    old["asked"] = f"{endpoint.host()}/api/models/acme/large"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | old))
    table = metadata(shortlist("acme/large"), tmp_path)
    assert table["metadata_source"][0] == "hub (cached 2026-01-02)"
    assert table["revision"][0] == SHA


def test_stale_cache_beats_a_busy_hub_but_not_a_refusal(stub: Stub, tmp_path: Path) -> None:
    stub.serve("acme/large", model("acme/large"), Answer(b"", 503))
    described(stub, tmp_path, model("acme/large"))
    row = described(stub, tmp_path, Answer(b"", 503))
    assert row["metadata_source"].startswith("hub (cached") and "answered 503" in row["problem"]
    row = described(stub, tmp_path, NOT_FOUND)
    assert row["metadata_source"] == "catalogue" and "not found on the Hub" in row["problem"]


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9", "", "http://[bad", "ftp://x"])
def test_a_wrong_endpoint(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setattr(hub.constants, "ENDPOINT", endpoint)
    with pytest.raises(PlaybookError, match="HF_ENDPOINT"):
        metadata(shortlist("acme/large"), tmp_path, source="hub")


def test_arguments(tmp_path: Path, no_sockets: None) -> None:
    for ask in (metadata, hub.budget):
        with pytest.raises(PlaybookError, match="source 'live' is unknown; use one of auto, hub, "):
            ask(shortlist("acme/large"), tmp_path, source="live")
    for wrong in (0, -1, float("nan")):
        with pytest.raises(PlaybookError, match="above zero"):
            metadata(shortlist("acme/large"), tmp_path, timeout_s=wrong)


def test_budget(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_sockets: None
) -> None:
    few, many = shortlist("acme/a", "acme/b", "acme/a"), shortlist(*(f"a/m{i}" for i in range(600)))
    assert hub.budget(few, tmp_path, source="catalogue") == (
        "2 models, source 'catalogue': nothing is asked"
    )
    assert hub.budget(few, tmp_path).endswith("4 API requests and 2 files")  # a mirror
    monkeypatch.setattr(hub.constants, "ENDPOINT", "https://huggingface.co")
    monkeypatch.setattr(hub.constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    assert hub.budget(many, tmp_path, max_age_days=1) == (
        "600 models, 0 answers kept; to ask: 1200 API requests and 600 files;"
        " without a token the Hub answers 500 API requests in 5 minutes"
    )
    monkeypatch.setattr(hub.constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    assert "without a token" not in hub.budget(many, tmp_path)


def test_budget_counts_what_is_kept(stub: Stub, tmp_path: Path) -> None:
    for name in ("acme/a", "acme/b"):
        stub.serve(name, model(name, gated="auto" if name == "acme/b" else False))
    hub.pull(shortlist("acme/a", "acme/b"), tmp_path)
    asked = len(stub.asked)
    told = [
        hub.budget(shortlist("acme/a", "acme/b", "acme/c"), tmp_path, max_age_days=days)
        for days in (1, 0)
    ]
    assert "3 models, 5 answers kept; to ask: 2 API requests and 1 files" in told[0]
    assert "3 models, 1 answers kept; to ask: 6 API requests and 1 files" in told[1]
    assert len(stub.asked) == asked == 5


FILE = {"ETag": '"abc"', "X-Repo-Commit": SHA, "Content-Type": "application/octet-stream"}


@pytest.fixture
def hf_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stub: Stub) -> Path:
    cache = tmp_path / "hf"
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(cache))
    template = stub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    return cache


def test_download_gguf(stub: Stub, hf_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    stub: Stub, hf_cache: Path, status: int, code: str, sentence: str
) -> None:
    answer = Answer(b"", status, {"X-Error-Code": code})
    stub.answers[f"/acme/large/resolve/{SHA}/m.gguf"] = [answer]
    with pytest.raises(PlaybookError, match=sentence) as caught:
        hub.download_gguf("acme/large/m.gguf", SHA)
    assert "'acme/large/m.gguf'" in str(caught.value)


def test_download_unreachable(stub: Stub, hf_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
