"""The pages that people read, all escaped, with links only to what `data/` names."""

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import partial
from math import inf
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lib.tables import ADDRESS, Row, addresses, number, percent, rows

NAME, TEXT = 80, 400  # characters shown; the record beside the page has the whole text
MANY, MOST_GROUPS = 8, 200  # longer lists are folded; choices of the filter of answers
MOST_ITEMS, MOST_CELLS = 2000, 20_000  # on one page of answers
BUDGET = 6_000_000  # characters of answers on it
FIRST, LONGEST = 200, 4000  # characters of an answer before "more", and with what is behind it
TONES = [
    ("good", "✓ ", ["met", "yes", "allowed", "running", "right", "full score", "picked"]),
    ("bad", "✗ ", ["not met", "no", "blocked", "expired", "wrong", "score 0", "error"]),
    ("ink", "! ", ["condition", "conditional"]),
    ("soft", "· ", ["notice"]),
    ("open", "", ["partly right", "partial score"]),
    ("open", "", ["truncated", "refused", "failed", "empty", "unparsed"]),
]
Facts = Mapping[str, Any]
MARKS = {word: (tone, sign) for tone, sign, words in TONES for word in words}


def decision_page(
    decision: Facts, tradeoffs: pd.DataFrame, checks: pd.DataFrame, figures: Mapping[str, str]
) -> str:
    """The page for whoever decides: the record, the rows it is from, and `style.svg`s by name."""
    rules: dict[tuple[str, str], list[str]] = {}
    for rejection in decision["rejected"]:
        rules.setdefault((rejection["step"], rejection["rule"]), []).append(rejection["what"])
    configurations = {row["deployment"]: row for row in rows(tradeoffs)}
    tables = {"rules": rules, "rows": configurations, "checks": rows(checks)}
    tables["figures"] = {name: Markup(svg) for name, svg in figures.items()}
    conditions = (decision["pick"] or decision["provisional"] or {}).get("conditions") or ""
    tables["duties"] = re.split(r"(?<=\)); ", conditions) if conditions else []
    return PAGES.get_template("decision.html.j2").render(decision=decision, **tables)


def counsel_page(facts: Facts) -> str:
    """The page for counsel, one sitting long, from what `legal.for_counsel` prepared."""
    return PAGES.get_template("counsel.html.j2").render(**facts)


def fleet_page(outcomes: list[Row]) -> str:
    """The page of many projects, from the rows of `fleet.run` and the `link` to each one's page."""
    return PAGES.get_template("fleet.html.j2").render(rows=outcomes)


def answers_page(cells: pd.DataFrame, *, name: str, task: str) -> str:
    """The page of answers, of which its one script filters; it says what was left out or cut.

    `cells` (from `evaluate.side_by_side`) has a row per item and deployment.
    """
    names = list(cells["deployment"].unique())
    width = max(len(names), 1)
    rows_shown = rows(cells[: width * min(MOST_ITEMS, max(1, MOST_CELLS // width))])
    return PAGES.get_template("answers.html.j2").render(
        name=name,
        task=task,
        names=names,
        marks=list(dict.fromkeys(row["mark"] for row in rows_shown if row["mark"])),
        groups=sorted({row["group"] for row in rows_shown if row["group"]})[:MOST_GROUPS],
        items=[rows_shown[start : start + width] for start in range(0, len(rows_shown), width)],
        total=len(cells) // width,
        disagreements=int(cells["disagree"].sum()) // width,
        limit=min(max(BUDGET // max(len(rows_shown), 1), FIRST), LONGEST),
        first=FIRST,
    )


def disagreements(cells: pd.DataFrame, *, limit: int = 8) -> pd.DataFrame:
    """The items that tell the candidates apart most, from the `cells` of `answers_page`.

    By `item_id`: `input target`, and per deployment its score (✓ is 1, ✗ is 0) or what became of
    the call, and the beginning of its visible output.
    """
    names = list(cells["deployment"].unique())
    part = cells[cells["disagree"]][: limit * len(names)]
    lines = [_line(*row) for row in zip(part["outcome"], part["score"], part["text"], strict=True)]
    wide = part.assign(line=lines).pivot(index="item_id", columns="deployment", values="line")
    texts = part.drop_duplicates("item_id").set_index("item_id")[["input", "target"]]
    wide = wide.reindex(columns=names).rename(columns="Answer of {}".format)
    return texts.map(lambda text: cut(text[:1000], 80)).join(wide.astype("str"))


def grid(checks: pd.DataFrame) -> pd.DataFrame:
    """Requirement checks, a row per deployment and a column per requirement: verdict and value."""
    columns = ["verdict", "value", "threshold", "note"]
    cells = [
        f"{MARKS.get(verdict, ('', '? '))[1]}{verdict} ({number(value, beside=threshold)})"
        f"{note and f': {note}'}"
        for verdict, value, threshold, note in checks[columns].to_numpy()
    ]
    return checks.assign(cell=cells).set_index(["deployment", "wanted"])["cell"].unstack(sort=False)


def flips(points: list[Row]) -> pd.DataFrame:
    """Flip points as `change value flips_at pick`, in digits that tell both figures apart."""
    table = pd.DataFrame(points, columns=["change", "value", "flips_at", "pick"]).astype(object)
    figures = table[["value", "flips_at"]].to_numpy().tolist()
    texts = [(_figure(now, flips_at), _figure(flips_at, now)) for now, flips_at in figures]
    return table.assign(value=[now for now, _ in texts], flips_at=[at for _, at in texts])


def _line(outcome: str, score: float, text: str) -> str:
    if pd.isna(outcome) or outcome == "failed":
        return "not asked" if pd.isna(outcome) else "failed"
    sign = {1.0: "✓", 0.0: "✗"}.get(score) or number(score, digits=2)
    sign += "" if outcome == "answered" else f" ({outcome})"
    return f"{sign} {cut(text[:1000], 80)}".strip()


def cut(value: object, limit: int = TEXT) -> str:
    """Any value as one line: numbers to three digits, "–" unknown, long text cut at a sentence."""
    if value is None:
        return "–"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(value)
    text = _drawable(" ".join(str(value).split()))
    if len(text) <= limit:
        return text
    end = text.rfind(". ", limit // 2, limit - 1)  # of a sentence
    return f"{text[: end + 2]}…" if end > 0 else text[: limit - 1] + "…"


def _drawable(text: str) -> str:
    """Text without characters that turn or hide what stands beside them."""
    return "".join(c if c.isprintable() or c in "\n\t" else "□" for c in text)


def _with_links(value: object, limit: int = TEXT) -> Markup:
    """Text with its addresses that `data/` knows as links: one of a model card stays text."""
    link = Markup('<a href="{0}" rel="noreferrer">{0}</a>').format
    parts = ADDRESS.split(cut(value, limit))
    return Markup("").join(link(part) if part in addresses() else part for part in parts)


def _hub(repo_id: object) -> Markup:
    """A repository as a link to its page on the Hub, or as text where it is no repository name."""
    is_name = re.fullmatch(r"[\w.-]+/[\w.-]+", str(repo_id))
    link = '<a href="https://huggingface.co/{1}" rel="noreferrer">{0}</a>' if is_name else "{0}"
    return Markup(link).format(cut(repo_id, NAME), quote(str(repo_id)))


def _mark(word: str) -> Markup:
    """A verdict with a sign and a tone: nothing is said by colour alone."""
    tone, sign = MARKS.get(word, ("open", "? "))
    return Markup('<span class="mark {}">{}{}</span>').format(tone, sign, cut(word))


def _figure(value: float | None, beside: float | None = None) -> str:
    return "" if pd.isna(value) or abs(value) == inf else number(value, beside=beside)


def _interval(low: float | None, high: float | None, beside: float | None = None) -> str:
    """An interval in words: both ends, the one that is known, or nothing."""
    ends = [_figure(end, beside) for end in (low, high)]
    if all(ends):
        return " to ".join(dict.fromkeys(ends))
    return f"at least {ends[0]}" if ends[0] else f"up to {ends[1]}" if ends[1] else ""


def _sha256(script: str) -> str:
    """What the page's security policy names the script by: no other one may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


# A missing value is an error; all text is escaped.
FOLDER = FileSystemLoader(Path(__file__).parent)
PAGES = Environment(loader=FOLDER, autoescape=True, undefined=StrictUndefined)
PAGES.trim_blocks = PAGES.lstrip_blocks = True
PAGES.filters |= {"cut": cut, "name": partial(cut, limit=NAME), "drawable": _drawable}
PAGES.filters |= {"linked": _with_links, "hub": _hub, "mark": _mark, "percent": percent}
PAGES.filters["figure"] = _figure
PAGES.globals |= {"interval": _interval, "many": MANY, "sha256": _sha256}
