"""An append-only file of measurements: what is on disk is never asked again, also after a crash."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lib.artifacts import shown, writing
from lib.errors import PlaybookError

__all__ = ["appending", "key_of", "read"]

Record = dict[str, Any]


def key_of(*parts: Any) -> str:
    """A stable key of anything JSON can say: the identity of a request or a probe."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:32]


def _line(record: Record) -> bytes:
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    content = text.encode(errors="replace")  # half of a surrogate pair is not text
    return f"{zlib.crc32(content):08x} ".encode() + content + b"\n"


def read(path: Path, wanted: Container[str] | None = None) -> dict[str, Record]:
    """Return the records by their `key`, the newest of each; damaged lines are passed over.

    A line counts only if it is complete and its checksum holds, so a crash in the middle of
    a write costs that one record and nothing before it.

    Args:
        path: The file; none at all holds no records.
        wanted: Only these keys; the others take no memory.
    """
    records: dict[str, Record] = {}
    if not path.exists():
        return records
    with path.open("rb") as stream:
        for line in stream:
            checksum, _, text = line.rstrip(b"\n").partition(b" ")
            if line.endswith(b"\n") and checksum == f"{zlib.crc32(text):08x}".encode():
                record: Record = json.loads(text)
                if wanted is None or record["key"] in wanted:
                    records[record["key"]] = record
    return records


def _torn(path: Path) -> bool:
    """Whether the last line was not written to its end."""
    if not path.exists() or not path.stat().st_size:
        return False
    with path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read() != b"\n"


@contextlib.contextmanager
def appending(path: Path, *, wait_s: float = 0) -> Iterator[Callable[[Record], None]]:
    """Hold the file alone and yield a function that appends one record at once.

    Args:
        path: The file, made where it is missing.
        wait_s: How long to wait for another process that holds it.

    Raises:
        PlaybookError: Another process writes to the same run, or the disk refuses.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=wait_s)
    with writing(path):
        try:
            lock.acquire()
        except Timeout:
            raise PlaybookError(
                f"{shown(path)} is being written by another process;"
                " wait for it, or use another run_dir"
            ) from None
    try:
        with writing(path):
            torn = _torn(path)
            stream = path.open("ab", buffering=0)
        with stream:
            if torn:
                with writing(path):
                    stream.write(b"\n")

            def append(record: Record) -> None:
                line = _line(record)
                with writing(path):
                    if (written := stream.write(line)) < len(line):
                        # The disk took a part: it must not spoil the next record.
                        os.ftruncate(stream.fileno(), stream.tell() - written)
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            yield append
    finally:
        lock.release()
