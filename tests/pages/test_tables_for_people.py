"""Tables and sentences of a notebook: for people, on a page and in a terminal."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import pages
from lib.pages import page

NAN = float("nan")
HOSTILE = "<img src=x onerror=alert(1)>\n$a$ \u202e"


def cells(shown: page.Shown) -> list[list[str]]:
    rows = re.findall("<tr>(.*?)</tr>", shown.html)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]


def test_a_table_for_people() -> None:
    frame = pd.DataFrame(
        {
            "repo_id": ["a/b", None],
            "p95_s": [1.23456, np.nan],
            "n": [12345, 7],
            "pick": [True, False],
        },
        index=[7, 3],
    )
    shown = pages.table(frame, says="One of 2 is fast.")
    assert cells(shown) == [
        ["Model", "p95 latency (s)", "Answers", "Pick"],
        ["a/b", "1.23", "12,345", "yes"],
        ["", "", "7", "no"],
    ]
    sides = re.findall('<td align="(left|right)" style="text-align: (left|right)', shown.html)
    assert sides[:4] == [(side, side) for side in ("left", "right", "right", "left")]
    assert shown.html.endswith("<p><b>One of 2 is fast.</b></p>")
    assert repr(shown).splitlines() == [
        "Model  p95 latency (s)  Answers  Pick",
        "a/b               1.23   12,345  yes",
        "                              7  no",
        "One of 2 is fast.",
    ]


def test_a_named_index_is_a_column_and_a_row_number_is_none() -> None:
    counts = pd.Series(["a", "b", "a"], name="verdict").value_counts()
    assert cells(pages.table(counts)) == [["Verdict", "Models"], ["a", "2"], ["b", "1"]]
    assert cells(pages.table(pd.DataFrame({"a": [1]}, index=[388]))) == [["A"], ["1"]]


def test_a_dozen_rows_and_the_count_of_the_rest() -> None:
    shown = pages.table(pd.DataFrame({"a": range(1400)}), says="All.")
    assert len(cells(shown)) == 13 and "<p>and 1,388 more</p>" in shown.html
    assert "more" not in pages.table(pd.DataFrame({"a": range(12)})).text


@pytest.mark.parametrize(
    "frame", [pd.DataFrame({"a": []}), pd.DataFrame({"a": [None]}), {}, []], ids=str
)
def test_an_empty_table_is_a_sentence(frame: Any) -> None:
    shown = pages.table(frame, says="0 of 0.", empty="Nothing drifted.")
    assert (shown.text, shown.html) == ("Nothing drifted.", "<p><b>Nothing drifted.</b></p>")


def test_facts_are_words() -> None:
    facts = {
        "denied_countries": [],
        "use": "product",
        "min_rps": 2.0,
        "publishes_derivatives": False,
    }
    facts |= {"licenses": ["mit", "gemma"], "revenue": {"amount": 3e7, "currency": "USD"}}
    assert dict(map(tuple, cells(pages.table(facts))[1:])) == {
        "Denied countries": "none",
        "Use": "product",
        "Load at least (requests/s)": "2",
        "Publishes derivatives": "no",
        "Licences": "mit, gemma",
        "Revenue": "amount 30,000,000, currency USD",
    }


def test_columns_by_name_with_headings_and_without_those_that_are_blank() -> None:
    frame = pd.DataFrame({"low": [1], "n": [2], "note": [""], "gemma-3-270m-1cpu": ["✓"]})
    shown = pages.table(frame, "n low note gemma-3-270m-1cpu absent", n="Requests")
    assert cells(shown)[0] == ["Requests", "95 % from", "gemma-3-270m-1cpu"]


EXTREMES = [NAN, np.inf, -np.inf, 10**400, -(2**63), 1e308, -1e300, 5e-324, -2.3e-17, 1e-12, 0.0]
EXTREMES += [1 / 3, 123456789.123, 0.1 + 0.2, -0.0, 1e15, 999_999_999_999_999]
VALUES = st.sampled_from([None, pd.NA, pd.NaT, *EXTREMES]) | st.floats() | st.integers()
VALUES |= st.floats(width=32).map(np.float32)


@given(st.lists(VALUES | st.lists(VALUES, max_size=3), min_size=1, max_size=5))
def test_whatever_a_number_is_people_can_read_it(values: list[Any]) -> None:
    """No nan, inf or exponent, and no more digits than three but in counts."""
    parts = np.array([value for value in values if isinstance(value, float)])
    shown = pages.table(
        pd.DataFrame({"a": [*values, {"usd": values[0]}, parts, "end"]}, dtype=object)
    )
    for cell in (line[0] for line in cells(shown)[1:]):
        assert not re.search(
            r"nan|inf|∞|none.|NaT|NA|\de[+-]?\d|, ,|^,|,$", cell.replace("&lt;", "<")
        )
        for word in re.findall(r"[\d,.]*\d", cell):
            assert len(word) <= 20, cell
            _, _, fraction = word.partition(".")
            assert len(fraction.lstrip("0")) <= 3 and len(fraction) <= 9, cell


def test_hostile_text_is_text_and_no_formula() -> None:
    shown = pages.table(pd.DataFrame({"a": [HOSTILE]}), says=HOSTILE)
    assert "<img" not in shown.html and "\u202e" not in cells(shown)[1][0]
    assert "\u202e" not in shown.html + shown.text and len(shown.html.splitlines()) == 5
    assert "<span>$</span>a<span>$</span>" in shown.html and "\n" not in cells(shown)[1][0]
    assert "\n" not in pages.table(pd.DataFrame({"a": ["long " * 60]})).text.splitlines()[1]


def test_flips_show_two_values_that_differ_as_two() -> None:
    points = [
        {"change": "price", "value": 0.6, "flips_at": 0.60012, "factor": 1.0002, "pick": "b"},
        {"change": "requests a day", "value": 20_000.0, "flips_at": 20_001.6, "pick": "b"},
        {"change": "bar", "value": 0.7, "flips_at": 0.84136, "factor": 1.2, "pick": "none"},
        {"change": "load", "value": 2.0, "flips_at": None, "factor": None, "pick": "a"},
        {"change": "objective best", "value": None, "flips_at": None, "pick": "a"},
    ]
    assert pages.flips(points).to_numpy().tolist() == [
        ["price", "0.6", "0.6001", "b"],
        ["requests a day", "20,000", "20,002", "b"],
        ["bar", "0.7", "0.841", "none"],
        ["load", "2", "", "a"],
        ["objective best", "", "", "a"],
    ]


def test_requirement_checks_are_a_grid() -> None:
    rows = [
        ("b", "p95 at most 1 s", "met", 0.5, "", 1.0),
        ("b", "quality", "not met", 0.84196, "", 0.842),
        ("a", "p95 at most 1 s", "not decided", float("nan"), "measure it", 1.0),
    ]
    columns = ["deployment", "wanted", "verdict", "value", "note", "threshold"]
    checks = pd.DataFrame(rows, columns=columns)
    assert cells(pages.table(pages.grid(checks))) == [
        ["Deployment", "p95 at most 1 s", "Quality"],
        ["b", "✓ met (0.5)", "✗ not met (0.84196)"],
        ["a", "? not decided (–): measure it", ""],
    ]
    assert pages.table(pages.grid(checks[:0]), empty="None.").text == "None."


def test_sentences() -> None:
    shown = pages.sentence("A note.", "What it means: $1.")
    assert shown.text == "A note.\nWhat it means: $1."
    assert shown.html == "<p>A note.</p>\n<p><b>What it means: <span>$</span>1.</b></p>"
    assert pages.sentence().html == ""
    hostile = "<script>x</script>"
    assert "<script>" not in pages.sentence(hostile, hostile).html
