"""From answers to scores: what counts as an answer, which label it names, and honest shares."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from briefs import brief
from sklearn.metrics import f1_score

from lib import scoring, stats
from lib.project import Project, load_project

SENTIMENT = ["positive", "negative"]


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "bootstrap", partial(stats.bootstrap, resamples=40))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return brief(tmp_path)


@pytest.fixture
def exact(tmp_path: Path) -> Project:
    return brief(tmp_path, "evaluation", {"kind": "exact", "items": "items.jsonl"})


def answers(*rows: dict[str, Any]) -> pd.DataFrame:
    common = {
        "deployment": "a",
        "repo_id": "org/a",
        "target": "positive",
        "output": "positive",
        "finish_reason": "stop",
        "error": "",
    }
    return pd.DataFrame([common | {"item_id": f"i{i}"} | row for i, row in enumerate(rows)])


def outcome(project: Project, **row: Any) -> tuple[str, Any]:
    scored = scoring.score_answers(project, answers(row)).iloc[0]
    return scored["outcome"], None if pd.isna(scored["score"]) else scored["score"]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({}, ("answered", 1.0)),
        ({"output": "negative"}, ("answered", 0.0)),
        ({"output": "Positive."}, ("answered", 1.0)),
        ({"finish_reason": "length"}, ("truncated", 0.0)),
        ({"finish_reason": "content_filter"}, ("refused", 0.0)),
        ({"finish_reason": "refusal"}, ("refused", 0.0)),
        ({"output": ""}, ("unparsed", 0.0)),
        ({"output": " \n"}, ("unparsed", 0.0)),
        ({"output": "I cannot say"}, ("unparsed", 0.0)),
        ({"output": None, "finish_reason": None, "error": "HTTP 500: busy"}, ("failed", None)),
        ({"output": "positive", "error": "HTTP 500"}, ("failed", None)),
    ],
)
def test_outcomes(project: Project, row: dict[str, Any], expected: tuple[str, Any]) -> None:
    assert outcome(project, **row) == expected


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("positive", "positive"),
        ("Sentiment: positive.", "positive"),
        ("**Negative**", "negative"),
        ("Sentiment: **positive**", "positive"),
        ('"positive"', "positive"),
        ("The review is negative, clearly negative.", "negative"),
        ("POSITIVE\nbecause it is good", "positive"),
        ("positive or negative", None),
        ("neither positive nor negative", None),
        ("not positive", None),
        ("It is not positive.", None),
        ("This isn't a positive review", None),
        ("This isn’t positive", None),
        ("non-negative", None),
        ("positively", None),
        ("nonpositive", None),
        ("", None),
        ("...", None),
    ],
)
def test_find_label(text: str, label: str | None) -> None:
    assert scoring.find_label(text, SENTIMENT) == label


@pytest.mark.parametrize(
    ("text", "labels", "label"),
    [
        ("not positive", ["positive", "not positive"], "not positive"),
        ("Sentiment: not positive", ["positive", "not positive"], "not positive"),
        ("Sentiment: positive", ["positive", "not positive"], "positive"),
        ("positive, not not positive", ["positive", "not positive"], None),
        ("I would say very bad.", ["bad", "very bad"], "very bad"),
        ("the language is c++", ["c", "c++"], "c++"),
        ("the language is c", ["c", "c++"], "c"),
        ("a.b", ["a.b", "a-b"], "a.b"),
        ("say axb", ["a.b", "a-b"], None),
        ("level [1]", ["[1]", "[2]"], "[1]"),
        ("the grade is A+", ["A", "A+"], "A+"),
        ("x*", ["x*", "y"], "x*"),
        ("Ergebnis: ÄRGERLICH!", ["ärgerlich", "froh"], "ärgerlich"),
        ("caf\u0065\u0301", ["café", "tea"], "café"),
        ("ＰＯＳＩＴＩＶＥ", SENTIMENT, "positive"),
        ("情感：积极", ["积极", "消极"], "积极"),
        ("👍", ["👍", "👎"], "👍"),
        ("STRASSE", ["straße", "weg"], "straße"),
        ("!", ["!", "?"], "!"),
        ("", ["!", "?"], None),
        ("yes", ["Yes", "No"], "Yes"),
        ("No, it is not", ["Yes", "No"], "No"),
    ],
)
def test_find_label_among(text: str, labels: list[str], label: str | None) -> None:
    assert scoring.find_label(text, labels) == label


@pytest.mark.parametrize(
    ("output", "target", "score"),
    [
        ("Paris", "paris", 1.0),
        (" Paris.\n", "Paris", 1.0),
        ("The  answer", "the answer", 1.0),
        ("42", "42", 1.0),
        ("4 2", "42", 0.0),
        ("It is Paris", "Paris", 0.0),
        (".5", "5", 0.0),
        ("<5", ">5", 0.0),
        ("-5", "5", 0.0),
        ("?", "?", 1.0),
        ("?", "!", 0.0),
    ],
)
def test_exact_match(exact: Project, output: str, target: str, score: float) -> None:
    assert outcome(exact, output=output, target=target) == ("answered", score)


def test_an_empty_exact_answer_is_unparsed(exact: Project) -> None:
    assert outcome(exact, output="  ", target="42") == ("unparsed", 0.0)


def test_no_answer_is_dropped(project: Project) -> None:
    rows = [{}, {"error": "x"}, {"finish_reason": "length"}, {"output": "?"}]
    scored = scoring.score_answers(project, answers(*rows))
    assert list(scored["item_id"]) == ["i0", "i1", "i2", "i3"]
    assert list(scored["outcome"]) == ["answered", "failed", "truncated", "unparsed"]
    assert str(scored["score"].dtype) == "Float64"
    assert scored["score"].isna().to_list() == [False, True, False, False]
    assert len(scoring.score_answers(project, answers({}).head(0))) == 0


def summary(project: Project, table: pd.DataFrame) -> pd.DataFrame:
    scores = scoring.summarise(project, scoring.score_answers(project, table))
    return scores.set_index("metric")


def test_summary_counts(project: Project) -> None:
    rows = [{}] * 90 + [{"output": "negative"}] * 4 + [{"finish_reason": "length"}] * 2
    rows += [{"output": "hm"}] * 1 + [{"finish_reason": "refusal"}] * 1 + [{"error": "x"}] * 2
    row = summary(project, answers(*rows)).loc["accuracy"]
    assert row["value"] == 90 / 98
    assert (row["low"], row["high"]) == stats.wilson(90, 98)
    assert row[["n", "n_failed", "n_truncated", "n_refused", "n_unparsed"]].to_list() == [
        98, 2, 2, 1, 1,
    ]  # fmt: skip
    assert (row["comparable"], row["basis"]) == ("yes", "measured here")


@pytest.mark.parametrize(
    ("failed", "of", "comparable"), [(0, 50, "yes"), (1, 50, "yes"), (1, 49, "no"), (2, 50, "no")]
)
def test_too_many_failed_calls(project: Project, failed: int, of: int, comparable: str) -> None:
    rows = [{"error": "HTTP 503"}] * failed + [{}] * (of - failed)
    row = summary(project, answers(*rows)).loc["accuracy"]
    assert (row["comparable"], row["n"], row["n_failed"]) == (comparable, of - failed, failed)
    assert row["value"] == 1.0  # a failed call is not a wrong answer


def test_all_calls_failed(project: Project) -> None:
    scores = summary(project, answers({"error": "x"}, {"error": "x"}))
    assert list(scores.index) == ["accuracy"]
    row = scores.iloc[0]
    assert math.isnan(row["value"])
    assert (row["low"], row["high"], row["n"], row["comparable"]) == (0.0, 1.0, 0, "no")


def test_macro_f1_is_sklearns(project: Project) -> None:
    said = ["positive"] * 30 + ["negative"] * 12 + ["hm"] * 3
    wanted = ["positive"] * 24 + ["negative"] * 21
    rows = [{"output": o, "target": t} for o, t in zip(said, wanted, strict=True)]
    row = summary(project, answers(*rows)).loc["macro-F1"]
    assert row["value"] == pytest.approx(f1_score(wanted, said, labels=SENTIMENT, average="macro"))
    # by hand: positive 24 of 30 said and 24 wanted; negative 12 of 12 said and 21 wanted
    assert row["value"] == pytest.approx((48 / 54 + 24 / 33) / 2)
    assert row["low"] < row["value"] < row["high"]


def test_exact_has_no_f1(exact: Project) -> None:
    assert list(summary(exact, answers({}, {})).index) == ["accuracy"]


def test_deployments_are_kept_apart(project: Project) -> None:
    table = answers({}, {"deployment": "b", "repo_id": "org/b", "output": "negative"})
    scores = scoring.summarise(project, scoring.score_answers(project, table))
    accuracy = scores[scores["metric"] == "accuracy"].set_index("deployment")["value"]
    assert accuracy.to_dict() == {"a": 1.0, "b": 0.0}


def test_published_figures_have_no_interval() -> None:
    article = load_project("article")
    empty = scoring.score_answers(article, answers({}).head(0))
    scores = scoring.summarise(article, empty)
    assert scores["value"].to_list() == [0.99, 0.96, 0.94]
    assert scores[["low", "high"]].isna().all(axis=None)
    assert set(scores["n"]) == {0}
    assert scores["basis"].str.startswith("published (Together AI, How to choose").all()


def test_confusion_leaves_failed_calls_out(project: Project) -> None:
    rows = [{}, {}, {"output": "hm"}, {"error": "x"}, {"output": "negative"}]
    counts = scoring.confusion(scoring.score_answers(project, answers(*rows)))
    found = counts.set_index(["target", "predicted"])["count"].to_dict()
    assert found == {
        ("positive", "positive"): 2,
        ("positive", "(no label)"): 1,
        ("positive", "negative"): 1,
    }
