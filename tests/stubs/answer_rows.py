"""Answers as the runner leaves them, for the tests of scoring."""

from __future__ import annotations

from typing import Any

import pandas as pd
from scored import score_answers, summarise

from lib.brief.project import Project


def answers(*rows: dict[str, Any]) -> pd.DataFrame:
    """One answer per row, each a change of "positive" where "positive" is expected."""
    common = {
        "deployment": "a",
        "repo_id": "org/a",
        "group": "",
        "target": "positive",
        "output": "positive",
        "finish_reason": "stop",
        "error": "",
        "retries": 0,
    }
    return pd.DataFrame([common | {"item_id": f"i{i}"} | row for i, row in enumerate(rows)])


def scored_one(project: Project, **row: Any) -> dict[str, Any]:
    """The scored row of one answer; a missing score is None."""
    found = score_answers(project, answers(row)).iloc[0]
    return {k: None if pd.isna(v) else v for k, v in found.items()}


def metrics_of(project: Project, *rows: dict[str, Any]) -> pd.DataFrame:
    """The scores table of some answers, by metric."""
    scored = score_answers(project, answers(*rows))
    return summarise(project, scored).set_index("metric")
