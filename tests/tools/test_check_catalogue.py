"""Every kind of problem found in doctored tables, none in clean ones, and what ships is marked."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from shutil import copytree
from typing import Any

import pandas as pd
import pytest

from lib import tables
from lib.errors import PlaybookError
from tools.check_catalogue import Problem, check, main, render, shipped, summary

TODAY = date(2026, 11, 23)
BLANK: dict[str, Any] = dict.fromkeys(tables.SCHEMAS["models"][1])
LICENSES = pd.DataFrame(
    [
        ("apache-2.0", "permissive", "full text", "apache-2.0", None),
        ("kimi-modified-mit", "conditional", "full text", "other", "modified-mit"),
        ("nvidia", "conditional", "partly", "other", "nvidia-open;nvidia-open-agreement"),
        ("secret", "unknown", "not read", "other", "secret"),
        ("openrail", "unknown", "not read", "openrail", None),
    ],
    columns=["license", "license_class", "read", "hub_license", "hub_license_name"],
).assign(checked_on=str(TODAY))


def model(repo_id: str = "a/clean", **cells: object) -> dict[str, Any]:
    filled = {"license": "apache-2.0", "country": "France", "total_params_b": 7.0}
    filled["base_model"] = "none"
    return BLANK | filled | {"repo_id": repo_id, "checked_on": str(TODAY)} | cells


def problems_of(*rows: dict[str, Any], days: int = 90, **others: pd.DataFrame) -> list[Problem]:
    catalogue = {"models": pd.DataFrame(rows), "licenses": LICENSES, **others}
    return check(catalogue, today=TODAY, days=days)


CLEAN = [
    model(),
    model("a/full", hub_license="Apache-2.0", hub_params_b=7.7, active_params_b=7.0),
    model("a/tag", license="kimi-modified-mit", hub_license="modified-mit"),
    model("a/other", license="kimi-modified-mit", hub_license="other"),
    model("a/second-name", license="nvidia", hub_license="nvidia-open-agreement"),
    model("a/spdx", license="EUPL-1.2", hub_license="eupl-1.2"),
    model("a/two", license="Apache-2.0 OR kimi-modified-mit"),
    model("a/counted-by-the-hub", total_params_b=None, hub_params_b=3.0, active_params_b=3.0),
    model("a/stricter", license="nvidia", base_model="a/clean; a/full"),
    model("a/same", license="kimi-modified-mit", base_model="a/tag"),
]


def test_clean_tables_have_no_problem() -> None:
    assert problems_of(*CLEAN) == []
    assert render([]) == summary([]) == "0 stale, 0 unresolved, 0 contradictory"


@pytest.mark.parametrize(
    ("cells", "problem", "kind"),
    [
        ({"license": None}, "no licence", "unresolved"),
        (
            {"license": "homemade-1.0"},
            "licence neither in licenses.csv nor SPDX: homemade-1.0",
            "unresolved",
        ),
        (
            {"license": "Apache-2.0 OR homemade"},
            "licence neither in licenses.csv nor SPDX: Apache-2.0 OR homemade",
            "unresolved",
        ),
        (
            {"license": "my own terms ("},
            "licence neither in licenses.csv nor SPDX: my own terms (",
            "unresolved",
        ),
        ({"country": None}, "no country", "unresolved"),
        ({"total_params_b": None}, "no parameter count", "unresolved"),
        ({"base_model": "a/full; b/none"}, "base model without a row: b/none", "unresolved"),
        (
            {"hub_params_b": 7.71},
            "sizes more than 10 % apart: stated 7B, Hub counts 7.71B",
            "contradictory",
        ),
        ({"active_params_b": 7.1}, "active exceeds total: 7.1B of 7B", "contradictory"),
        (
            {"total_params_b": None, "hub_params_b": 3.0, "active_params_b": 4.0},
            "active exceeds total: 4B of 3B",
            "contradictory",
        ),
        (
            {"hub_license": "mit"},
            "Hub tag does not match: licence apache-2.0, Hub mit",
            "contradictory",
        ),
        (
            {"base_model": "a/tag"},
            "relabelled: tagged apache-2.0, but its base a/tag is kimi-modified-mit",
            "contradictory",
        ),
        (
            {"base_model": "a/between"},
            "relabelled: tagged apache-2.0, but its base a/tag is kimi-modified-mit",
            "contradictory",
        ),
    ],
)
def test_a_problem_of_one_model_is_found(cells: dict[str, Any], problem: str, kind: str) -> None:
    between = model("a/between", license="EUPL-1.2", base_model="a/tag")
    assert problems_of(*CLEAN, between, model("b/bad", **cells)) == [
        ("models", "b/bad", problem, kind)
    ]


def test_ids_that_differ_by_case_are_one_repository() -> None:
    problem = "same repository but for case: a/clean"
    assert problems_of(*CLEAN, model("A/Clean")) == [
        ("models", "A/Clean", problem, "contradictory")
    ]


def test_an_unread_text_counts_where_a_model_has_it() -> None:
    rows = [model("b/one", license="secret"), model("b/two", license="secret")]
    problem = "text not read: 2 of the models have it"
    assert problems_of(*CLEAN, *rows) == [("licenses", "secret", problem, "unresolved")]


def test_a_base_nobody_has_read_is_not_called_relabelled() -> None:
    rows = [model("b/base", license=None), model("b/made", base_model="b/base")]
    assert problems_of(*rows) == [("models", "b/base", "no licence", "unresolved")]


def test_a_circle_of_bases_ends() -> None:
    assert problems_of(model("b/x", base_model="b/y"), model("b/y", base_model="b/x")) == []


@pytest.mark.parametrize(("age", "days", "stale"), [(90, 90, 0), (91, 90, 1), (8, 7, 1), (0, 0, 0)])
def test_a_row_is_stale_the_day_after(age: int, days: int, stale: int) -> None:
    row = model("b/old", checked_on=str(TODAY - timedelta(days=age)))
    assert len(problems_of(*CLEAN, row, days=days)) == stale


def test_stale_rows_come_oldest_first_from_every_table() -> None:
    rows = [model("b/old", checked_on="2026-08-24"), model("b/older", checked_on="2025-11-23")]
    scores = pd.DataFrame(
        [("MMLU", "a/clean", None, "2026-01-01"), ("MMLU", "a/full", "x", str(TODAY))],
        columns=["benchmark", "repo_id", "variant", "checked_on"],
    )
    stale = problems_of(*rows, published_scores=scores)
    assert [(table, key) for table, key, *_ in stale] == [
        ("models", "b/older"),
        ("models", "b/old"),
        ("published_scores", "MMLU a/clean"),
    ]
    assert {kind for *_, kind in stale} == {"stale"}
    assert stale[0][2] == "checked more than 90 days ago: 2025-11-23, 365 days"


def test_a_day_that_is_none_is_refused() -> None:
    with pytest.raises(PlaybookError, match=r"models.csv: checked_on '2026-02-30' of b/odd"):
        problems_of(model("b/odd", checked_on="2026-02-30"))


def test_text_shows_some_of_many_or_all() -> None:
    rows = [model(f"b/{number}", country=None) for number in range(7)]
    problems = problems_of(*rows)
    short, full = render(problems), render(problems, every=True)
    assert "models.csv: no country (7)" in short and "and 2 more (--all)" in short
    assert "b/6" not in short and "b/6" in full and "more" not in full
    assert short.splitlines()[-1] == full.splitlines()[-1] == summary(problems)
    assert not any(line != line.rstrip() for line in full.splitlines())


def test_what_contradicts_in_the_shipped_tables_is_marked_in_its_note() -> None:
    notes = tables.models().set_index("repo_id")["note"].fillna("")
    words = {
        "sizes more than 10 % apart": "sources disagree",
        "Hub tag does not match": "sources disagree",
        "relabelled": "the licence of the base model applies as well",
    }
    for problem in check(shipped(), today=TODAY):
        if problem.kind == "contradictory":
            assert words[problem.text.split(":")[0]] in notes[problem.key], problem


def test_every_base_of_the_shipped_models_has_a_row() -> None:
    texts = [problem.text for problem in check(shipped(), today=TODAY)]
    assert texts and not any(text.startswith("base model without a row") for text in texts)


def test_command_prints_a_summary_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == summary(check(shipped()))
    assert err == "" and len(out.splitlines()) < 120
    assert main(["--days", "9999", "--all"]) == 0
    out, _ = capsys.readouterr()
    assert out.splitlines()[-1].startswith("0 stale, ") and "STALE" not in out


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("hardware.csv", None, "no such table"),
        ("models.csv", "", "not a readable CSV file"),
        ("licenses.csv", "license\nmit\n", "breaks"),
    ],
)
def test_a_table_that_cannot_be_read_ends_with_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    file: str,
    text: str | None,
    sentence: str,
) -> None:
    data = copytree(tables.DATA, tmp_path / "data")
    (data / file).unlink() if text is None else (data / file).write_text(text)
    monkeypatch.setattr(tables, "DATA", data)
    assert main([]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith("error: ") and file in err and sentence in err
