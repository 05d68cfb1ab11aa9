"""The runner: one command, one sentence when it fails, and the same files from anywhere."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import openai_stub
import pandas as pd
import psutil
import pytest

from lib import __main__ as cli
from lib import artifacts, fleet, pipeline, preflight, verify
from lib.errors import PlaybookError

BRIEF = """
name: tiny
task: t
policy: {licenses: [permissive]}
size: {tier: any}
evaluation: {kind: classification, items: items.jsonl, labels: [positive, negative],
             timeout_s: 600, max_retries: 0}
deployments:
  - name: d
    model: HuggingFaceTB/SmolLM2-135M-Instruct
    endpoint: {base_url: "http://127.0.0.1:9/v1"}
    hardware: cpu-1
"""
ITEM = '{"id": "1", "input": "fine", "target": "positive"}\n'


def environment(runs: Path) -> dict[str, str]:
    return os.environ | {"PLAYBOOK_RUNS": str(runs), "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path / "runs")


def write_brief(folder: Path, text: str = BRIEF) -> Path:
    """A small brief beside its items, in a folder of its own."""
    folder.mkdir(exist_ok=True)
    (folder / "tiny.yaml").write_text(text, encoding="utf-8")
    (folder / "items.jsonl").write_text(ITEM, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run whose port is taken: steps 1 to 3 and the sentence of step 4."""
    base = tmp_path_factory.mktemp("{stopped}")  # papermill formats paths
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = f"{{embedded: smollm2-135m, port: {taken.getsockname()[1]}}}"
        text = BRIEF.replace('{base_url: "http://127.0.0.1:9/v1"}', port)
        folder = write_brief(base / "briefs", text)
        done = playbook("tiny.yaml", "--quiet", env=environment(base / "runs"), cwd=folder)
    return base / "runs" / "tiny", said(done)


@pytest.fixture
def from_04(tmp_path: Path, stopped: tuple[Path, str]) -> list[str]:
    """Arguments that go on from step 4 with the first three steps of another run."""
    shutil.copytree(stopped[0], tmp_path / "runs" / "tiny")
    return ["tiny.yaml", "--from", "04"]


@pytest.fixture(scope="module")
def article(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The article's project, run once from another folder with a relative --run-dir."""
    caller = tmp_path_factory.mktemp("caller")
    done = playbook(
        "article", "--run-dir", "here/run", env=environment(caller / "runs"), cwd=caller
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in caller.iterdir()] == ["here"]
    return caller / "here" / "run", done.stdout


def playbook(
    *arguments: str, env: dict[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lib", "run", *arguments]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False)


def said(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a run that failed."""
    assert done.returncode == 1 and done.stdout == ""
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and done.stderr.endswith(errors[0] + "\n"), done.stderr
    return errors[0]


def test_the_article_runs_headless(article: tuple[Path, str]) -> None:
    run, out = article
    decision, holds, path = out.splitlines()
    assert holds.startswith("The pick holds until price of")
    assert decision.startswith("ministral-3-3b-2xh100 (") and "The next best is " in decision
    assert path == f"{run}/report.html" and (run / "report.html").stat().st_size > 10_000
    for stem in artifacts.NOTEBOOKS.values():
        cells = nbformat.read(run / f"{stem}.ipynb", 4).cells
        assert all(c.execution_count for c in cells if c.cell_type == "code" and c.source)


def test_the_article_decides_as_the_article_does(article: tuple[Path, str]) -> None:
    table = artifacts.load(article[0], "06_tradeoffs").set_index("deployment")
    assert table["dollars"].to_dict() == {
        "deepseek-v3.2-8xgb200": "$$$",
        "qwen3-next-80b-4xh200": "$$",
        "ministral-3-3b-2xh100": "$",
    }
    assert table.index[table["pick"]].tolist() == ["ministral-3-3b-2xh100"]
    assert json.loads((article[0] / "06_decision.json").read_text())["pick"]


def test_goes_on_from_a_later_step(article: tuple[Path, str], env: dict[str, str]) -> None:
    before = (article[0] / "01_legal_filter.ipynb").read_bytes()
    done = playbook(
        *("article", "--run-dir", str(article[0]), "--from", "06", "-p", "objective", "best"),
        env=env,
    )
    assert done.returncode == 0, done.stderr
    assert "05 05_measure_speed: reused" in done.stderr
    assert (article[0] / "01_legal_filter.ipynb").read_bytes() == before
    table = artifacts.load(article[0], "06_tradeoffs").set_index("deployment")
    assert table.index[table["pick"]].tolist() == ["deepseek-v3.2-8xgb200"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["article", "-p", "lisences", "mit"], r"no notebook has a parameter 'lisences'.*licenses"),
        (["article", "-p", "xyzzy", "1"], "no notebook has a parameter 'xyzzy'; known: "),
        (["article", "-p", "run_dir", "x"], "no notebook has a parameter 'run_dir'"),
        (["article", "-p", "concurrency", "many"], "'concurrency' must be int, not 'many'"),
        (["article", "-p", "concurrency", "1.5"], "'concurrency' must be int, not '1.5'"),
        (["article", "-p", "timeout_s", "[1"], "'timeout_s' must be float, not"),
        (["article", "--from", "7"], "--from '07' is not a step"),
        (["article", "--from", "07"], "--from '07' is not a step; choose one of 01, 02"),
        (["article", "--from", "six"], "--from 'six' is not a step"),
        (["article", "-p", "use", "x", "-p", "use", "y"], "-p use is given twice"),
        (["article", "-p", "tier", "low", "--from", "04"], "'tier' is of step 02: run with --from"),
        (["artcile"], "no project 'artcile'.*did you mean 'article'"),
        (["no/such.yaml"], "no/such.yaml: no such brief"),
    ],
)
def test_refuses_before_anything_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    from lib.__main__ import main

    monkeypatch.setenv("PLAYBOOK_RUNS", str(tmp_path))
    monkeypatch.setattr(pipeline.papermill, "execute_notebook", None)
    assert main(["run", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    with pytest.raises(PlaybookError, match=sentence):
        raise PlaybookError(err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("start", "file"), [("02", "01_legal.parquet"), ("06", "01_legal.parquet")]
)
def test_from_without_artefacts_names_the_missing_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str, file: str
) -> None:
    monkeypatch.setenv("PLAYBOOK_RUNS", str(tmp_path))
    with pytest.raises(PlaybookError, match=rf"{file} is missing in .*/article, .*--from 01"):
        pipeline.run("article", start=start, progress=False)


@pytest.mark.parametrize(("text", "value"), [("1", 1.0), ("1.5", 1.5), ("1e-3", 0.001), ("0", 0.0)])
def test_numbers_reach_a_notebook_in_its_type(text: str, value: float) -> None:
    declared = pipeline.declared_parameters()
    given = pipeline._typed({"timeout_s": text, "use": "1"}, declared)
    assert given == {"timeout_s": value, "use": "1"}
    assert type(given["timeout_s"]) is float


def test_a_parameter_reaches_only_the_notebooks_that_declare_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: dict[str, dict[str, object]] = {}

    def execute(path: str, out: str, parameters: dict[str, object], **_: object) -> None:
        passed[Path(path).name[:2]] = parameters

    monkeypatch.setenv("PLAYBOOK_RUNS", str(tmp_path))
    monkeypatch.setattr(pipeline.papermill, "execute_notebook", execute)
    parameters = {"use": "internal", "max_p95_s": "3", "timeout_s": "9"}
    pipeline.run("article", parameters=parameters, progress=False)
    own = {n: {k: v for k, v in p.items() if k in parameters} for n, p in passed.items()}
    assert own == {
        "01": {"use": "internal"},
        "02": {},
        "03": {"timeout_s": 9.0},
        "04": {"timeout_s": 9.0},
        "05": {"max_p95_s": 3.0},
        "06": {"max_p95_s": 3.0},
    }
    assert {p["project"] for p in passed.values()} == {"article"}
    assert {p["run_dir"] for p in passed.values()} == {str(tmp_path / "article")}


def test_a_brief_is_relative_to_the_caller_and_a_name_is_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_brief(tmp_path / "briefs")
    passed: list[object] = []
    monkeypatch.setenv("PLAYBOOK_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(
        pipeline.papermill, "execute_notebook", lambda *a, **_: passed.append(a[2]["project"])
    )
    monkeypatch.chdir(folder)
    (folder / "article").mkdir()
    for given, expected in (
        ("tiny.yaml", str(folder / "tiny.yaml")),
        ("./tiny.yaml", str(folder / "tiny.yaml")),
        ("article", "article"),
    ):
        passed.clear()
        pipeline.run(given, progress=False)
        assert set(passed) == {expected}


def test_a_broken_brief_is_one_sentence(tmp_path: Path, env: dict[str, str]) -> None:
    folder = write_brief(tmp_path / "briefs", BRIEF.replace("tier:", "teir:"))
    sentence = said(playbook("tiny.yaml", env=env, cwd=folder))
    assert "did you mean 'tier'" in sentence


def test_the_first_failing_notebook_stops_the_run(stopped: tuple[Path, str]) -> None:
    run, sentence = stopped
    assert sentence.startswith("error: 04_evaluate, cell ")
    assert "is in use" in sentence and "04_evaluate.ipynb" in sentence
    names = {path.name for path in run.iterdir()}
    assert "03_metadata.parquet" in names and "04_evaluate.ipynb" in names
    assert "05_measure_speed.ipynb" not in names


def test_an_unset_key_is_the_sentence_of_the_run(
    tmp_path: Path, env: dict[str, str], from_04: list[str]
) -> None:
    keyed = BRIEF.replace('/v1"', '/v1", api_key_env: NO_SUCH_KEY')
    folder = write_brief(tmp_path / "briefs", keyed)
    sentence = said(playbook(*from_04, env=env, cwd=folder))
    assert "'d': the environment variable NO_SUCH_KEY is not set" in sentence


def test_a_refused_key_reaches_no_file_of_the_run(
    tmp_path: Path, env: dict[str, str], from_04: list[str]
) -> None:
    key = "sk-very-secret-0123456789"

    def refuse(request: openai_stub.Request) -> openai_stub.Reply:
        return openai_stub.error(401, f"{request.headers['authorization']} is wrong")

    with openai_stub.running(refuse) as stub:
        url = f'{stub.url}", api_key_env: SOME_KEY'
        folder = write_brief(tmp_path / "briefs", BRIEF.replace('http://127.0.0.1:9/v1"', url))
        done = playbook(*from_04, env=env | {"SOME_KEY": key}, cwd=folder)
    sentence = said(done)
    assert "SOME_KEY" in sentence and "401" in sentence and key not in done.stderr
    for path in (tmp_path / "runs").rglob("*"):
        assert path.is_dir() or key.encode() not in path.read_bytes(), path


def test_papermill_alone_works_from_another_folder(tmp_path: Path, env: dict[str, str]) -> None:
    caller = tmp_path / "caller"
    caller.mkdir()
    notebook = artifacts.ROOT / "notebooks" / "01_legal_filter.ipynb"
    command = [sys.executable, "-m", "papermill", str(notebook), "out.ipynb"]
    command += ["-p", "project", "review-sentiment", "--no-progress-bar"]
    done = subprocess.run(command, env=env, cwd=caller, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in caller.iterdir()] == ["out.ipynb"]
    assert (tmp_path / "runs" / "review-sentiment" / "01_legal.parquet").exists()


@contextlib.contextmanager
def in_step_4(
    folder: Path, env: dict[str, str], arguments: list[str]
) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A run whose kernel asks an endpoint that never answers, and its child processes."""
    with openai_stub.running(openai_stub.HANG) as stub:
        write_brief(folder, BRIEF.replace("http://127.0.0.1:9/v1", stub.url))
        child = subprocess.Popen(
            [sys.executable, "-m", "lib", "run", *arguments],
            env=env, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
            # Tests that run in the background inherit that Ctrl-C is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        while not stub.requests and child.poll() is None:
            time.sleep(0.05)
        kernels = psutil.Process(child.pid).children(recursive=True)
        assert kernels, child.communicate()
        yield child, kernels


def test_ctrl_c_is_one_line_and_leaves_no_kernel(
    tmp_path: Path, env: dict[str, str], from_04: list[str]
) -> None:
    with in_step_4(tmp_path / "briefs", env, [*from_04, "--quiet"]) as (child, kernels):
        child.send_signal(signal.SIGINT)
        out, err = child.communicate()
    assert child.returncode == 130 and out == ""
    assert err == "stopped; what was measured is kept, the same command goes on from there\n"
    assert psutil.wait_procs(kernels, timeout=600)[1] == []


def test_a_kernel_that_dies_is_one_sentence(
    tmp_path: Path, env: dict[str, str], from_04: list[str]
) -> None:
    with in_step_4(tmp_path / "briefs", env, from_04) as (child, kernels):
        for kernel in kernels:
            kernel.kill()
        out, err = child.communicate()
    sentence = said(subprocess.CompletedProcess([], child.returncode, out, err))
    assert "kernel died" in sentence


HOSTILE = "a\x1b[2J\rThe pick is b\u202e\x9b1m"


def test_a_terminal_obeys_nothing_that_stands_in_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names, slices and endpoints' words, in whatever a command prints."""
    row = {"deployment": HOSTILE, "repo_id": HOSTILE, "why": HOSTILE}
    record = {
        "summary": HOSTILE, "sentences": [HOSTILE], "runner_up": row, "not_asked": [row],
        "outcome": "picked",
    }  # fmt: skip
    (tmp_path / "06_decision.json").write_text(json.dumps(record))
    monkeypatch.setenv("PLAYBOOK_RUNS", str(tmp_path))
    monkeypatch.setattr(pipeline, "run", lambda *_, **__: tmp_path)
    fleet_row = {"project": HOSTILE, "outcome": "error", "page": "", "says": HOSTILE}
    monkeypatch.setattr(fleet, "run", lambda *_, **__: [fleet_row])
    monkeypatch.setattr(verify, "verify", lambda *_, **__: (10, [HOSTILE]))
    monkeypatch.setattr(verify, "diff", lambda *_: [HOSTILE])
    frame = pd.DataFrame([{"deployment": HOSTILE, "works": HOSTILE}])
    monkeypatch.setattr(preflight, "check", lambda _: (frame, []))
    monkeypatch.setattr(preflight, "notes", lambda _: [HOSTILE])
    for line in ("run x", "fleet x", "verify x", "diff x y", "check article"):
        cli.main(line.split())
        printed = capsys.readouterr()
        assert "The pick is b" in printed.out, line
        assert all(c.isprintable() or c == "\n" for c in printed.out + printed.err), line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\rcalls:  10%|█ ", "\rcalls:  10%|█ "),
        ("\rcalls:  10%\rcalls: 20%\ndone\n", "\rcalls:  10%\rcalls: 20%\ndone\n"),
        (f"slice {HOSTILE}\n", "slice a\\u001b[2J\\u000dThe pick is b\\u202e\\u009b1m\n"),
    ],
)
def test_of_what_a_notebook_prints_a_terminal_obeys_a_bar_alone(
    text: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline._Terminal().write(text)
    assert capsys.readouterr().err == shown
