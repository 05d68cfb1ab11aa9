"""Tidy frame in, figure out: one question each, one palette, intervals always drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, cast

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation

from lib.pages.style import (
    BLUE,
    FAMILIES,
    GREY,
    INK,
    LABELLED,
    LIGHT,
    MARKERS,
    QUALIFIES,
    VERDICTS,
    beside,
    finish,
    known,
    line,
    new,
    number,
    safe,
    scale,
    styled,
)
from lib.sizing.tiers import BOUNDS

__all__ = [
    "confusion_matrices",
    "cost_per_correct",
    "cost_quality",
    "latency_by_load",
    "quality_by_size",
    "score_intervals",
    "speed_quality",
    "verdicts_by_family",
]


def _dots(
    table: pd.DataFrame, value: str, low: str, high: str, *,
    title: str, caption: str, best: Literal["low", "high"], prefix: str = "",
) -> tuple[Figure, Axes]:  # fmt: skip
    """A row per deployment, best on top: dot, interval, and both in figures on the right."""
    figure, (ax,) = new(title, caption, 8, 1.7 + 0.34 * max(len(table), 3))
    table = table.sort_values(value, ascending=best == "low", kind="stable", ignore_index=True)
    spans = known(table, value, low, high)
    ax.hlines(spans.index, spans[low], spans[high], color=BLUE, lw=2)
    ax.scatter(table[value], table.index, color=BLUE, s=45, zorder=3)
    for place, row in enumerate(table.to_dict("records")):
        text = "not measured" if pd.isna(row[value]) else safe(prefix) + number(row[value])
        if pd.notna(row[low]) and pd.notna(row[high]):
            text += f"  [{number(row[low])}, {number(row[high])}]"
        ax.text(1.02, place, text, transform=ax.get_yaxis_transform(), va="center")
    ax.set_yticks(range(len(table)), [safe(name) for name in table.deployment])
    ax.set_ylim(len(table) - 0.4, -0.6)
    ax.margins(x=0.08)
    ax.grid(axis="y", visible=False)
    scale(ax, "x", pd.concat([spans[low], spans[high], table[value]]), prefix)
    return figure, ax


def _leading(metric: str) -> str:
    """A metric at the head of a title: accuracy gets a capital, nDCG@10 has its own."""
    return metric if any(letter.isupper() for letter in metric) else metric.capitalize()


@styled
def score_intervals(
    scores: pd.DataFrame, *, metric: str, caption: str, requirement: float | None = None
) -> Figure:
    """A score per deployment (`deployment value low high`), best on top, and the requirement."""
    title = f"{_leading(metric)}, by configuration"
    figure, ax = _dots(scores, "value", "low", "high", title=title, caption=caption, best="high")
    ax.set_xlabel(safe(metric, 60))
    if requirement is not None:
        line(ax, "x", requirement, f"required: {number(requirement)}")
    return finish(figure)


@styled
def cost_per_correct(tradeoffs: pd.DataFrame, *, caption: str) -> Figure:
    """What 1,000 correct answers cost: `deployment usd_per_1k_correct` with `_low` and `_high`."""
    title, value = "Cost of 1,000 correct answers, by configuration", "usd_per_1k_correct"
    figure, ax = _dots(tradeoffs, value, f"{value}_low", f"{value}_high",
                       title=title, caption=caption, best="low", prefix="$")  # fmt: skip
    ax.set_xlabel("USD per 1,000 correct answers")
    return finish(figure)


@styled
def verdicts_by_family(legal: pd.DataFrame, *, caption: str) -> Figure:
    """Models (`family verdict`) counted: the article's seven families, ten more, the rest."""
    counts = pd.crosstab(legal.family.fillna("unknown family"), legal.verdict)
    counts = counts.reindex(columns=list(VERDICTS), fill_value=0)
    counts = counts.loc[counts.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    others = counts.drop(index=list(FAMILIES), errors="ignore")
    shown = pd.concat([counts.reindex([f for f in FAMILIES if f in counts.index]), others[:10]])
    if len(others) > 10:
        shown.loc[f"other families ({len(others) - 10})"] = others[10:].sum()
    shown.index = pd.Index([safe(name) for name in shown.index])
    totals = shown.sum(axis=1)
    figure, (ax,) = new("Licence verdicts, by family", caption, 8, 2 + 0.34 * max(len(shown), 3))
    if len(shown):
        shown.plot.barh(stacked=True, color={**VERDICTS}, width=0.8, lw=0, ax=ax, legend=False)
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False)
    for bars, verdict in zip(ax.containers, VERDICTS, strict=False):
        text = shown[verdict].astype(str)
        fits = shown[verdict] > totals.max() * (0.012 + 0.013 * text.str.len())
        ax.bar_label(cast(BarContainer, bars), list(text.where(fits, "")), label_type="center",
                     color="white" if verdict == "allowed" else "black")  # fmt: skip
    for place, total in enumerate(totals):
        ax.text(total, place, f" {total}", va="center", fontweight="bold")
    ax.set(ylim=(len(shown) - 0.4, -0.6), xlabel="models in the catalogue", ylabel="")
    ax.grid(axis="y", visible=False)
    return finish(figure)


@styled
def quality_by_size(points: pd.DataFrame, *, benchmark: str, unit: str, caption: str) -> Figure:
    """Scores over size (`repo_id family total_params_b score`); the best of each family named."""
    points = points.dropna(subset=["total_params_b", "score"]).sort_values("score", kind="stable")
    seven = points.family.isin(list(FAMILIES))
    points = points.assign(group=points.family.where(seven, "other families"))
    figure, (ax,) = new(f"{benchmark}, by model size and family", caption, 9, 5.6)
    sizes = points.total_params_b
    left, right = min([0.08, *sizes / 1.3]), max([4000.0, *sizes * 1.3])
    for tier, (low, high) in BOUNDS.items():
        low, high = max(low, left), min(high, right)
        ax.axvspan(low, high, color="#F0F0F0", zorder=0, lw=0)
        ax.text(math.sqrt(low * high), 1, f"{tier} tier", transform=ax.get_xaxis_transform(),
                ha="center", va="bottom", color=GREY)  # fmt: skip
    order = [family for family in FAMILIES if family in set(points.group)]
    sns.scatterplot(points, x="total_params_b", y="score", hue="group", style="group", s=45,
                    hue_order=order, style_order=order, palette=FAMILIES if order else None,
                    markers=dict(zip(FAMILIES, MARKERS, strict=True)), ax=ax, zorder=3)  # fmt: skip
    best = points.drop_duplicates("group", keep="last")
    names = [beside(ax, row["total_params_b"], row["score"], str(row["repo_id"]).split("/")[-1])
             for row in best.to_dict("records")]  # fmt: skip
    ax.set(xscale="log", xlim=(left, right), ylabel=safe(unit, 60), xlabel="total parameters")
    ax.xaxis.set_major_locator(FixedLocator([0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000]))
    ax.xaxis.set_major_formatter(
        FuncFormatter(lambda b, _: f"{number(b)}B" if b < 1000 else f"{number(b / 1000)}T")
    )
    ax.xaxis.set_minor_locator(NullLocator())
    low, high = (points.score.min(), points.score.max()) if len(points) else (0.0, 1.0)
    ax.set_ylim(low - 0.06 * (high - low), high + 0.15 * (high - low))  # room for names above
    if len(points):
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return finish(figure, names)


@styled
def confusion_matrices(confusion: pd.DataFrame, *, labels: Sequence[str], caption: str) -> Figure:
    """Targets against predictions (`deployment target predicted count`), the first six panels.

    Predictions that are no label, such as "unparsed", come after the labels.
    """
    deployments = list(confusion.deployment.unique())
    shown = deployments[:6]
    columns = 2 if len(shown) in (2, 4) else min(max(len(shown), 1), 3)
    rows = max(1, math.ceil(len(shown) / columns))
    title = "What is taken for what, by configuration"
    title += f" (the first 6 of {len(deployments)})" if len(deployments) > 6 else ""
    caption = f"{caption.rstrip('.')}. Cells: items, and their share of the row."
    size = (max(3.4 * columns, 5.5), 2.7 * rows + 1.0)
    figure, axes = new(title, caption, *size, grid=(rows, columns))
    targets = [*labels, *sorted(set(confusion.target) - set(labels))]
    predicted = [*labels, *sorted(set(confusion.predicted) - set(labels))]
    for ax, name in zip(axes, shown, strict=False):
        cells = confusion[confusion.deployment == name]
        counts = cells.pivot_table("count", "target", "predicted", "sum", fill_value=0)
        counts = counts.reindex(index=targets, columns=predicted, fill_value=0)
        share = counts.div(counts.sum(axis=1).replace(0, np.nan), axis=0).fillna(0.0)
        text = counts.map("{:.0f}".format) + "\n" + share.map("{:.0%}".format)
        sns.heatmap(share, vmin=0, vmax=1, cmap="Blues", cbar=False, ax=ax, linewidths=1, fmt="",
                    annot=text if len(predicted) <= 6 else False, annot_kws={"fontsize": 9},
                    xticklabels=[safe(label, 12) for label in predicted],
                    yticklabels=[safe(label, 12) for label in targets])  # fmt: skip
        ax.set_title(safe(name, 26), fontsize=10)
        ax.set(xlabel="predicted", ylabel="target")
        ax.tick_params(axis="x", rotation=0 if len(predicted) <= 3 else 90)
        ax.tick_params(axis="y", rotation=0)
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    return finish(figure)


@styled
def latency_by_load(
    speed: pd.DataFrame, *, slo_s: float, capacity: pd.DataFrame | None = None, caption: str
) -> Figure:
    """p95 latency over load (`deployment offered_rps p95_s within_slo`); hollow misses the SLO.

    Each row of `capacity` (`deployment max_rps low high`) is a bar under the SLO's line.
    """
    caption = f"{caption.rstrip('.')}. Hollow: beyond the SLO."
    caption += " Bars under the SLO: greatest load within it." if capacity is not None else ""
    figure, (ax,) = new("Latency under load, by configuration", caption, 9, 5.2)
    speed = speed.dropna(subset=["offered_rps", "p95_s"]).sort_values("offered_rps")
    deployments = sorted(speed.deployment.unique())
    colours = dict(zip(deployments, sns.color_palette("colorblind", len(deployments)), strict=True))
    names = []
    for turn, (name, own) in enumerate(speed.groupby("deployment")):
        ax.plot(own.offered_rps, own.p95_s, color=colours[name], lw=1.6)
        for within, face in ((True, colours[name]), (False, "white")):
            part = own[own.within_slo.astype(bool) == within]
            ax.scatter(part.offered_rps, part.p95_s, marker=MARKERS[turn % 7], s=40, lw=1.4,
                       facecolor=[face], edgecolor=[colours[name]], zorder=3)  # fmt: skip
        names.append(beside(ax, own.offered_rps.iloc[-1], own.p95_s.iloc[-1], str(name)))
    if capacity is not None:
        for turn, row in enumerate(capacity.to_dict("records"), start=1):
            down = ScaledTranslation(0, -turn * 6 / 72, figure.dpi_scale_trans)
            ax.plot([row["low"], row["max_rps"], row["high"]], [slo_s] * 3, lw=2.5, marker="|",
                    color=colours.get(row["deployment"], LIGHT),
                    transform=ax.transData + down)  # fmt: skip
    scale(ax, "x", speed.offered_rps)
    scale(ax, "y", pd.concat([speed.p95_s, pd.Series([slo_s])]))
    ax.set(xlabel="offered load, requests/s", ylabel="p95 latency, s")
    ax.margins(x=0.06, y=0.12)
    # Room on the right for the names at the ends of the lines.
    room = 0.012 * max((len(name.get_text()) for name in names), default=0)
    across = ax.xaxis.get_transform()
    left, right = across.transform(np.array(ax.get_xlim()))
    ax.set_xlim(None, across.inverted().transform(np.array([right + room * (right - left)]))[0])
    slo = line(ax, "y", slo_s, f"SLO: p95 within {number(slo_s)} s")
    return finish(figure, names, [slo])


def _plane(
    tradeoffs: pd.DataFrame, value: str, low: str, high: str, *, title: str, caption: str,
    metric: str, xlabel: str, prefix: str = "", cheap: bool, bound: float | None,
    floor: float | None = None,
) -> Figure:  # fmt: skip
    """Quality over one other dimension, with intervals, frontier, pick and requirements."""
    drawn = tradeoffs.dropna(subset=[value, "quality"])
    if missing := [str(name) for name in tradeoffs.deployment if name not in set(drawn.deployment)]:
        caption = f"{caption.rstrip('.')}. Not measured, so not drawn: {', '.join(missing)}."
    figure, (ax,) = new(title, caption, 9, 5.6)
    spans = known(drawn, value, low, high)
    ax.hlines(spans.quality, spans[low], spans[high], color=LIGHT, lw=1.2)
    spans = known(drawn, "quality", "quality_low", "quality_high")
    ax.vlines(spans[value], spans.quality_low, spans.quality_high, color=LIGHT, lw=1.2)
    front = drawn[drawn.on_frontier.astype(bool)].sort_values(value, ascending=cheap)
    front = front[front.quality > front.quality.cummax().shift(fill_value=-math.inf)]
    ax.step(front[value], front.quality, where="post", color=INK, lw=1.1, label="frontier")
    words = drawn.qualifies.replace({"yes": "qualifies", "no": "does not qualify"})
    order = [word for word in QUALIFIES if word in set(words)]
    sns.scatterplot(drawn, x=value, y="quality", hue=words, style=words, hue_order=order, s=75,
                    palette=QUALIFIES if order else None, zorder=3, ax=ax,
                    markers=dict(zip(QUALIFIES, "oDX", strict=True)))  # fmt: skip
    chosen = drawn.pick.astype(bool)
    ax.scatter(drawn[value][chosen], drawn.quality[chosen], s=220, facecolor="none",
               edgecolor=INK, lw=1.6, zorder=4)  # fmt: skip
    told = drawn if len(drawn) <= LABELLED else drawn[chosen | drawn.on_frontier.astype(bool)]
    names = []
    for row in told.sort_values("pick", ascending=False)[:LABELLED].to_dict("records"):
        name = ("pick: " if row["pick"] else "") + str(row["deployment"])
        names.append(beside(ax, row[value], row["quality"], name, bold=bool(row["pick"])))
    scale(ax, "x", drawn[value], prefix)
    scale(ax, "y", drawn.quality)
    ax.margins(0.14)
    avoid = []
    if bound is not None:
        text = f"at {'most' if cheap else 'least'} {safe(prefix)}{number(bound)}"
        avoid.append(line(ax, "x", bound, text))
    if floor is not None:
        avoid.append(line(ax, "y", floor, f"at least {number(floor)}"))
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    if avoid:  # the corner that meets the requirements
        sides = (left, bound or right) if cheap else (bound or left, right)
        ax.fill_between(sides, floor or bottom, top, color=BLUE, alpha=0.07, lw=0, zorder=0)
    ax.set(xlim=(left, right), ylim=(bottom, top), xlabel=xlabel, ylabel=safe(metric, 60))
    if len(drawn):
        ax.legend(title=None, loc="lower right", bbox_to_anchor=(1, 1.04), ncols=4, frameon=False)
    return finish(figure, names, avoid)


@styled
def cost_quality(
    tradeoffs: pd.DataFrame, *, metric: str, caption: str,
    min_quality: float | None = None, max_usd_per_1k: float | None = None,
) -> Figure:  # fmt: skip
    """Quality over the cost of 1,000 requests, from the trade-off table."""
    return _plane(tradeoffs, "usd_per_1k", "usd_per_1k_low", "usd_per_1k_high", metric=metric,
                  title=f"{_leading(metric)} against cost, by configuration", caption=caption,
                  prefix="$", xlabel="USD per 1,000 requests", cheap=True, bound=max_usd_per_1k,
                  floor=min_quality)  # fmt: skip


@styled
def speed_quality(
    tradeoffs: pd.DataFrame, *, metric: str, caption: str, min_rps: float | None = None
) -> Figure:
    """Quality over the greatest load within the SLO, from the trade-off table."""
    return _plane(tradeoffs, "max_rps", "rps_low", "rps_high", metric=metric, caption=caption,
                  title=f"{_leading(metric)} against speed, by configuration", cheap=False,
                  bound=min_rps,
                  xlabel="greatest load within the latency objective, requests/s")  # fmt: skip
