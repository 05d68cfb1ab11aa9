"""Parts of figures: dots with intervals beside names, panels of them, stacked shares."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lib.evaluate import scoring
from lib.pages.style import BLUE, finish, new, safe

__all__ = [
    "beside",
    "best_first",
    "dots",
    "empty",
    "height",
    "means",
    "named",
    "panels",
    "shares",
    "short",
    "stack",
    "widths",
]


def empty(text: str, caption: str) -> Figure:
    """A figure that says why there is nothing to show."""
    figure, (ax,) = new("Nothing to show", caption, 8, 1.8)
    ax.set_axis_off()
    ax.text(0.5, 0.5, safe(text, 120), ha="center", va="center", transform=ax.transAxes)
    return finish(figure)


def height(rows: int) -> float:
    """The height in inches of a figure with so many rows."""
    return 1.9 + 0.34 * max(rows, 3)


def short(value: object, limit: int = 32) -> str:
    """A name cut in the middle: configurations of one model differ at the end."""
    text = " ".join(str(value).split())
    if len(text) > limit:
        text = f"{text[: limit // 2]}…{text[-((limit - 1) // 2) :]}"
    return safe(text, limit)


def named(ax: Axes, names: Iterable[object]) -> None:
    """A row per name, the first on top, without lines between."""
    told = [short(name) for name in names]
    ax.set_yticks(range(len(told)), told)
    ax.set_ylim(len(told) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)


def beside(ax: Axes, place: int, text: str) -> None:
    """Write a text to the right of a row."""
    ax.text(1.02, place, text, transform=ax.get_yaxis_transform(), va="center")


def means(scored: pd.DataFrame) -> pd.DataFrame:
    """The mean score of every deployment, failed calls left out, the best first."""
    rows = [
        {
            "deployment": name,
            **scoring.measured("score", own["score"].dropna(), own.dropna(subset=["score"])),
        }
        for name, own in scored.groupby("deployment", sort=False)
    ]
    return best_first(pd.DataFrame(rows))


def best_first(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of `value`, the highest on top."""
    return table.sort_values("value", ascending=False, kind="stable", ignore_index=True)


def dots(ax: Axes, table: pd.DataFrame, *, small: bool = False) -> None:
    """A row per deployment of `value low high`: dot, interval, and both in figures beside it."""
    known = table[table["value"].notna()].astype({"low": float, "high": float, "value": float})
    ax.hlines(known.index, known["low"], known["high"], color=BLUE, lw=2)
    ax.scatter(known["value"], known.index, color=BLUE, s=36, zorder=3)
    for place, row in enumerate(table.to_dict("records")):
        text = "–" if pd.isna(row["value"]) else f"{row['value']:.{2 if small else 3}f}"
        if not small and pd.notna(row["value"]):
            text += f" [{row['low']:.3f}, {row['high']:.3f}]"
        beside(ax, place, text)
    named(ax, table["deployment"])
    ax.set_xlim(-0.04, 1.04)
    ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])


def panels(
    tables: Sequence[tuple[str, pd.DataFrame]], title: str, caption: str, *, small: bool = True
) -> Figure:
    """A panel of dots per metric, with the same deployments in the same rows of each."""
    rows = len(tables[0][1])
    across = len(tables) if len(tables) <= 4 else math.ceil(len(tables) / 2)
    down = math.ceil(len(tables) / across)
    figure, axes = new(
        title, caption, 10 if across > 2 else 9, 1.2 + down * (0.9 + 0.3 * max(rows, 2)),
        grid=(down, across),
    )  # fmt: skip
    for place, (ax, (name, table)) in enumerate(zip(axes, tables, strict=False)):
        dots(ax, table, small=small)
        ax.set_title(short(name, 22 if across > 2 else 40), fontsize=10)
        if place % across:
            ax.set_yticklabels([])
    for ax in axes[len(tables) :]:
        ax.set_axis_off()
    return finish(figure)


def stack(ax: Axes, counts: pd.DataFrame, colours: Mapping[str, Any]) -> None:
    """Stacked shares of every row, with the counts written where they fit."""
    total = counts.sum(axis=1).clip(lower=1)
    left = np.zeros(len(counts))
    for category in counts:
        share = (counts[category] / total).to_numpy(dtype=float)
        colour = colours[str(category)]
        ax.barh(range(len(counts)), share, left=left, color=colour, height=0.74,
                edgecolor="white", lw=0.6, label=safe(category, 24))  # fmt: skip
        light = float(np.dot(to_rgb(colour), (0.299, 0.587, 0.114))) > 0.55
        for place, (n, width) in enumerate(zip(counts[category], share, strict=True)):
            if width > 0.02 + 0.018 * len(str(n)):
                ax.text(left[place] + width / 2, place, str(n), ha="center", va="center",
                        color="black" if light else "white")  # fmt: skip
        left = left + share
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.set_xlabel("share of items (counts in the bars)")
    legend = ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False)
    # It may be wider than its axes: a blank title keeps the room above, and no more.
    legend.set_in_layout(False)
    ax.set_title("\n".join([" "] * math.ceil(counts.shape[1] / 4)), fontsize=11)


def shares(
    counts: pd.DataFrame, colours: Mapping[str, Any], means: pd.DataFrame,
    title: str, metric: str, caption: str,
) -> Figure:  # fmt: skip
    """Stacked shares on the left, the metric with its interval on the right, best on top."""
    counts = counts.loc[list(means["deployment"]), counts.sum() > 0]
    figure, (bars, points) = new(title, caption, 10, 0.5 + height(len(counts)), grid=(1, 2))
    widths(bars, [3, 1.3])
    stack(bars, counts, colours)
    named(bars, counts.index)
    dots(points, means)
    points.set_yticklabels([])
    points.set_xlabel(metric)
    return finish(figure)


def widths(ax: Axes, ratios: Sequence[float]) -> None:
    """Give the columns of the grid of axes these widths."""
    place = ax.get_subplotspec()
    assert place is not None
    place.get_gridspec().set_width_ratios(ratios)
