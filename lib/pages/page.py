"""Pages, and tables and sentences of a notebook: all escaped, links only to the web; CSV."""

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from pandas.api.types import infer_dtype

from lib import artifacts
from lib.pages.style import number
from lib.tables import rows

NAME, TEXT = 80, 400  # characters shown; the record beside the page has the whole text
URL = re.compile(r"(https?://[^\s<>\"'`]+[^\s<>\"'`.,;:!?)\]])")
FORMULA = re.compile(r"[=+\-@\t\r]")  # a text that begins so gets an apostrophe in front
MANY, MOST_GROUPS = 8, 200  # longer lists are folded; choices of the filter of answers
MOST_ITEMS, MOST_CELLS = 2000, 20_000  # on one page of answers
BUDGET = 6_000_000  # characters of answers on it
FIRST, LONGEST = 200, 4000  # characters of an answer before "more", and with what is behind it
TONES = [
    ("good", "✓ ", ["met", "yes", "allowed", "running", "right", "full score"]),
    ("bad", "✗ ", ["not met", "no", "blocked", "expired", "wrong", "score 0"]),
    ("ink", "! ", ["condition", "conditional"]),
    ("soft", "· ", ["notice"]),
    ("open", "", ["partly right", "partial score"]),
    ("open", "", ["truncated", "refused", "failed", "empty", "unparsed"]),
]
# Words for the columns whose name and unit do not say enough.
HEADINGS = {
    "repo_id": "Model", "license": "Licence", "licenses": "Licences", "tie_group": "Quality group",
    "license_class": "Class of licence", "license_on_hub": "Licence on the Hub",
    "agreement_mau": "Users a month", "agreement_revenue_usd": "Revenue ($)",
    "agreement_revenue_months": "Over (months)", "agreement_scope": "For", "rule": "Relaxation",
    "touches": "Models it touches", "alone": "Models it alone keeps out",
    "params_basis": "Basis of the size", "count": "Models", "fits_on": "Smallest machine",
    "total_params_b": "Parameters (billions)", "hub_params_b": "Counted by the Hub (billions)",
    "kv_gb": "Cache (GB)", "kv_gib": "Cache (GiB)", "kv_tokens": "Tokens in the cache",
    "tensor_parallel": "GPUs", "first_token_latency_ms": "First token (ms)", "error": "Error (%)",
    "input_usd_per_million": "Input ($ per million tokens)",
    "output_usd_per_million": "Output ($ per million tokens)", "item_id": "Item",
    "file_group": "Group", "n": "Answers", "n_failed": "Failed calls", "n_unparsed": "Unparsed",
    "low": "95 % from", "high": "95 % to", "other": "Compared with", "p_adjusted": "p (Holm)",
    "detectable": "Detectable difference", "usd_low": "Least ($)", "usd_high": "Most ($)",
    "offered_rps": "Offered load (requests/s)", "max_rps": "Greatest load (requests/s)",
    "p50_s": "Median latency (s)", "p95_s": "p95 latency (s)", "p95_low": "95 % from (s)",
    "p95_high": "95 % to (s)", "ttft_p95_s": "p95 to first token (s)",
    "ttft_content_p95_s": "p95 to first word (s)", "within_slo": "Within SLO",
    "usd_per_1k": "1,000 requests ($)", "usd_per_1k_correct": "1,000 correct answers ($)",
    "dollars": "Price class", "min_quality": "Quality at least",
    "max_p95_s": "p95 latency at most (s)", "min_rps": "Load at least (requests/s)",
    "max_usd_per_1k": "1,000 requests at most ($)", "usd_per_month": "Month ($)",
    "max_usd_per_month": "Month at most ($)", "cost_basis": "Basis of the cost",
    "machine": "By the hour", "api": "By token", "replicas": "Machines",
}  # fmt: skip
UNITS = {"s": "s", "gb": "GB", "tokens": "tokens", "length": "tokens"}
NUMBERS = {"integer", "floating", "mixed-integer-float", "decimal"}
MOST_TEXT = 2000  # characters of one cell in a notebook
Facts = Mapping[str, Any]
MARKS = {word: (tone, sign) for tone, sign, words in TONES for word in words}


def decision_page(
    decision: Facts, tradeoffs: pd.DataFrame, checks: pd.DataFrame, figures: Mapping[str, bytes]
) -> str:
    """The page for whoever decides: the record, the rows it is from, and PNGs by their names."""
    rules: dict[tuple[str, str], list[str]] = {}
    for rejected in decision["rejected"]:
        rules.setdefault((rejected["step"], rejected["rule"]), []).append(rejected["what"])
    configurations = {row["deployment"]: row for row in rows(tradeoffs)}
    tables = {"rules": rules, "rows": configurations, "checks": rows(checks), "figures": figures}
    return PAGES.get_template("decision.html.j2").render(decision=decision, **tables)


def counsel_page(facts: Facts) -> str:
    """The page for counsel, one sitting long, from what `legal.for_counsel` prepared."""
    return PAGES.get_template("counsel.html.j2").render(**facts)


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
    cells = [
        f"{MARKS.get(verdict, ('', '? '))[1]}{verdict} ({number(value)}){note and f': {note}'}"
        for verdict, value, note in checks[["verdict", "value", "note"]].to_numpy()
    ]
    return checks.assign(cell=cells).set_index(["deployment", "wanted"])["cell"].unstack(sort=False)


class Shown(NamedTuple):
    """What a cell of a notebook shows: text in a terminal, HTML on a page."""

    text: str
    html: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.html


def table(
    frame: Any, columns: str = "", *, rows: int = 12, says: str = "", empty: str = "None.",
    **headings: str,
) -> Shown:  # fmt: skip
    """A table for people, and the sentence that it `says`; of no rows the sentence `empty`.

    `frame` is what pandas makes a table of, or facts by their names; a named index is a column.
    Of the `columns` those are left out that are blank everywhere; `headings` are by column.
    """
    if isinstance(frame, Mapping):
        frame = pd.DataFrame({"fact": map(_heading, frame), "value": map(_words, frame.values())})
    frame = pd.DataFrame(frame)
    frame = frame.reset_index() if any(frame.index.names) else frame
    frame = frame.reindex(columns=columns.split()) if columns else frame
    texts = frame[:rows].map(_words)
    texts = texts.loc[:, texts.ne("").any()]
    if texts.empty:
        return sentence(empty)
    right = [infer_dtype(frame[name], skipna=True) in NUMBERS for name in texts]
    names = [headings.get(str(name)) or _heading(str(name)) for name in texts]
    lines = [names, *texts.to_numpy().tolist()]
    widths = [min(max(map(len, column)), 40) for column in zip(*lines, strict=True)]
    cells = [list(zip(line, right, widths, strict=True)) for line in lines]
    text = ["  ".join(t.rjust(w) if r else t.ljust(w) for t, r, w in row).rstrip() for row in cells]
    html = [
        f"<tr>{''.join(_cell('td' if turn else 'th', text, r) for text, r, _ in row)}</tr>"
        for turn, row in enumerate(cells)
    ]
    more = f"and {len(frame) - rows:,} more" if len(frame) > rows else ""
    end = sentence(*filter(None, [more, says]))
    return Shown("\n".join([*text, end.text]), "\n".join(["<table>", *html, "</table>", end.html]))


def sentence(*lines: str) -> Shown:
    """Sentences of a notebook; the last says what its section means for this project."""
    texts = [cut(line, MOST_TEXT) for line in lines]
    html = [f"<p>{_undollared(line)}</p>\n" for line in texts]
    html[-1:] = [f"<p><b>{_undollared(line)}</b></p>" for line in texts[-1:]]
    return Shown("\n".join(texts), "".join(html))


def _cell(tag: str, text: str, right: bool) -> str:
    # GitHub keeps `align` and drops styles; JupyterLab's own style overrules `align`.
    to, short = "right" if right else "left", "; white-space: nowrap" * (len(text) < 25)
    return f'<{tag} align="{to}" style="text-align: {to}{short}">{_undollared(text)}</{tag}>'


def _heading(name: str) -> str:
    """A column in words with its unit; what has digits or capitals stays as it is."""
    if name in HEADINGS or not re.fullmatch("[a-z_ -]+", name):
        return HEADINGS.get(name, name)
    words, _, unit = name.rpartition("_")
    words = f"{words} ({UNITS[unit]})" if unit in UNITS and words else name
    return (words[:1].upper() + words[1:]).replace("_", " ")


def _words(value: Any) -> str:
    """A value for people: blank where missing, counts in full, other numbers to three digits."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value)) or "none"
    if pd.isna(value):
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, Integral) else cut(value, MOST_TEXT)


def export_csv(run: Path, scored: pd.DataFrame, scores: pd.DataFrame) -> list[Path]:
    """Write `scores.csv` and `answers.csv` into `exports/` of the run, and return their paths."""
    paths = [run / "exports" / name for name in ("scores.csv", "answers.csv")]
    for path, table in zip(paths, (scores, scored), strict=True):
        text = table.map(_harmless).to_csv(index=False, lineterminator="\n")
        artifacts.write_bytes(path, text.encode(errors="replace"))
    return paths


def _harmless(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return ("'" if FORMULA.match(value) else "") + value.replace("\0", "\ufffd")


def _line(outcome: str, score: float, text: str) -> str:
    if pd.isna(outcome) or outcome == "failed":
        return "not asked" if pd.isna(outcome) else "failed"
    sign = {1.0: "✓", 0.0: "✗"}.get(score) or number(score, digits=2)
    sign += "" if outcome == "answered" else f" ({outcome})"
    return f"{sign} {cut(text[:1000], 80)}".strip()


def cut(value: object, limit: int = TEXT) -> str:
    """Any value as one line of text: numbers to three digits, "–" where unknown, long text cut."""
    if value is None:
        return "–"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(value)
    text = _drawable(" ".join(str(value).split()))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _drawable(text: str) -> str:
    """Text without characters that turn or hide what stands beside them."""
    return "".join(c if c.isprintable() or c in "\n\t" else "□" for c in text)


def _linked(value: object) -> Markup:
    """Text with its http(s) addresses as links, and nothing else."""
    parts = URL.split(cut(value))
    link = Markup('<a href="{0}" rel="noreferrer">{0}</a>').format
    return Markup("").join(link(part) if i % 2 else part for i, part in enumerate(parts))


def _hub(repo_id: object) -> Markup:
    """A repository as a link to its page on the Hub, or as text where it is no repository name."""
    is_name = re.fullmatch(r"[\w.-]+/[\w.-]+", str(repo_id))
    link = '<a href="https://huggingface.co/{1}" rel="noreferrer">{0}</a>' if is_name else "{0}"
    return Markup(link).format(cut(repo_id, NAME), quote(str(repo_id)))


def _mark(word: str) -> Markup:
    """A verdict with a sign and a tone: nothing is said by colour alone."""
    tone, sign = MARKS.get(word, ("open", "? "))
    return Markup('<span class="mark {}">{}{}</span>').format(tone, sign, cut(word))


def _interval(low: float | None, high: float | None) -> str:
    """An interval in words: both ends, the one that is known, or nothing."""
    ends = ["" if pd.isna(end) else number(end) for end in (low, high)]
    if all(ends):
        return " to ".join(dict.fromkeys(ends))
    return f"at least {ends[0]}" if ends[0] else f"up to {ends[1]}" if ends[1] else ""


def _undollared(text: str) -> Markup:
    """Text in which a notebook finds no formula: it would look for one between two dollars."""
    return Markup("<span>$</span>").join(text.split("$"))


def _sha256(script: str) -> str:
    """What the page's security policy names the script by: no other one may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


# A missing value is an error; all text is escaped.
FOLDER = FileSystemLoader(Path(__file__).parent)
PAGES = Environment(loader=FOLDER, autoescape=True, undefined=StrictUndefined)
PAGES.trim_blocks = PAGES.lstrip_blocks = True
PAGES.filters |= {"cut": cut, "name": partial(cut, limit=NAME), "drawable": _drawable}
PAGES.filters |= {"linked": _linked, "hub": _hub, "mark": _mark}
PAGES.filters["base64"] = lambda content: base64.b64encode(content).decode()
PAGES.globals |= {"interval": _interval, "many": MANY, "sha256": _sha256}
