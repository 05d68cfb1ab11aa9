"""The append-only store: a crash at any byte costs one record at most, and nothing before it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lib.endpoints.store import appending_records, key_of, read_records
from lib.errors import PlaybookError

RECORDS = [{"key": "a", "n": 1}, {"key": "b", "text": "ü\n\u2028 x"}, {"key": "c", "n": None}]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "04_answers.jsonl"
    with appending_records(file) as append:
        for record in RECORDS:
            append(record)
    return file


def test_what_went_in_comes_out(path: Path) -> None:
    assert read_records(path) == {record["key"]: record for record in RECORDS}
    assert path.read_bytes().count(b"\n") == 3
    assert re.fullmatch(
        rb'[0-9a-f]{8} \{"key":"a","n":1\}\n', path.read_bytes().splitlines(True)[0]
    )


def test_no_file_is_no_records(tmp_path: Path) -> None:
    assert read_records(tmp_path / "none.jsonl") == {}


def test_a_kill_at_every_byte_of_the_last_record(path: Path) -> None:
    whole = path.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    for length in range(start, len(whole)):
        path.write_bytes(whole[:length])
        assert read_records(path) == {"a": RECORDS[0], "b": RECORDS[1]}, length
        with appending_records(path) as append:
            append({"key": "d"})
        after = read_records(path)
        # Where only the line's end was missing, the record is whole again.
        assert list(after) == (
            ["a", "b", "c", "d"] if length == len(whole) - 1 else ["a", "b", "d"]
        )


def test_a_killed_process_leaves_what_it_wrote(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    code = f"""
import os, signal
from pathlib import Path
from lib.endpoints.store import appending_records
with appending_records(Path({str(file)!r})) as append:
    append({{"key": "a"}})
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -9
    assert read_records(file) == {"a": {"key": "a"}}
    with appending_records(file) as append:
        append({"key": "b"})
    assert list(read_records(file)) == ["a", "b"]


def test_a_changed_byte_costs_its_line_only(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].replace(b"x", b"y") + lines[2])
    assert list(read_records(path)) == ["a", "c"]
    path.write_bytes(lines[0] + b"\n\n\xff\xfe garbage\nno checksum\n" + lines[2])
    assert list(read_records(path)) == ["a", "c"]


def test_the_newest_of_a_key_wins(path: Path) -> None:
    with appending_records(path) as append:
        append({"key": "a", "n": 2})
    assert read_records(path)["a"] == {"key": "a", "n": 2}
    assert len(read_records(path)) == 3


def test_a_record_is_on_disk_at_once(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    with appending_records(file) as append:
        append({"key": "a"})
        assert list(read_records(file)) == ["a"]


def test_two_writers_are_refused(path: Path) -> None:
    message = r"04_answers\.jsonl is being written by another process; wait for it, or use another"
    with appending_records(path):
        with pytest.raises(PlaybookError, match=message), appending_records(path):
            pass
    with appending_records(path) as append:  # free again
        append({"key": "d"})
    assert list(read_records(path)) == ["a", "b", "c", "d"]


def test_the_lock_is_freed_after_an_error(path: Path) -> None:
    with pytest.raises(ValueError, match="mine"), appending_records(path):
        raise ValueError("mine")
    with appending_records(path):
        pass


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.symlink_to("/dev/full")
    with appending_records(file) as append:
        with pytest.raises(PlaybookError, match=r"x\.jsonl: cannot write: No space left on device"):
            append({"key": "a"})


def test_a_disk_that_takes_a_part(tmp_path: Path) -> None:
    """A file size limit makes the kernel write the first half of a record, as a full disk does."""
    file = tmp_path / "x.jsonl"
    code = f"""
import resource, signal
from pathlib import Path
from lib.errors import PlaybookError
from lib.endpoints.store import appending_records
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with appending_records(Path({str(file)!r})) as append:
    append({{"key": "a"}})
    resource.setrlimit(resource.RLIMIT_FSIZE, (60, resource.RLIM_INFINITY))
    try:
        append({{"key": "b", "text": "x" * 100}})
    except PlaybookError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    append({{"key": "c"}})
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert "x.jsonl: cannot write: No space left on device" in done.stdout
    assert list(read_records(file)) == ["a", "c"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(PlaybookError, match="cannot write"), appending_records(file / "x.jsonl"):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_one_may_not_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with (
        pytest.raises(PlaybookError, match="cannot write"),
        appending_records(tmp_path / "x.jsonl"),
    ):
        pass


def test_half_a_surrogate_pair_does_not_stop_the_run(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    with appending_records(file) as append:
        append({"key": key_of("\ud83d"), "output": "good \ud83d"})
        append({"key": "b"})
    assert list(read_records(file).values()) == [
        {"key": key_of("\ud83d"), "output": "good ?"},
        {"key": "b"},
    ]


def test_keys_depend_on_content_only() -> None:
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert re.fullmatch("[0-9a-f]{32}", key_of("x"))
    different = [
        key_of(*parts) for parts in (["ab"], ["a", "b"], [["a", "b"]], ["a", 1], ["a", "1"])
    ]
    assert len(set(different)) == 5
