"""The pages in a real browser: hostile text stays text, nothing is asked for, all widths hold.

Eight candidates and a baseline, light, dark and printed. With `PLAYBOOK_SCREENSHOTS` set to a
folder, what a person would see is kept there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_report import EVIL, checks, decision, hostile, tradeoffs

from lib import pages
from lib.pages.style import svg

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed"),
    pytest.mark.skipif(not find_spec("playwright"), reason="playwright is not installed"),
]
NAMES = [f"candidate-{n}-with-a-long-name-on-8xh100" for n in range(8)] + ["closed-today"]
FOREIGN = """() => [...document.querySelectorAll("script,img,iframe,object,embed,form,link,base")]
  .map(e => e.outerHTML.slice(0, 80))"""
HANDLERS = """() => [...document.querySelectorAll("*")]
  .flatMap(e => [...e.attributes].map(a => a.name)).filter(name => name.startsWith("on"))"""
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright  # an extra

    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


def opened(browser: Any, path: Path, **options: Any) -> tuple[Any, list[str]]:
    """A page opened from a file, and all that it asked for besides or said in a dialog."""
    page, asked = browser.new_page(**options), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    page.goto(path.as_uri())
    page.wait_for_load_state("networkidle")
    assert asked.pop(0) == path.as_uri()
    return page, asked


def many(**texts: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Figures and checks of eight candidates and a baseline."""
    row = tradeoffs().iloc[0].to_dict()
    rows = [
        row | {"deployment": name, "quality": 0.7 + n / 40, "usd_per_1k": 0.01 * 2**n}
        | {"max_rps": 2.0 * (9 - n), "pick": n == 3, "qualifies": "yes" if n > 2 else "no"}
        | {"quality_low": 0.65 + n / 40, "quality_high": 0.75 + n / 40}
        for n, name in enumerate(NAMES)
    ]  # fmt: skip
    required = pd.concat([checks().head(2).assign(deployment=name) for name in NAMES])
    columns = [name for name in ("why", "basis", "hardware", "repo_id", "note") if texts]
    table = pd.DataFrame(rows)
    for column in columns:
        if column in table:
            table[column] = texts["text"]
    return table, required.assign(**({"note": texts["text"]} if texts else {}))


def report(folder: Path, text: str = "") -> Path:
    table, required = many(**({"text": text} if text else {}))
    record = decision(pick=decision()["pick"] | {"deployment": NAMES[3]})
    if text:
        record = hostile(record, text)
        record["outcome"], record["pick"]["deployment"] = "picked", NAMES[3]
    caption = text or "review-sentiment: 200 items; measured here"
    words = {"metric": text or "accuracy", "caption": caption, "requirements": {"min_quality": 0.8}}
    figures = {
        "cost_quality": pages.quality_against("cost", table, **words),
        "cost_per_correct": pages.cost_per_correct(table, caption=caption),
    }
    drawn = {name: svg(figure, name) for name, figure in figures.items()}
    path = folder / "report.html"
    path.write_text(pages.decision_page(record, table, required, drawn), "utf-8")
    return path


@pytest.mark.parametrize("text", EVIL, ids=range(len(EVIL)))
@pytest.mark.parametrize("scripts", [False, True])
def test_a_hostile_page_asks_for_nothing_and_injects_nothing(
    browser: Any, tmp_path: Path, text: str, scripts: bool
) -> None:
    options = {"java_script_enabled": scripts, "offline": True}
    page, asked = opened(browser, report(tmp_path, text), **options)
    assert asked == [] and page.evaluate(FOREIGN) == [] and page.evaluate(HANDLERS) == []
    page.close()


@pytest.mark.parametrize(("width", "scheme"), [*product([1280, 390], ["light", "dark"])])
def test_eight_candidates_and_a_baseline_fit(
    browser: Any, tmp_path: Path, width: int, scheme: str
) -> None:
    size = {"width": width, "height": 900}
    page, asked = opened(browser, report(tmp_path), viewport=size, color_scheme=scheme)
    assert asked == [] and page.evaluate(OVERFLOW) <= 0
    # The decision and its four figures are on the first screen of a laptop.
    if width == 1280:
        box = page.locator(".figures").bounding_box()
        assert box["y"] + box["height"] <= 900
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement !== document.body")  # by keyboard, too
    if folder := os.environ.get("PLAYBOOK_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/report-{width}-{scheme}.png", full_page=True)
    page.close()


def test_it_prints_on_paper(browser: Any, tmp_path: Path) -> None:
    page, asked = opened(browser, report(tmp_path), viewport={"width": 718, "height": 1000})
    page.emulate_media(media="print")
    assert asked == [] and page.evaluate(OVERFLOW) <= 0  # A4 less its margins, at 96 dots an inch
    pdf = page.pdf(format="A4", prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF") and 2 <= pdf.count(b"/Type /Page\n") <= 20
    if folder := os.environ.get("PLAYBOOK_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/report-print.png", full_page=True)
    page.close()
