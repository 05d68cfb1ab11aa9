"""The Hub's raw answers on disk: one file a question, shared by all runs, written whole."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lib.artifacts import write_bytes
from lib.hub.http import MOST_BYTES, Failed, Session, Unreachable, host

__all__ = ["Entry", "fetch", "fresh", "path_of", "read", "write"]

Entry = dict[str, Any]
NOT_JSON = "the answer is not the Hub's JSON ({}): check proxy and HF_ENDPOINT"


def path_of(cache: Path, kind: str, name: str, revision: str = "") -> Path:
    """The file of one answer; `name` and `revision` must be known to be safe in a file name."""
    return cache / kind / f"{name.replace('/', '--')}{revision and '@' + revision}.json"


def fetch(
    session: Session,
    path: Path,
    url: str,
    params: dict[str, Any] | None = None,
    *,
    asked: str,
    max_age_days: float,
    bucket: str = "api",
    most_bytes: int = MOST_BYTES,
) -> Entry:
    """The kept answer where it is young enough, else the host's, which is kept.

    Returns:
        An entry as `read` gives it. Where the host does not answer, the kept one however old,
        with `missed` (no connection) or `problem` (a sentence) and the `code` of the refusal.
    """
    kept = read(path, asked, host(url))
    if fresh(kept, max_age_days):
        return kept
    etag = kept.get("etag")
    try:
        answer = session.get(
            url,
            params,
            bucket=bucket,
            etag=etag if isinstance(etag, str) else None,
            most_bytes=most_bytes,
        )
        body = kept["answer"] if answer.status == 304 else dict(json.loads(answer.body).items())
    except Unreachable:
        return kept | {"missed": True}
    except Failed as error:
        return (kept if error.passing else {}) | {"problem": str(error), "code": error.code}
    except Exception as error:  # whatever one answer breaks must not lose the other models
        return kept | {"problem": NOT_JSON.format(type(error).__name__)}
    return write(path, asked, host(url), body, answer.etag or etag)


def read(path: Path, asked: str, host: str) -> Entry:
    """A kept answer, or an empty mapping where it is missing, damaged or of another host.

    Returns:
        `asked host etag retrieved_at answer`, and `source`: `hub (cached <date>)`.
    """
    try:
        entry = json.loads(path.read_bytes())
        when = datetime.fromisoformat(entry["retrieved_at"])
        sound = when.tzinfo and isinstance(entry["answer"], dict | None)
        if sound and (entry["asked"], entry["host"]) == (asked, host):
            entry["source"] = f"hub (cached {when.date()})"
            return dict(entry)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        pass
    return {}


def fresh(entry: Entry, max_age_days: float) -> bool:
    """Whether an entry of `read` is there and young enough; one from the future is not."""
    if not entry:
        return False
    age = datetime.now(UTC) - datetime.fromisoformat(entry["retrieved_at"])
    return 0 <= age.total_seconds() <= max_age_days * 86400


def write(path: Path, asked: str, host: str, answer: object, etag: str | None) -> Entry:
    """Keep an answer, dated now, and return its entry with `source` `hub`."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entry = {"asked": asked, "host": host, "etag": etag, "retrieved_at": now, "answer": answer}
    write_bytes(path, json.dumps(entry).encode())
    return entry | {"source": "hub"}
