"""What all figures share: one palette, number and label formats, layout, and the way to PNG."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import ContextDecorator
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from lib import artifacts
from lib.tables import number

# Okabe and Ito's colours, safe for colour blindness; a marker says the same without colour.
BLUE, SKY, AMBER, RED = "#0072B2", "#56B4E9", "#E69F00", "#D55E00"
INK, GREY, LIGHT = "#222222", "#595959", "#9A9A9A"
FAMILIES = {"DeepSeek": BLUE, "Kimi": "#000000", "Qwen": "#CC79A7", "GLM": "#009E73"}
FAMILIES |= {"Llama": SKY, "Gemma": AMBER, "Mistral": RED, "other families": LIGHT}
VERDICTS = {"allowed": BLUE, "conditional": SKY, "review": AMBER, "blocked": RED}
TONES = {"good": BLUE, "fair": SKY, "bad": RED, "doubt": AMBER, "pink": "#CC79A7"}
TONES |= {"grey": GREY, "light": LIGHT, "pale": "#E2E2E2"}
QUALIFIES = {"qualifies": BLUE, "not decided": AMBER, "does not qualify": RED}
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "."]
HALO = [withStroke(linewidth=2.5, foreground="white")]
LABELLED = 11  # names stand beside the points where there are fewer than a dozen
STYLE = sns.axes_style("whitegrid") | {"font.sans-serif": ["DejaVu Sans"], "text.color": INK}
STYLE |= {"axes.spines.top": False, "axes.spines.right": False, "grid.color": "#E6E6E6"}
STYLE |= {"font.size": 9, "axes.labelsize": 9, "axes.titlesize": 10, "legend.fontsize": 9}
STYLE |= {"xtick.labelsize": 9, "ytick.labelsize": 9}
# What turns with the page's theme; black is what matplotlib leaves unsaid.
THEME = {INK: "ink", "#262626": "ink", "#000000": "ink", GREY: "soft", "#ffffff": "page"}
THEME |= {"#e6e6e6": "line", "#cccccc": "line"}
PAGE_COLOURS = re.compile("|".join(THEME), re.IGNORECASE)
GLYPHS = frozenset(get_font(findfont("DejaVu Sans")).get_charmap())
# Where a label may stand: on 16 sides of its point, nearer ones first, so many pixels off.
SPOTS = np.tile([(math.cos(a), math.sin(a)) for a in np.arange(16) * math.pi / 8], (12, 1))
REACH = np.repeat([[4], [9], [15], [23], [33], [45], [60], [80], [105], [135], [170], [210]], 16, 0)
Size = tuple[float, float]
Pixels = NDArray[np.float64]
Colours = Mapping[str, Any] | None
styled = cast(ContextDecorator, plt.rc_context(STYLE))


def png(figure: Figure) -> bytes:
    """The figure as a PNG of 144 dots per inch; the same figure gives the same bytes."""
    figure.savefig(buffer := BytesIO(), format="png", dpi=144, metadata={"Software": None})
    return buffer.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG of 144 dots per inch, and beside it as the page's `.svg`."""
    artifacts.write_bytes(path, png(figure))
    artifacts.write_bytes(path.with_suffix(".svg"), svg(figure, path.stem).encode())


def svg(figure: Figure, name: str) -> str:
    """The figure as an element of a page: text as outlines, in the page's own colours by theme."""
    with plt.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(buffer := BytesIO(), format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue().decode()
    start = text.index(">", text.index("<svg"))
    box = re.search(r'viewBox="[^"]*"', text)[0]  # type: ignore[index]
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text[start:], flags=re.DOTALL)
    # Names of one figure must not be those of another on the same page.
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", body)
    text = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {box}{body}'
    return PAGE_COLOURS.sub(lambda match: f"var(--{THEME[match[0].lower()]})", text)


def safe(value: object, limit: int = 32) -> str:
    """Hostile text as a label: one line, cut in the middle, drawable, never read as mathematics."""
    text = " ".join(str(value).split())
    if len(text) > limit:
        text = f"{text[: limit // 2]}…{text[-((limit - 1) // 2) :]}"
    drawable = (c if c.isprintable() and ord(c) in GLYPHS else "□" for c in text)
    return "".join(drawable).replace("$", r"\$")


def new(
    title: str, caption: str, size: Size, *, grid: tuple[int, int] = (1, 1), widths: Any = None
) -> tuple[Figure, list[Axes]]:
    """An empty figure of so many inches with its title above and its source below."""
    figure, axes = plt.subplots(
        *grid, figsize=size, dpi=100, layout="constrained", squeeze=False, width_ratios=widths
    )
    plt.close(figure)  # the cell shows what is returned; pyplot must not show it a second time
    # A metric at the head of a title: accuracy gets a capital, nDCG@10 has its own.
    title = title if any(map(str.isupper, title)) else title.capitalize()
    heading = textwrap.fill(safe(title, 200), int(size[0] * 10))
    figure.suptitle(heading, x=0.01, ha="left", fontsize=12, fontweight="bold")
    source = textwrap.fill(safe(caption, 600), int(size[0] * 15))
    figure.supxlabel(source, x=0.01, ha="left", fontsize=8, color=GREY)
    return figure, list(axes.flat)


def finish(figure: Figure, labels: Sequence[Text] = ()) -> Figure:
    """Lay out once, then put each label where nothing else is drawn."""
    for ax in figure.axes:
        if not ax.has_data():
            ax.set_axis_off()
    if labels:  # which may move to the right
        figure.set_layout_engine("constrained", rect=(0, 0, 0.95, 1))
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    if labels:
        _place(figure.axes[0], labels)
    return figure


def _place(ax: Axes, labels: Sequence[Text]) -> None:
    """Move each label to the nearest free place around its point, and tie it there by a line."""
    dots, lines = _dots_and_lines(ax)
    texts = [t for t in ax.figure.findobj(Text) if t.get_text() and t.get_visible()]
    blocks = [*(t for t in texts if t not in labels), *filter(None, [ax.get_legend()])]
    taken_boxes = np.vstack([dots, *(block.get_window_extent().extents for block in blocks)])
    to_data, edge = ax.transData.inverted().transform, (*ax.bbox.p0, *ax.figure.bbox.size)
    for label in labels:
        at = ax.transData.transform(label.get_position())
        half = np.array(label.get_window_extent().size) / 2 + 2
        centres = at + SPOTS * (half + REACH)
        boxes = np.hstack([centres - half, centres + half])
        # Nothing may lie in a box: dots, texts, lines. Its tie had better not meet another one's
        # dot or text. All else equal the nearest place is the best.
        meet = (boxes[:, None, :2] < taken_boxes[:, 2:]) & (boxes[:, None, 2:] > taken_boxes[:, :2])
        outside = (boxes[:, :2] < edge[:2]) | (boxes[:, 2:] > edge[2:])
        ties = np.linspace(at, np.clip(at, boxes[:, :2], boxes[:, 2:]), 24, axis=1)
        others = taken_boxes[~_inside(at[None], taken_boxes)[:, 0]]
        cost = 5e5 * (meet.all(axis=2).sum(axis=1) + outside.any(axis=1)) + REACH[:, 0]
        cost += 5e3 * _inside(lines, boxes).sum(axis=1)
        cost += [900 * _inside(tie, others).any() for tie in ties]
        best = int(cost.argmin())
        taken_boxes, lines = np.vstack([taken_boxes, boxes[best]]), np.vstack([lines, ties[best]])
        tie = Line2D(*to_data(ties[best][[0, -1]]).T, color=GREY, lw=0.6, clip_on=False, zorder=2)
        ax.add_artist(tie)
        label.set(position=to_data(centres[best]), ha="center", va="center", ma="left")


def _inside(points: Pixels, boxes: Pixels) -> NDArray[np.bool_]:
    """Of every box (left, bottom, right, top) and point, whether it lies inside."""
    inside = (points > boxes[:, None, :2]) & (points < boxes[:, None, 2:])
    return cast(NDArray[np.bool_], inside.all(axis=2))


def _dots_and_lines(ax: Axes) -> tuple[Pixels, Pixels]:
    """Boxes around all dots of the axes, and points on its lines, 4 pixels from each other."""
    dots = [np.empty((0, 4))]
    paths = [line.get_transform().transform_path(line.get_path()) for line in ax.lines]
    for artist in ax.collections:
        if isinstance(artist, PathCollection):
            centres = ax.transData.transform(np.asarray(artist.get_offsets()))
            radius = math.sqrt(max(artist.get_sizes(), default=0)) / 2 * ax.figure.dpi / 72
            dots.append(np.hstack([centres - radius, centres + radius]))
        elif isinstance(artist, LineCollection):
            paths += [artist.get_transform().transform_path(path) for path in artist.get_paths()]
    corners = [np.asarray(path.vertices, dtype=float) for path in paths]
    ends = [pair for path in corners for pair in pairwise(path) if np.isfinite(pair).all()]
    lines = [np.linspace(*pair, 2 + int(math.dist(*pair) / 4)) for pair in ends]
    return np.vstack(dots), np.vstack([np.empty((0, 2)), *lines])


def labels(
    ax: Axes, table: pd.DataFrame, x: str, y: str, name: str = "deployment", colours: Colours = None
) -> list[Text]:
    """A name for every point, which `finish` places; one for those alike, but by `colours`."""
    texts = []
    table = table.assign(pick=table.get("pick", False))
    for _, rows in table.groupby([x, y, *([name] if colours else [])], sort=False):
        names = [safe(f"{'pick: ' * bool(pick)}{n}") for n, pick in rows[[name, "pick"]].to_numpy()]
        bold = "bold" if len(rows) == 1 and rows["pick"].any() else "normal"
        colour = colours[rows[name].iloc[0]] if colours else INK
        at = {"x": rows[x].iloc[0], "y": rows[y].iloc[0], "s": "\n".join(names), "weight": bold}
        texts.append(ax.text(**at, color=colour, fontsize=8.5, zorder=5, path_effects=HALO))
    return texts


def line(ax: Axes, which: Literal["x", "y"], at: float, text: str) -> Text:
    """A dashed line at a requirement, with its name at the end."""
    draw, end, shift, along, sides = {
        "x": (ax.axvline, (at, 1), (0, 3), ax.get_xaxis_transform(), ("bottom", "center")),
        "y": (ax.axhline, (1, at), (4, 0), ax.get_yaxis_transform(), ("center", "left")),
    }[which]
    draw(at, color=INK, ls="--", lw=1)
    va, ha = sides
    return ax.annotate(text, end, shift, along, "offset points", va=va, ha=ha)


def scale(ax: Axes, which: Literal["x", "y"], values: pd.Series[float], prefix: str = "") -> None:
    """Logarithmic where the values span more than a decade; plain numbers either way."""
    finite = values.astype(float).replace(math.inf, math.nan)
    span = finite.max() / finite.min() if finite.min() > 0 else 1.0
    axis = {"x": ax.xaxis, "y": ax.yaxis}[which]
    if span > 10:
        ax.set(**{f"{which}scale": "log"})
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if span < 1000 else (1,)))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(lambda v, _: safe(prefix) + number(v, digits=6))


def intervals(table: pd.DataFrame, value: str, low: str, high: str) -> pd.DataFrame:
    """The rows with an interval, as `low high`; without an upper end to ten times the value."""
    both = table.dropna(subset=[value, low, high]).astype({value: float, low: float, high: float})
    return both.assign(
        low=both[low], high=both[high].where(both[high] < math.inf, both[value] * 10)
    )
