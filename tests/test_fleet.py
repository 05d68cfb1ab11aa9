"""Many projects side by side: nothing asked twice, none stops another, a page for all."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai_stub
import psutil
import pytest
import yaml

from lib import artifacts, fleet, pages
from lib.__main__ import STATUS, main
from lib.endpoints import read_records
from lib.errors import PlaybookError

ITEMS = 24
BRIEF = {
    "task": "Tell whether a review is positive",
    "policy": {"licenses": ["permissive"]},
    "size": {"tier": "any"},
    "evaluation": {
        "kind": "classification", "items": "items.jsonl", "labels": ["positive", "negative"],
        "concurrency": 4,
    },
    "speed": {"budget_s": 0.5, "budget_requests": 50},
    "requirements": {"min_quality": 0.5},
}  # fmt: skip
DEPLOYMENT = {
    "name": "d",
    "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "price": {"input_usd_per_million": 1.0, "output_usd_per_million": 1.0},
}


def project(folder: Path, url: str, name: str, *, items: str = "item", **endpoint: Any) -> str:
    """A brief of its own folder that asks one hosted endpoint, whose answers are shared."""
    (folder / name).mkdir(parents=True)
    endpoint = {"base_url": url, "revision": "r1"} | endpoint
    brief = {"name": name, **BRIEF, "deployments": [{**DEPLOYMENT, "endpoint": endpoint}]}
    (folder / name / "project.yaml").write_text(yaml.safe_dump(brief))
    lines = [
        json.dumps({"id": f"{n}", "input": f"{items} {n}", "target": "positive"}) + "\n"
        for n in range(ITEMS)
    ]
    (folder / name / "items.jsonl").write_text("".join(lines))
    return str(folder / name / "project.yaml")


def asked(stub: openai_stub.Stub) -> Counter[str]:
    """How often each item was asked by step 4; step 5 streams."""
    return Counter(r.text for r in stub.requests if not r.body.get("stream"))


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLAYBOOK_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv(fleet.SCHEDULER, raising=False)
    return tmp_path / "runs"


def test_projects_side_by_side_ask_nothing_twice_and_one_that_fails_stops_no_other(
    tmp_path: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with openai_stub.running(openai_stub.Reply(delay_s=0.02)) as stub:
        good = [project(tmp_path, stub.url, name) for name in ("one", "two")]
        keyless = project(tmp_path, stub.url, "keyless", api_key_env="NO_SUCH_KEY")
        torn = project(tmp_path, stub.url, "torn")
        Path(torn).write_text("name: [<script>alert(1)</script>")
        assert main(["fleet", *good, keyless, torn, "--workers", "3"]) == 1
    assert asked(stub) == {f"item {n}": 1 for n in range(ITEMS)}
    for name in ("one", "two"):
        assert len(artifacts.load(runs / name, "04_answers")) == ITEMS
        decision = json.loads((runs / name / "06_decision.json").read_bytes())
        assert decision["outcome"] in STATUS  # how fast the stub is, is the machine's business
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == "" and len(lines) == 5 and lines[-1] == f"{runs}/fleet.html"
    told = {line.split("/project.yaml: ")[0]: line for line in lines[:-1]}
    for name in ("one", "two"):
        line = told[str(tmp_path / name)]
        assert ": error" not in line and line.endswith(f" · {runs}/{name}/report.html")
    assert "NO_SUCH_KEY is not set" in told[str(tmp_path / "keyless")]
    assert ": error · " in told[str(tmp_path / "torn")]
    page = (runs / "fleet.html").read_text()
    assert page.count('<th scope="row">') == 4 and 'href="one/report.html"' in page
    assert "<script" not in page and "What became of 4 projects" in page


def test_the_same_name_twice_is_an_error_and_the_same_project_twice_is_one(
    tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "run_alone", lambda project: {"project": project, "outcome": "x"})
    first, again = (project(tmp_path / part, "http://h/v1", "same") for part in "ab")
    rows = list(fleet.run([first, first, again], workers=1))
    assert [row["outcome"] for row in rows] == ["error", "x"]
    assert rows[0]["project"] == again and first in rows[0]["says"] and "`name`" in rows[0]["says"]


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        (["picked", "picked"], 0),
        (["picked", "none qualifies"], 20),
        (["not decided", "none qualifies", "picked"], 21),
        (["not decided", "error"], 1),
    ],
)
def test_the_worst_outcome_is_the_status(
    runs: Path, monkeypatch: pytest.MonkeyPatch, outcomes: list[str], status: int
) -> None:
    rows = [{"project": "p", "outcome": o, "pick": "", "page": "", "says": "s"} for o in outcomes]
    monkeypatch.setattr(fleet, "run", lambda *_, **__: iter(rows))
    assert main(["fleet", "p"]) == status


def test_a_process_that_dies_is_an_error_of_its_project(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoilt = [sys.executable, "-c", "import os; print('half a line', flush=True); os.abort()"]
    popen = subprocess.Popen
    monkeypatch.setattr(fleet.subprocess, "Popen", lambda _, **how: popen(spoilt, **how))
    row = fleet.run_alone("p")
    assert row["outcome"] == "error" and row["says"].endswith("ended with -6: half a line")


def test_wrong_arguments_are_sentences(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fleet", "article", "--workers", "0"]) == 1
    assert "--workers must be 1 or more, not 0" in capsys.readouterr().err
    monkeypatch.setenv(fleet.SCHEDULER, "tcp://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(PlaybookError, match=r"pip install 'dask.*or unset it"):
        list(fleet.run(["article"], workers=1))


def test_a_fleet_that_is_killed_leaves_no_process(tmp_path: Path, runs: Path) -> None:
    with openai_stub.running(openai_stub.HANG) as stub:
        brief = project(tmp_path, stub.url, "one")
        command = [sys.executable, "-m", "lib", "fleet", brief]
        child = psutil.Popen(command, cwd=artifacts.ROOT)
        while not stub.requests and child.poll() is None:
            time.sleep(0.05)
        others = child.children(recursive=True)
        assert len(others) >= 2  # the runner and its kernel
        child.kill()
        assert psutil.wait_procs(others, timeout=600)[1] == []


@pytest.fixture
def scheduler(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[psutil.Popen]]:
    """A Dask scheduler and two workers of one thread each, and their processes, it first."""
    if not importlib.util.find_spec("distributed"):
        pytest.skip("Dask is not installed: pip install 'dask[distributed]'")
    cli = [sys.executable, "-m", "distributed.cli"]
    quiet: Any = {"cwd": artifacts.ROOT, "stderr": subprocess.PIPE, "text": True}
    quiet["env"] = os.environ | {"DASK_DISTRIBUTED__WORKER__DAEMON": "false"}
    local = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    processes = [psutil.Popen([cli[0], "-m", f"{cli[2]}.dask_scheduler", *local], **quiet)]
    try:
        for line in processes[0].stderr:
            if "tcp://" in line:
                address = "tcp://" + line.split("tcp://")[1].split()[0]
                break
        worker = [cli[0], "-m", f"{cli[2]}.dask_worker", address, "--nthreads", "1"]
        worker += ["--no-nanny", "--no-dashboard", "--local-directory", str(runs.parent)]
        quiet["stderr"] = subprocess.DEVNULL
        processes += [psutil.Popen(worker, **quiet) for _ in range(2)]
        monkeypatch.setenv(fleet.SCHEDULER, address)
        yield processes
    finally:
        for process in reversed(processes):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
            process.wait()


@pytest.mark.slow
def test_a_worker_of_dask_that_is_killed_costs_nothing(
    tmp_path: Path, runs: Path, scheduler: list[psutil.Popen]
) -> None:
    answered_at_kill = dict[str, set[str]]()

    def behave(request: openai_stub.Request) -> openai_stub.Reply:
        if len(asked(stub)) == ITEMS and not answered_at_kill:  # about the half of one or both
            for name in ("one", "two"):
                records = read_records(runs / name / "04_answers.jsonl").values()
                answered_at_kill[name] = {r["key"] for r in records if not r["error"]}
            scheduler[1].send_signal(signal.SIGKILL)
        return openai_stub.Reply(delay_s=0.1)

    with openai_stub.running(behave) as stub:
        briefs = [project(tmp_path, stub.url, name, items=name) for name in ("one", "two")]
        rows = {row["project"]: row for row in fleet.run(briefs, workers=1)}
    assert {row["outcome"] for row in rows.values()} <= STATUS.keys(), rows
    assert scheduler[1].wait() == -signal.SIGKILL and answered_at_kill
    for name in ("one", "two"):
        lines = (runs / name / "04_answers.jsonl").read_text().splitlines()
        records = [json.loads(line.partition(" ")[2]) for line in lines]
        times = Counter(r["key"] for r in records if not r["error"])
        assert len(times) == ITEMS and set(times.values()) == {1}
        assert answered_at_kill[name] <= times.keys()
    in_flight = 2 * BRIEF["evaluation"]["concurrency"]  # type: ignore[index]
    assert sum(asked(stub).values()) <= 2 * ITEMS + in_flight


def test_hostile_text_is_escaped_on_the_page() -> None:
    bad = '<script>alert("x")</script>\u202e'
    row = {"project": bad, "outcome": bad, "pick": bad, "says": bad * 99, "link": "", "page": ""}
    page = pages.fleet_page([row])
    assert "<script" not in page and "\u202e" not in page and "&lt;script&gt;" in page
