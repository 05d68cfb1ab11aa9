"""Scores and answers as CSV files."""

from __future__ import annotations

from pathlib import Path

import briefs
import pandas as pd
import pytest
from scored import summarise

from lib.brief.project import Project
from lib.evaluate import export, steps


def scored(folder: Path) -> tuple[Project, pd.DataFrame, pd.DataFrame]:
    brief = briefs.brief(folder)
    rows = [
        {"deployment": name, "repo_id": f"org/{name}", "item_id": f"i{i}", "group": "",
         "target": "positive", "output": "=cmd|' /C calc'!A1" if i else "positive",
         "finish_reason": "stop", "error": "" if i < 3 else "timeout", "retries": 0,
         "prompt_tokens": 1, "completion_tokens": 1, "latency_s": 0.1, "cached": False}
        for name in ("a", "b") for i in range(4)
    ]  # fmt: skip
    table = steps.score_answers(brief, pd.DataFrame(rows))
    return brief, table, summarise(brief, table)


def test_files_are_written_and_no_cell_is_a_formula(tmp_path: Path) -> None:
    _, table, scores = scored(tmp_path)
    paths = export.write(tmp_path, table, scores)
    names = [str(path.relative_to(tmp_path / "exports")) for path in paths]
    assert names == ["scores.csv", "answers.csv"]
    back = pd.read_csv(tmp_path / "exports" / "answers.csv")
    assert back["output"].tolist()[:2] == ["positive", "'=cmd|' /C calc'!A1"]
    assert len(back) == len(table)
    figures = pd.read_csv(tmp_path / "exports" / "scores.csv")
    assert figures["value"].tolist() == pytest.approx(scores["value"].tolist())
