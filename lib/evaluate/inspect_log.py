"""Logs of Inspect as answers: `.eval` and `.json`, read without running anything.

Inspect is not needed to read one, except for its Zstandard, with which it compresses `.eval`.
Log format: https://inspect.aisi.org.uk/eval-logs.html
"""

from __future__ import annotations

import importlib
import json
import math
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from lib.artifacts import shown
from lib.brief.project import Deployment
from lib.errors import PlaybookError

__all__ = ["COLUMNS", "INSTALL", "members", "read_log"]

MAX_MEMBER_BYTES = 1 << 29  # a sample of half a gigabyte is no sample
COLUMNS = """deployment repo_id item_id group target output finish_reason error retries
    prompt_tokens completion_tokens latency_s cached input scorer graded answer detail""".split()
STOPS = {"max_tokens": "length", "model_length": "length", "content_filter": "content_filter"}
INSTALL = "run `pip install inspect-ai` in this environment"


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """The files inside an `.eval` log, one at a time: name and content.

    Raises:
        PlaybookError: It is no zip file, damaged, too large, or compressed with Zstandard where
            nothing can read that.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if any(info.compress_type == 93 for info in archive.infolist()):
                _learn_zstandard(path)
            for info in archive.infolist():
                if info.file_size > MAX_MEMBER_BYTES:
                    raise PlaybookError(f"{shown(path)}: {info.filename} is too large to read")
                yield info.filename, archive.read(info)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise PlaybookError(f"{shown(path)}: not a readable Inspect log: {error}") from None


def _learn_zstandard(path: Path) -> None:
    if sys.version_info >= (3, 14):
        return
    try:  # comes with inspect-ai; importing it teaches zipfile the method
        importlib.import_module("zipfile_zstd")
    except ImportError:
        raise PlaybookError(
            f"{shown(path)}: compressed with Zstandard; {INSTALL}, or make a copy with"
            " `inspect log convert --to json --output-dir . FILE`"
        ) from None


def read_log(
    path: Path,
    *,
    deployment: Deployment | None = None,
    metric: str | None = None,
    group: str | None = None,
) -> pd.DataFrame:
    """Read an Inspect log, `.eval` or `.json`, as answers; nothing is run.

    Args:
        path: The log.
        deployment: Whose answers these are; left out, the log's own model is named.
        metric: Which scorer counts, `name` or `name/key` where its value is a mapping; a metric
            such as `accuracy` names the one scorer that has it. Left out, it is the first.
        group: The field of the samples' metadata that says which belong together; without it
            the epochs of one sample do.

    Returns:
        One row per sample and epoch, as from `ask`; `attrs` hold `task`, `model`, `created`
        and `version`. A sample with an error, or without a score, is a failed call.

    Raises:
        PlaybookError: The file is no Inspect log, or one of a run that did not finish, or the
            metric is not in it.
    """
    where = shown(path)
    if not path.is_file():
        raise PlaybookError(f"{where}: no such file; name an Inspect log, .eval or .json")
    head: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    found: Iterator[dict[str, Any]]
    if not zipfile.is_zipfile(path):
        document = _json(_bytes(path), where)
        samples = document.pop("samples", None)
        head, found = document, iter(samples if isinstance(samples, list) else [])
    else:
        head = next((_json(c, where) for name, c in members(path) if name == "header.json"), {})
        found = (
            _json(content, f"{where} {name}")
            for name, content in members(path)
            if name.startswith("samples/") and name.endswith(".json")
        )
    spec = _dict(head.get("eval"))
    if not isinstance(spec.get("task"), str):
        raise PlaybookError(f"{where}: not an Inspect log: it names no task")
    if head.get("status") != "success":
        said = str(_dict(head.get("error")).get("message", ""))[:200]
        raise PlaybookError(
            f"{where}: this run of {spec['task']!r} did not finish (status"
            f" {head.get('status', 'started')!r}{': ' + said if said else ''});"
            " `inspect eval-retry` finishes it"
        )
    model = str(spec.get("model", ""))
    several = _dict(spec.get("config")).get("epochs") not in (None, 1)
    choice = _choice(head, metric, where)
    for sample in found:
        rows.append(_row(_dict(sample), model, choice, group, several))
    if not rows:
        raise PlaybookError(f"{where}: has no samples; it was written with --no-log-samples")
    # A log has the samples as they were done; the order of the data set is always the same.
    listed = [str(own) for own in _list(_dict(spec.get("dataset")).get("sample_ids"))]
    place = {own: at for at, own in enumerate(listed)}
    rows.sort(
        key=lambda row: (
            place.get(row["item_id"].rpartition("/")[0] if several else row["item_id"], len(place)),
            row["item_id"],
        )
    )
    frame = pd.DataFrame(rows)
    if (twice := frame["item_id"].duplicated()).any():
        raise PlaybookError(f"{where}: sample {frame.loc[twice, 'item_id'].iloc[0]!r} is twice")
    if choice and not (frame["scorer"] != "").any() and not (frame["error"] != "").all():
        raise PlaybookError(f"{where}: no sample has a score by {'/'.join(filter(None, choice))!r}")
    frame = frame.assign(
        deployment=deployment.name if deployment else model.rpartition("/")[2] or "log",
        repo_id=deployment.model if deployment else "/".join(model.split("/")[-2:]),
        cached=False,
    )[COLUMNS]
    versions = _dict(spec.get("packages"))
    frame.attrs |= {"task": spec["task"], "model": model, "created": str(spec.get("created", ""))}
    frame.attrs |= {"version": str(versions.get("inspect_ai", "unknown"))}
    return frame


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PlaybookError(f"{shown(path)}: cannot read: {error.strerror}") from None


def _json(content: bytes, where: str) -> dict[str, Any]:
    try:
        document = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise PlaybookError(f"{where}: not an Inspect log: {str(error)[:120]}") from None
    return _dict(document)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _choice(head: dict[str, Any], metric: str | None, where: str) -> tuple[str, str] | None:
    """The scorer that counts and, of a mapping, its key; None takes each sample's first."""
    spec, results = _dict(head.get("eval")), _dict(head.get("results"))
    scores = [_dict(s) for s in _list(results.get("scores"))]
    names = [str(_dict(s).get("name")) for s in _list(spec.get("scorers"))]
    names = list(dict.fromkeys([*names, *(str(s.get("scorer")) for s in scores)]))
    if metric is None:
        return (names[0], "") if names else None
    if metric in names:
        return metric, ""
    scorer, _, key = metric.rpartition("/")
    if scorer in names:
        return scorer, key
    keyed = {str(s.get("scorer")) for s in scores if s.get("name") == metric}
    owners = keyed or {str(s.get("scorer")) for s in scores if metric in _dict(s.get("metrics"))}
    if len(owners) == 1:
        return next(iter(owners)), metric if keyed else ""
    raise PlaybookError(
        f"{where}: evaluation.inspect.metric {metric!r} names no one scorer;"
        f" this log has {', '.join(names) or 'none'}"
    )


def _row(
    sample: dict[str, Any], model: str, choice: tuple[str, str] | None, group: str | None,
    several: bool,
) -> dict[str, Any]:  # fmt: skip
    output = _dict(sample.get("output"))
    first = _dict(next(iter(_list(output.get("choices"))), None))
    message = _dict(first.get("message"))
    own = str(sample.get("id", ""))
    scores = _dict(sample.get("scores"))
    name = choice[0] if choice else next(iter(scores), "")
    given = _dict(scores.get(name))
    value = given.get("value")
    if choice and choice[1]:
        value = _dict(value).get(choice[1])
    error = str(_dict(sample.get("error")).get("message") or "")
    if isinstance(value, float) and math.isnan(value):
        value = None
    if not error and value is None:
        error = f"the log has no score by {name or 'any scorer'}"
    said = str(output.get("completion") or "") or _text(message.get("content"))
    answer = given.get("answer")
    target, stop = sample.get("target"), str(first.get("stop_reason") or "")
    usage = _dict(_dict(sample.get("model_usage")).get(model)) or _dict(output.get("usage"))
    calls = [e for e in map(_dict, _list(sample.get("events"))) if e.get("event") == "model"]
    calls = [e for e in calls if e.get("model") == model and not e.get("role")]
    times = [_number(e.get("working_time")) for e in calls] or [_number(output.get("time"))]
    grouped = _dict(sample.get("metadata")).get(group) if group else own if several else ""
    return {
        "item_id": f"{own}/{sample.get('epoch', 1)}" if several else own,
        "group": "" if grouped is None else _plain(grouped),
        "target": json.dumps(target) if isinstance(target, list) else _plain(target),
        # An agent may do its task without a last word; its scorer has seen what it did.
        "output": said or ("" if value is None else _plain(answer) or "(no text)"),
        "finish_reason": STOPS.get(stop, stop),
        "error": " ".join(error.split())[-300:],  # Inspect puts the request first
        "retries": int(sum(_number(e.get("retries")) or 0 for e in calls)),
        "prompt_tokens": _tokens(usage, "input_tokens", "input_tokens_cache_read",
                                 "input_tokens_cache_write"),
        "completion_tokens": _tokens(usage, "output_tokens"),
        "latency_s": max((t for t in times if t is not None), default=None),
        "input": _text(sample.get("input")),
        "scorer": name if value is not None else "",
        "graded": "" if value is None else json.dumps(value, ensure_ascii=False)[:2000],
        "answer": _plain(answer),
        "detail": _plain(given.get("explanation"))[:2000],
    }  # fmt: skip


def _plain(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _text(content: Any) -> str:
    """Text of a message, of its parts, or of several messages."""
    if isinstance(content, list):
        parts = [_dict(part) for part in content]
        return "\n".join(filter(None, (_text(p.get("text", p.get("content"))) for p in parts)))
    return content if isinstance(content, str) else ""


def _number(value: Any) -> float | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if usable and math.isfinite(value) and value >= 0 else None


def _tokens(usage: dict[str, Any], *names: str) -> int | None:
    found = [n for name in names if (n := _number(usage.get(name))) is not None]
    return int(sum(found)) if found else None
