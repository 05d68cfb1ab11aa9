"""The run directory: whole files or none, nothing damaged is read, and what to run is said."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from filelock import FileLock

from lib import artifacts
from lib.artifacts import COLUMNS, ROOT, load, run_directory, save, save_json
from lib.errors import PlaybookError

NAME = "05_capacity"


def table(value: float = 2.0) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "deployment": ["a", "é"],
            "max_rps": [value, float("nan")],
            "low": [1, 2],
            "high": [True, False],
            "basis": pd.Series(["measured here", None], dtype="str"),
        }
    )


def full_disk(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, refuse)


def test_a_table_comes_back_as_it_was(tmp_path: Path) -> None:
    save(table(), tmp_path, NAME)
    pd.testing.assert_frame_equal(load(tmp_path, NAME), table())
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert list(manifest["files"]) == ["05_capacity.parquet"]
    entry = manifest["files"]["05_capacity.parquet"]
    assert entry["rows"] == 2
    assert artifacts.inputs(tmp_path) == {"05_capacity.parquet": entry["sha256"]}
    (tmp_path / "plain").touch()  # a colleague may read what the user's other files let read
    modes = {(tmp_path / name).stat().st_mode for name in ("plain", "05_capacity.parquet")}
    assert len(modes) == 1


def test_a_document_is_plain_json(tmp_path: Path) -> None:
    value = {"b": [1, None, "é"], "a": {"x": 0.1}}
    save_json(value, tmp_path, "06_decision.json")
    text = (tmp_path / "06_decision.json").read_text(encoding="utf-8")
    assert json.loads(text) == value and "é" in text


@pytest.mark.parametrize("name", list(COLUMNS))
def test_every_column_of_the_contract_is_wanted(tmp_path: Path, name: str) -> None:
    columns = COLUMNS[name].split()
    for lacking in columns:
        partial = pd.DataFrame({c: ["x"] for c in columns if c != lacking})
        with pytest.raises(
            PlaybookError, match=f"^{name}.parquet would lack the column '{lacking}'$"
        ):
            save(partial, tmp_path, name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "notebook"),
    [
        ("01_legal", "01_legal_filter"),
        ("02_shortlist", "02_size_shortlist"),
        ("03_metadata", "03_hub_metadata"),
        ("04_scores", "04_evaluate"),
        ("05_speed", "05_measure_speed"),
        ("06_tradeoffs", "06_tradeoffs"),
    ],
)
def test_a_missing_table_names_notebook_and_folder(
    tmp_path: Path, file: str, notebook: str
) -> None:
    message = f"{file}.parquet is missing in {tmp_path}; run notebooks/{notebook}.ipynb first"
    with pytest.raises(PlaybookError, match=f"^{re.escape(message)}$"):
        load(tmp_path, file)


def damaged(tmp_path: Path, content: bytes) -> None:
    save(table(), tmp_path, NAME)
    (tmp_path / f"{NAME}.parquet").write_bytes(content)
    with pytest.raises(
        PlaybookError,
        match=r"05_capacity\.parquet is damaged or was edited; run notebooks/05_measure_speed\.ipy",
    ):
        load(tmp_path, NAME)


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    save(table(), tmp_path, NAME)
    content = (tmp_path / f"{NAME}.parquet").read_bytes()
    for length in (0, 1, len(content) // 2, len(content) - 1):
        damaged(tmp_path, content[:length])


def test_edited_files_are_refused(tmp_path: Path) -> None:
    edited = tmp_path / "edited.parquet"
    table(99.0).to_parquet(edited)
    damaged(tmp_path, edited.read_bytes())


@pytest.mark.parametrize(
    "manifest", ["", "{", "[]", "null", '{"files": 1}', '{"files": {"x": 1}}', "\x00", '"text"']
)
def test_a_damaged_manifest_is_told_and_mended(tmp_path: Path, manifest: str) -> None:
    save(table(), tmp_path, NAME)
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(
        PlaybookError,
        match=r"manifest\.json does not know 05_capacity\.parquet; run notebooks/05_measure_speed",
    ):
        load(tmp_path, NAME)
    save(table(3.0), tmp_path, NAME)
    assert load(tmp_path, NAME)["max_rps"].iloc[0] == 3.0


def test_a_removed_manifest_is_told(tmp_path: Path) -> None:
    assert artifacts.inputs(tmp_path) == {}
    save(table(), tmp_path, NAME)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(PlaybookError, match=r"manifest\.json does not know 05_capacity\.parquet"):
        load(tmp_path, NAME)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    save(table(1.0), tmp_path, NAME)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        full_disk(patch, call)
        with pytest.raises(
            PlaybookError,
            match=r"05_capacity\.parquet: cannot write: No space left on device; what was measured",
        ):
            save(table(2.0), tmp_path, NAME)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert load(tmp_path, NAME)["max_rps"].iloc[0] == 1.0


def test_a_disk_that_is_really_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drafts: list[Path] = []

    def full(draft: Path, mode: str) -> Any:
        drafts.append(draft)
        draft.symlink_to("/dev/full")
        return open(draft, mode)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(PlaybookError, match=r"x\.bin: cannot write: No space left on device"):
        artifacts.write_bytes(tmp_path / "x.bin", b"content")
    assert len(drafts) == 1 and list(tmp_path.iterdir()) == []


def test_a_kill_in_the_middle_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts.write_bytes(tmp_path / "x", b"old")

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        artifacts.write_bytes(tmp_path / "x", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_replacing_is_atomic(tmp_path: Path) -> None:
    path = tmp_path / "x"
    artifacts.write_bytes(path, b"old")
    with path.open("rb") as reader:
        artifacts.write_bytes(path, b"new")
        assert reader.read() == b"old"  # another file took the name; this one is untouched
    assert path.read_bytes() == b"new"


def test_a_stuck_lock_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def at_once(path: Path, timeout: float) -> FileLock:
        return FileLock(path, timeout=0)

    monkeypatch.setattr(artifacts, "FileLock", at_once)
    with FileLock(tmp_path / ".manifest.json.lock"):
        with pytest.raises(PlaybookError, match=r"manifest\.json is being written by another"):
            save(table(), tmp_path, NAME)


def test_two_tables_share_the_manifest(tmp_path: Path) -> None:
    save(table(), tmp_path, NAME)
    save_json([], tmp_path, "06_decision.json")
    assert set(artifacts.inputs(tmp_path)) == {"05_capacity.parquet", "06_decision.json"}
    load(tmp_path, NAME)


def test_where_a_run_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PLAYBOOK_RUNS", raising=False)
    assert artifacts.runs_root() == ROOT / "runs"
    monkeypatch.setenv("PLAYBOOK_RUNS", str(tmp_path / "elsewhere"))
    assert run_directory("tiny") == tmp_path / "elsewhere" / "tiny"
    assert (tmp_path / "elsewhere" / "tiny").is_dir()
    assert run_directory("tiny", str(tmp_path / "own")) == tmp_path / "own"
    monkeypatch.setenv("PLAYBOOK_RUNS", "")
    assert artifacts.runs_root() == ROOT / "runs"


def test_relative_folders_hang_off_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    repository = tmp_path / "repository"
    monkeypatch.setattr(artifacts, "ROOT", repository)
    assert run_directory("tiny", "runs/x") == repository / "runs" / "x"
    monkeypatch.setenv("PLAYBOOK_RUNS", "scratch")
    assert run_directory("tiny") == repository / "scratch" / "tiny"
    assert [path.name for path in tmp_path.iterdir()] == ["repository"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PlaybookError, match=r"file/run: cannot write: Not a directory"):
        run_directory("tiny", str(tmp_path / "file" / "run"))


def test_paths_are_shown_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAYBOOK_RUNS", str(tmp_path))
    assert artifacts.path_name(tmp_path / "tiny" / "x") == f"{tmp_path}/tiny/x"
    assert artifacts.path_name(ROOT / "runs" / "tiny" / "x") == "runs/tiny/x"
    assert artifacts.path_name(ROOT / "data" / "x") == "data/x"
    assert artifacts.path_name(Path("/elsewhere/x")) == "/elsewhere/x"
