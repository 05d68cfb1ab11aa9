"""The notebook contract, one test a rule."""

from __future__ import annotations

import ast
import json
import re
import statistics
from pathlib import Path
from typing import Any

import papermill
import pytest

ROOT = Path(__file__).resolve().parents[1]
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
Notebook = dict[str, Any]


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture
def notebook(path: Path) -> Notebook:
    loaded: Notebook = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def code_cells(notebook: Notebook) -> list[Notebook]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def source(cell: Notebook) -> str:
    return "".join(cell["source"])


def lines(cell: Notebook) -> list[str]:
    return [line for line in source(cell).splitlines() if line.strip()]


def test_six_steps_in_order() -> None:
    steps = ["01_legal_filter", "02_size_shortlist", "03_hub_metadata"]
    steps += ["04_evaluate", "05_measure_speed", "06_tradeoffs"]
    assert [path.stem for path in PATHS] == steps


def test_first_cell_tells_what_it_is(path: Path, notebook: Notebook) -> None:
    text = source(notebook["cells"][0])
    assert re.match(rf"# {int(path.stem[:2])} · \w+", text)
    assert "?" in text.split("| |")[0], "the question it answers"
    for row in ("**Reads**", "**Writes**", "**Next**"):
        assert row in text
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (path.parent / link).exists(), link


def test_parameters_are_annotated_literals(path: Path, notebook: Notebook) -> None:
    tagged = [c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", [])]
    assert tagged == [notebook["cells"][1]]
    body = ast.parse(source(tagged[0])).body
    assert 2 <= len(body) <= 8
    for statement in body:
        assert isinstance(statement, ast.AnnAssign)
        assert isinstance(statement.value, ast.Constant)
        assert not isinstance(statement.value.value, bool)
    known = papermill.inspect_notebook(str(path))
    assert known["project"]["default"] == '"review-sentiment"'
    assert known["run_dir"]["default"] == '""'
    for facts in known.values():
        assert facts["help"] and facts["inferred_type_name"] in {"str", "int", "float"}


def test_third_cell_holds_all_imports(notebook: Notebook) -> None:
    assert "import" in source(notebook["cells"][2])
    for cell in code_cells(notebook):
        text = source(cell)
        if cell is not notebook["cells"][2]:
            assert not re.search(r"^\s*(import|from) ", text, re.M)
        assert not re.search(r"import \*|^\s*[%!]|sys\.path|chdir|^\s*(def|class) ", text, re.M)


def test_cells_are_small_and_few(notebook: Notebook) -> None:
    sizes = [len(lines(cell)) for cell in code_cells(notebook)]
    assert len(notebook["cells"]) <= 30
    assert statistics.median(sizes) <= 5
    assert max(sizes) <= 12


def test_prose_before_results(notebook: Notebook) -> None:
    prose = [cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    assert len(prose) >= len(code_cells(notebook)) * 0.6
    for cell in prose[1:]:
        text = [line for line in cell["source"] if not line.startswith("|")]
        assert len(" ".join(text).split()) <= 80


def test_outputs_are_from_a_fresh_kernel(notebook: Notebook) -> None:
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    for cell in cells:
        assert "execution" not in cell["metadata"], "timings"
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            assert output.get("name") != "stderr"


def test_outputs_hold_no_machine(notebook: Notebook) -> None:
    for cell in code_cells(notebook):
        texts = [
            json.dumps({k: v for k, v in o.get("data", o).items() if not k.startswith("image")})
            for o in cell["outputs"]
        ]
        for text in texts:
            assert not re.search(r"/(root|home|tmp|Users|work|workspace|builds)/", text)
            assert not re.search(r"0x[0-9a-f]{8,}|\d\.\d{9}", text)


def texts(cell: Notebook, kind: str = "text/plain") -> list[str]:
    """What a cell shows, output by output."""
    return ["".join(o.get("data", {}).get(kind, o.get("text", ""))) for o in cell["outputs"]]


def test_result_cell_is_compared(notebook: Notebook) -> None:
    last = code_cells(notebook)[-1]
    assert "nbval-ignore-output" not in last["metadata"].get("tags", [])
    assert last["outputs"] and len(texts(last)[-1].splitlines()) <= 2


def test_every_section_ends_with_a_sentence(notebook: Notebook) -> None:
    sections: list[list[Notebook]] = []
    for cell in notebook["cells"]:
        if source(cell).startswith("## "):
            sections.append([])
        elif cell["cell_type"] == "code" and sections and cell["outputs"]:
            sections[-1].append(cell)
    assert len(sections) >= 6 and all(sections)
    for cells in sections:
        assert re.search(r"<p><b>.+\.</b></p>$", texts(cells[-1], "text/html")[-1])


def test_no_console_in_the_outputs(notebook: Notebook) -> None:
    for cell in code_cells(notebook):
        assert "print(" not in source(cell)
        for output in cell["outputs"]:
            assert output["output_type"] in ("display_data", "execute_result"), output
            kinds = set(output["data"])
            assert kinds in ({"text/plain", "text/html"}, {"text/plain", "image/png"}), kinds
        for text in texts(cell):
            assert not re.search(r"\b(nan|NaN|NaT|None|<NA>|Name:|dtype:|Empty DataFrame)\b", text)
            assert not re.search(r"\{'|\['|': |^ *\d+ {2,}\S", text, re.M), "dictionary, row number"
    assert "widgets" not in notebook["metadata"]


def test_tables_are_for_people(notebook: Notebook) -> None:
    tables = [h for c in code_cells(notebook) for h in texts(c, "text/html") if "<table>" in h]
    assert len(tables) >= 3
    for table in tables:
        heads, rows = re.findall(r"<th[^>]*>(.*?)</th>", table), table.count("<tr>") - 1
        assert 1 <= rows <= 12 and len(heads) == len(set(heads))
        assert not any(re.search("[a-z]_[a-z]", head) for head in heads), heads
        numbers = re.findall(r'align="right"[^>]*>([^<]*)</td>', table)
        assert all(re.fullmatch(r"(-?[\d,]+(\.\d+)?)?", number) for number in numbers), numbers
        assert all(len(n.split(".")[-1].lstrip("0")) <= 3 for n in numbers if "." in n), numbers


def test_every_plot_is_committed(notebook: Notebook) -> None:
    for cell in code_cells(notebook):
        if re.search(r"^(fig|display\(fig\))$|pages\.(verdicts_|quality_by)", source(cell), re.M):
            assert any("image/png" in output.get("data", {}) for output in cell["outputs"])
