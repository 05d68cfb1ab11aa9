"""A brief for stubs, asked in one line; also from the processes that tests start and kill."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from lib.brief.deployment import Price
from lib.brief.project import Project
from lib.evaluate import answers, steps

KEY = "sk-very-secret-0123456789"
IN, OUT = 1000.0, 2000.0  # dollars per million tokens


def brief(*endpoints: dict[str, Any], folder: Path = Path(), **evaluation: Any) -> Project:
    """A brief with one deployment per endpoint: a, b, …"""
    return Project.model_validate(
        {
            "name": "t",
            "task": "t",
            "policy": {},
            "size": {"tier": "low"},
            "evaluation": {
                "kind": "classification",
                "items": "items.jsonl",
                **({} if "kind" in evaluation else {"labels": ["positive", "negative"]}),
                "timeout_s": 600,
                "max_retries": 0,
                **evaluation,
            },
            "deployments": [
                {"name": name, "model": f"acme/{name}", "endpoint": endpoint, "hardware": "cpu-1"}
                for name, endpoint in zip("abc", endpoints, strict=False)
            ],
            "folder": folder,
        }
    )


def items(n: int = 20) -> pd.DataFrame:
    rows = [{"item_id": f"i{i}", "input": f"text {i}", "target": "positive"} for i in range(n)]
    return pd.DataFrame(rows)


def ask(project: Project, run: Path, table: pd.DataFrame | None = None) -> pd.DataFrame:
    table = items() if table is None else table
    return answers.ask(project, project.deployments, table, run, progress=False)


def outcomes(project: Project, asked: pd.DataFrame) -> dict[str, int]:
    return dict(Counter(steps.score(project, steps.Gathered(asked, None, {}), items())["outcome"]))


def priced(project: Project, *names: str, **price: Any) -> Project:
    """The brief with a token price on some of its deployments."""
    price = price or {"input_usd_per_million": IN, "output_usd_per_million": OUT}
    changed = [
        d.model_copy(update={"price": Price(**price)}) if not names or d.name in names else d
        for d in project.deployments
    ]
    return project.model_copy(update={"deployments": changed})


def assert_no_key(run: Path, *texts: str) -> None:
    for text in texts:
        assert KEY not in text
    for path in run.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path
