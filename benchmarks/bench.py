"""What a run costs in time and memory: `make bench`, or with --quick without the models.

Ratios are measured in one run on one machine; each has a target. The exit status is always 0.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import capacity
import decisions
import nbformat
import pandas as pd
import psutil  # type: ignore[import-untyped]
from printed import Row, show

from lib import evaluate, legal, tables
from lib.artifacts import ROOT
from lib.brief import Policy, Project

STUB = ROOT / "tests" / "stubs" / "openai_stub.py"
N, CONCURRENCY, DELAY_S = 1000, 50, 0.05


@contextlib.contextmanager
def stub(delay_s: float = 0.0) -> Iterator[str]:
    """The stub server in a process of its own; yields its URL."""
    command = [sys.executable, str(STUB), "--delay", str(delay_s)]
    with subprocess.Popen(command, stdin=-1, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdin is not None
        yield child.stdout.readline().strip()
        child.stdin.close()


def brief(url: str, at_once: int = CONCURRENCY) -> Project:
    return Project.model_validate(
        {
            "name": "bench",
            "task": "bench",
            "policy": {},
            "size": {"tier": "any"},
            "evaluation": {"kind": "exact", "items": "-", "concurrency": at_once},
            "deployments": [
                {"name": "d", "model": "a/b", "endpoint": {"base_url": url}, "hardware": "cpu-1"}
            ],
        }
    )


def asked(n: int, at_once: int, delay_s: float) -> tuple[float, float]:
    """Wall time and CPU time, in s, of asking n items; a warm-up comes first."""
    items = pd.DataFrame({"item_id": [f"i{i}" for i in range(n)]})
    items = items.assign(input="text " + items["item_id"], target="positive")
    with stub(delay_s) as url, tempfile.TemporaryDirectory() as folder:
        project = brief(url, at_once)
        warm = items.head(at_once).assign(input="warm " + items["input"])
        evaluate.ask(project, project.deployments, warm, Path(folder), progress=False)
        wall, cpu = time.perf_counter(), time.process_time()
        told = evaluate.ask(project, project.deployments, items, Path(folder), progress=False)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if told["error"].any():
        raise RuntimeError("the stub failed")
    return wall, cpu


def asking() -> list[Row]:
    """1,000 items of a stub that takes 50 ms, 50 at a time; Inspect beside it; a slow endpoint."""
    wall, cpu = asked(N, CONCURRENCY, DELAY_S)
    ratio, each = wall / (N * DELAY_S / CONCURRENCY), 1000 * cpu / N
    text = f"{N:,} items at {DELAY_S * 1000:.0f} ms, {CONCURRENCY} at once"
    rows: list[Row] = [
        (text, f"{ratio:.2f} x ideal", "<= 3 x", ratio <= 3, ""),
        ("  CPU time of one call", f"{each:.2f} ms", "<= 3 ms", each <= 3, ""),
    ]
    if importlib.util.find_spec("inspect_ai"):
        with stub(DELAY_S) as url:
            command = [sys.executable, str(ROOT / "benchmarks" / "inspect_side.py"), url]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        faster = json.loads(done.stdout.splitlines()[-1])["seconds"] / wall
        rows += [("  how often faster", f"{faster:.1f} x", ">= 5 x", faster >= 5, "than Inspect")]
    else:
        rows += [("  how often faster", "", ">= 5 x", None, "no inspect-ai")]
    share = 640 * 0.8 / 32 / asked(640, 32, 0.8)[0]
    text = "640 items at 800 ms, 32 at once"
    return [*rows, (text, f"{share:.1%} of ideal", ">= 95 %", share >= 0.95, "")]


def judging() -> list[Row]:
    """Step 1 over 20,000 rows, every licence accepted, so that every clause is tested."""
    some, times = tables.models(), 20_000 // len(tables.models()) + 1
    many = pd.concat([some.assign(repo_id=some["repo_id"] + f"-{i}") for i in range(times)])
    many = many.head(20_000).reset_index(drop=True)
    policy = {"licenses": ["permissive", "conditional", "non-commercial"]}
    project = brief("http://127.0.0.1").model_copy(update={"policy": Policy(**policy)})
    start = time.perf_counter()
    legal.judge(many, tables.licenses(), project)
    seconds = time.perf_counter() - start
    return [("step 1 over 20,000 models", f"{seconds:.2f} s", "<= 1 s", seconds <= 1, "")]


def pulling() -> list[Row]:
    """Step 3 over 300 models of a stub that takes 100 ms, three requests each, 16 at once."""
    script = """
import sys, tempfile, time
from pathlib import Path
import hub_stub
from lib import tables
from lib.hub import models as hub
models = tables.models().head(300)
with hub_stub.running() as stub, tempfile.TemporaryDirectory() as folder:
    stub.delay_s = 0.1
    for repo_id in models["repo_id"]:
        stub.serve(repo_id, hub_stub.model(repo_id))
    hub.constants.ENDPOINT = stub.url
    start = time.perf_counter()
    hub.pull(models, Path(folder), source="hub")
    print(time.perf_counter() - start, len(stub.asked))
"""
    env = os.environ | {"PYTHONPATH": str(STUB.parent), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError("pulling from the stub failed")
    seconds, requests = map(float, done.stdout.split())
    ratio = seconds / (requests * 0.1 / 16)
    text = f"300 models at 100 ms, {requests:.0f} requests"
    return [(text, f"{ratio:.2f} x ideal", "<= 1.2 x", ratio <= 1.2, "")]


def keeping() -> list[Row]:
    """10,000 items of ten deployments that answer at once: three minutes."""
    script = """
import resource, sys, tempfile
from pathlib import Path
import pandas as pd
import bench
from lib.evaluate import answers
with tempfile.TemporaryDirectory() as folder:
    project = bench.brief(sys.argv[1])
    first = project.deployments[0]
    ten = [first.model_copy(update={"name": f"d{i}", "model": f"a/b{i}"}) for i in range(10)]
    items = pd.DataFrame({"item_id": [f"i{i}" for i in range(10_000)]})
    items = items.assign(input="text " + items["item_id"], target="positive")
    answers.ask(project, ten, items, Path(folder), progress=False)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""
    with stub() as url:
        env = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
        command = [sys.executable, "-c", script, url]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError("asking 10,000 items failed")
    peak = float(done.stdout)
    return [("10,000 items x 10: peak memory", f"{peak:.2f} GB", "<= 1.5 GB", peak <= 1.5, "")]


def run(project: str, runs: Path) -> tuple[float, float]:
    """Run a project headless; wall time in s, and peak memory in GB without model servers."""
    env = os.environ | {"PLAYBOOK_RUNS": str(runs), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "lib", "run", project, "--quiet"]
    start, peak = time.perf_counter(), 0
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as child:
        while child.poll() is None:
            peak = max(peak, memory(psutil.Process(child.pid)))
            time.sleep(0.1)
    if child.returncode:
        raise RuntimeError(f"{project} failed")
    return time.perf_counter() - start, peak / 1e9


def memory(root: psutil.Process) -> int:
    """Resident bytes of a process and all below it that are not model servers."""
    total = 0
    with contextlib.suppress(psutil.Error):
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                if not any("embedded.py" in word for word in process.cmdline()):
                    total += process.memory_info().rss
    return total


def article(runs: Path) -> list[Row]:
    seconds, gigabytes = run("article", runs)
    return [
        ("article: peak memory, runner and kernel", f"{gigabytes:.2f} GB", "<= 1 GB",
         gigabytes <= 1, ""),
        ("article: wall time", f"{seconds:.0f} s", "<= 60 s", seconds <= 60, ""),
    ]  # fmt: skip


def cell_seconds(notebook: Path, call: str) -> float:
    """How long the cell that contains a call took, by papermill's own clock."""
    for cell in nbformat.read(notebook, 4).cells:  # type: ignore[no-untyped-call]
        if cell.cell_type == "code" and call in cell.source:
            return float(cell.metadata["papermill"]["duration"])
    raise LookupError(f"{notebook.name} has no {call}")


def sentiment(runs: Path) -> list[Row]:
    """The shipped example on real models: fresh, then with answers and probes on disk."""
    fresh, gigabytes = run("review-sentiment", runs)
    folder = runs / "review-sentiment"
    asked = cell_seconds(folder / "04_evaluate.ipynb", "answers.ask(")
    probed = cell_seconds(folder / "05_measure_speed.ipynb", "speed.measure(")
    rest = fresh - asked - probed
    again, _ = run("review-sentiment", runs)
    outcome = json.loads((folder / "06_decision.json").read_text(encoding="utf-8"))["outcome"]
    return [
        ("review-sentiment, fresh", f"{fresh:.0f} s", "<= 240 s", fresh <= 240, ""),
        ("  of which asking", f"{asked:.0f} s", "", None, ""),
        ("  of which probing", f"{probed:.0f} s", "", None, ""),
        ("  of which neither", f"{rest:.0f} s", "<= 40 s", rest <= 40, ""),
        ("  peak memory, runner and kernel", f"{gigabytes:.2f} GB", "<= 1 GB", gigabytes <= 1, ""),
        ("review-sentiment, again", f"{again:.0f} s", "<= 60 s", again <= 60, ""),
        ("  outcome", outcome, "", None, ""),
    ]


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__)
    cli.add_argument("--quick", action="store_true", help="without the models: half a minute")
    quick = cli.parse_args().quick
    parts: list[Callable[[Path], Iterable[Row]]] = [
        lambda _: asking(), lambda _: judging(), lambda _: pulling(), article,
    ]  # fmt: skip
    if not quick:
        parts += [lambda _: keeping(), sentiment]
        parts += [lambda _: capacity.rows(), lambda _: decisions.rows()]
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            try:
                show(part(Path(folder)), head=part is parts[0])
            except RuntimeError as error:
                show([(str(error), "-", "", False, "")], head=part is parts[0])


if __name__ == "__main__":
    main()
