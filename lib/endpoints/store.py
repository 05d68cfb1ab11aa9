"""An append-only file of measurements: what is on disk is never asked again, also after a crash."""

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

Record = dict[str, Any]


def key_of(*parts: Any) -> str:
    """A stable key of anything JSON can say: the identity of a request or a probe."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:32]


def read_records(path: Path, wanted: Container[str] | None = None) -> dict[str, Record]:
    """The newest record of each `key`, of the `wanted` ones only, if given; half a line is none."""
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


@contextlib.contextmanager
def appending_records(path: Path, *, wait_s: float = 0) -> Iterator[Callable[[Record], None]]:
    """Hold the file alone (PlaybookError after `wait_s`), and yield a function that appends."""

    def append(record: Record) -> None:
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        content = text.encode(errors="replace")  # half of a surrogate pair is not text
        line = f"{zlib.crc32(content):08x} ".encode() + content + b"\n"
        with writing(path):
            if (written := stream.write(line)) < len(line):
                # The disk took a part: it must not spoil the next record.
                os.ftruncate(stream.fileno(), stream.tell() - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=wait_s)
    with contextlib.ExitStack() as stack:
        with writing(path):
            try:
                stack.enter_context(lock)
            except Timeout:
                busy = "is being written by another process; wait for it, or use another run_dir"
                raise PlaybookError(f"{shown(path)} {busy}") from None
            stream = stack.enter_context(path.open("a+b", buffering=0))
            end = stream.tell()
            if end and os.pread(stream.fileno(), 1, end - 1) != b"\n":
                stream.write(b"\n")  # a crash left half a line
        yield append
