"""A kind of task is one file: a toy one is added here without touching another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai_stub
import pandas as pd
import pytest
from answer_rows import answers
from briefs import changed, write, write_items
from scored import score_answers, summarise

from lib.brief.project import Project
from lib.errors import PlaybookError
from lib.evaluate import kinds, steps
from lib.evaluate.items import load_items
from lib.opening import open_project

TOY = '''"""Toy: the answer is as long as the target says."""

from lib.brief.sections import Section
from lib.evaluate.scoring import metric_row
import pandas as pd


class Options(Section):
    """How far off is still right."""

    tolerance: int = 0


def score(brief, usable, **_):
    from lib.evaluate.kinds import options_of

    off = [abs(len(t) - int(n)) for t, n in zip(usable["output"], usable["target"])]
    right = [float(o <= options_of(brief).tolerance) for o in off]
    detail = [None, *["good"] * (len(off) - 1)]
    rows = {"outcome": "answered", "predicted": [str(o) for o in off], "score": right}
    return pd.DataFrame(rows | {"detail": detail}, index=usable.index)


def metrics(brief, scored):
    first = metric_row("right length", scored["score"], scored)
    return [first, metric_row("spread", [0.5] * len(scored), scored)]
'''


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "toys").mkdir()
    (tmp_path / "toys" / "toy.py").write_text(TOY)
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path / "toys")])
    kinds.of.cache_clear()
    yield tmp_path
    kinds.of.cache_clear()


def toy_brief(folder: Path, **options: Any) -> Project:
    return open_project(
        write(folder, changed("evaluation", {"kind": "toy", "items": "items.jsonl", **options}))
    )


def test_a_toy_kind_is_one_file(toy: Path) -> None:
    write_items(toy, {"id": "i0", "input": "say no", "target": "2"})
    with openai_stub.running(openai_stub.Reply(text="no")) as stub:
        raw = changed("evaluation", {"kind": "toy", "items": "items.jsonl"})
        raw["deployments"] = raw["deployments"][:1]
        raw["deployments"][0]["endpoint"] = {"base_url": stub.url}
        brief = open_project(write(toy, raw))
        items = load_items(brief)
        gathered = steps.gather(brief, brief.deployments, items, toy)
    scored = steps.score(brief, gathered, items)
    named: dict[str, Any] = {"deployments": brief.deployments, "gathered": gathered}
    scores = steps.summarise(brief, scored, pd.DataFrame(), **named)
    assert scores.set_index("metric")["value"].to_dict() == {"spread": 0.5, "right length": 1.0}
    assert steps.compare(brief, scored, gathered).empty
    name, figure = steps.detail(brief, scored, scores, items=items, gathered=gathered)
    assert name == "shares" and figure["counts"].loc["a", "right"] == 1


def test_what_a_kind_is_given_and_what_becomes_of_what_it_gives(toy: Path) -> None:
    brief = toy_brief(toy, tolerance=1)
    rows = [{"output": " a"}, {"output": "<think>x</think>bcd"}, {"output": ""}]
    table = answers(*({**row, "target": "1"} for row in rows))
    scored = score_answers(brief, table)
    assert list(scored["outcome"]) == ["answered", "answered", "empty"]
    assert list(scored["predicted"].astype(object))[:2] == ["0", "2"]
    assert list(scored["detail"]) == ["", "good", ""]
    assert list(scored["output"]) == list(table["output"])  # what the model sent stays
    scores = summarise(brief, scored).set_index("metric")
    assert scores["primary"].to_dict() == {"spread": False, "right length": True}
    assert scores.loc["right length", ["value", "n", "n_empty"]].to_list() == [1 / 3, 3, 1]


def test_all_problems_of_a_kind_are_told_at_once(toy: Path) -> None:
    raw = changed("evaluation", {"kind": "published", "slices": ["file_group"], "tolerance": 1})
    with pytest.raises(PlaybookError) as problem:
        open_project(write(toy, raw))
    text = str(problem.value)
    assert text.count("needs published for kind 'published'") == len(raw["deployments"])
    assert "evaluation: slices: kind 'published' reads no items" in text
    assert "unknown key 'evaluation.tolerance'" in text


def test_the_options_of_a_kind_are_its_own(toy: Path) -> None:
    with pytest.raises(PlaybookError, match=r"evaluation\.tolerance: .*integer"):
        toy_brief(toy, tolerance="much")
    with pytest.raises(
        PlaybookError, match=r"unknown key 'evaluation\.tolerence'; did you mean 'tol"
    ):
        toy_brief(toy, tolerence=1)
    with pytest.raises(
        PlaybookError, match=r"unknown key 'evaluation\.concurency'; did you mean 'conc"
    ):
        toy_brief(toy, concurency=1)
    with pytest.raises(PlaybookError, match=r"evaluation: unknown kind 'toi'; did you"):
        open_project(write(toy, changed("evaluation.kind", "toi")))
