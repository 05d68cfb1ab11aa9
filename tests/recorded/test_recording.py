"""The recorded project: its notebooks are the shipped ones, and every cell of them is compared."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from recording import HERE, NOTEBOOKS, copied, place

from lib import endpoints, evaluate, speed
from lib.opening import open_project

AGAIN = "run `make notebooks`"


def test_every_shipped_notebook_has_a_copy() -> None:
    assert [p.name for p in sorted(HERE.glob("*.ipynb"))] == [p.name for p in NOTEBOOKS], AGAIN


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_copy_runs_the_same_code(path: Path) -> None:
    cells, expected = nbformat.read(HERE / path.name, 4).cells, copied(path).cells
    assert [cell.source for cell in cells] == [cell.source for cell in expected], AGAIN
    assert 'project: str = "project.yaml"' in cells[0].source
    assert all(cell.execution_count for cell in cells), AGAIN
    texts = [cell.source + str(cell.metadata) for cell in cells]
    assert not any("nbval" in text.lower() for text in texts), "an output would not be compared"


def test_every_kind_of_outcome_is_recorded(tmp_path: Path) -> None:
    """And nothing is asked: an endpoint that does not exist would have failed."""
    place(tmp_path)
    brief = open_project(HERE / "project.yaml")
    items, asked = evaluate.load_items(brief), brief.deployments[:4]
    gathered = evaluate.gather(brief, asked, items, tmp_path)
    scored = evaluate.score(brief, gathered, items)
    assert scored["outcome"].value_counts().to_dict() == {
        "answered": 236, "failed": 1, "truncated": 1, "refused": 1, "unparsed": 1,
    }  # fmt: skip
    sizes = [path.stat().st_size for path in sorted(tmp_path.glob("0*.jsonl"))]
    requests = speed.measure(brief, items, asked, tmp_path, progress=False)
    assert requests["deployment"].nunique() == 3
    assert [path.stat().st_size for path in sorted(tmp_path.glob("0*.jsonl"))] == sizes
    assert len(endpoints.read_records(tmp_path / endpoints.STORE)) == 180
