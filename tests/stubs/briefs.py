"""A small valid brief for the tests, and ways to spoil it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import yaml

from lib.brief import Project, Requirements, read_project
from lib.brief.sections import Speed
from lib.errors import PlaybookError, in_one_list
from lib.opening import open_project

BASE: dict[str, Any] = {
    "name": "tiny",
    "task": "Sort reviews",
    "policy": {"licenses": ["permissive"], "use": "product"},
    "size": {"tier": "low"},
    "evaluation": {
        "kind": "classification",
        "items": "items.jsonl",
        "labels": ["positive", "negative"],
    },
    "deployments": [
        {
            "name": "a",
            "model": "org/a",
            "endpoint": {"base_url": "https://host/v1", "api_key_env": "SOME_API_KEY"},
            "price": {"usd_per_hour": 3.6},
        },
        {
            "name": "b",
            "model": "org/b",
            "endpoint": {"embedded": "smollm2-135m", "threads": 2},
            "hardware": "cpu-2",
        },
    ],
}


def changed(where: str = "", value: Any = None, *, without: str = "") -> dict[str, Any]:
    """The base brief with one dotted key set (`deployments.0.name`) and one removed."""
    raw = copy.deepcopy(BASE)
    for dotted, remove in ((where, False), (without, True)):
        if not dotted:
            continue
        *path, last = (int(part) if part.isdigit() else part for part in dotted.split("."))
        place: Any = raw
        for part in path:
            place = place.setdefault(part, {}) if isinstance(place, dict) else place[part]
        if remove:
            del place[last]
        else:
            place[last] = value
    return raw


def write(folder: Path, raw: Any) -> Path:
    """Write a brief and return its path; text and bytes go to disk as they are."""
    path = folder / "project.yaml"
    if isinstance(raw, bytes):
        path.write_bytes(raw)
    else:
        path.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw), encoding="utf-8")
    return path


def brief(folder: Path, where: str = "", value: Any = None, *, without: str = "") -> Project:
    """The base brief with one change, validated."""
    return open_project(write(folder, changed(where, value, without=without)))


def load_project(project: str | Path, **overrides: Any) -> Project:
    """A brief by itself: what belongs to its kind of task is not checked."""
    brief, problems = read_project(project, **overrides)
    if problems:
        raise PlaybookError(f"{brief.file}: {in_one_list(problems)}")
    return brief


def bounded(slo_s: float, requests: int, *, budget_s: float = 1e6, **needs: Any) -> Project:
    """What a search for the capacity reads of a brief: its budget, and what counts as late."""
    spend = Speed(budget_s=budget_s, budget_requests=requests)
    return Project.model_construct(speed=spend, requirements=Requirements(max_p95_s=slo_s, **needs))


def write_items(folder: Path, *rows: Any) -> None:
    """Write items.jsonl; text and bytes go to disk as they are, anything else as JSON."""
    lines = [
        row
        if isinstance(row, bytes)
        else (row if isinstance(row, str) else json.dumps(row)).encode()
        for row in rows
    ]
    (folder / "items.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
