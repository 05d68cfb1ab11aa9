"""Three figures for any kind of task: stacked shares, small multiples, a confusion matrix."""

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lib.pages.style import BLUE, INK, TONES, finish, intervals, new, safe, styled
from lib.tables import number

MOST_MATRICES, MOST_LABELS, MOST_CONFUSIONS = 6, 20, 15
Colours = Mapping[str, Any]
Means = pd.DataFrame | None
Panels = Sequence[tuple[str, pd.DataFrame]]


@styled
def shares(
    counts: pd.DataFrame, colours: Colours, means: Means, *, title: str, metric: str, caption: str
) -> Figure:
    """What became of the items, as stacked shares, and the metric beside it, best on top.

    `counts` has a row per deployment and a column per category, `colours` a tone of `style.TONES`
    or a colour for each, or a pair of such and its strength. `means`: `deployment value low high`.
    """
    if means is not None:
        means = means.sort_values("value", ascending=False, kind="stable")
        counts = counts.loc[list(means["deployment"])]
    counts = counts.loc[:, counts.sum() > 0]
    widths = [1.0] if means is None else [3, 1.3]
    size = (10, 0.5 + height(len(counts)))
    figure, axes = new(title, caption, size, grid=(1, len(widths)), widths=widths)
    shades = {str(name): _colour(colours[str(name)]) for name in counts}
    stack(axes[0], counts, shades, relative=True)
    if means is not None:
        dots(axes[1], means)
        _from_0_to_1(axes[1])
        axes[1].set(yticklabels=[], xlabel=safe(metric, 60))
    return finish(figure)


@styled
def multiples(
    tables: Panels, *, title: str, caption: str, references: Mapping[str, float] = {}
) -> Figure:
    """A panel of dots and intervals per metric or group, with the same deployments in each row.

    `tables`: names, and `deployment value low high` from 0 to 1; `references`: dashed lines.
    """
    across = len(tables) if len(tables) <= 4 else math.ceil(len(tables) / 2)
    down = math.ceil(len(tables) / across)
    tall = down * (0.9 + 0.3 * max(len(tables[0][1]), 2))
    size = (10 if across > 2 else 9, 1.2 + tall)
    figure, axes = new(title, caption, size, grid=(down, across))
    for place, (ax, (name, table)) in enumerate(zip(axes, tables, strict=False)):
        dots(ax, table, terse=len(tables) > 2)
        _from_0_to_1(ax)
        ax.set_title(safe(name, 22 if across > 2 else 40))
        if place % across:
            ax.set_yticklabels([])
        if name in references:
            ax.axvline(references[name], color=INK, ls="--", lw=1)
    return finish(figure)


@styled
def confusion(counts: pd.DataFrame, *, labels: Sequence[str], caption: str) -> Figure:
    """Targets against predictions (`deployment target predicted count`), the first six panels.

    Of more than 20 labels a table of what is most often said instead of what.
    """
    if len(labels) > MOST_LABELS:
        return _worst_confusions(counts, caption)
    matrices = list(counts.groupby("deployment", sort=False))
    panels = matrices[:MOST_MATRICES]
    across = 2 if len(panels) == 4 else min(max(len(panels), 1), 3)
    down = max(1, math.ceil(len(panels) / across))
    title = "What is taken for what, by configuration"
    title += f" (the first {len(panels)} of {len(matrices)})" if matrices[len(panels) :] else ""
    caption = f"{caption.rstrip('.')}. Cells: items, and their share of the row."
    size = (max(3.4 * across, 5.5), 2.7 * down + 1.0)
    figure, axes = new(title, caption, size, grid=(down, across))
    targets = [*labels, *sorted(set(counts["target"]) - set(labels))]
    predicted = [*labels, *sorted(set(counts["predicted"]) - set(labels))]
    for ax, (name, cells) in zip(axes, panels, strict=False):
        matrix = cells.pivot_table("count", "target", "predicted", "sum", fill_value=0)
        matrix = matrix.reindex(index=targets, columns=predicted, fill_value=0)
        share = matrix.div(matrix.sum(axis=1).clip(lower=1), axis=0)
        text = matrix.map("{:.0f}".format) + "\n" + share.map("{:.0%}".format)
        sns.heatmap(share, vmin=0, vmax=1, cmap="Blues", cbar=False, ax=ax, linewidths=1, fmt="",
                    annot=text if len(predicted) <= 6 else False, annot_kws={"fontsize": 9},
                    xticklabels=[safe(word, 12) for word in predicted],
                    yticklabels=[safe(word, 12) for word in targets])  # fmt: skip
        ax.set(title=safe(name, 26), xlabel="predicted", ylabel="target")
        ax.tick_params(axis="x", rotation=0 if len(predicted) <= 3 else 90)
        ax.tick_params(axis="y", rotation=0)
    return finish(figure)


def _worst_confusions(counts: pd.DataFrame, caption: str) -> Figure:
    wrong = counts[counts["target"] != counts["predicted"]]
    if wrong.empty:
        return empty("No label is taken for another.", caption=caption)
    table = wrong.pivot_table("count", ["predicted", "target"], "deployment", "sum", fill_value=0)
    table = table.reindex(columns=counts["deployment"].unique(), fill_value=0)
    table = table.loc[table.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    title = f"Said instead of what, the worst of {len(table)} confusions: items"
    table = table[:MOST_CONFUSIONS].astype(float)
    figure, (ax,) = new(title, caption, (9, 1 + height(len(table))))
    rows = [f"{safe(said, 28)} instead of {safe(target, 28)}" for said, target in table.index]
    sns.heatmap(table, cmap="Blues", cbar=False, ax=ax, linewidths=1, annot=True, fmt=".0f",
                vmin=0, yticklabels=rows, xticklabels=[safe(n, 26) for n in table])  # fmt: skip
    ax.set(xlabel="", ylabel="")
    return finish(figure)


@styled
def empty(text: str, *, caption: str) -> Figure:
    """A figure that says why there is nothing to show."""
    figure, (ax,) = new("Nothing to show", caption, (8, 1.8))
    ax.text(0.5, 0.5, safe(text, 120), ha="center", va="center", transform=ax.transAxes)
    return finish(figure)


def draw(figure: tuple[str, Mapping[str, Any]], *, caption: str) -> Figure:
    """One of these figures by its name and what it shows, as `evaluate.detail` gives it."""
    name, frames = figure
    return FIGURES[name](**frames, caption=caption)


def _colour(tone: Any) -> Any:
    """The colour of a tone, paler where its strength is below 1."""
    name, strength = tone if isinstance(tone, tuple) else (tone, 1.0)
    return sns.light_palette(TONES.get(name, name), as_cmap=True)(strength)


def height(rows: int) -> float:
    """The height in inches of a figure with so many rows."""
    return 1.9 + 0.34 * max(rows, 3)


def dots(ax: Axes, table: pd.DataFrame, *, prefix: str = "", terse: bool = False) -> None:
    """A row per deployment of `value low high`: dot, interval, and both in figures beside it."""
    table = table.reset_index(drop=True)
    spans = intervals(table, "value", "low", "high")
    ax.hlines(spans.index, spans["low"], spans["high"], color=BLUE, lw=2)
    ax.scatter(table["value"].astype(float), table.index, color=BLUE, s=45, zorder=3)
    for place, (value, low, high) in enumerate(table[["value", "low", "high"]].to_numpy(float)):
        text = safe(prefix) + number(value, digits=2 if terse else 3)
        if not math.isfinite(value):
            text = "unbounded" if value > 0 else "–" if terse else "not measured"
        if not terse and not np.isnan([value, low, high]).any():
            end = "" if high == math.inf else f", {number(high)}"
            text += f"  [{'' if end else 'at least '}{number(low)}{end}]"
        ax.text(1.02, place, text, transform=ax.get_yaxis_transform(), va="center")
    _rows(ax, table["deployment"])


def stack(ax: Axes, counts: pd.DataFrame, colours: Colours, *, relative: bool = False) -> None:
    """A stacked bar per row of counts, or of their shares, with the counts where they fit."""
    lengths = counts.div(counts.sum(axis=1).clip(lower=1), axis=0) if relative else counts
    if lengths.size:
        lengths.set_axis(range(len(lengths))).plot.barh(
            stacked=True, color=dict(colours), width=0.8, edgecolor="white", lw=0.6, ax=ax
        )
    for bars, category in zip(ax.containers, counts, strict=False):
        text = counts[category].astype(str)
        room = lengths.sum(axis=1).max() * (0.015 + 0.016 * text.str.len())
        light = float(np.dot(to_rgb(colours[str(category)]), (0.299, 0.587, 0.114))) > 0.45
        bars.set_label(safe(category, 24))
        ax.bar_label(cast(BarContainer, bars), list(text.where(lengths[category] > room, "")),
                     label_type="center", color="black" if light else "white")  # fmt: skip
    # The legend may be wider than its axes: a blank title keeps the room above, and no more.
    if lengths.size:
        legend = ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False)
        legend.set_in_layout(False)
    ax.set_title("\n".join([" "] * math.ceil(counts.shape[1] / 4)), fontsize=16)
    _rows(ax, counts.index)
    if relative:
        ax.set(xlim=(0, 1), xlabel="share of items (counts in the bars)")
        ax.xaxis.set_major_formatter(PercentFormatter(1))


def _rows(ax: Axes, names: Iterable[object]) -> None:
    """A row per name, the first on top, without lines between."""
    labels = [textwrap.fill(safe(name, 64), 36) for name in names]
    ax.set_yticks(range(len(labels)), labels)
    ax.set(ylim=(len(labels) - 0.4, -0.6), ylabel="")
    ax.grid(axis="y", visible=False)


def _from_0_to_1(ax: Axes) -> None:
    ax.set_xlim(-0.04, 1.04)
    ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])


FIGURES: dict[str, Callable[..., Figure]] = {
    figure.__name__: figure for figure in (shares, multiples, confusion, empty)
}
