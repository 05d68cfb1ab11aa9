"""The figures of steps 1, 2, 4, 5 and 6: tidy frame in, one question each, intervals drawn."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import ScaledTranslation

from lib.pages import style
from lib.pages.generic import dots, height, stack
from lib.pages.style import FAMILIES, MARKERS, QUALIFIES, VERDICTS, safe, styled
from lib.tables import number

MOST_OTHERS = 10  # families drawn beside the seven; the rest are one row
Tiers = Mapping[str, tuple[float, float]]  # least and most billions of parameters
CONFIGURATIONS = [style.BLUE, style.RED, "#009E73", style.AMBER, "#CC79A7", style.SKY, style.INK]
CONFIGURATIONS += [style.LIGHT]
Bar = float | None
Bars = Mapping[str, Bar]
Names = Sequence[str]  # of all configurations of the brief
SIZES = {0.1: "0.1B", 0.3: "0.3B", 1: "1B", 3: "3B", 10: "10B", 30: "30B", 100: "100B"}
SIZES |= {300: "300B", 1000: "1T", 3000: "3T"}  # ticks of an axis of parameters
# What quality is set against: column, that of its interval, requirement, prefix, words.
LOAD = "greatest load within the latency objective, requests/s"
DIMENSIONS = {
    "cost": ("usd_per_1k", "usd_per_1k", "max_usd_per_1k", "$", "USD per 1,000 requests"),
    "speed": ("max_rps", "rps", "min_rps", "", LOAD),
}


@styled
def verdicts_by_family(counts: pd.DataFrame, *, caption: str) -> Figure:
    """Models by family and verdict, largest first: the article's seven, ten more, the rest."""
    counts = counts[list(VERDICTS)]
    others = counts.drop(index=list(FAMILIES), errors="ignore")
    families = pd.concat([counts.filter(list(FAMILIES), axis=0), others[:MOST_OTHERS]])
    if rest := len(others[MOST_OTHERS:]):
        families.loc[f"other families ({rest})"] = others[MOST_OTHERS:].sum()
    figure, (ax,) = style.new("Licence verdicts, by family", caption, (8, height(len(families))))
    stack(ax, families, VERDICTS)
    for place, total in enumerate(families.sum(axis=1)):
        ax.text(total, place, f" {total}", va="center", fontweight="bold")
    ax.set_xlabel("models in the catalogue")
    return style.finish(figure)


@styled
def quality_by_size(
    points: pd.DataFrame, *, benchmark: str, unit: str, tiers: Tiers, caption: str
) -> Figure:
    """Scores over size (`repo_id family total_params_b score`), the best named; `tiers`: bands."""
    points = points.dropna(subset=["total_params_b", "score"]).sort_values("score", kind="stable")
    seven = points["family"].isin(list(FAMILIES))
    short = points["repo_id"].str.split("/").str[-1]
    points = points.assign(group=points["family"].where(seven, "other families"), name=short)
    sizes, order = points["total_params_b"], [f for f in FAMILIES if f in set(points["group"])]
    figure, (ax,) = style.new(f"{benchmark}, by model size and family", caption, (9, 5.6))
    left, right = min([0.08, *sizes / 1.3]), max([4000.0, *sizes * 1.3])
    for tier, (low, high) in tiers.items():
        low, high = max(low, left), min(high, right)
        ax.axvspan(low, high, color="#F0F0F0", zorder=0, lw=0)
        ax.text(math.sqrt(low * high), 1, f"{tier} tier", transform=ax.get_xaxis_transform(),
                ha="center", va="bottom", color=style.GREY)  # fmt: skip
    colours = FAMILIES | {"other families": style.GREY}  # on the grey of the tiers
    sns.scatterplot(points, x="total_params_b", y="score", hue="group", style="group", s=45,
                    hue_order=order, style_order=order, palette=colours if order else None,
                    markers=dict(zip(FAMILIES, MARKERS, strict=True)), ax=ax, zorder=3)  # fmt: skip
    best = points.drop_duplicates("group", keep="last")
    labels = style.labels(ax, best, "total_params_b", "score", "name")
    ax.set(xscale="log", xlim=(left, right), ylabel=safe(unit, 60), xlabel="total parameters")
    ax.set_xticks(list(SIZES), list(SIZES.values()))
    ax.set_xticks([], minor=True)
    if order:
        low, high = points["score"].min(), points["score"].max()
        ax.set_ylim(low - 0.06 * (high - low), high + 0.15 * (high - low))  # names go above
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return style.finish(figure, labels)


@styled
def score_intervals(
    scores: pd.DataFrame, *, metric: str, caption: str, requirement: Bar = None, prefix: str = ""
) -> Figure:
    """A score per deployment (`deployment value low high`), best on top; with `$`, the cheapest."""
    table = scores.sort_values("value", ascending=prefix == "$", kind="stable")
    size = (8, height(len(table)) - 0.2)
    figure, (ax,) = style.new(f"{metric}, by configuration", caption, size)
    dots(ax, table, prefix=prefix)
    ax.margins(x=0.08)
    spans = style.intervals(table, "value", "low", "high")
    style.scale(ax, "x", pd.concat([spans["low"], spans["high"], table["value"]]), prefix)
    ax.set_xlabel(safe(metric, 60))
    if requirement is not None:
        style.line(ax, "x", requirement, f"required: {number(requirement)}")
    return style.finish(figure)


def cost_per_correct(tradeoffs: pd.DataFrame, *, caption: str) -> Figure:
    """What 1,000 correct answers cost: `deployment usd_per_1k_correct` with `_low` and `_high`."""
    values = [f"usd_per_1k_correct{end}" for end in ("", "_low", "_high")]
    costs = tradeoffs.rename(columns=dict(zip(values, ["value", "low", "high"], strict=True)))
    metric = "cost of 1,000 correct answers"
    return score_intervals(costs, metric=metric, caption=caption, prefix="$")


@styled
def latency_by_load(
    speed: pd.DataFrame, *, slo_s: float, capacity: pd.DataFrame, caption: str, names: Names = ()
) -> Figure:
    """p95 latency over load (`deployment offered_rps p95_s within_slo`); bars: `capacity`."""
    caption = f"{caption.rstrip('.')}. Hollow: beyond the SLO. Bars: greatest load within it."
    figure, (ax,) = style.new("Latency under load, by configuration", caption, (9, 5.2))
    colours = _colours(names, speed)
    speed = speed.dropna(subset=["offered_rps", "p95_s"]).sort_values("offered_rps")
    # A line per deployment, with its name at the end; points that miss the SLO are hollow.
    both = {"x": "offered_rps", "y": "p95_s", "ax": ax, "legend": False}
    points = {"style": "deployment", "edgecolor": "none", "style_order": [*colours],
              "markers": [MARKERS[turn % 7] for turn in range(len(colours))]}  # fmt: skip
    hue = {"hue": "deployment", "palette": colours or None}
    sns.lineplot(speed, **both, **hue, estimator=None, lw=1.6)
    sns.scatterplot(speed, **both, **hue, **points, s=50, zorder=3)
    beyond = speed[~speed["within_slo"].astype(bool)]
    sns.scatterplot(beyond, **both, **points, color="white", s=18, zorder=4)
    ends = speed.drop_duplicates("deployment", keep="last")
    labels = _framed(style.labels(ax, ends, "offered_rps", "p95_s", colours=colours))
    for turn, row in enumerate(capacity.to_dict("records"), start=1):
        below = turn * min(6, 30 / len(capacity)) / 72
        down = ScaledTranslation(0, -below, figure.dpi_scale_trans)
        ax.plot([row["low"], row["max_rps"], row["high"]], [slo_s] * 3, lw=2.5, marker="|", ms=4,
                color=colours.get(row["deployment"], style.LIGHT),
                transform=ax.transData + down)  # fmt: skip
    style.scale(ax, "x", speed["offered_rps"])
    style.scale(ax, "y", pd.concat([speed["p95_s"], pd.Series([slo_s])]))
    ax.set(xlabel="offered load, requests/s", ylabel="p95 latency, s")
    ax.margins(x=0.06, y=0.12)
    style.line(ax, "y", slo_s, f"SLO: p95\nwithin {number(slo_s)} s")
    return style.finish(figure, labels)


@styled
def quality_against(
    dimension: str, tradeoffs: pd.DataFrame, *, metric: str, caption: str, requirements: Bars
) -> Figure:
    """Quality over `cost` or `speed`: intervals, frontier, pick, and the requirements by name."""
    x, ends, _, prefix, words = DIMENSIONS[dimension]
    table = tradeoffs.dropna(subset=[x, "quality"])
    if len(absent := tradeoffs["deployment"].drop(table.index)):
        caption = f"{caption.rstrip('.')}. Not measured, so not drawn: {', '.join(absent)}."
    figure, (ax,) = style.new(f"{metric} against {dimension}, by configuration", caption, (9, 5.6))
    # Intervals of both, and the frontier, which steps up from the cheapest or down to the fastest.
    spans = style.intervals(table, x, f"{ends}_low", f"{ends}_high")
    ax.hlines(spans["quality"], spans["low"], spans["high"], color=style.LIGHT, lw=1.2)
    spans = style.intervals(table, "quality", "quality_low", "quality_high")
    ax.vlines(spans[x], spans["low"], spans["high"], color=style.LIGHT, lw=1.2)
    picks, leaders = table["pick"].astype(bool), table["on_frontier"].astype(bool)
    front = table[leaders].sort_values(x, ascending=dimension == "cost")
    front = front[front["quality"] > front["quality"].cummax().shift(fill_value=-math.inf)]
    ax.step(front[x], front["quality"], where="post", color=style.INK, lw=1.1,
            label="frontier" if len(front) > 1 else None)  # fmt: skip
    # A point per configuration by whether it qualifies, and a ring around the pick.
    groups = table["qualifies"].replace({"yes": "qualifies", "no": "does not qualify"})
    order = [word for word in QUALIFIES if word in set(groups)]
    sns.scatterplot(table, x=x, y="quality", hue=groups, style=groups, hue_order=order,
                    palette=QUALIFIES if order else None, s=75, zorder=3, ax=ax,
                    markers=dict(zip(QUALIFIES, "oDX", strict=True)))  # fmt: skip
    ax.scatter(table[x][picks], table["quality"][picks], s=220, facecolor="none",
               edgecolor=style.INK, lw=1.6, zorder=4)  # fmt: skip
    # Names, of the pick and the frontier only where there are many.
    labelled = table[picks | leaders | (len(table) <= style.LABELLED)]
    labelled = labelled.sort_values("pick", ascending=False)[: style.LABELLED]
    labels = style.labels(ax, labelled, x, "quality")
    style.scale(ax, "x", table[x], prefix)
    style.scale(ax, "y", table["quality"])
    ax.margins(0.14)
    _required(ax, dimension, requirements)
    ax.set(xlabel=words, ylabel=safe(metric, 60))
    if len(table):
        ax.legend(title=None, loc="lower right", bbox_to_anchor=(1, 1.04), ncols=4, frameon=False)
    return style.finish(figure, labels)


@styled
def cost_by_volume(
    curves: pd.DataFrame, *, requests_per_day: Bar, caption: str, names: Names = ()
) -> Figure:
    """Dollars a month over requests a day: `deployment hourly requests_per_day usd low high`."""
    colours, middle = _colours(names, curves), requests_per_day or 10_000.0
    near = curves["requests_per_day"].between(middle / 100, middle * 100)
    drawn = curves[near].dropna(subset=["usd"])
    caption = f"{caption.rstrip('.')}. Solid: machines by the hour. Dashed: by token."
    if absent := sorted({*curves["deployment"]} - {*drawn["deployment"]}):
        caption += f" Of unknown cost, so not drawn: {', '.join(absent)}."
    title = "Dollars a month by requests a day, by configuration"
    ends = drawn.drop_duplicates("deployment", keep="last").sort_values("usd", kind="stable")
    figure, (ax,) = style.new(title, caption, (9, max(5.2, 1.5 + 0.2 * len(ends))))
    for name, curve in drawn.groupby("deployment"):
        x, dashes = curve["requests_per_day"], "-" if curve["hourly"].all() else "--"
        ax.plot(x, curve["usd"], dashes, color=colours[str(name)], lw=1.8)
        ax.fill_between(x, curve["low"], curve["high"], color=colours[str(name)], alpha=0.15, lw=0)
    labels = _framed(style.labels(ax, ends, "requests_per_day", "usd", colours=colours))
    style.scale(ax, "x", drawn["requests_per_day"])
    style.scale(ax, "y", drawn["usd"], "$")
    ax.margins(x=0)
    ax.set(xlabel="requests a day", ylabel="USD a month", ylim=ax.get_ylim(), xlim=ax.get_xlim())
    # The names stand in a column, each as near to the end of its line as the others allow.
    points = ends[["requests_per_day", "usd"]].to_numpy(float)
    steps = np.arange(len(ends)) * 0.2 / (figure.get_figheight() - 1.3)
    places = (ax.transData - ax.transAxes).transform(points)[:, 1] - steps
    places = np.minimum(np.maximum.accumulate(places), 1 - steps[-1:]) + steps
    for label, name, place in zip(labels, ends["deployment"], places, strict=True):
        tie, end = {"arrowstyle": "-", "color": colours[name]}, label.get_position()
        ax.annotate("", end, (1.03, place), "data", "axes fraction", arrowprops=tie)
        label.set(transform=ax.transAxes, position=(1.03, place), va="center")
    if requests_per_day and len(drawn):
        style.line(ax, "x", requests_per_day, f"the brief: {number(requests_per_day)}")
    return style.finish(figure)


def _colours(names: Names, table: pd.DataFrame) -> dict[str, str]:
    """A colour for each configuration, by its place in `names`: the same in every figure."""
    order = dict.fromkeys([*names, *sorted(table["deployment"].unique())])
    return dict(zip(order, cycle(CONFIGURATIONS), strict=False))


def _framed(labels: list[Text]) -> list[Text]:
    """Labels in ink, which turns with the theme, in frames of the colours that they had."""
    for label in labels:
        frame = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": label.get_color()}
        label.set(color=style.INK, bbox=frame)
    return labels


def _required(ax: Axes, dimension: str, requirements: Bars) -> None:
    """Lines at the requirements, and the corner that meets them."""
    _, _, requirement, prefix, _ = DIMENSIONS[dimension]
    bound, floor = requirements.get(requirement), requirements.get("min_quality")
    if bound is not None:
        word = "most" if dimension == "cost" else "least"
        style.line(ax, "x", bound, f"at {word} {safe(prefix)}{number(bound)}")
    if floor is not None:
        style.line(ax, "y", floor, f"at least {number(floor)}")
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    if bound is not None or floor is not None:
        sides = (left, bound or right) if dimension == "cost" else (bound or left, right)
        ax.fill_between(sides, floor or bottom, top, color=style.BLUE, alpha=0.07, lw=0, zorder=0)
    ax.set(xlim=(left, right), ylim=(bottom, top))
