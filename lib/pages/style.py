"""What all figures share: one palette, number and label formats, layout, and the way to PNG."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from contextlib import ContextDecorator
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, cast

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from adjustText import adjust_text
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from lib import artifacts

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
STYLE = sns.axes_style("whitegrid") | {
    **{"font.sans-serif": ["DejaVu Sans"], "font.size": 9, "axes.labelsize": 9},
    **{"xtick.labelsize": 9, "ytick.labelsize": 9, "legend.fontsize": 9, "text.color": INK},
    **{"axes.spines.top": False, "axes.spines.right": False, "grid.color": "#E6E6E6"},
    "axes.titlesize": 10,
}
GLYPHS = frozenset(get_font(findfont("DejaVu Sans")).get_charmap())
Size = tuple[float, float]
styled = cast(ContextDecorator, plt.rc_context(STYLE))


def number(value: float, *, digits: int = 3) -> str:
    """A number for people: three significant digits, no exponent; "–" where unknown."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞" if value > 0 else "-∞"
    text = np.format_float_positional(value, precision=digits, fractional=False, trim="-")
    return f"{float(text):,.0f}" if abs(value) >= 1000 else text


def readable() -> None:
    """Tables for people in a notebook: three significant digits, whole sentences, few rows."""
    # Without MathJax: two dollar signs in a model's answer are no formula.
    pd.options.display.html.use_mathjax = False
    options = {"float_format": number, "max_colwidth": 90, "max_rows": 40, "max_columns": 20}
    for name, value in options.items():
        pd.set_option(f"display.{name}", value)


def png(figure: Figure) -> bytes:
    """The figure as a PNG of 144 dots per inch; the same figure gives the same bytes."""
    figure.savefig(buffer := BytesIO(), format="png", dpi=144, metadata={"Software": None})
    return buffer.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG of 144 dots per inch, whole or not at all."""
    artifacts.write_bytes(path, png(figure))


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


def finish(figure: Figure, labels: Sequence[Text] = (), avoid: Sequence[Text] = ()) -> Figure:
    """Lay out once, then move the labels off each other, off every point and off `avoid`."""
    for ax in figure.axes:
        if not ax.has_data():
            ax.set_axis_off()
    if labels:  # which may move to the right
        figure.set_layout_engine("constrained", rect=(0, 0, 0.95, 1))
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    if not labels:
        return figure
    ax = figure.axes[0]
    boxes = [text.get_window_extent() for text in avoid]
    for points in (c for c in ax.collections if isinstance(c, PathCollection)):
        half = math.sqrt(max(points.get_sizes(), default=0)) / 2 * figure.dpi / 72
        centres = ax.transData.transform(np.asarray(points.get_offsets()))
        boxes += [Bbox([centre - half, centre + half]) for centre in centres]
    objects = [box.transformed(ax.transData.inverted()) for box in boxes]
    # A limit on steps, not on seconds: the same figure on every machine.
    adjust_text(list(labels), objects=objects, ax=ax, iter_lim=2000, ensure_inside_axes=False,
                expand=(1.02, 1.1), force_static=(0.5, 0.8),
                arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.6})  # fmt: skip
    return figure


def labels(ax: Axes, table: pd.DataFrame, x: str, y: str, name: str = "deployment") -> list[Text]:
    """A name for every point, to be placed beside it by `finish`; the pick's says so."""
    texts = []
    for row in table.to_dict("records"):
        mark, weight = ("pick: ", "bold") if row.get("pick") else ("", "normal")
        texts.append(ax.text(row[x], row[y], safe(f"{mark}{row[name]}"), weight=weight,
                             fontsize=8.5, zorder=5, path_effects=HALO))  # fmt: skip
    return texts


def line(ax: Axes, which: Literal["x", "y"], at: float, text: str) -> Text:
    """A dashed line at a requirement, with its name at the end."""
    draw, end, shift, along, side = {
        "x": (ax.axvline, (at, 1), (0, 3), ax.get_xaxis_transform(), "center"),
        "y": (ax.axhline, (0, at), (4, 3), ax.get_yaxis_transform(), "left"),
    }[which]
    draw(at, color=INK, ls="--", lw=1)
    return ax.annotate(text, end, shift, along, "offset points", va="bottom", ha=side)


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
    axis.set_major_formatter(FuncFormatter(lambda v, _: safe(prefix) + number(v, digits=6)))


def intervals(table: pd.DataFrame, value: str, low: str, high: str) -> pd.DataFrame:
    """The rows with an interval, as `low high`; without an upper end to ten times the value."""
    both = table.dropna(subset=[value, low, high]).astype({value: float, low: float, high: float})
    return both.assign(
        low=both[low], high=both[high].where(both[high] < math.inf, both[value] * 10)
    )
