"""Where do the candidates go wrong? One figure for each kind of task, and for the baseline."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib.brief.project import Project
from lib.evaluate import correction, preferences, reranking, scoring
from lib.pages import panels, plots
from lib.pages.style import (
    AMBER,
    BLUE,
    GREY,
    INK,
    LIGHT,
    RED,
    SKY,
    finish,
    new,
    number,
    safe,
    styled,
)

__all__ = ["detail", "non_inferiority", "race"]

PALE = "#E2E2E2"
USABLE = {"right": BLUE, "partly right": SKY, "wrong": RED}
UNUSABLE = {"unparsed": AMBER, "truncated": GREY, "refused": "#CC79A7", "empty": LIGHT}
FAILED = {"failed": PALE}
CALLS = {
    **{"correct": BLUE, "wrong arguments": SKY, "wrong function": AMBER, "malformed": RED},
    **{"no usable answer": LIGHT, "failed": PALE},
}
PAIRS = {
    **{"first wins": BLUE, "tie": LIGHT, "inconsistent": AMBER, "second wins": RED},
    **{"not judged": PALE},
}
RESULTS = {
    **{"win": "first wins", "loss": "second wins", "tie": "tie", "identical": "tie"},
    **{"inconsistent": "inconsistent"},
}
SWITCH = {"good enough": (BLUE, "o"), "not decided": (AMBER, "D"), "worse": (RED, "X")}
PANELS, MOST_PAIRS = 8, 15
LEAST = 5  # items of a group: fewer say nothing
Row = Mapping[Hashable, Any]
NO_ANSWERS = "No answers yet: nothing was asked, or nothing came back."


@styled
def detail(
    brief: Project,
    scored: pd.DataFrame,
    *,
    caption: str,
    graded: pd.DataFrame | None = None,
    items: pd.DataFrame | None = None,
    checked: pd.DataFrame | None = None,
) -> Figure:
    """The figure of the brief's kind of task: where do the candidates go wrong?

    classification: confusion matrices. exact: accuracy by group, or what became of the answers.
    extraction: valid JSON and every field. tool_call: correct, or what is wrong with the call.
    scoring: the ratings given. judged: pass rate as judged and corrected, or the labels given.
    comparison: wins and losses in pairs, and Bradley–Terry strengths. reranking: nDCG of every
    query, beside chance. inspect: the score. published: nothing was asked, and it says so.

    Args:
        brief: Its `evaluation` says which kind.
        scored: From `scoring.score_answers`.
        caption: Source and date, below the figure.
        graded: The judge's records; comparison needs them.
        items: The items; reranking's chance level needs them.
        checked: From `judging.calibrate`; the corrected pass rate needs it.
    """
    kind = brief.evaluation.kind
    if kind == "published":
        text = "These figures are published, not measured: there are no answers to look into."
        return panels.empty(text, caption)
    if scored.empty:
        return panels.empty(NO_ANSWERS, caption)
    if kind == "classification":
        labels, counts = brief.evaluation.labels, scoring.confusion(scored)
        if counts.empty:
            return panels.empty("Every call failed.", caption)
        return plots.confusion_matrices(counts, labels=labels, caption=caption)
    if kind == "comparison":
        return _comparison(brief, scored, graded, caption)
    if kind == "reranking":
        return _reranking(brief, scored, items, caption)
    if kind == "extraction":
        return _extraction(brief, scored, caption)
    if kind == "judged" and checked is not None and not checked.empty:
        return _corrected(brief, scored, checked, caption)
    if kind == "exact" and scoring.clusters(scored) is not None:
        return _by_group(scored, caption)
    titles = {
        "exact": ("What became of the answers", "accuracy"),
        "tool_call": ("Where calls go wrong", "correct calls"),
        "scoring": ("Ratings given by the judge", "mean rating, 0 to 1"),
        "judged": ("Verdicts of the uncalibrated judge", "pass rate"),
        "inspect": ("What became of the samples", "score"),
    }
    colours, category = _categories(brief, scored)
    counts = _counted(scored.assign(category=category), "deployment", list(colours))
    title, metric = titles[kind]
    return panels.shares(
        counts, colours, panels.means(scored), f"{title}, by configuration", metric, caption
    )


@styled
def non_inferiority(frame: pd.DataFrame, *, margin: float, caption: str) -> Figure:
    """Good enough to switch? Differences to the baseline with one-sided bounds, and the margin.

    Args:
        frame: From `stats.non_inferiority`.
        margin: The loss of score that is accepted.
        caption: Source and date, below the figure.
    """
    if frame.empty:
        return panels.empty("There is nothing to compare with the baseline.", caption)
    baseline = str(frame["baseline"].iloc[0])
    table = frame.sort_values("difference", ascending=False, kind="stable", ignore_index=True)
    caption = f"{caption.rstrip('.')}. Lines: one-sided bounds; good enough is a line that ends"
    caption += " right of the margin, worse one that ends left of it."
    figure, (ax,) = new(
        "Good enough to replace the baseline?", caption, 9, panels.height(len(table))
    )
    for place, row in enumerate(table.to_dict("records")):
        colour, marker = SWITCH.get(row["verdict"], (GREY, "o"))
        text = f"{row['verdict']}"
        if pd.notna(row["difference"]):
            ax.hlines(place, row["low"], row["high"], color=colour, lw=2)
            ax.plot([row["low"], row["high"]], [place] * 2, "|", color=colour, ms=9, mew=2)
            ax.plot(row["difference"], place, marker, color=colour, ms=7, zorder=3)
            text += f"  {number(row['difference'])} [{number(row['low'])}, {number(row['high'])}]"
        panels.beside(ax, place, text)
    panels.named(ax, table["deployment"])
    top = ax.get_xaxis_transform()
    ax.axvline(-margin, color=INK, ls="--", lw=1)
    ax.axvline(0, color=GREY, lw=1)
    # Each on its own side of its line, so that the two never meet.
    ax.annotate(f"margin: −{number(margin)} ", (-margin, 1), (0, 3), top, "offset points",
                ha="right", va="bottom")  # fmt: skip
    ax.annotate(f" as good as {panels.short(baseline, 24)}", (0, 1), (0, 3), top, "offset points",
                ha="left", va="bottom", color=GREY)  # fmt: skip
    ax.margins(x=0.08)
    ax.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    ax.set_xlabel("score minus the baseline's score, same items")
    return finish(figure)


@styled
def race(log: pd.DataFrame, *, caption: str) -> Figure:
    """Who was dropped when: items asked of every candidate, those still in the race on top.

    Args:
        log: One row per deployment: `deployment dropped after_items reason`.
        caption: Source and date, below the figure.
    """
    if log.empty:
        return panels.empty("No race was run.", caption)
    out = log["dropped"].isin([True, "yes"])
    table = log.assign(out=out).sort_values(
        ["out", "after_items"], ascending=[True, False], kind="stable", ignore_index=True
    )
    figure, (ax,) = new("Who was dropped when", caption, 9, panels.height(len(table)))
    colours = [LIGHT if dropped else BLUE for dropped in table["out"]]
    ax.barh(table.index, table["after_items"], color=colours, height=0.6, lw=0)
    for place, row in enumerate(table.to_dict("records")):
        n = number(row["after_items"], digits=6)
        why = str(row["reason"]).removeprefix(f"dropped after {row['after_items']} items: ")
        why = f"dropped: {why}" if row["out"] else why or "in the race to the end"
        panels.beside(ax, place, f"{n} items, {safe(why, 60)}")
    panels.named(ax, table["deployment"])
    ax.set_xlabel("items asked")
    return finish(figure)


def _counted(table: pd.DataFrame, by: str, columns: list[str]) -> pd.DataFrame:
    counts = pd.crosstab(table[by], table["category"])
    return counts.reindex(columns=columns, fill_value=0)


def _categories(brief: Project, scored: pd.DataFrame) -> tuple[dict[str, Any], list[str]]:
    """The colours of the kind's categories, and the category of every row."""
    rows = scored.to_dict("records")
    if brief.evaluation.kind == "tool_call":
        return CALLS, [_call(row) for row in rows]
    judge = brief.evaluation.judge
    name: Callable[[Any], str] = str
    if brief.evaluation.kind == "scoring" and judge is not None:
        names, name = _ratings(judge.scale, scored["predicted"].dropna())
        given = dict(zip(names, reversed(_shades(BLUE, len(names))), strict=True))
    elif brief.evaluation.kind == "judged" and judge is not None:
        own = {**UNUSABLE, **FAILED}  # a judge may well have a label "refused" of its own
        name = lambda label: f"judge: {label}" if label in own else str(label)  # noqa: E731
        good = [name(label) for label in judge.labels if label in judge.pass_labels]
        bad = [name(label) for label in judge.labels if label not in judge.pass_labels]
        given = {
            label: shade
            for labels, colour in ((good, BLUE), (bad, RED))
            for label, shade in zip(labels, _shades(colour, len(labels)), strict=True)
        }
    else:
        colours = {**USABLE, **UNUSABLE, **FAILED}
        return colours, [_outcome(row, _marked) for row in rows]
    colours = {**given, **UNUSABLE, **FAILED}
    return colours, [_outcome(row, lambda r: name(r["predicted"])) for row in rows]


def _shades(colour: str, n: int) -> list[Any]:
    """A colour and lighter ones, as many as asked for."""
    return list(sns.light_palette(colour, n + 1, reverse=True))[:n]


def _outcome(row: Row, usable: Callable[[Row], str]) -> str:
    if row["outcome"] == "failed":
        return "failed"
    return usable(row) if row["outcome"] == "answered" else str(row["outcome"])


def _marked(row: Row) -> str:
    return "right" if row["score"] == 1 else "wrong" if row["score"] == 0 else "partly right"


def _call(row: Row) -> str:
    said = row.get("detail")
    said = said if isinstance(said, str) else ""
    if row["outcome"] == "failed":
        return "failed"
    if said.startswith("malformed"):
        return "malformed"
    if row["outcome"] != "answered":
        return "no usable answer"
    if row["score"] == 1:
        return "correct"
    function = said.startswith(("no call; expected", "called "))
    return "wrong function" if function else "wrong arguments"


def _ratings(
    scale: tuple[float, float], given: pd.Series
) -> tuple[list[str], Callable[[Any], str]]:
    """Names of the ratings: whole numbers where all are, five equal bands of the scale if not."""
    low, high = scale
    values = pd.to_numeric(given, errors="coerce").dropna()
    if float(low).is_integer() and high - low <= 9 and (values % 1 == 0).all():
        names = [f"{low + step:g}" for step in range(int(high - low) + 1)]
        return names, lambda text: f"{float(text):g}"
    edges = np.linspace(low, high, 6)
    bands = [f"{number(a)} to {number(b)}" for a, b in itertools.pairwise(edges)]
    last = len(bands) - 1
    return bands, lambda text: bands[
        min(max(int(np.searchsorted(edges, float(text), side="right")) - 1, 0), last)
    ]


def _by_group(scored: pd.DataFrame, caption: str) -> Figure:
    """Accuracy overall and in the groups where all candidates together are weakest."""
    groups = scored["group"].fillna("").astype(str)
    sizes = scored.groupby("group")["item_id"].nunique()
    enough = scored["group"].map(sizes) >= LEAST
    named = scored[(groups.str.strip() != "") & enough]
    hardest = named.groupby("group")["score"].mean().sort_values(kind="stable").index
    shown = list(hardest[: PANELS - 1])
    overall = panels.means(scored)
    tables = [("all items", overall)]
    for group in shown:
        own = panels.means(named[named["group"] == group]).set_index("deployment")
        part = own.reindex(overall["deployment"]).reset_index()
        tables.append((f"{panels.short(group, 14)}, n = {sizes[group]}", part))
    title = "Accuracy by group, the hardest first"
    title += f" ({len(shown)} of {len(hardest)})" if len(shown) < len(hardest) else ""
    return panels.panels(tables, title, caption)


def _extraction(brief: Project, scored: pd.DataFrame, caption: str) -> Figure:
    scores = scoring.summarise(brief, scored, deployments=[])
    order = panels.best_first(scores[scores["primary"].astype(bool)])["deployment"]
    means = scores.groupby("metric", sort=False)["value"].mean()
    fields = [name for name in means.sort_values(kind="stable").index if name.startswith("field: ")]
    shown = fields[: PANELS - 2]
    tables = [
        (title, scores[scores["metric"] == name].set_index("deployment").reindex(order))
        for title, name in [
            ("all fields", "field accuracy"),
            ("valid JSON", "valid JSON"),
            *((name.removeprefix("field: "), name) for name in shown),
        ]
    ]
    tables = [(title, table.reset_index()) for title, table in tables]
    title = "Which fields go wrong, the weakest first"
    title += f" ({len(shown)} of {len(fields)} fields)" if len(shown) < len(fields) else ""
    return panels.panels(tables, title, caption)


def _corrected(brief: Project, scored: pd.DataFrame, checked: pd.DataFrame, caption: str) -> Figure:
    """The pass rate as the judge gave it, and as people would have given it."""
    scores = scoring.summarise(brief, scored, deployments=[])
    scores = correction.correct(brief, scores, scored, checked)
    judged, corrected = (
        scores[scores["metric"] == name].set_index("deployment")
        for name in ("pass rate", "pass rate (corrected)")
    )
    order = corrected["value"].sort_values(ascending=False, kind="stable").index
    tables = [
        ("as judged", judged.loc[order].reset_index()),
        ("corrected for the judge's errors", corrected.loc[order].reset_index()),
    ]
    return panels.panels(tables, "Pass rate, by configuration", caption, small=False)


def _comparison(
    brief: Project, scored: pd.DataFrame, graded: pd.DataFrame | None, caption: str
) -> Figure:
    if graded is None or graded.empty:
        return panels.empty("No verdicts yet: the judge has not compared the answers.", caption)
    baseline = next((d.name for d in brief.deployments if d.baseline), None)
    strong = panels.best_first(preferences.strengths(graded, baseline=baseline))
    rank = {name: place for place, name in enumerate(strong["deployment"])}
    # The stronger of a pair stands first, so that the eye looks for red.
    turned = graded["deployment"].map(rank) > graded["other"].map(rank)
    sides = graded.assign(
        deployment=graded["deployment"].where(~turned, graded["other"]),
        other=graded["other"].where(~turned, graded["deployment"]),
        category=graded["result"]
        .where(~turned, graded["result"].replace({"win": "loss", "loss": "win"}))
        .map(RESULTS)
        .fillna("not judged"),
    )
    sides["pair"] = sides["deployment"].map(rank) * len(rank) + sides["other"].map(rank)
    counts = _counted(sides, "pair", list(PAIRS))
    shown = counts.sort_index()[:MOST_PAIRS]
    title = "Wins and losses in pairs, and strength"
    if len(counts) > len(shown):
        title += f" (the strongest {len(shown)} of {len(counts)} pairs)"
    tall = [0.43 * max(len(shown), 2), 0.32 * max(len(strong), 2)]
    figure, (bars, dots) = new(title, caption, 9, 2.6 + sum(tall), grid=(2, 1))
    place = bars.get_subplotspec()
    assert place is not None
    place.get_gridspec().set_height_ratios([t + 0.3 for t in tall])
    panels.stack(bars, shown.loc[:, shown.sum() > 0], PAIRS)
    names = list(strong["deployment"])
    panels.named(bars, shown.index)
    pairs = [divmod(int(pair), len(rank)) for pair in shown.index]
    told = [f"{panels.short(names[a], 28)}\nagainst {panels.short(names[b], 28)}" for a, b in pairs]
    bars.set_yticks(range(len(told)), told, fontsize=8)
    panels.dots(dots, strong)
    dots.axvline(0.5, color=INK, ls="--", lw=1)
    rival = panels.short(baseline, 24) if baseline in names else "an average opponent"
    dots.set_xlabel(f"chance to win against {rival} (Bradley–Terry)")
    return finish(figure)


def _reranking(
    brief: Project, scored: pd.DataFrame, items: pd.DataFrame | None, caption: str
) -> Figure:
    """Every query and its nDCG, a panel per deployment, with the mean and what chance gives."""
    k = brief.evaluation.ranking.k
    means = panels.means(scored)
    chance = None
    if items is not None and len(items):
        chance = reranking.by_chance(items, k=k).set_index("item_id")[f"nDCG@{k}"]
    caption = f"{caption.rstrip('.')}. Each panel sorts the queries anew; the band is the 95 %"
    caption += " interval of the mean."
    if chance is not None:
        caption += " Grey: an order drawn at random."
    shown = means[:PANELS].to_dict("records")
    across = min(len(shown), 4) if len(shown) != 4 else 2
    across = across if len(shown) > 3 else max(len(shown), 1)
    down = math.ceil(len(shown) / across)
    title = f"nDCG@{k} of every query, by configuration"
    title += f" (the best {PANELS} of {len(means)})" if len(means) > PANELS else ""
    figure, axes = new(title, caption, 10, 1.3 + 2.3 * down, grid=(down, across))
    for place, (ax, row) in enumerate(zip(axes, shown, strict=False)):
        own = scored[(scored["deployment"] == row["deployment"]) & scored["score"].notna()]
        own = own.sort_values("score", ascending=False, kind="stable")
        x = np.arange(1, len(own) + 1)
        if pd.notna(row["value"]):
            ax.axhspan(row["low"], row["high"], color=BLUE, alpha=0.15, lw=0)
            ax.axhline(row["value"], color=BLUE, lw=1)
        ax.scatter(x, own["score"].astype(float), color=BLUE, s=14, zorder=3)
        text = f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        if chance is not None and len(own):
            level = own["item_id"].map(chance).astype(float)
            ax.scatter(x, level, color=LIGHT, marker="_", s=30, zorder=2)
            text += f", chance {level.mean():.2f}"
        ax.set_title(
            f"{panels.short(row['deployment'], 36 if across < 3 else 26)}\n{text}", fontsize=9
        )
        ax.set(ylim=(-0.04, 1.04), yticks=[0, 0.5, 1], xticks=sorted({1, max(len(own), 1)}))
        if place % across:
            ax.set_yticklabels([])
        if place + across >= len(shown):
            ax.set_xlabel("queries, best first")
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    return finish(figure)
