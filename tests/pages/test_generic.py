"""The generic figures: right, legible, and drawn whatever a deployment or category is called."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from lib.pages import generic, style

matplotlib.use("Agg")
CAPTION = "Source: items.jsonl, measured 2026-11-24, n = 12"
LONG = "deepseek-v3.2-exp-thinking-on-8xgb200-fp4-together"
HOSTILE = ["$x^2$ & $\\frac{a}{b", "模型-🤖" + "x" * 10_000, "<script>alert(1)</script>"]
TONES = {"right": "good", "partly right": ("good", 0.5), "wrong": "bad", "failed": "pale"}


def means(names: list[str]) -> pd.DataFrame:
    rows = [(name, 0.5 + n / 40, 0.4, 0.9) for n, name in enumerate(names)]
    return pd.DataFrame(rows, columns=["deployment", "value", "low", "high"])


def counts(names: list[str], categories: dict[str, Any] = TONES) -> pd.DataFrame:
    cells = np.arange(len(names) * len(categories)).reshape(len(names), -1)
    return pd.DataFrame(cells, index=names, columns=list(categories))


def shares(names: list[str], **more: Any) -> Figure:
    frames = {"counts": counts(names), "colours": TONES, "means": means(names)} | more
    words = {"title": "What became of the answers", "metric": "accuracy"}
    return generic.draw(("shares", frames | words), caption=CAPTION)


def multiples(names: list[str], panels: list[str], **more: Any) -> Figure:
    tables = [(panel, means(names)) for panel in panels]
    return generic.draw(("multiples", {"tables": tables, "title": "T", **more}), caption=CAPTION)


def every(names: list[str]) -> list[Figure]:
    return [
        shares(names),
        shares(names, means=None),
        multiples(names, ["all items"]),
        multiples(names, ["as judged", "corrected for the judge's errors"]),
        multiples(names, [f"a group with a long name, n = {n}" for n in range(7)]),
        generic.draw(("empty", {"text": names[0]}), caption=CAPTION),
    ]


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
        boxes.append((box.shrunk(0.96, 0.9), text.get_text()))
    for (a, one), (b, other) in itertools.combinations(boxes, 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        up = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert across < 2 or up < 2, (one, other)


def words(ax: Any) -> list[str]:
    return [t.get_text() for t in ax.texts]


@pytest.mark.parametrize(("count", "name"), [(2, "short"), (8, LONG)])
def test_every_figure_is_legible(count: int, name: str) -> None:
    for figure in every([f"{name}-{n}" for n in range(count)]):
        check(figure)
        assert CAPTION[:20] in figure.get_supxlabel()


def test_hostile_names_are_drawn() -> None:
    tones = dict.fromkeys(HOSTILE, "good")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in every(HOSTILE):
            assert len(style.png(figure)) > 1000
        style.png(shares(HOSTILE, counts=counts(HOSTILE, tones), colours=tones))


def test_long_names_differ_at_the_end() -> None:
    figure = shares([f"{LONG}-{n}" for n in range(3)])
    assert {t.get_text()[-2:] for t in figure.axes[0].get_yticklabels()} == {"-0", "-1", "-2"}


def test_shares_are_of_all_items_and_the_best_stands_on_top() -> None:
    figure = shares(["a", "b"])
    bars, dots = figure.axes
    assert [t.get_text() for t in bars.get_yticklabels()] == ["b", "a"]
    table = counts(["a", "b"]).loc[["b", "a"]]
    for container, category in zip(bars.containers, table, strict=True):
        widths = [bar.get_width() for bar in container]
        assert widths == pytest.approx(list(table[category] / table.sum(axis=1)))
    assert words(dots) == ["0.525  [0.4, 0.9]", "0.5  [0.4, 0.9]"]
    assert len(shares(["a", "b"], means=None).axes) == 1


def test_a_category_nobody_has_is_left_out() -> None:
    table = counts(["a", "b"]).assign(wrong=0)
    labels = [c.get_label() for c in shares(["a", "b"], counts=table).axes[0].containers]
    assert labels == ["right", "partly right", "failed"]


def test_a_tone_is_a_colour_and_paler_where_it_is_weaker() -> None:
    right, partly, *_ = shares(["a", "b"]).axes[0].containers
    full, half = (to_hex(c[0].get_facecolor()).upper() for c in (right, partly))
    assert full == style.BLUE
    assert half not in (style.BLUE, "#FFFFFF")


def test_few_panels_have_room_for_the_interval_and_many_do_not() -> None:
    few = multiples(["a"], ["x", "y"])
    assert words(few.axes[0]) == ["0.5  [0.4, 0.9]"]
    many = multiples(["a"], ["x", "y", "z"])
    assert words(many.axes[0]) == ["0.5"]
    assert [ax.get_title() for ax in many.axes] == ["x", "y", "z"]


def test_what_is_not_known_is_said() -> None:
    table = means(["a", "b"]).assign(value=[0.5, np.nan])
    for panels, text in ((1, "not measured"), (3, "–")):
        tables = [(str(n), table) for n in range(panels)]
        figure = generic.multiples(tables, title="T", caption=CAPTION)
        assert words(figure.axes[0])[-1] == text


def test_a_reference_is_a_line_in_its_own_panel() -> None:
    figure = multiples(["a", "b"], ["nDCG@5", "MRR"], references={"MRR": 0.25})
    assert [len(ax.lines) for ax in figure.axes] == [0, 1]
    assert list(figure.axes[1].lines[0].get_xdata()) == [0.25, 0.25]


def test_nothing_stays_open_no_setting_leaks_and_the_bytes_are_the_same() -> None:
    before = dict(plt.rcParams)
    first, second = (style.png(shares(["a", "b"])) for _ in range(2))
    assert first == second
    assert plt.get_fignums() == [] and dict(plt.rcParams) == before


def test_of_many_labels_the_worst_confusions_are_a_table() -> None:
    labels = [f"label {n}" for n in range(77)]
    rows = [(d, a, b, n) for n, (a, b) in enumerate(itertools.pairwise(labels)) for d in "ab"]
    rows += [("b", name, name, 500) for name in labels]
    table = pd.DataFrame(rows, columns=["deployment", "target", "predicted", "count"])
    figure = generic.draw(("confusion", {"counts": table, "labels": labels}), caption=CAPTION)
    (ax,) = figure.axes
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert len(names) == 15 and names[0] == "label 76 instead of label 75"
    assert [text.get_text() for text in ax.texts][:4] == ["75", "75", "74", "74"]
    assert "the worst of 76 confusions" in " ".join(t.get_text() for t in figure.findobj(Text))
    check(figure)
    right = table[table["target"] == table["predicted"]]
    figure = generic.draw(("confusion", {"counts": right, "labels": labels}), caption=CAPTION)
    assert figure.axes[0].texts[0].get_text() == "No label is taken for another."
