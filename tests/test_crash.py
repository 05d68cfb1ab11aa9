"""Whatever is killed or full, and whenever: the same tables after resume, and nothing left over."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai_stub
import pandas as pd
import psutil
import pytest
import yaml

from lib import artifacts, evaluate
from lib.__main__ import STATUS
from lib.endpoints import STORE, read_records
from lib.errors import PlaybookError
from lib.evaluate import plan
from lib.opening import open_project

ITEMS = 30
BRIEF: dict[str, Any] = {
    "name": "crash",
    "task": "Tell whether a review is positive",
    "policy": {"licenses": ["permissive"]},
    "size": {"tier": "any"},
    "evaluation": {
        "kind": "classification", "items": "items.jsonl", "labels": ["positive", "negative"],
        "concurrency": 4, "max_retries": 1, "max_tokens": 4,
    },
    "speed": {"budget_s": 2, "budget_requests": 50},
    "requirements": {"min_quality": 0.5},
    "deployments": [
        {
            "name": "hosted", "model": "mistralai/Ministral-3-3B-Instruct-2512",
            "price": {"input_usd_per_million": 1.0, "output_usd_per_million": 1.0},
        },
        {
            "name": "local", "model": "HuggingFaceTB/SmolLM2-135M-Instruct", "hardware": "cpu-1",
            "endpoint": {"embedded": "smollm2-135m", "threads": 1},
        },
    ],
}  # fmt: skip
# What is of the moment: clocks, tries, and what the server still had of the prompt.
TIMES = ["retrieved_at", "latency_s", "retries", "n_retried", "cached", "cached_tokens"]
TABLES = ["03_metadata", "03_drift", "03_providers", "04_answers", "04_scores", "04_pairs"]


class House:
    """A project, its stub and its runs, all processes its own."""

    def __init__(self, base: Path, *, local: bool = True, items: int = ITEMS) -> None:
        self.base, self.runs, self.log = base, base / "runs", base / "asked.log"
        (base / "project").mkdir()
        (base / "scratch").mkdir()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        brief = yaml.safe_load(yaml.safe_dump(BRIEF))
        url = f"http://127.0.0.1:{self.port}/v1"
        brief["deployments"][0]["endpoint"] = {"base_url": url}
        brief["deployments"] = brief["deployments"][: 2 if local else 1]
        self.brief = base / "project" / "project.yaml"
        self.brief.write_text(yaml.safe_dump(brief))
        lines = [{"id": f"{n}", "input": f"item {n}", "target": "positive"} for n in range(items)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (base / "project" / "items.jsonl").write_text(text)
        # The stub and the runs know no other place for what they leave behind.
        places = dict.fromkeys(["TMPDIR", "JUPYTER_RUNTIME_DIR"], str(base / "scratch"))
        self.env = os.environ | places | {"PLAYBOOK_CACHE": "off", "PLAYBOOK_RUNS": str(self.runs)}
        self.stub = self.new_stub()

    def new_stub(self) -> psutil.Popen:
        command = [sys.executable, openai_stub.__file__, "--delay", "0.05"]
        command += ["--port", str(self.port), "--log", str(self.log)]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        stub = psutil.Popen(command, env=self.env, **pipes)
        assert stub.stdout.readline().startswith(b"http")
        return stub

    def start(self, run: Path, step: str) -> psutil.Popen:
        command = [sys.executable, "-m", "lib", "run", str(self.brief), "--quiet"]
        command += ["--run-dir", str(run), "--from", step]
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return psutil.Popen(command, env=self.env, cwd=artifacts.ROOT, **pipes)

    def start_notebook(self, run: Path, step: str) -> psutil.Popen:
        notebook = artifacts.ROOT / "notebooks" / f"{artifacts.NOTEBOOKS[step]}.ipynb"
        command = [sys.executable, "-m", "papermill", str(notebook), str(self.base / "out.ipynb")]
        command += ["-p", "project", str(self.brief), "-p", "run_dir", str(run)]
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command += ["--no-progress-bar"]
        return psutil.Popen(command, env=self.env, cwd=artifacts.ROOT, **pipes)

    def complete(self, run: Path, step: str = "01") -> None:
        child = self.start(run, step)
        _, err = child.communicate()
        assert child.returncode in STATUS.values(), err

    def with_two_steps(self, name: str) -> Path:
        """A run directory that has steps 1 and 2 of the run `whole`, and a new log of the stub."""
        run = self.runs / name
        run.mkdir()
        kept = [path for path in (self.runs / "whole").glob("0[12]*") if path.is_file()]
        for path in [*kept, self.runs / "whole" / "manifest.json"]:
            shutil.copy(path, run)
        os.truncate(self.log, 0)
        return run

    def asked(self) -> list[str]:
        """The items that step 4 asked the stub, in order; step 5 streams."""
        lines = self.log.read_text().splitlines()
        return [text for text, stream in map(json.loads, lines) if not stream]

    def answered(self, run: Path) -> dict[str, set[str]]:
        """The texts that each deployment has an answer to; PlaybookError where one was twice."""
        brief = open_project(self.brief)
        items, times = evaluate.load_items(brief), Counter[str]()
        with contextlib.suppress(FileNotFoundError):
            for line in (run / STORE).read_bytes().splitlines():
                with contextlib.suppress(ValueError):  # half a line
                    record = json.loads(line.partition(b" ")[2])
                    times[record["key"]] += not record["error"]
        assert max(times.values(), default=0) <= 1, "a finished answer was asked twice"
        kept = {key for key, r in read_records(run / STORE).items() if not r["error"]}
        texts = {}
        for deployment in brief.deployments:
            keys = zip(plan(brief, deployment, items).keys(), items["input"], strict=True)
            texts[deployment.name] = {text for key, text in keys if key in kept}
        return texts

    def close(self) -> None:
        self.stub.kill()
        self.stub.wait()


def processes(child: psutil.Popen, word: str) -> list[psutil.Process]:
    """The child's descendants with a word in their command."""
    found = []
    with contextlib.suppress(psutil.Error):
        for process in child.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                found += [process] if word in " ".join(process.cmdline()) else []
    return found


def first_open(run: Path) -> str:
    """The first of steps 3 to 6 that did not end."""
    for step in ("03", "04", "05"):
        try:
            artifacts.made_from(run, step)
        except PlaybookError:
            return step
    return "06"


def check_whole(run: Path) -> None:
    """No file of a run is half-written; the stores may end in half a line, which is none."""
    files = json.loads((run / "manifest.json").read_bytes())["files"]
    for path in run.rglob("*"):
        if path.suffix == ".parquet" and path.name in files:
            assert len(artifacts.load(run, path.stem).columns)
        elif path.suffix in (".ipynb", ".json"):
            json.loads(path.read_bytes())
        elif path.suffix == ".html":
            assert path.read_text().rstrip().endswith("</html>")


def left_over(house: House, run: Path) -> list[Path]:
    """Temporary files of this run."""
    drafts = [*run.rglob("*.draft"), *run.rglob(".kernel*")]
    return drafts + [p for p in house.base.glob("scratch/**/*") if p.is_file()]


CHILDREN = {"kernel": "ipykernel_launcher", "server": "model_server"}  # words of their commands


def kill_one(house: House, run: Path, choice: random.Random, before_now: Counter[str]) -> str:
    """Run from one of the steps that may run, kill one process at some time; "" if none was there.

    Afterwards nothing is left running, and no answer that was there is gone or was asked again.
    """
    before, asked_before = house.answered(run), len(house.asked())
    steps = [step for step in ("03", "04", "05", "06") if step <= first_open(run)]
    child = house.start(run, choice.choice(steps))
    at = time.monotonic() + choice.uniform(0.5, 14.0)
    family, killed = list[psutil.Process](), ""
    while child.poll() is None and not killed:
        family += [p for p in processes(child, "") if p not in family]
        if time.monotonic() > at:
            victims = {"runner": [child], "stub": [house.stub]}
            victims |= {name: processes(child, word) for name, word in CHILDREN.items()}
            there = [name for name, alive in victims.items() if alive]
            killed = min(there, key=lambda name: (before_now[name], choice.random()))
            family += [p for p in processes(child, "") if p not in family]
            for process in victims[killed]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        time.sleep(0.02)
    if killed == "stub":
        house.stub.wait()
        house.stub = house.new_stub()
    out, err = child.communicate()
    # Whatever escapes passes through our command; a kernel that ends may log an error of its own.
    assert f'File "{artifacts.ROOT}/lib/' not in err, err
    if killed == "runner":
        assert child.returncode in (-9, *STATUS.values())  # it may have been at its end
    elif child.returncode not in STATUS.values():
        assert child.returncode == 1 and err.count("error: ") == 1 and out == "", err
    assert psutil.wait_procs(family, timeout=600)[1] == []
    check_whole(run)
    for name, texts in house.answered(run).items():
        assert before[name] <= texts
    assert not before["hosted"] & set(house.asked()[asked_before:])
    return killed


def without_times(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=TIMES, errors="ignore")


KILLS = 9  # of one run
ROUNDS = [pytest.param(1, 1, marks=pytest.mark.short), pytest.param(6, 2, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("rounds", "seed"), ROUNDS)
def test_kills_at_random_change_nothing(tmp_path: Path, rounds: int, seed: int) -> None:
    house, choice, killed = House(tmp_path), random.Random(seed), Counter[str]()
    try:
        house.complete(house.runs / "whole")
        for number in range(1, rounds + 1):
            run = house.with_two_steps(f"killed-{number}")
            for _ in range(3 * KILLS):
                killed[kill_one(house, run, choice, killed)] += 1
                if killed.total() - killed[""] == number * KILLS:
                    break
            assert killed.total() - killed[""] == number * KILLS, killed
            check_resumed(house, run)
    finally:
        house.close()
    print(f"killed: {dict(killed)}")


def check_resumed(house: House, run: Path) -> None:
    """Run it to its end: the tables are those of a run that nothing happened to."""
    house.complete(run, "03")
    for name in TABLES:
        tables = [artifacts.load(path, name) for path in (house.runs / "whole", run)]
        pd.testing.assert_frame_equal(*map(without_times, tables))
    assert house.answered(run)["hosted"] == {f"item {n}" for n in range(ITEMS)}
    # What was measured of the load is on disk too: nothing is sent again.
    speed, lines = artifacts.load(run, "05_speed"), len(house.log.read_text())
    house.complete(run, "05")
    if not speed["disturbed"].any():  # on a busy machine it is measured anew
        pd.testing.assert_frame_equal(artifacts.load(run, "05_speed"), speed)
        assert len(house.log.read_text()) == lines
    assert left_over(house, run) == []


# A step, kilobytes, and who runs it: the runner, or papermill alone with its notebook elsewhere.
ROOM = ["04 18 alone", "04 4 run", "06 30 alone", "06 200 alone", "06 60 run"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB of its own, where one may mount it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(disk)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small disk can only be mounted as root")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_one_sentence_and_costs_nothing(tmp_path: Path, small_disk: Path) -> None:
    """So many kilobytes are free as steps 4 and 6 begin: answers, tables, figures, page, log."""
    house, places = House(tmp_path, local=False, items=3 * ITEMS), Counter[str]()
    try:
        whole, run, ballast = house.runs / "whole", small_disk / "run", small_disk / "ballast"
        house.complete(whole)
        shutil.copytree(whole, run)
        (run / STORE).unlink()
        os.truncate(house.log, 0)
        for room in ROOM:
            step, kilobytes, runner = room.split()
            if step == "06" and first_open(run) < "06":
                house.complete(run, "04")
            for path in [*run.glob(f"{step}*.parquet"), *run.glob("*.html")]:
                path.unlink()
            before, asked_before = house.answered(run), len(house.asked())
            free = shutil.disk_usage(small_disk).free
            ballast.write_bytes(b"x" * (free - int(kilobytes) * 1024))
            start = house.start if runner == "run" else house.start_notebook
            out, err = (child := start(run, step)).communicate()
            ballast.unlink()
            if child.returncode in STATUS.values():
                continue  # that was room enough
            assert child.returncode == 1 and "No space left on device" in err, (room, err)
            *_, last = err.strip().splitlines()
            assert ": cannot write: No space left on device; what was measured so far" in last
            if runner == "run":
                assert err.startswith("error: ") and err.count("\n") == 1 and out == "", err
            places[last.split(": cannot")[0].rpartition("/")[2]] += 1
            check_whole(run)
            assert not [*run.rglob("*.draft")]
            assert not before["hosted"] & set(house.asked()[asked_before:])
        print(f"full at: {dict(places)}")
        assert {STORE, f"{artifacts.NOTEBOOKS['04']}.ipynb", "report.html"} <= places.keys(), places
        house.complete(run, "04")
        for name in TABLES[-3:]:
            tables = [without_times(artifacts.load(path, name)) for path in (whole, run)]
            pd.testing.assert_frame_equal(*tables)
        assert left_over(house, run) == []
    finally:
        house.close()


def test_a_lock_goes_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "run"
    script = "import sys, time; from pathlib import Path; from lib import artifacts\n"
    script += (
        f"with artifacts.alone(Path({str(path)!r})): print('held', flush=True); time.sleep(9999)"
    )
    command = [sys.executable, "-c", script]
    holder = subprocess.Popen(command, cwd=artifacts.ROOT, stdout=subprocess.PIPE)
    assert holder.stdout and holder.stdout.readline() == b"held\n"
    with (
        pytest.raises(PlaybookError, match="run is being written by another process; wait for it"),
        artifacts.alone(path, wait_s=0),
    ):
        pass
    holder.kill()
    with artifacts.alone(path):
        holder.wait()


def test_half_written_files_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAYBOOK_RUNS", str(tmp_path))
    run, hub = tmp_path / "run", artifacts.hub_cache()
    drafts = [place / ".x.parquet.0123.draft" for place in (run, run / "figures", hub)]
    for draft in [*drafts, hub / ".y.json.45.draft", run / "x.parquet"]:
        draft.parent.mkdir(exist_ok=True, parents=True)
        draft.touch()
    os.utime(drafts[-1], (0, 0))
    artifacts.sweep(run)
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {".y.json.45.draft", "x.parquet"}  # which somebody may be writing now
