from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.path import Path as Path_
from matplotlib.text import Text

from lib.pages import generic, plots, style
from lib.sizing.tiers import BOUNDS
from lib.tables import number

matplotlib.use("Agg")
NAN = float("nan")
CAPTION = "Source: items.jsonl, measured 2026-10-04, n = 200"
HOSTILE = [
    "$x^2$ & $\\frac{a}{b",
    "模型-🤖" + "x" * 10_000,
    "<script>alert(1)</script>",
    "a\nb\u202ec",
]


def tradeoffs(rows: int = 4) -> pd.DataFrame:
    names = ["gemma3-270m-1cpu", "gemma3-270m-2cpu", "smollm2-135m-1cpu", "smollm2-135m-2cpu"]
    table = pd.DataFrame(
        {
            "deployment": [names[i] if i < 4 else f"configuration-{i}" for i in range(rows)],
            "repo_id": "google/gemma-3-270m",
            "quality": [0.81, 0.81, 0.72, 0.72, *np.linspace(0.6, 0.9, 8)][:rows],
            "max_rps": [6.1, 9.8, 7.5, 12.0, *np.linspace(1, 20, 8)][:rows],
            "usd_per_1k": [0.0018, 0.0023, 0.0015, 0.0019, *np.geomspace(0.01, 2, 8)][:rows],
            "on_frontier": [i in (0, 2) for i in range(rows)],
            "qualifies": ["yes", "yes", "no", "not decided", *["no"] * 8][:rows],
            "pick": [i == 0 for i in range(rows)],
        }
    )
    for name in ("quality", "usd_per_1k"):
        table[f"{name}_low"], table[f"{name}_high"] = table[name] * 0.92, table[name] * 1.06
    table["rps_low"], table["rps_high"] = table.max_rps * 0.9, table.max_rps * 1.1
    table["usd_per_1k_correct"] = table.usd_per_1k / table.quality
    table["usd_per_1k_correct_low"] = table.usd_per_1k_correct * 0.9
    table["usd_per_1k_correct_high"] = table.usd_per_1k_correct * 1.2
    return table


def scores(table: pd.DataFrame) -> pd.DataFrame:
    columns = ["deployment", "quality", "quality_low", "quality_high"]
    return table[columns].set_axis(["deployment", "value", "low", "high"], axis=1)


def speed(names: list[str]) -> pd.DataFrame:
    rows = [
        (name, load, 0.1, base * (1 + (load / 5) ** 4), base * (1 + (load / 5) ** 4) <= 1)
        for name, base in zip(names, (0.3, 0.2, 0.25, 0.15), strict=False)
        for load in (0.5, 1, 2, 4, 8, 16)
    ]
    return pd.DataFrame(rows, columns=["deployment", "offered_rps", "p50_s", "p95_s", "within_slo"])


def confusion(names: list[str]) -> pd.DataFrame:
    cells = [
        ("positive", "positive", 81),
        ("positive", "unparsed", 19),
        ("negative", "negative", 7),
    ]
    rows = [(name, *cell) for name in names for cell in cells]
    return pd.DataFrame(rows, columns=["deployment", "target", "predicted", "count"])


def sizes() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    families = [*list(style.FAMILIES)[:7], "Phi", "Granite"] * 8
    return pd.DataFrame(
        {
            "repo_id": [f"org/{family}-model-{i}" for i, family in enumerate(families)],
            "family": families,
            "total_params_b": 10 ** rng.uniform(-0.5, 3.3, len(families)),
            "score": rng.uniform(20, 90, len(families)),
        }
    )


def by_family(models: pd.DataFrame) -> Figure:
    counts = pd.crosstab(models["family"], models["verdict"])
    counts = counts.reindex(columns=list(style.VERDICTS), fill_value=0)
    counts = counts.loc[counts.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    return plots.verdicts_by_family(counts, caption=CAPTION)


def against(dimension: str, table: pd.DataFrame, **more: Any) -> Figure:
    words = {"metric": "Accuracy", "caption": CAPTION, "requirements": {}} | more
    return plots.quality_against(dimension, table, **words)


def by_size(points: pd.DataFrame) -> Figure:
    unit = {"benchmark": "GPQA", "unit": "score, %"}
    return plots.quality_by_size(points, **unit, tiers=BOUNDS, caption=CAPTION)


def by_volume(names: list[str], *, alike: bool = False) -> pd.DataFrame:
    """Machines by the hour, whose cost is a staircase, and APIs by the token in turns."""
    volumes, curves = np.geomspace(100, 1e8, 601), []
    for turn, name in enumerate(names):
        size = 1 if alike else 1 + turn
        usd = volumes * 0.002 * size
        if turn % 2 == 0:
            usd = np.maximum(np.ceil(volumes / 160_000 / size), 1) * 730 * size
        curve = {"deployment": name, "hourly": turn % 2 == 0, "requests_per_day": volumes}
        curves.append(pd.DataFrame(curve | {"usd": usd, "low": usd * 0.8, "high": usd * 1.1}))
    empty = pd.DataFrame(columns="deployment hourly requests_per_day usd low high".split())
    return pd.concat(curves) if curves else empty.astype({"requests_per_day": float, "usd": float})


def volume_figure(curves: pd.DataFrame, names: list[str] | None = None) -> Figure:
    figure = plots.cost_by_volume
    return figure(curves, requests_per_day=50_000, caption=CAPTION, names=names or [])


def every(table: pd.DataFrame) -> list[Figure]:
    names = list(table.deployment)
    capacity = table[["deployment", "max_rps", "rps_low", "rps_high"]]
    capacity = capacity.set_axis(["deployment", "max_rps", "low", "high"], axis=1)
    return [
        plots.score_intervals(scores(table), metric="Accuracy", caption=CAPTION, requirement=0.7),
        plots.cost_per_correct(table, caption=CAPTION),
        against("cost", table, requirements={"min_quality": 0.7, "max_usd_per_1k": 0.002}),
        against("speed", table, requirements={"min_quality": None, "min_rps": 6}),
        plots.latency_by_load(speed(names[:4]), slo_s=1, capacity=capacity, caption=CAPTION),
        generic.confusion(confusion(names), labels=["positive", "negative"], caption=CAPTION),
        volume_figure(by_volume(names)),
    ]


def labels(figure: Figure) -> list[Text]:
    """The names written beside points: the only texts with a halo."""
    return [text for text in figure.axes[0].texts if text.get_path_effects()]


def lines(figure: Figure) -> list[Path_]:
    """Every line and interval of the axes, in pixels, but what ties a label to its point."""
    ax = figure.axes[0]
    drawn = [(x.get_path(), x.get_transform()) for x in ax.lines if x.get_color() != style.GREY]
    for spans in (c for c in ax.collections if isinstance(c, LineCollection)):
        drawn += [(path, spans.get_transform()) for path in spans.get_paths()]
    return [transform.transform_path(path) for path, transform in drawn]


def check(figure: Figure) -> None:
    """Nothing too small, cut off, on top of another label, a line, an interval or a point."""
    figure.draw_without_rendering()
    for text in figure.findobj(Text):
        if text.get_text() and text.get_visible():
            assert text.get_fontsize() >= 8, text.get_text()
    ax = figure.axes[0]
    inside, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(inside.x0, inside.y0) > -0.02
    assert inside.x1 < width + 0.02 and inside.y1 < height + 0.02
    boxes = [label.get_window_extent() for label in labels(figure)]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    others = [t for t in figure.findobj(Text) if t.get_text() and t not in labels(figure)]
    others = [t.get_window_extent() for t in others if t.get_visible()]
    assert not any(box.overlaps(other) for box in boxes for other in others)
    for path in lines(figure):
        assert not any(path.intersects_bbox(box, filled=False) for box in boxes)
    for points in ax.collections:
        if isinstance(points, PathCollection):
            for x, y in ax.transData.transform(np.asarray(points.get_offsets())):
                assert not any(box.contains(x, y) for box in boxes)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00182123, "0.00182"), (0.8, "0.8"), (1234.5, "1,230"), (12, "12"), (0, "0"),
     (1e7, "10,000,000"), (1e-7, "0.0000001"), (NAN, "–"), (float("inf"), "∞"), (-2.345, "-2.35")],
)  # fmt: skip
def test_number_has_three_digits_and_no_exponent(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize("rows", [1, 4, 11, 12])
def test_every_figure_is_legible(rows: int) -> None:
    for figure in every(tradeoffs(rows)):
        check(figure)
        assert CAPTION[:20] in figure.get_supxlabel()


def at_one_place(rows: int, together: int) -> pd.DataFrame:
    """So many of some deployments measured to be exactly alike, at the edge of the figure."""
    table = tradeoffs(rows)
    alike = table.columns.difference(["deployment", "pick"])
    table.loc[: together - 1, alike] = table.loc[[0] * together, alike].to_numpy()
    return table


@pytest.mark.parametrize("together", [2, 3, 8])
def test_deployments_at_one_place_share_a_label(together: int) -> None:
    for dimension in ("cost", "speed"):
        figure = against(dimension, at_one_place(8, together), requirements={"min_quality": 0.7})
        check(figure)
        shared = max((text.get_text() for text in labels(figure)), key=len).splitlines()
        assert shared[0] == "pick: gemma3-270m-1cpu" and len(shared) == together
        assert len(labels(figure)) == 9 - together


def test_long_names_and_points_at_the_edges_are_legible() -> None:
    table = tradeoffs(8)
    table["deployment"] = [f"{'a-deployment-with-a-long-name-' * 2}{i}" for i in range(8)]
    table.loc[[0, 7], ["max_rps", "rps_low", "rps_high"]] = [[0.01] * 3, [400.0] * 3]
    table.loc[[1, 6], ["quality", "quality_low", "quality_high"]] = [[0.01] * 3, [1.0] * 3]
    bars = {"min_quality": 0.78, "min_rps": 2, "max_usd_per_1k": 0.02}
    for dimension in ("cost", "speed"):
        check(against(dimension, table, requirements=bars))


def test_lines_that_end_at_one_place_keep_a_label_each_in_their_colour() -> None:
    table, names = tradeoffs(), list(tradeoffs().deployment)
    probes = speed(names)
    probes.loc[probes["offered_rps"] == 16, "p95_s"] = 1.0
    capacity = table[["deployment", "max_rps", "rps_low", "rps_high"]]
    capacity = capacity.set_axis(["deployment", "max_rps", "low", "high"], axis=1)
    figure = plots.latency_by_load(probes, slo_s=1, capacity=capacity, caption=CAPTION)
    check(figure)
    assert sorted(text.get_text() for text in labels(figure)) == sorted(names)
    ends = {to_hex(line.get_color()) for line in figure.axes[0].lines}
    assert set(frames(figure).values()) <= ends
    assert {text.get_color() for text in labels(figure)} == {style.INK}  # which turns with the page


def frames(figure: Figure) -> dict[str, str]:
    """The colour of the frame around each label."""
    return {
        text.get_text(): to_hex(text.get_bbox_patch().get_edgecolor())  # type: ignore[union-attr]
        for text in labels(figure)
    }


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("count", [1, 8, 24])
def test_lines_of_cost_are_named_in_their_order_beside_their_ends(count: int, alike: bool) -> None:
    names = [f"Ministral-3-3B-Instruct-2512-on-{n}xH100-fp8" for n in range(count)]
    curves = by_volume(names, alike=alike)
    figure = volume_figure(curves)
    check(figure)
    ends = curves[curves["requests_per_day"] < 5e6].groupby("deployment")["usd"].last()
    at = {text.get_text(): text.get_window_extent().y0 for text in labels(figure)}
    upwards = [ends[name] for name in sorted(names, key=lambda name: at[style.safe(name)])]
    assert upwards == sorted(ends)
    dashed = [line.get_linestyle() for line in figure.axes[0].lines].count("--")
    assert dashed == count // 2 + 1  # the line at the volume of the brief is dashed as well


def test_a_line_of_unknown_cost_is_said_not_hidden() -> None:
    curves = by_volume(["a", "b", "c"])
    curves.loc[curves["deployment"] == "b", ["usd", "low", "high"]] = NAN
    figure = volume_figure(curves)
    assert "Of unknown cost, so not drawn: b." in figure.get_supxlabel()
    assert [text.get_text() for text in labels(figure)] == ["a", "c"]


def test_a_configuration_has_the_same_colour_in_every_figure() -> None:
    names = [*tradeoffs().deployment]
    cost = frames(volume_figure(by_volume(names), names))
    assert len(set(cost.values())) == 4
    assert {colour.upper() for colour in cost.values()} <= {*plots.CONFIGURATIONS}
    assert {*plots.CONFIGURATIONS} - {style.INK} <= {*style.FAMILIES.values()}
    for some in (names[1:], names[::-2]):
        speeds = speed(some)
        words = {"capacity": pd.DataFrame(), "caption": CAPTION, "names": names}
        latency = frames(plots.latency_by_load(speeds, slo_s=1, **words))
        assert latency == {name: cost[name] for name in some}


def test_figures_by_family_are_legible() -> None:
    legal = sizes().assign(verdict=[*style.VERDICTS] * 18)
    check(by_family(legal))
    check(
        plots.quality_by_size(
            sizes(), benchmark="GPQA", unit="score, %", tiers=BOUNDS, caption=CAPTION
        )
    )


def test_hostile_names_are_drawn_as_text_without_a_warning() -> None:
    table = tradeoffs().assign(deployment=HOSTILE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in every(table):
            check(figure)
            assert len(style.png(figure)) > 1000
    text = labels(against("cost", table, metric="$a$", caption="$b$"))[0].get_text()
    assert text.replace(r"\$", "") == "pick: x^2 & \\frac{a}{b"


def test_no_figure_stays_open_and_no_setting_leaks() -> None:
    import matplotlib.pyplot as plt

    before = dict(plt.rcParams)
    every(tradeoffs())
    assert plt.get_fignums() == []
    assert dict(plt.rcParams) == before


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (against("cost", tradeoffs(11)) for _ in range(2))
    style.save(first, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == style.png(second)
    assert repr(first) == "<Figure size 900x560 with 1 Axes>"


def test_a_dozen_names_only_the_pick_and_the_frontier() -> None:
    few, many = (labels(against("cost", tradeoffs(n))) for n in (11, 12))
    assert len(few) == 11
    assert {t.get_text() for t in many} == {"pick: gemma3-270m-1cpu", "smollm2-135m-1cpu"}


def test_axes_are_logarithmic_only_where_the_values_span_a_decade() -> None:
    wide, narrow = (against("cost", tradeoffs(n)).axes[0] for n in (12, 4))
    assert (wide.get_xscale(), narrow.get_xscale()) == ("log", "linear")
    for ax in (wide, narrow):
        ticks = [t.get_text() for t in ax.get_xticklabels()]
        assert all(tick.startswith(r"\$") and "e" not in tick for tick in ticks)


def test_what_is_not_measured_is_said_not_hidden() -> None:
    table = tradeoffs()
    table.loc[1, ["usd_per_1k", "usd_per_1k_correct"]] = NAN
    table.loc[2, ["quality_low", "quality_high"]] = NAN
    table.loc[3, "usd_per_1k_correct_high"] = float("inf")
    table.loc[0, ["usd_per_1k_correct", "usd_per_1k_correct_high"]] = float("inf")
    assert "not drawn: gemma3-270m-2cpu." in against("cost", table).get_supxlabel().replace(
        "\n", " "
    )
    rows = [t.get_text() for t in plots.cost_per_correct(table, caption=CAPTION).axes[0].texts]
    assert rows[-1].startswith("not measured") and rows[-2].startswith("unbounded  [at least")
    assert any(row.endswith("[at least 0.00237]") for row in rows)
    assert not any("∞" in row for row in rows)
    ax = plots.score_intervals(scores(table), metric="Accuracy", caption=CAPTION).axes[0]
    assert len(ax.collections[0].get_paths()) == 3  # three intervals, four dots
    assert len(ax.collections[1].get_offsets()) == 4


def test_published_figures_without_intervals_are_dots() -> None:
    bounds = ["quality_low", "quality_high", "rps_low", "rps_high", "usd_per_1k_low"]
    table = tradeoffs().assign(**dict.fromkeys(bounds))
    for figure in every(table):
        check(figure)
    ax = plots.score_intervals(scores(table), metric="Accuracy", caption=CAPTION).axes[0]
    assert len(ax.collections[0].get_paths()) == 0
    assert [t.get_text() for t in ax.texts] == ["0.81", "0.81", "0.72", "0.72"]


def test_scores_are_sorted_best_on_top_with_the_requirement_named() -> None:
    table = scores(tradeoffs())[::-1]
    ax = plots.score_intervals(table, metric="F1", caption=CAPTION, requirement=0.75).axes[0]
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names[0].startswith("gemma") and ax.get_ylim()[0] > ax.get_ylim()[1]
    assert "required: 0.75" in [t.get_text() for t in ax.texts]


def test_verdicts_show_seven_families_ten_others_and_the_rest() -> None:
    families = [*list(style.FAMILIES)[:7]] + [f"f{i:02}" for i in range(13) for _ in range(20 - i)]
    legal = pd.DataFrame({"repo_id": "a/b", "family": families, "verdict": "review"})
    ax = by_family(legal).axes[0]
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names[:8] == [*list(style.FAMILIES)[:7], "f00"]
    assert names[-1] == "other families (3)" and len(names) == 18
    assert sum(bar.get_width() for bar in ax.patches) == len(legal)
    drawn = {to_hex(bar.get_facecolor()).upper() for bar in ax.patches if bar.get_width()}
    assert drawn == {style.VERDICTS["review"]}


def test_the_best_of_each_family_is_named() -> None:
    table = sizes()
    figure = by_size(table)
    seven = table[table.family.isin(list(style.FAMILIES))]
    best = seven.loc[seven.groupby("family").score.idxmax(), "repo_id"].str.split("/").str[1]
    assert set(best) < {text.get_text() for text in labels(figure)}
    assert len(labels(figure)) == 8
    ticks = [t.get_text() for t in figure.axes[0].get_xticklabels()]
    assert {"0.1B", "100B", "1T", "3T"} <= set(ticks)


def test_confusion_counts_every_prediction_and_stops_at_six_panels() -> None:
    names = [f"d{i}" for i in range(8)]
    figure = generic.confusion(confusion(names), labels=["positive", "negative"], caption=CAPTION)
    assert len(figure.axes) == 6 and "6 of 8" in figure.get_suptitle()
    cells = [t.get_text() for t in figure.axes[0].texts]
    assert cells == ["81\n81%", "0\n0%", "19\n19%", "0\n0%", "7\n100%", "0\n0%"]
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()][-1] == "unparsed"


def test_markers_beyond_the_objective_are_hollow() -> None:
    ax = plots.latency_by_load(
        speed(["a"]), slo_s=1, capacity=pd.DataFrame(), caption=CAPTION
    ).axes[0]
    points, holes = (c for c in ax.collections if isinstance(c, PathCollection))
    assert (len(points.get_offsets()), len(holes.get_offsets())) == (6, 2)
    assert np.asarray(holes.get_offsets())[:, 1].min() > 1
    assert to_hex(holes.get_facecolor()[0]) == "#ffffff" != to_hex(points.get_facecolor()[0])
    assert holes.get_sizes()[0] < points.get_sizes()[0]
    assert ax.get_xscale() == ax.get_yscale() == "log"


def test_an_empty_table_gives_an_empty_figure() -> None:
    for figure in every(tradeoffs()[:0]):
        style.png(figure)
    by_family(sizes().assign(verdict="review")[:0])
    by_size(sizes()[:0])


def test_the_families_keep_their_colours_apart() -> None:
    assert len(set(style.FAMILIES.values())) == 8
    assert list(style.VERDICTS) == ["allowed", "conditional", "review", "blocked"]
