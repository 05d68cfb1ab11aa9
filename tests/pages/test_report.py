from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from typing import Any

import pandas as pd
import pytest

from lib import tables
from lib.pages.page import cut, decision_page
from lib.pages.plots import cost_per_correct
from lib.pages.style import svg

NAN = float("nan")
SVG = '<svg viewBox="0 0 1 1"><path id="cost_quality-a" style="fill: var(--ink)"></path></svg>'
EVIL = [
    "<script>alert(1)</script>",
    "javascript:alert(1)",
    "{{7*7}}{% raw %}",
    '"><img src=x onerror=alert(1)>',
    "https://a.example/\"onmouseover='alert(1)'",
    "[free](https://a.example/b) <https://a.example/c> [x](javascript:alert(1)) ![](//a.example/d)",
    "x" * 10_000,
    "a\u202eb\nc",
]
CONFIGURATION = {
    "deployment": "gemma3-270m-1cpu",
    "model": "google/gemma-3-270m",
    "revision": None,
    "license": "gemma",
    "verdict": "conditional",
    "conditions": "see https://ai.google.dev/gemma/terms.",
    "exception": "",
    "hardware": "cpu-1",
}


TUNING = {
    "candidates": [
        {"deployment": "gemma3-270m-1cpu", "gap": 0.0412345, "gap_low": 0.01, "gap_high": 0.07,
         "derivatives": "conditional", "other": "gemma3-270m-2cpu",
         "difference": 0.06, "low": 0.02, "high": 0.1},
        {"deployment": "gemma3-270m-2cpu", "gap": None, "gap_low": None, "gap_high": None,
         "derivatives": "review", "other": None, "difference": None, "low": None, "high": None},
    ],
    "sentence": "gemma3-270m-1cpu is nearest to the bar.",
}  # fmt: skip


def decision(**changes: Any) -> dict[str, Any]:
    return {
        "project": {
            "name": "review-sentiment",
            "task": "Tell whether a review is positive",
            "objective": "cheapest",
            "metric": "accuracy",
        },
        "outcome": "picked",
        "summary": "gemma3-270m-1cpu is the cheapest that meets every requirement.",
        "pick": CONFIGURATION,
        "runner_up": CONFIGURATION | {"deployment": "gemma3-270m-2cpu"},
        "tie_group": ["gemma3-270m-1cpu", "gemma3-270m-2cpu"],
        "tie_rule": "The tie goes to the cheaper one.",
        "nearest_miss": None,
        "not_asked": [],
        "funnel": [
            {"step": "of the size", "left": 80, "of": "models"},
            {"step": "that qualify", "left": 1, "of": "deployments"},
        ],
        "serving": "vllm serve google/gemma-3-270m --revision 9b0c",
        "certainty": [
            {"deployment": name, "p_pick": p, "p_qualifies": 0.9351, "p_frontier": 0.5}
            for name, p in (("gemma3-270m-1cpu", 0.8312), ("gemma3-270m-2cpu", 0.0012))
        ],
        "provisional": None,
        "sentences": ["The pick holds until the bar on quality rises to 0.74."],
        "fine_tuning": TUNING,
        "flip_points": [
            {"change": "the bar on quality", "value": 0.7, "flips_at": 0.740001, "pick": "none"},
            {"change": "requests a day", "value": 2e4, "flips_at": None, "pick": "same"},
            {"change": "objective best", "value": None, "flips_at": None, "pick": "other"},
        ],
        "slices": [
            {"slice": "language: <b>de", "n": 30, "value": 0.6, "low": 0.4, "high": 0.8}
            | {"against_baseline": "worse"},
            {"slice": "language: en", "n": 60, "value": 0.9, "low": 0.8, "high": None}
            | {"against_baseline": ""},
        ],
        "rejected": [{"what": f"org/m{i}", "step": "licence", "rule": "not MIT"} for i in range(9)],
        "unverified": ["Licences were not verified against the Hub."],
        "basis": ["Sizes: https://huggingface.co/google/gemma-3-270m, 2026-10-02"],
        "versions": {"pandas": "3.1.1"},
        "inputs": {"04_scores.parquet": "ab" * 32},
        "created_at": "2026-10-04T12:00:00+00:00",
    } | changes


def tradeoffs(**changes: Any) -> pd.DataFrame:
    row = {
        "deployment": "gemma3-270m-1cpu", "repo_id": "google/gemma-3-270m", "hardware": "cpu-1",
        "basis": "measured", "quality": 0.8123456789, "quality_low": 0.74, "quality_high": 0.86,
        "n": 200, "max_rps": 6.1, "rps_low": 5.6, "rps_high": 6.7, "p95_s": 0.71,
        "cost_basis": "at 20,000 requests a day",
        "machines": "3 machines (1 spare) at $0.36/hour, 41% used",
        "usd_per_month": 29.8, "usd_per_month_low": 29.8, "usd_per_month_high": 59.6,
        "usd_per_1k": 0.0018212345, "usd_per_1k_low": 0.0017, "usd_per_1k_high": 0.002,
        "usd_per_1k_correct": 0.00224, "usd_per_1k_correct_low": 0.002,
        "usd_per_1k_correct_high": 0.0027, "dollars": "$", "on_frontier": True,
        "qualifies": "yes", "why": "cheapest", "pick": True,
    }  # fmt: skip
    other = row | {"deployment": "gemma3-270m-2cpu", "dollars": "$$", "pick": False}
    return pd.DataFrame([row | changes, other])


def checks() -> pd.DataFrame:
    rows = [
        ("gemma3-270m-1cpu", "quality, at least", 0.7, 0.74, 0.86, "met", "", 0.7),
        ("gemma3-270m-1cpu", "load, at least", 6, 5.6, 6.7, "not decided", "probe longer", 6),
        ("gemma3-270m-2cpu", "cost, at most", 0.002, NAN, NAN, "not met", None, 0.002),
    ]
    columns = ["deployment", "requirement", "wanted", "low", "high", "verdict", "note"]
    columns.append("threshold")
    return pd.DataFrame(rows, columns=columns)


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails where a tag is left open."""

    VOID = frozenset({"meta", "br", "img"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(record: dict[str, Any] | None = None, table: pd.DataFrame | None = None) -> Page:
    return Page(
        decision_page(
            decision() if record is None else record,
            tradeoffs() if table is None else table,
            checks(),
            {"cost_quality": SVG, "latency": SVG, "verdicts": SVG},
        )
    )


def hostile(value: Any, text: str) -> Any:
    """The same record with every text replaced, keys of mappings included."""
    if isinstance(value, dict):
        names = ("versions", "inputs")
        return {
            key: {text: text} if key in names else hostile(inner, text)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [hostile(inner, text) for inner in value]
    return text if isinstance(value, str) else value


@pytest.mark.parametrize("text", EVIL)
@pytest.mark.parametrize("outcome", ["picked", "none qualifies"])
def test_hostile_text_stays_text(text: str, outcome: str) -> None:
    record = hostile(decision(), text)
    record["outcome"] = outcome
    if outcome != "picked":
        record["pick"] = None
        keys = ("deployment", "requirement", "wanted", "measured", "would_have_to_give")
        record["nearest_miss"] = dict.fromkeys(keys, text)
    words = ["deployment", "repo_id", "hardware", "basis", "dollars", "why", "qualifies"]
    table = tradeoffs().assign(**dict.fromkeys(words, text))
    required = checks().assign(
        **dict.fromkeys(["deployment", "requirement", "wanted", "verdict", "note"], text)
    )
    figure = cost_per_correct(table.assign(deployment=text), caption=text)
    html = decision_page(record, table, required, {"quality": svg(figure, "quality")})
    seen = Page(html)
    tags = {tag for tag, _ in seen.tags}
    assert not tags & {"script", "iframe", "link", "object", "embed", "form", "base"}
    for _, attributes in seen.tags:
        assert not any(name.startswith("on") for name in attributes)
    assert all(str(a["href"]).startswith("#") for a in seen.all("a"))
    assert "{{" not in text or "{{7*7}}{% raw %}" in seen.text
    assert "\u202e" not in html
    assert len(re.sub("<svg.*</svg>", "", html, flags=re.DOTALL)) < 60_000


def test_nothing_is_loaded_from_elsewhere() -> None:
    seen = page()
    policy = next(m["content"] for m in seen.all("meta") if "http-equiv" in m)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    for _, attributes in seen.tags:
        assert not {"src", "srcset", "action", "poster", "background"} & set(attributes)
    assert len(seen.all("svg")) == 2  # those that the page has a place for


def test_only_addresses_of_the_tables_become_links() -> None:
    address = tables.licenses()["source_url"][0]
    text = f"see {address}, http://a.example/x, javascript:alert(1) and {address}?x=evil"
    seen = page(decision(unverified=[text]))
    links = {str(a["href"]) for a in seen.all("a") if str(a["href"]).startswith(("http", "java"))}
    assert address in links and "http://a.example/x, javascript:alert(1) and" in seen.text
    assert links <= {address, "https://huggingface.co/google/gemma-3-270m"}


def test_the_decision_comes_first() -> None:
    text = page().text
    order = [
        "Use gemma3-270m-1cpu",
        "Why",
        "What would change it",
        "Licence: before you ship",
        "Evidence",
        "Load and latency",
        "Rejected, by rule",
        "What was not verified",
    ]
    places = [text.index(word) for word in [*order, "Provenance"]]
    assert places == sorted(places)
    top = text[: text.index("Evidence")]
    assert "Its revision is not pinned: not verified against the Hub" in top
    assert "Probably the right choice 83%" in top and "under 1%" in top
    assert "No factor from a tenth to ten changes the pick: requests a day." in top
    assert "0.812 [0.74 to 0.86]" in top and "$29.8 [29.8 to 59.6]" in top
    assert "vllm serve google/gemma-3-270m --revision 9b0c" in top
    assert "80 models of the size 1 deployment that qualify" in top
    assert "6.1 [5.6 to 6.7]" in top and "? not decided" in top


def test_numbers_are_for_people() -> None:
    assert not re.search(r"\d\.\d{7,}|\d[eE]-\d|\bnan\b|\bNone\b", page().text)


def test_what_was_not_measured_is_said() -> None:
    table = tradeoffs(usd_per_1k=NAN, p95_s=NAN, quality_low=NAN, quality_high=NAN, n=NAN, why=None)
    text = page(table=table).text
    assert "n = – " not in text and "not measured" in text
    assert not re.search(r"\bnan\b", text)


def test_published_figures_without_intervals_are_shown() -> None:
    bounds = ["quality_low", "quality_high", "rps_low", "rps_high", "p95_s"]
    text = page(table=tradeoffs().assign(**dict.fromkeys(bounds))).text
    assert "Quality (accuracy) 0.812 Cost a month" in text


def test_none_qualifies_names_the_nearest_miss() -> None:
    miss = {
        "deployment": "gemma3-270m-2cpu",
        "requirement": "cost, at most",
        "wanted": 0.002,
        "measured": 0.00230001,
        "would_have_to_give": "raise max_usd_per_1k to 0.0024",
    }
    record = decision(
        outcome="none qualifies", pick=None, runner_up=None, tie_group=[], nearest_miss=miss
    )
    text = page(record, tradeoffs().assign(pick=False)).text
    top = text[: text.index("Evidence")]
    assert "None qualifies" in top and "0.0023 " in top and "raise max_usd_per_1k" in top
    assert "gemma3-270m-2cpu" in top and "✗ not met" in top
    assert "Use " not in top


def test_not_decided_says_so() -> None:
    record = decision(outcome="not decided", pick=None, runner_up=None, tie_group=[], rejected=[])
    text = page(record).text
    assert "Not decided" in text and "Nothing was rejected." in text
    assert "provisional" not in text


def test_what_is_provisional_is_marked_so() -> None:
    named = {"deployment": "gemma3-270m-2cpu", "model": "google/gemma-3-270m"}
    record = decision(outcome="not decided", pick=None, runner_up=None, provisional=named)
    text = page(record, tradeoffs().assign(pick=False)).text
    assert "Not decided; provisional: gemma3-270m-2cpu" in text
    assert "Probably meets everything 94%" in text and "Use " not in text
    assert "google/gemma-3-270m (provisional). Its revision" in text  # an older record


def test_the_duties_of_what_is_provisional_are_told() -> None:
    named = CONFIGURATION | {"revision": "9b0c"}
    record = decision(outcome="not decided", pick=None, runner_up=None, provisional=named)
    text = page(record, tradeoffs().assign(pick=False)).text
    assert "google/gemma-3-270m (provisional), gemma: conditional. Revision 9b0c ." in text
    assert "1 licence duty before you ship" in text and "No duty on record." not in text
    assert "see https://ai.google.dev/gemma/terms." in text


def test_what_fine_tuning_has_to_gain_is_shown_where_it_is_planned() -> None:
    text = page().text
    row = "gemma3-270m-1cpu 0.0412 [0.01 to 0.07] conditional gemma3-270m-2cpu 0.06 [0.02 to 0.1]"
    assert "is nearest to the bar. Configuration Gap to the bar Once tuned" in text
    assert row in text and "gemma3-270m-2cpu review Licence" in text
    untuned = [one | {"other": None} for one in TUNING["candidates"]]
    assert "Tuned from" not in page(decision(fine_tuning=TUNING | {"candidates": untuned})).text
    alone = page(decision(fine_tuning=TUNING | {"candidates": []})).text
    assert "is nearest to the bar." in alone and "Gap to the bar" not in alone
    assert "Fine-tuning" not in page(decision(fine_tuning=None)).text
    older = decision()
    del older["fine_tuning"]
    assert "Fine-tuning" not in page(older).text


def test_a_pinned_revision_is_shown_and_hashes_are_short() -> None:
    text = page(decision(pick=CONFIGURATION | {"revision": "9b0cfec892e2"})).text
    assert "9b0cfec892e2" in text and "not pinned" not in text
    assert "ab" * 6 in text and "ab" * 7 not in text


def test_no_sentence_of_the_decision_is_cut() -> None:
    long = f"None qualifies; the nearest is a: {'min_rps would have to be 5 and ' * 20}so it ends."
    card = page(decision(summary=long, sentences=[long + " Twice."])).text
    assert long in card and card.count("so it ends.") == 2 and "Twice." in card


@pytest.mark.parametrize(
    ("text", "cut_text"),
    [("One. Two. Three.", "One. Two. …"), ("One two three four", "One two thr…"), ("One.", "One.")],
)
def test_a_text_is_cut_after_a_sentence(text: str, cut_text: str) -> None:
    assert cut(text, 12) == cut_text


def test_the_machines_behind_a_cost_stand_by_it() -> None:
    machines = "3 machines (1 spare) at $0.36/hour, 41% used"
    seen = page()
    figure = f"Cost a month, at 20,000 requests a day $29.8 [29.8 to 59.6] {machines}"
    assert figure in seen.text and seen.text.count(machines) == 3  # and in both rows of the table
    assert machines not in page(table=tradeoffs().assign(machines="")).text


def test_the_price_class_is_explained_as_it_is_given() -> None:
    assert "each dearer one has one $ more, up to five" in page().text


def test_a_bound_is_told_from_the_bar_that_it_misses() -> None:
    row = {"deployment": "a", "requirement": "min_quality", "wanted": "quality of at least 0.842"}
    row |= {"threshold": 0.842, "low": 0.84196, "high": 0.9, "verdict": "not decided", "note": ""}
    near = pd.DataFrame([row])
    point = {"change": "the bar", "value": 0.6, "flips_at": 0.60012, "pick": "b"}
    html = decision_page(decision(flip_points=[point]), tradeoffs(), near, {})
    text = Page(html).text
    assert "? not decided 0.84196 to 0.9" in text and "the bar 0.6 0.6001 b" in text


def test_long_lists_are_folded_and_short_ones_are_not() -> None:
    def folded(count: int) -> bool:
        rejected = [{"what": "m", "step": "licence", "rule": "r"}] * count
        return "open" not in page(decision(rejected=rejected)).all("details")[-1]

    assert folded(9) and not folded(8)


def test_the_page_is_accessible() -> None:
    seen = page()
    assert seen.all("html") == [{"lang": "en"}]
    assert all(th.get("scope") in ("col", "row") for th in seen.all("th"))
    figures = seen.all("figure")
    assert all(f["role"] == "img" and len(str(f["aria-label"])) > 10 for f in figures)
    names = [attributes["id"] for _, attributes in seen.tags if "id" in attributes]
    anchors = {str(a["href"])[1:] for a in seen.all("a") if str(a["href"]).startswith("#")}
    assert anchors <= set(names)
    levels = [int(tag[1]) for tag, _ in seen.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_text_colour_is_readable_on_both_backgrounds() -> None:
    html = decision_page(decision(), tradeoffs(), checks(), {})
    schemes = re.findall(r":root \{([^}]+)\}", html)
    assert len(schemes) == 3  # light, dark, print
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): (#\w{6})", scheme))
        for ink in ("ink", "soft", "link", "good", "bad", "open"):
            for ground in ("page", "card"):
                pair = sorted((luminance(colours[ink]), luminance(colours[ground])))
                assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (ink, ground)
