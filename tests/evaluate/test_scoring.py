"""From answers to scores: what counts as an answer, which label it names, and honest shares."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from answer_rows import answers
from briefs import brief, load_project
from effort import little_work
from scored import gathered, score_answers, summarise

from lib.brief.project import Project
from lib.evaluate import steps
from lib.evaluate.answers import visible_answers
from lib.evaluate.kinds import classification
from lib.plain_text import visible
from lib.stats import intervals as stats


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return brief(tmp_path)


@pytest.fixture
def exact(tmp_path: Path) -> Project:
    return brief(tmp_path, "evaluation", {"kind": "exact", "items": "items.jsonl"})


def outcome(project: Project, **row: Any) -> tuple[str, Any]:
    scored = score_answers(project, answers(row)).iloc[0]
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
        ({"output": ""}, ("empty", 0.0)),
        ({"output": " \n"}, ("empty", 0.0)),
        ({"output": None}, ("empty", 0.0)),
        ({"output": "<think>positive"}, ("empty", 0.0)),
        ({"output": "<think>negative</think>positive"}, ("answered", 1.0)),
        ({"output": "<think>positive</think>"}, ("empty", 0.0)),
        ({"output": "<think>po", "finish_reason": "length"}, ("truncated", 0.0)),
        ({"output": "positive", "finish_reason": None, "error": None}, ("answered", 1.0)),
        ({"output": "positive", "error": float("nan")}, ("answered", 1.0)),
        ({"output": "I cannot say"}, ("unparsed", 0.0)),
        ({"output": None, "finish_reason": None, "error": "HTTP 500: busy"}, ("failed", None)),
        ({"output": "positive", "error": "HTTP 500"}, ("failed", None)),
    ],
)
def test_outcomes(project: Project, row: dict[str, Any], expected: tuple[str, Any]) -> None:
    assert outcome(project, **row) == expected


def test_an_empty_exact_answer_is_empty(exact: Project) -> None:
    assert outcome(exact, output="  ", target="42") == ("empty", 0.0)


def test_no_answer_is_dropped(project: Project) -> None:
    rows = [{}, {"error": "x"}, {"finish_reason": "length"}, {"output": "?"}]
    scored = score_answers(project, answers(*rows))
    assert list(scored["item_id"]) == ["i0", "i1", "i2", "i3"]
    assert list(scored["outcome"]) == ["answered", "failed", "truncated", "unparsed"]
    assert str(scored["score"].dtype) == "Float64"
    assert scored["score"].isna().to_list() == [False, True, False, False]
    assert len(score_answers(project, answers({}).head(0))) == 0


def summary(project: Project, table: pd.DataFrame) -> pd.DataFrame:
    scores = summarise(project, score_answers(project, table))
    return scores.set_index("metric")


def test_summary_counts(project: Project) -> None:
    rows = [{}] * 90 + [{"output": "negative"}] * 4 + [{"finish_reason": "length"}] * 2
    rows[0] = {"retries": 2}
    rows += (
        [{"output": "hm"}] * 1
        + [{"finish_reason": "refusal"}] * 1
        + [{"error": "x", "retries": 4}, {"error": "x"}]
    )
    rows += [{"output": "<think>"}] * 2
    row = summary(project, answers(*rows)).loc["accuracy"]
    assert row["value"] == 0.9
    assert (row["low"], row["high"]) == stats.wilson(90, 100)
    assert row[[c for c in row.index if c == "n" or c.startswith("n_")]].to_dict() == {
        "n": 100,
        "n_failed": 2,
        "n_truncated": 2,
        "n_refused": 1,
        "n_unparsed": 1,
        "n_empty": 2,
        "n_retried": 2,
    }
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


def test_where_no_answer_has_a_score_the_figure_says_so(project: Project, exact: Project) -> None:
    for one in (project, exact):
        scored = score_answers(one, answers({"error": "x"}))
        more: Any = {"items": pd.DataFrame(), "gathered": gathered(scored)}
        name, figure = steps.detail(one, scored, summarise(one, scored), **more)
        assert name == "empty" and figure["text"].startswith("No answer has a score")


def test_deployments_are_kept_apart(project: Project) -> None:
    table = answers({}, {"deployment": "b", "repo_id": "org/b", "output": "negative"})
    scores = summarise(project, score_answers(project, table))
    accuracy = scores[scores["metric"] == "accuracy"].set_index("deployment")["value"]
    assert accuracy.to_dict() == {"a": 1.0, "b": 0.0}


def test_published_figures_have_no_interval() -> None:
    article = load_project("article")
    empty = score_answers(article, answers({}).head(0))
    scores = summarise(article, empty)
    assert scores["value"].to_list() == [0.99, 0.96, 0.94]
    assert scores[["low", "high"]].isna().all(axis=None)
    assert set(scores["n"]) == {0}
    assert scores["basis"].str.startswith("published (Together AI, How to choose").all()


def test_confusion_leaves_failed_calls_out(project: Project) -> None:
    rows = [{}, {}, {"output": "hm"}, {"error": "x"}, {"output": "negative"}]
    scored = score_answers(project, answers(*rows))
    name, figure = classification.figure(project, scored, pd.DataFrame())
    found = figure["counts"].set_index(["target", "predicted"])["count"].to_dict()
    assert name == "confusion" and figure["labels"] == ["positive", "negative"]
    assert found == {
        ("positive", "positive"): 2,
        ("positive", "(no label)"): 1,
        ("positive", "negative"): 1,
    }


DRAFT = "<|channel|>analysis<|message|>"  # of gpt-oss
FINAL = "<|start|>assistant<|channel|>final<|message|>"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain < text", "plain < text"),
        ("<think>a</think> b", "b"),
        ("<THINK>\na\n</Think>\n\nb\n", "b"),
        ("<thinking effort='low'>a</thinking>b", "b"),
        ("x <think>a</think>y<reasoning>b</reasoning>z", "x yz"),
        ("<think>never closed", ""),
        ("b <think>never closed", "b"),
        ("opened in the prompt</think> b", "b"),
        ("<think>a<think>b</think>c</think>d", "d"),
        ("<think>a <think> b</think>d", "d"),
        ("<think>about </thinking> tags</think>d", "d"),
        ("<think></think>d", "d"),
        ("</think>", ""),
        ("<thinker>a</thinker>", "<thinker>a</thinker>"),
        ("< think>a</ think>", "< think>a</ think>"),
        ("```xml\n<think>a</think>\n```", "```xml\n<think>a</think>\n```"),
        ("write `<think>` first", "write `<think>` first"),
        ("```xml <think>a fence left open", "```xml"),
        ("<think>```</think> b", "b"),
        ("a fence ```</think> b", "b"),
        ("<think>not `</think>` yet</think> b", "b"),
        ("<thınk>a</thınk>b", "<thınk>a</thınk>b"),
        ("[THINK]negative[/THINK]positive", "positive"),
        ("[THINK]negative", ""),
        ("negative[/THINK]positive", "positive"),
        ("◁think▷negative◁/think▷positive", "positive"),
        ("negative◁/think▷positive", "positive"),
        ("◁think▷positive", ""),
        (
            "<|START_THINKING|>negative<|END_THINKING|><|START_RESPONSE|>positive<|END_RESPONSE|>",
            "positive",
        ),
        ("<|START_THINKING|>negative", ""),
        ("negative<|END_THINKING|><|START_TEXT|>positive<|END_TEXT|>", "positive"),
        ("<|channel>thought\nnegative<channel|>positive", "positive"),
        ("<|channel>thought\n<channel|>positive", "positive"),
        ("<|channel>thought\npositive", ""),
        ("negative<channel|>positive", "positive"),
        ("<seed:think>negative</seed:think>positive", "positive"),
        ("<seed:think>positive", ""),
        ("negative</seed:think>positive", "positive"),
        (f"{DRAFT}negative<|end|>{FINAL}positive", "positive"),
        (f"{DRAFT}negative<|end|>{FINAL}positive<|return|>", "positive"),
        (f"{DRAFT}positive", ""),
        ("<|channel|>final<|message|>positive<|end|>", "positive"),
        ("analysisThe text seems negative.assistantfinalpositive", "positive"),
        ("analysisThe text seems positive", ""),
        ("analysis of the text: positive", "analysis of the text: positive"),
        (f"negative<|end|>{FINAL}positive", "positive"),
        (f"{DRAFT}a<|end|><|channel|>final <|constrain|>json<|message|>{{}}", "{}"),
        ("<thought>negative</thought>positive", "positive"),
        ("<|begin_of_thought|>negative<|end_of_thought|>positive", "positive"),
        ("<think>negative</think>\n<|begin_of_box|>positive<|end_of_box|>", "positive"),
        ("<think>\n\n</think>\n\npositive", "positive"),
        ("<|inner_prefix|>negative<|inner_suffix|>positive", "positive"),
        ("<THINKING>x</THINKING> positive", "positive"),
        ("assistant\npositive", "assistant\npositive"),
        (f"{DRAFT}a<|end|><|channel|>commentary to=f<|message|>{{}}<|call|>", ""),
    ],
)
def test_visible(text: str, seen: str) -> None:
    assert visible(text, ["think", "thinking", "reasoning"]) == seen


def test_reasoning_tags_are_the_briefs(tmp_path: Path) -> None:
    own = brief(tmp_path, "evaluation.reasoning_tags", ["a.b"])
    assert outcome(own, output="<a.b>negative</a.b> positive") == ("answered", 1.0)
    assert outcome(own, output="<axb>negative</axb> positive") == ("unparsed", 0.0)
    none = brief(tmp_path, "evaluation.reasoning_tags", [])
    assert outcome(none, output="<think>negative</think> positive") == ("unparsed", 0.0)


@pytest.mark.parametrize("piece", ["<think ", "<think>", "</think>", "```", "<", "`<think>"])
def test_hostile_tags_take_no_time(piece: str) -> None:
    with little_work():
        visible(piece * (1_000_000 // len(piece)), ["think", "thinking"])


def unusable(project: Project, **row: Any) -> Any:
    return visible_answers(project, answers(row))["unusable"].item()


def test_why_an_answer_cannot_be_used(project: Project) -> None:
    assert unusable(project, output="x", finish_reason="stop") is None
    assert unusable(project, output="<think>x") == "empty"
    assert unusable(project, output="x", finish_reason="length") == "truncated"
    assert unusable(project, output="x", error="HTTP 500") == "failed"


def test_a_record_of_calls_is_not_stripped(tmp_path: Path) -> None:
    ranking = brief(tmp_path, "evaluation", {"kind": "reranking", "items": "items.jsonl"})
    assert unusable(ranking, output='{"d1": "no</think>"}') is None
    assert unusable(ranking, output="<think>[1] > [2]") == "empty"


def test_recorded_answers_say_so(tmp_path: Path) -> None:
    recorded = brief(tmp_path, "deployments.0.endpoint", {"recorded": "closed.jsonl"})
    table = answers({}, {"deployment": "b"})
    scores = summarise(recorded, score_answers(recorded, table))
    basis = scores[scores["primary"]].set_index("deployment")["basis"].to_dict()
    assert basis == {"a": "recorded (closed.jsonl)", "b": "measured here"}


def test_the_index_may_repeat(project: Project) -> None:
    table = pd.concat([answers({}, {"error": "x"}), answers({"output": "negative"}, {})])
    scored = score_answers(project, table)
    assert list(scored.index) == [0, 1, 0, 1]
    assert scored["score"].astype(object).where(scored["score"].notna(), None).to_list() == [
        1.0, None, 0.0, 1.0,
    ]  # fmt: skip


def test_a_hundred_thousand_answers(project: Project) -> None:
    two = answers({}, {"output": "<think>so</think>It is negative."})
    table = two.loc[[0, 1] * 50_000]
    with little_work():
        scores = summarise(project, score_answers(project, table))
    assert scores["n"].to_list() == [100_000, 100_000]
