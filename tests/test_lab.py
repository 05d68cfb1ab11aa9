"""`make lab PROJECT=name`: copies to step through, which runs and people share."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import papermill
import pytest

from lib import __main__, artifacts, pipeline

ROOT = artifacts.ROOT
Notebook = dict[str, Any]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLAYBOOK_RUNS", str(tmp_path))
    return tmp_path


def read(path: Path) -> Notebook:
    notebook: Notebook = json.loads(path.read_text("utf-8"))
    return notebook


def source(cell: Notebook) -> str:
    return "".join(cell["source"])


def edit(path: Path, text: str) -> None:
    notebook = read(path)
    notebook["cells"][-1]["source"] = text
    path.write_text(json.dumps(notebook), "utf-8")


def test_copies_have_their_parameters_and_no_outputs(runs: Path) -> None:
    folder, kept = pipeline.copy("article")
    assert (folder, kept) == (runs / "article", [])
    assert [path.stem for path in sorted(folder.glob("*.ipynb"))] == [*artifacts.NOTEBOOKS.values()]
    for number, committed in pipeline.PATHS.items():
        copied, cells = folder / committed.name, read(folder / committed.name)["cells"]
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
        injected = [cell for cell in cells if "injected-parameters" in cell["metadata"]["tags"]]
        assert source(injected[0]).splitlines()[1:] == [
            'project = "article"', f'run_dir = "{folder}"'
        ]  # fmt: skip
        assert len(cells) == len(read(committed)["cells"]) + 1
        assert pipeline.declared_parameters()[number].keys() == {
            *papermill.inspect_notebook(str(copied))
        }


def test_links_of_a_copy_lead_where_those_of_the_notebook_do(runs: Path) -> None:
    folder, _ = pipeline.copy("article")
    for committed in pipeline.PATHS.values():
        targets = [
            {
                (path.parent / link).resolve().relative_to(path.parent if up else ROOT)
                for cell in read(path)["cells"]
                for link in re.findall(r"\]\(([^)#:]+)\)", source(cell))
                if link.startswith("../") != up
            }
            for path in (committed, folder / committed.name)
            for up in (True, False)
        ]
        assert targets[:2] == targets[2:] and all((ROOT / path).exists() for path in targets[1])


def test_a_copy_that_is_there_is_kept(runs: Path) -> None:
    folder, _ = pipeline.copy("article")
    edit(folder / "04_evaluate.ipynb", "mine = 1")
    (folder / "02_size_shortlist.ipynb").unlink()
    again, kept = pipeline.copy("article")
    assert again == folder and len(kept) == 5 and folder / "04_evaluate.ipynb" in kept
    assert source(read(folder / "04_evaluate.ipynb")["cells"][-1]) == "mine = 1"


def test_copies_made_by_path_are_those_of_the_name(runs: Path) -> None:
    """As a fleet makes them."""
    path = artifacts.ROOT / "data" / "projects" / "article" / "project.yaml"
    folder, _ = pipeline.copy(str(path))
    assert pipeline.copy("article") == (folder, sorted(folder.glob("0*.ipynb")))
    assert pipeline.copy(str(path.parent))[0] == folder


def test_a_run_writes_the_same_files_and_sets_an_edited_one_aside(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executed = []
    monkeypatch.setattr(
        pipeline.papermill, "execute_notebook", lambda *paths, **_: executed.append(paths[:2])
    )
    folder, _ = pipeline.copy("article")
    edit(folder / "04_evaluate.ipynb", "mine = 1")
    (folder / "06_tradeoffs.ipynb").write_text('{"cut off', "utf-8")
    pipeline.run("article", progress=False)
    names = [path.name for path in pipeline.PATHS.values()]
    assert executed == [(str(folder / name), str(folder / name)) for name in names]
    assert [path.name for path in (folder / "previous").iterdir()] == ["04_evaluate.ipynb"]
    assert source(read(folder / "previous" / "04_evaluate.ipynb")["cells"][-1]) == "mine = 1"
    for name in names:
        assert source(read(folder / name)["cells"][-1]) != "mine = 1"
    pipeline.run("article", progress=False)
    assert source(read(folder / "previous" / "04_evaluate.ipynb")["cells"][-1]) == "mine = 1"


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[str]:
    """What JupyterLab is started with."""
    started: list[list[str]] = []
    monkeypatch.setattr(__main__.os, "execv", lambda _, command: started.append(command))
    assert __main__.main(["lab", *arguments]) == 0
    return started[0]


def test_lab_opens_the_repository_at_the_first_notebook(
    monkeypatch: pytest.MonkeyPatch, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = command(monkeypatch)
    assert {f"--ServerApp.root_dir={ROOT}", "--allow-root"} <= {*plain}
    assert plain[-1] == "--LabApp.default_url=/lab/tree/notebooks/01_legal_filter.ipynb"
    # Runs elsewhere are the root themselves: JupyterLab shows nothing above its root.
    own = command(monkeypatch, "article", "--ip=0.0.0.0", "--no-browser")
    assert f"--ServerApp.root_dir={runs / 'article'}" in own
    assert own[-3:] == [
        "--LabApp.default_url=/lab/tree/01_legal_filter.ipynb", "--ip=0.0.0.0", "--no-browser"
    ]  # fmt: skip
    assert capsys.readouterr().err == ""
    command(monkeypatch, "article")
    assert capsys.readouterr().err.count("is kept; delete it for a fresh copy") == 6


def test_a_project_nobody_knows_is_one_sentence(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert __main__.main(["lab", "artcile"]) == 1
    assert "did you mean 'article'" in capsys.readouterr().err


def test_a_bar_leaves_nothing_in_a_notebook(tmp_path: Path) -> None:
    lines = ["from lib.errors import bar", "with bar(2, 'models') as shown:", "    shown.update()"]
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "execution_count": None, "outputs": []}
    notebook = {"cells": [cell | {"source": "\n".join([*lines, "'done'"])}], "metadata": {}}
    path = tmp_path / "bar.ipynb"
    path.write_text(json.dumps(notebook | {"nbformat": 4, "nbformat_minor": 5}), "utf-8")
    environment = {k: v for k, v in os.environ.items() if k != "TQDM_DISABLE"}
    arguments = [str(path), str(path), "-k", "python3", "--no-progress-bar", "--log-output"]
    done = subprocess.run(
        [sys.executable, "-m", "papermill", *arguments],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "models: " in done.stderr  # it was there
    (output,) = read(path)["cells"][0]["outputs"]
    assert output["data"] == {"text/plain": ["'done'"]}
    assert "widgets" not in read(path)["metadata"]
