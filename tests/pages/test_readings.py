"""The page of answers: complete, in order, bounded, and safe whatever a model wrote."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from briefs import changed, load_project, write
from test_report import EVIL, Page

from lib.brief.project import Project
from lib.evaluate.disagreement import side_by_side
from lib.pages.page import BUDGET, answers_page
from lib.pages.page import disagreements as table_of

MORE = [
    *EVIL,
    "</script><script>alert(2)</script>",
    "a\x00b\x1b[31mc\u2066d",
    "</div></td></table>",
]


@pytest.fixture
def brief(tmp_path: Path) -> Project:
    evaluation = {"kind": "exact", "items": "items.jsonl"}
    return load_project(write(tmp_path, changed("evaluation", evaluation)))


def scored(
    outputs: dict[str, list[str]], scores: dict[str, list[Any]], **more: Any
) -> pd.DataFrame:
    table = pd.DataFrame(
        [
            {"deployment": name, "repo_id": "org/a", "item_id": f"i{k}", "output": output}
            | {"score": scores[name][k]}
            for name, own in outputs.items()
            for k, output in enumerate(own)
        ]
    )
    table["outcome"] = np.where(table["score"].isna(), "failed", "answered")
    table = table.assign(group="", target="yes", error="", detail="", predicted="x", **more)
    return table.astype({"score": "Float64"})


def items(n: int, text: str = "question") -> pd.DataFrame:
    ids = [f"i{k}" for k in range(n)]
    return pd.DataFrame(
        {"item_id": ids, "input": [f"{text} {k}" for k in range(n)], "target": "yes"}
    )


@pytest.fixture
def table() -> pd.DataFrame:
    """On i0 all agree, i1 differ a little, i2 a lot; on i3 one call failed, the others agree."""
    return scored(
        {name: [f"{name} says {k}" for k in range(4)] for name in ("a", "b", "c")},
        {"a": [1, 0.5, 1, None], "b": [1, 0.6, 0, 0], "c": [1, 0.5, 1, 0]},
    )


def page_of(html: str) -> Page:
    """The page parsed; the parser of the other pages knows no input elements."""
    return Page(re.sub(r"<input [a-z= \"]*>", "", html))


def render(
    brief: Project,
    table: pd.DataFrame,
    known: pd.DataFrame,
    graded: pd.DataFrame | None = None,
) -> str:
    cells = side_by_side(brief, table, known, graded=graded)
    return answers_page(cells, name=brief.name, task=brief.task)


def disagreements(
    brief: Project, table: pd.DataFrame, known: pd.DataFrame, **more: Any
) -> pd.DataFrame:
    return table_of(side_by_side(brief, table, known), **more)


def order(html: str) -> list[str]:
    return re.findall(r'<span class="id">([^<]*)<', html)


def test_items_that_tell_candidates_apart_come_first(brief: Project, table: pd.DataFrame) -> None:
    html = render(brief, table, items(4))
    assert order(html) == ["i2", "i1", "i0", "i3"]
    assert re.findall(r'data-differ="(\d)"', html) == ["1", "1", "0", "0"]
    seen = " ".join(page_of(html).text.split())
    assert "4 items, 3 configurations; on 2 the scores or outcomes differ" in seen
    for said in ("a says 2", "b says 1", "question 3", "partly right 0.6"):
        assert said in seen
    assert re.findall('data-mark="([^"]*)"', html)[-3:] == ["failed", "wrong", "wrong"]


def test_an_unusable_answer_beside_a_wrong_one_is_a_disagreement(
    brief: Project, table: pd.DataFrame
) -> None:
    table.loc[table["item_id"] == "i3", "outcome"] = ["failed", "truncated", "answered"]
    assert list(disagreements(brief, table, items(4)).index) == ["i2", "i1", "i3"]


@pytest.mark.parametrize("text", MORE)
def test_hostile_text_stays_text(brief: Project, table: pd.DataFrame, text: str) -> None:
    plain = page_of(render(brief, table, items(4)))
    evil = table.assign(output=text, error=text, detail=text, group=text)
    evil["deployment"] = evil["deployment"] + text
    known = items(4).assign(input=text, target=text)
    html = render(brief, evil, known)
    page = page_of(html)
    allowed = {tag for tag, _ in plain.tags} | {"details", "summary", "p", "option"}
    assert {tag for tag, _ in page.tags} <= allowed | {"label", "select"}
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert not any(name in ("src", "href") for _, attributes in page.tags for name in attributes)
    assert "{{" not in text or "{{7*7}}{% raw %}" in page.text
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x1b]", html)
    disagreements(brief, evil, known).to_html()


def test_only_the_pages_own_script_may_run_and_nothing_is_loaded(
    brief: Project, table: pd.DataFrame
) -> None:
    html = render(brief, table, items(4))
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(a["content"] for a in page_of(html).all("meta") if "http-equiv" in a)
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy.replace("style-src 'unsafe-inline'", "")
    assert "http" not in html.replace("http-equiv", "")
    for name in re.findall(r'\["(\w+(?:", "\w+)*)"\]', script)[0].split('", "'):
        assert name == "group" or f'id="{name}"' in html


def test_without_scripts_it_is_a_plain_table(brief: Project, table: pd.DataFrame) -> None:
    html = render(brief, table, items(4))
    assert '<div id="filters" hidden>' in html
    assert len(re.findall("<tr data-", html)) == 4 and not re.search("<tr [^>]*hidden", html)


def test_long_outputs_are_folded_and_cut(brief: Project) -> None:
    table = scored({"a": ["x" * 1_000_000, "y" * 300, "z"]}, {"a": [1, 1, 1]})
    html = render(brief, table, items(3))
    assert len(html) < 30_000
    assert html.count("<summary>more</summary>") == 2
    assert "996,000 more characters are not on this page" in html
    assert html.count("x" * 200) > 0 and "x" * 4001 not in html.replace("\n", "")


def test_many_items_are_left_out_and_it_says_so(brief: Project) -> None:
    n = 2100
    table = scored(
        {name: ["<" * 5000] * n for name in ("a", "b")},
        {"a": [1] * n, "b": [1] * (n - 1) + [0]},
    )
    html = render(brief, table, items(n))
    assert "100 items are left out" in html and order(html)[0] == f"i{n - 1}"
    assert len(order(html)) == 2000
    assert len(html) < 4 * BUDGET + 5_000_000
    assert "at most 1,500 characters" in html


def test_reasoning_is_not_shown_but_structured_records_are(
    brief: Project, table: pd.DataFrame, tmp_path: Path
) -> None:
    html = render(brief, table.assign(output="<think>secret</think>plain"), items(4))
    assert "secret" not in html and "plain" in html
    ranking = load_project(
        write(tmp_path, changed("evaluation", {"kind": "reranking", "items": "items.jsonl"}))
    )
    html = render(ranking, table.assign(output='{"d1": "<think>hm</think>yes"}'), items(4))
    assert "&lt;think&gt;hm&lt;/think&gt;yes" in html and "full score" in html


def test_groups_are_a_filter_only_where_there_are_some(brief: Project, table: pd.DataFrame) -> None:
    assert '<select id="group">' not in render(brief, table, items(4))
    table["group"] = table["item_id"].map({"i0": "x", "i1": "y", "i2": "x", "i3": ""})
    html = render(brief, table, items(4))
    assert '<option value="x">x</option><option value="y">y</option>' in html
    assert re.findall('data-group="([^"]*)"', html) == ["x", "y", "x", ""]


def test_the_judge_on_a_pair_is_shown(brief: Project, table: pd.DataFrame) -> None:
    graded = pd.DataFrame(
        [
            {"item_id": "i0", "deployment": "a", "other": "b", "result": "inconsistent"}
            | {"forward": "first", "backward": "first"}
        ]
    )
    html = render(brief, table, items(4), graded=graded)
    assert "a against b: inconsistent (named the first, then in the other order the first)" in html


def test_an_item_not_asked_or_not_known_is_still_there(brief: Project, table: pd.DataFrame) -> None:
    html = render(brief, table.iloc[1:], items(2))
    assert order(html) == ["i2", "i1", "i3", "i0"] and html.count("not asked") == 1
    html = render(brief, table.assign(input="from the log"), items(0))
    assert html.count("from the log") == 4
    assert "No answers yet" in render(brief, table[:0], items(4))


def test_disagreements_stand_side_by_side(brief: Project, table: pd.DataFrame) -> None:
    table.loc[table["deployment"] == "a", "output"] = "<think>hm</think>" + "w" * 200
    wide = disagreements(brief, table, items(4), limit=8)
    assert list(wide.columns) == ["input", "target", "Answer of a", "Answer of b", "Answer of c"]
    assert list(wide.index) == ["i2", "i1"]
    assert wide.loc["i2", "Answer of a"] == "✓ " + "w" * 79 + "…"
    assert wide.loc["i2", "Answer of b"] == "✗ b says 2"
    assert wide.loc["i1", "Answer of b"].startswith("0.6 ")
    assert len(disagreements(brief, table, items(4), limit=1)) == 1
    assert disagreements(brief, table[:0], items(4)).empty
    alone = disagreements(brief, table[table["deployment"] == "a"], items(4))
    assert alone.empty and list(alone.columns) == ["input", "target", "Answer of a"]
