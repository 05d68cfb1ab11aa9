"""Tables as CSV files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lib.pages.page import export_csv


def test_files_are_written_and_no_cell_is_a_formula(tmp_path: Path) -> None:
    outputs = ["positive", "=cmd|' /C calc'!A1", "-1", "a\0b", None]
    table = pd.DataFrame({"deployment": "a", "output": outputs, "latency_s": -0.1})
    scores = pd.DataFrame({"deployment": ["a", "+b"], "value": [0.5, 1 / 3]})
    paths = export_csv(tmp_path, table, scores)
    names = [str(path.relative_to(tmp_path / "exports")) for path in paths]
    assert names == ["scores.csv", "answers.csv"]
    back = pd.read_csv(paths[1], keep_default_na=False)
    written = ["positive", "'=cmd|' /C calc'!A1", "'-1", "a\ufffdb", ""]
    assert back["output"].tolist() == written and back["latency_s"].tolist() == [-0.1] * 5
    figures = pd.read_csv(paths[0])
    assert figures["value"].tolist() == scores["value"].tolist()
    assert figures["deployment"].tolist() == ["a", "'+b"]
