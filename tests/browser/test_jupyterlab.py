"""JupyterLab in a real browser: opened as `make lab PROJECT=…` does, each notebook by Run All.

Needs Debian's Chromium and Playwright, which `make test-all` installs. With `PLAYBOOK_SCREENSHOTS`
set to a folder, what a person would see is kept there.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from recording import HERE, place

from lib import artifacts

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed"),
    pytest.mark.skipif(not find_spec("playwright"), reason="playwright is not installed"),
]
ROOT = artifacts.ROOT
PATIENCE_S = 1800  # to end, not to measure
CELLS = """() => [...window.jupyterapp.shell.currentWidget.content.model.cells].map(c => c.toJSON())
  .map(c => ({...c, source: [c.source].flat().join("")}))"""
FIGURES = """() => [...document.querySelectorAll(".jp-Notebook .jp-OutputArea-output img")]
  .map(i => i.complete && i.naturalWidth)"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Path]]:
    """A running JupyterLab on the recorded project: its URL, token and the project's run."""
    runs, token = tmp_path_factory.mktemp("runs"), secrets.token_hex(16)
    place(runs / "recorded")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {f"JUPYTER_{name}_DIR": str(runs / name.lower()) for name in ("CONFIG", "RUNTIME")}
    env = os.environ | own | {"PLAYBOOK_RUNS": str(runs)}
    options = [f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}"]
    # The page then hands its application to scripts, as Jupyter's own browser tests have it.
    options += ["--no-browser", "--ip=127.0.0.1", "--LabApp.expose_app_in_browser=True"]
    command = [sys.executable, "-m", "lib", "lab", str(HERE / "project.yaml"), *options]
    with (runs / "lab.log").open("w") as log:
        server = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(server, f"{url}/api?token={token}", runs / "lab.log")
            yield url, token, runs / "recorded"
        finally:
            server.terminate()
            server.wait(60)


def wait_for(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    for _ in range(PATIENCE_S):
        assert server.poll() is None, log.read_text()
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=60):
            return
        time.sleep(1)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module")
def page(lab: tuple[str, str, Path]) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright  # an extra

    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(PATIENCE_S * 1000)
        yield page
        browser.close()


def keep(page: Any, name: str) -> None:
    if folder := os.environ.get("PLAYBOOK_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png")


def run_all(page: Any) -> list[dict[str, Any]]:
    """Run > Run All Cells by the mouse; the cells when the kernel has answered the last one."""
    page.locator(".jp-NotebookPanel:visible .jp-Cell").first.wait_for()
    page.wait_for_function(
        "() => window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status"
        " === 'idle'"
    )
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile("^Run$")).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Run All Cells$")).click()
    for _ in range(PATIENCE_S):
        cells: list[dict[str, Any]] = page.evaluate(CELLS)
        code = [cell for cell in cells if cell["cell_type"] == "code" and cell["source"].strip()]
        kinds = [out["output_type"] for cell in code for out in cell["outputs"]]
        if "error" in kinds or all(cell["execution_count"] for cell in code):
            # The last cell has its number when it begins; its output comes before the idle state.
            page.wait_for_function(
                "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status"
                " === 'idle'"
            )
            return page.evaluate(CELLS)
        page.wait_for_timeout(500)
    raise AssertionError("Run All did not end")


def shown_text(cell: dict[str, Any]) -> str:
    return "".join(
        "".join(output.get("data", {}).get("text/plain", "")) for output in cell["outputs"]
    )


@pytest.mark.parametrize("number", [*artifacts.NOTEBOOKS])
def test_run_all_shows_the_result_and_the_figures(
    lab: tuple[str, str, Path], page: Any, number: str
) -> None:
    url, token, _ = lab
    name = f"{artifacts.NOTEBOOKS[number]}.ipynb"
    page.goto(f"{url}/lab/tree/{name}?reset&token={token}")
    cells = run_all(page)
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    bad = [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert not bad, json.dumps(bad)[:2000]

    # The last cell says what it says where this project's outputs are committed, and the same
    # cells have figures as in the shipped notebooks: tests/recorded/ keeps none.
    mine = [cell for cell in cells if cell["cell_type"] == "code" and not injected(cell)]
    recorded, shipped = (code(folder / name) for folder in (HERE, ROOT / "notebooks"))
    assert shown_text(mine[-1]) == shown_text(recorded[-1]) != ""
    figures = [pictures(cell) for cell in mine]
    assert figures == [pictures(cell) for cell in shipped]

    # And all of it is drawn: scroll through the notebook, as a person would.
    drawn = 0
    for index, cell in enumerate(cells):
        page.evaluate(
            "i => window.jupyterapp.shell.currentWidget.content.scrollToItem(i, 'start')", index
        )
        if pictures(cell):
            page.wait_for_function(f"() => {{ const w = ({FIGURES})(); return w.some(x => x) }}")
            page.wait_for_timeout(300)
            assert all(width > 100 for width in page.evaluate(FIGURES))
            drawn += 1
            keep(page, f"{number}_figure_{drawn}")
    assert drawn == sum(map(bool, figures))
    last = page.locator(".jp-Notebook:visible .jp-CodeCell").last
    last.scroll_into_view_if_needed()
    text = last.locator(".jp-OutputArea-output").inner_text()
    assert text.strip() and "Traceback" not in text
    page.wait_for_timeout(300)
    keep(page, f"{number}_result")


def code(path: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def injected(cell: dict[str, Any]) -> bool:
    return "injected-parameters" in cell["metadata"].get("tags", [])


def pictures(cell: dict[str, Any]) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell.get("outputs", []))


def test_the_run_is_whole_afterwards(lab: tuple[str, str, Path]) -> None:
    _, _, run = lab
    decision = json.loads((run / "06_decision.json").read_text("utf-8"))
    assert decision["outcome"] == "picked" and (run / "report.html").exists()
