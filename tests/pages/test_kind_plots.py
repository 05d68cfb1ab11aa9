"""Figures by kind: every one says the right thing, is legible, and survives hostile names."""

from __future__ import annotations

import itertools
import json
import warnings
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from briefs import changed, write
from matplotlib.figure import Figure
from matplotlib.text import Text

from lib.brief.project import Project, load_project
from lib.pages import kind_plots, style

matplotlib.use("Agg")
CAPTION = "Source: items.jsonl, measured 2026-11-24, n = 12"
LONG = "deepseek-v3.2-exp-thinking-on-8xgb200-fp4-together"
HOSTILE = ["$x^2$ & $\\frac{a}{b", "模型-🤖" + "x" * 10_000, "<script>alert(1)</script>"]
JUDGE = {
    "model": "judge-1",
    "endpoint": {"base_url": "https://judge/v1"},
    "user": "{input} {output} {first} {second}",
}
MORE: dict[str, dict[str, Any]] = {
    "classification": {"labels": ["positive", "negative"]},
    "exact": {},
    "extraction": {"schema": {"type": "object"}},
    "tool_call": {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
    "scoring": {"judge": JUDGE},
    "judged": {"judge": JUDGE},
    "comparison": {"judge": JUDGE},
    "reranking": {},
    "inspect": {"inspect": {"task": "x"}},
}


@pytest.fixture
def make(tmp_path: Path) -> Any:
    def brief(kind: str, **changes: Any) -> Project:
        evaluation = {"kind": kind, "items": "items.jsonl", **MORE[kind], **changes}
        return load_project(write(tmp_path, changed("evaluation", evaluation)))

    return brief


def rows(names: list[str], n: int = 12) -> pd.DataFrame:
    """Answers of which the first of each deployment failed and the second cannot be used."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        [
            {
                "deployment": name,
                "repo_id": f"org/{name}",
                "item_id": f"i{k}",
                "group": "",
                "target": json.dumps({"a": 1, "b": {"c": 2}}),
                "output": "text",
                "retries": 0,
                "outcome": ["failed", "unparsed"][k] if k < 2 else "answered",
                "predicted": None if k < 2 else "positive",
                "score": None if k == 0 else 0.0 if k == 1 else float(rng.random() < 0.7),
                "detail": "",
            }
            for name in names
            for k in range(n)
        ]
    )
    return table.astype({"score": "Float64"})


def verdicts(names: list[str], result: str = "win") -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"item_id": f"i{k}", "group": "", "deployment": one, "other": other, "basis": "judge"}
            | {"forward": "first", "backward": "second", "result": result}
            for one, other in itertools.combinations(names, 2)
            for k in range(12)
        ]
    )


def items() -> pd.DataFrame:
    documents = json.dumps([{"id": f"d{j}", "text": "t"} for j in range(6)])
    ids = [f"i{k}" for k in range(12)]
    target = json.dumps({"d1": 1})
    return pd.DataFrame({"item_id": ids, "input": "q", "documents": documents, "target": target})


def drawn(brief: Project, scored: pd.DataFrame, **more: Any) -> Figure:
    kind, names = brief.evaluation.kind, list(dict.fromkeys(scored["deployment"]))
    if kind == "extraction":
        told = json.dumps({"valid": True, "right": ["a"]})
        scored = scored.assign(detail=np.where(scored["outcome"] == "answered", told, ""))
    if kind in ("scoring", "judged"):
        said = "4" if kind == "scoring" else "pass"
        scored = scored.assign(
            predicted=scored["predicted"].where(scored["outcome"] != "answered", said)
        )
    if kind == "comparison":
        more.setdefault("graded", verdicts(names) if len(names) > 1 else None)
    return kind_plots.detail(brief, scored, items=items(), caption=CAPTION, **more)


def words(figure: Figure) -> list[str]:
    return [t.get_text() for t in figure.findobj(Text) if t.get_text().strip() and t.get_visible()]


def check(figure: Figure) -> None:
    """Nothing too small, nothing cut off, and no two texts on top of each other."""
    figure.draw_without_rendering()
    width, height = figure.get_size_inches() * figure.dpi
    boxes = []
    for text in figure.findobj(Text):
        if not (text.get_text().strip() and text.get_visible()):
            continue
        assert text.get_fontsize() >= 8, text.get_text()
        box = text.get_window_extent()
        assert box.x0 > -2 and box.y0 > -2, text.get_text()
        assert box.x1 < width + 2 and box.y1 < height + 2, text.get_text()
        boxes.append((box.shrunk(0.96, 0.9).translated(0, 0), text.get_text()))
    for (a, one), (b, other) in itertools.combinations(boxes, 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        up = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert across < 2 or up < 2, (one, other)


@pytest.mark.parametrize("kind", [kind for kind in MORE if kind != "classification"])
@pytest.mark.parametrize(("count", "name"), [(2, "short"), (8, LONG)])
def test_every_figure_is_legible(make: Any, kind: str, count: int, name: str) -> None:
    figure = drawn(make(kind), rows([f"{name}-{i}" for i in range(count)]))
    check(figure)
    assert CAPTION[:20] in figure.get_supxlabel()
    if kind == "comparison" and count == 8:
        assert "15 of 28" in figure.get_suptitle() and len(figure.axes[0].get_yticks()) == 15


@pytest.mark.parametrize("kind", MORE)
def test_hostile_names_are_drawn_and_no_answers_say_so(make: Any, kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(style.png(drawn(make(kind), rows(HOSTILE)))) > 1000
        assert any("No answers yet" in w for w in words(drawn(make(kind), rows(["a"])[:0])))
        failed = rows(["a", "b"]).assign(outcome="failed", score=pd.NA, predicted=None)
        style.png(drawn(make(kind), failed.astype({"score": "Float64"})))


def test_long_names_differ_at_the_end(make: Any) -> None:
    said = words(drawn(make("exact"), rows([f"{LONG}-{i}" for i in range(3)])))
    assert {w[-10:] for w in said if w.startswith("deepseek")} == {
        "together-0"[-10:], "together-1", "together-2",
    }  # fmt: skip


def bars(figure: Figure) -> dict[str, list[int]]:
    """The share of every category in per cent of the items, by row."""
    return {
        str(container.get_label()): [round(100 * bar.get_width()) for bar in container]
        for container in figure.axes[0].containers
    }


def test_wrong_calls_are_told_apart(make: Any) -> None:
    told = ["", "malformed: x", "", "f.a is 1, not 2", "called g; expected f", "invalid: f: no"]
    table = rows(["a"], 6).assign(detail=told)
    table["score"] = pd.array([None, 0, 1, 0, 0, 0], "Float64")
    assert bars(drawn(make("tool_call"), table)) == {
        "correct": [17], "wrong arguments": [33], "wrong function": [17], "malformed": [17],
        "failed": [17],
    }  # fmt: skip


def test_ratings_are_whole_or_in_bands(make: Any) -> None:
    table = rows(["a"], 6).assign(predicted=[None, None, "1", "5", "5", "2"])
    brief = make("scoring")
    figure = kind_plots.detail(brief, table, caption=CAPTION)
    assert bars(figure) == {"1": [17], "2": [17], "5": [33], "unparsed": [17], "failed": [17]}
    table["predicted"] = [None, None, "1", "5", "4.5", "1.8"]
    figure = kind_plots.detail(brief, table, caption=CAPTION)
    assert bars(figure) == {
        "1 to 1.8": [17], "1.8 to 2.6": [17], "4.2 to 5": [33], "unparsed": [17],
        "failed": [17],
    }  # fmt: skip


def test_a_judges_own_label_is_no_outcome(make: Any) -> None:
    judge = JUDGE | {"labels": ["good", "refused"], "pass_labels": ["good"]}
    table = rows(["a"], 5).assign(predicted=[None, None, "good", "refused", "refused"])
    table.loc[1, "outcome"] = "refused"
    figure = kind_plots.detail(make("judged", judge=judge), table, caption=CAPTION)
    assert bars(figure) == {"good": [20], "judge: refused": [40], "refused": [20], "failed": [20]}


def test_a_pass_rate_is_corrected_only_with_calibration(make: Any) -> None:
    table = rows(["a", "b"], 50)
    human = ["pass"] * 30 + ["fail"] * 20
    verdict = ["pass"] * 26 + ["fail"] * 4 + ["fail"] * 15 + ["pass"] * 5
    checked = pd.DataFrame({"human": human, "verdict": verdict, "rating": 0.0, "judge_error": ""})
    figure = drawn(make("judged"), table, checked=checked)
    check(figure)
    raw, corrected = ([t.get_text() for t in ax.texts] for ax in figure.axes)
    assert raw != corrected and all("[" in text for text in [*raw, *corrected])
    for empty in (None, checked[:0]):
        assert "uncalibrated" in drawn(make("judged"), table, checked=empty).get_suptitle()


def test_the_stronger_of_a_pair_stands_first(make: Any) -> None:
    graded = verdicts(["a", "b"], "loss")
    graded.loc[:1, "result"] = "inconsistent"
    graded.loc[2, "result"] = "identical"
    graded.loc[3, "result"] = "no verdict"
    figure = drawn(make("comparison"), rows(["a", "b"]), graded=graded)
    assert figure.axes[0].get_yticklabels()[0].get_text() == "b\nagainst a"
    assert bars(figure) == {"first wins": [67], "tie": [8], "inconsistent": [17], "not judged": [8]}
    assert [t.get_text() for t in figure.axes[1].get_yticklabels()] == ["b", "a"]
    nobody = drawn(make("comparison"), rows(["a"]), graded=None)
    assert any("No verdicts yet" in word for word in words(nobody))


def test_fields_and_groups_come_weakest_first(make: Any) -> None:
    figure = drawn(make("extraction"), rows(["a", "b"]))
    assert [ax.get_title() for ax in figure.axes] == ["all fields", "valid JSON", "b.c", "a"]
    table = rows(["a", "b"], 32)
    table["group"] = [f"g{int(i[1:]) % 3}" if i != "i31" else "rare" for i in table["item_id"]]
    table["score"] = table["score"].where(table["group"] != "g2", 0.0)
    figure = drawn(make("exact"), table)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[:2] == ["all items", "g2, n = 10"] and len(titles) == 4
    check(figure)


def test_every_query_is_drawn_beside_chance(make: Any) -> None:
    figure = drawn(make("reranking"), rows(["a", "b"]))
    dots, chance = figure.axes[0].collections[-2:]
    assert len(dots.get_offsets()) == len(chance.get_offsets()) == 11  # one call failed
    heights = np.asarray(dots.get_offsets())[:, 1]
    assert list(heights) == sorted(heights, reverse=True)
    assert all("chance" in ax.get_title() for ax in figure.axes)
    without = kind_plots.detail(make("reranking"), rows(["a"]), caption=CAPTION)
    assert "chance" not in without.axes[0].get_title()
    nine = drawn(make("reranking"), rows([f"d{i}" for i in range(9)]))
    assert "best 8 of 9" in nine.get_suptitle()


def test_published_figures_have_no_answers(tmp_path: Path) -> None:
    published = {
        "quality": 0.8,
        "max_rps": 2,
        "source": "https://a.example",
        "checked_on": "2026-11-01",
    }
    raw = changed("evaluation", {"kind": "published"})
    raw["deployments"] = [d | {"published": published} for d in raw["deployments"]]
    brief = load_project(write(tmp_path, raw))
    assert any(
        "published" in w for w in words(kind_plots.detail(brief, rows(["a"]), caption=CAPTION))
    )


def test_switching_is_drawn_against_the_margin() -> None:
    frame = pd.DataFrame(
        {
            "deployment": ["bad", "good", "unasked", LONG],
            "baseline": "gpt",
            "difference": [-0.3, 0.01, float("nan"), -0.02],
            "low": [-0.4, -0.03, -1.0, -0.08],
            "high": [-0.2, 0.05, 1.0, 0.04],
            "verdict": ["worse", "good enough", "not decided", "not decided"],
        }
    )
    figure = kind_plots.non_inferiority(frame, margin=0.05, caption=CAPTION)
    check(figure)
    (ax,) = figure.axes
    assert ax.get_yticklabels()[0].get_text() == "good"
    assert len(ax.collections) == 3  # three bounds; nothing is known of the fourth
    said = words(figure)
    assert "margin: −0.05 " in said and " as good as gpt" in said
    assert any(w.startswith("good enough  0.01 [-0.03") for w in said)
    left = next(t for t in ax.texts if "margin" in t.get_text())
    assert left.get_window_extent().x1 <= ax.transData.transform((-0.05, 0))[0] + 1
    style.png(kind_plots.non_inferiority(frame[:0], margin=0.05, caption=CAPTION))


def test_a_race_says_who_was_dropped_when() -> None:
    log = pd.DataFrame(
        {
            "deployment": ["a", "b", "c"],
            "dropped": [True, False, True],
            "after_items": [25, 200, 50],
            "reason": ["dropped after 25 items: $cannot$ win", "", "x" * 500],
        }
    )
    figure = kind_plots.race(log, caption=CAPTION)
    check(figure)
    said = [t.get_text() for t in figure.axes[0].texts]
    assert (
        said[0] == "200 items, in the race to the end"
        and said[2] == r"25 items, dropped: \$cannot\$ win"
    )
    assert [bar.get_width() for bar in figure.axes[0].patches] == [200, 50, 25]
    style.png(kind_plots.race(log[:0], caption=CAPTION))


def test_nothing_stays_open_and_the_bytes_are_the_same(make: Any) -> None:
    import matplotlib.pyplot as plt

    brief, before = make("exact"), dict(plt.rcParams)
    first, second = (style.png(drawn(brief, rows(["a", "b"]))) for _ in range(2))
    assert first == second
    assert plt.get_fignums() == [] and dict(plt.rcParams) == before
