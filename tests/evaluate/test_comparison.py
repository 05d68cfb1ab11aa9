"""Comparison: both orders, what a judge's position costs, and strengths with honest intervals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from briefs import changed, load_project, write
from scored import grade

from lib.brief.project import Project
from lib.errors import PlaybookError
from lib.evaluate import judge
from lib.evaluate.kinds import comparison
from lib.reading import find_preference
from lib.stats import ranking as bradley_terry
from lib.stats import ranking as preferences

JUDGE = {
    "model": "judge-1",
    "endpoint": {"base_url": "https://judge/v1"},
    "user": "{input} A: {first} B: {second}",
}
Judge = Callable[[str, str], str]


def comparison_brief(folder: Path, names: str = "ab", baseline: str = "") -> Project:
    raw = changed("evaluation", {"kind": "comparison", "items": "items.jsonl", "judge": JUDGE})
    raw["deployments"] = [
        raw["deployments"][0] | {"name": name, "model": f"org/{name}", "baseline": name == baseline}
        for name in names
    ]
    return load_project(write(folder, raw))


def answers_of(texts: dict[str, list[str]], **columns: Any) -> pd.DataFrame:
    rows = [
        {"deployment": name, "repo_id": f"org/{name}", "item_id": f"q{n}", "output": text}
        for name, outputs in texts.items()
        for n, text in enumerate(outputs)
    ]
    rest = {"group": "", "target": "", "finish_reason": "stop", "error": "", "retries": 0}
    return pd.DataFrame(rows).assign(**(rest | columns))


def items_of(n: int) -> pd.DataFrame:
    return pd.DataFrame({"item_id": [f"q{i}" for i in range(n)], "input": "why?", "target": ""})


def pairs_of(graded: pd.DataFrame, models: dict[str, str] | None = None) -> pd.DataFrame:
    """The pairs as step 4 compares them, every deployment of a model of its own."""
    names = dict.fromkeys([*graded["deployment"], *graded["other"]])
    every = pd.MultiIndex.from_product([names, graded["item_id"].unique()])
    key = ["deployment", "item_id"]
    scored = preferences.both_sides(graded).groupby(key)["score"].mean().reindex(every)
    scored = scored.rename_axis(key).reset_index()
    return preferences.pairs(
        graded, scored.assign(repo_id=scored["deployment"].replace(models or {}))
    )


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., pd.DataFrame]:
    """Grade with a judge that is a function of the two texts shown; counts its calls."""

    def verdicts(brief: Project, answers: pd.DataFrame, says: Judge) -> pd.DataFrame:
        def ask(brief: Project, rows: pd.DataFrame, run: Path, **_: Any) -> pd.DataFrame:
            asked.extend(zip(rows["first"], rows["second"], strict=True))
            said = [says(a, b) for a, b in zip(rows["first"], rows["second"], strict=True)]
            return rows.assign(
                said=pd.Series(said, rows.index, dtype=str),
                judge_error=pd.Series(["down" if s == "!" else "" for s in said], rows.index, str),
            )

        asked.clear()
        monkeypatch.setattr(judge, "ask", ask)
        n = answers["item_id"].nunique()
        graded = grade(brief, answers, tmp_path, items=items_of(n), progress=False)
        graded.attrs["asked"] = list(asked)
        return graded

    asked: list[tuple[str, str]] = []
    return verdicts


def longer(first: str, second: str) -> str:
    return "tie" if len(first) == len(second) else "A" if len(first) > len(second) else "B"


def made(results: dict[tuple[str, str], list[str]], group: list[str] | None = None) -> pd.DataFrame:
    rows = [
        {"item_id": f"q{n}", "group": group[n] if group else "", "deployment": one, "other": other,
         "basis": "judge", "forward": "tie", "backward": "tie", "result": result}
        for (one, other), outcomes in results.items()
        for n, result in enumerate(outcomes)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("forward", "backward", "result"),
    [
        ("first", "second", "win"),
        ("second", "first", "loss"),
        ("tie", "tie", "tie"),
        ("first", "first", "inconsistent"),
        ("second", "second", "inconsistent"),
        ("first", "tie", "inconsistent"),
        ("tie", "first", "inconsistent"),
        ("second", "tie", "inconsistent"),
        ("tie", "second", "inconsistent"),
        (None, "second", "no verdict"),
        ("first", None, "no verdict"),
        ("tie", None, "no verdict"),
        (None, None, "no verdict"),
    ],
)
def test_a_win_counts_only_if_it_survives_the_swap(
    forward: str | None, backward: str | None, result: str
) -> None:
    assert comparison.outcome(forward, backward) == result


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("A", "first"),
        ("b", "second"),
        ("2.", "second"),
        ("[[B]]", "second"),
        ("**A**", "first"),
        ("Answer: A", "first"),
        ("The first answer is a better one.", "first"),
        ("Response B is clearer.", "second"),
        ('{"winner": "A"}', "first"),
        ("Tie", "tie"),
        ("It is a draw.", "tie"),
        ("Neither is right.", "tie"),
        ("A or B", None),
        ("The first, or rather the second.", None),
        ("A: yes, but tie", None),
        ("", None),
        ("a nice pair of answers", None),
        ("BA", None),
        ("A" * 100_000, None),
        ("x " * 100_000 + "A", None),
    ],
)
def test_verdicts_are_read_and_unclear_ones_decide_nothing(text: str, named: str | None) -> None:
    assert find_preference(text) == named


def test_the_better_answer_wins_in_both_orders(tmp_path: Path, judged: Any) -> None:
    answers = answers_of({"a": ["long one", "x", "same", "abc"], "b": ["x", "long", "same", "xyz"]})
    graded = judged(comparison_brief(tmp_path), answers, longer)
    assert list(graded["result"]) == ["win", "loss", "identical", "tie"]
    assert sorted(graded.attrs["asked"])[:2] == [("abc", "xyz"), ("long", "x")]
    assert len(graded.attrs["asked"]) == 6, "equal answers are not sent"


def test_a_judge_that_always_names_the_first_gives_ties_and_its_lean_shows(
    tmp_path: Path, judged: Any
) -> None:
    answers = answers_of({"a": [f"a{n}" for n in range(40)], "b": [f"b{n}" for n in range(40)]})
    brief = comparison_brief(tmp_path)
    graded = judged(brief, answers, lambda first, second: "A")
    assert set(graded["result"]) == {"inconsistent"}
    assert preferences.both_sides(graded)["score"].eq(0.5).all()
    assert pairs_of(graded)["verdict"].item() == "tie"
    assert comparison.judge_notes(brief, graded, pd.DataFrame()) == [
        "the judge: the swap of places changed the verdict in 100% of 40 pairs (91% to 100%)",
        "the judge: it named the first answer in 100% of 80 verdicts (95% to 100%)",
        "the judge: it gave no verdict that can be read in 0% of 40 pairs (0% to 9%)",
    ]


def test_a_fair_judge_leans_nowhere(tmp_path: Path, judged: Any) -> None:
    answers = answers_of({"a": ["long"] * 9 + ["x"], "b": ["x"] * 9 + ["long"]})
    brief = comparison_brief(tmp_path)
    swapped, first, _ = comparison.judge_notes(
        brief, judged(brief, answers, longer), pd.DataFrame()
    )
    assert "changed the verdict in 0% of 10 pairs" in swapped
    assert "the first answer in 50% of 20 verdicts" in first


def test_a_failed_call_is_left_out_and_a_spoilt_answer_loses_unasked(
    tmp_path: Path, judged: Any
) -> None:
    answers = answers_of({"a": ["x", "x", "", "", "<think>x</think>"], "b": ["longer"] * 5})
    answers.loc[0, "error"] = "HTTP 500"
    answers.loc[1, "finish_reason"] = "length"
    answers.loc[answers["deployment"].eq("b") & answers["item_id"].eq("q3"), "output"] = ""
    brief = comparison_brief(tmp_path)
    graded = judged(brief, answers, longer)
    assert list(graded["basis"]) == ["failed", *["forfeit"] * 4]
    assert list(graded["result"]) == ["left out", "loss", "loss", "tie", "loss"]
    assert graded.attrs["asked"] == []
    assert comparison.judge_notes(brief, graded, pd.DataFrame()) == []


def test_a_judge_that_fails_or_mumbles_decides_nothing(tmp_path: Path, judged: Any) -> None:
    answers = answers_of({"a": ["one", "three"], "b": ["fourteen", "eleven"]})
    said = {("one", "fourteen"): "!", ("fourteen", "one"): "A", ("three", "eleven"): "A"}
    graded = judged(comparison_brief(tmp_path), answers, lambda *s: said.get(s, "hmm"))
    assert list(graded["result"]) == ["no verdict"] * 2
    assert graded.loc[0, ["forward", "backward"]].isna().tolist() == [True, False]
    asked = answers.reset_index(drop=True)
    scored = comparison.score(comparison_brief(tmp_path), asked, graded=graded)
    assert set(scored["outcome"]) == {"failed"}
    assert scored["score"].isna().all()
    assert preferences.strengths(graded)["value"].isna().all()
    pairs = pairs_of(graded)
    assert pairs[["n", "p_value", "verdict"]].iloc[0].tolist() == [0, 1.0, "tie"]


def test_all_pairs_up_to_four_then_the_baselines_only(tmp_path: Path) -> None:
    def count(names: str, baseline: str = "") -> int:
        return len(comparison.matchups(comparison_brief(tmp_path, names, baseline).deployments))

    assert [count("ab"), count("abcd", "a"), count("abcde"), count("abcde", "c")] == [1, 6, 10, 4]


def test_one_deployment_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PlaybookError, match=r"two deployments.*\['a'\]"):
        comparison.matchups(comparison_brief(tmp_path, "a").deployments)


def test_scores_are_the_share_of_wins_of_each_item(tmp_path: Path, judged: Any) -> None:
    answers = answers_of({"a": ["ooo", "o"], "b": ["oo", "o"], "c": ["o", "oo"]})
    graded = judged(comparison_brief(tmp_path, "abc"), answers, longer)
    shuffled = answers.sample(frac=1, random_state=1)
    scored = comparison.score(comparison_brief(tmp_path, "abc"), shuffled, graded=graded)
    table = shuffled.join(scored).pivot(index="item_id", columns="deployment", values="score")
    assert table.loc["q0"].tolist() == [1.0, 0.5, 0.0]
    assert table.loc["q1"].tolist() == [0.25, 0.25, 1.0]
    text = scored.loc[shuffled["deployment"].eq("b") & shuffled["item_id"].eq("q0"), "detail"]
    assert sorted(text.item().split("; ")) == ["loss (a)", "win (c)"]


def test_the_win_rate_is_the_only_metric(tmp_path: Path) -> None:
    graded = made({("a", "b"): ["win"] * 3 + ["tie"] * 2 + ["loss"] * 3 + ["win"] * 2})
    answers = answers_of({"a": ["x"] * 10, "b": ["y"] * 10})
    brief = comparison_brief(tmp_path)
    scored = answers.join(comparison.score(brief, answers, graded=graded))
    (metric,) = comparison.metrics(brief, scored[scored["deployment"] == "a"])
    assert (metric["metric"], metric["value"]) == ("win rate", 0.6)
    assert metric["low"] < 0.6 < metric["high"]


def test_the_sign_test_drops_ties_and_is_holm_adjusted() -> None:
    graded = made(
        {
            ("a", "b"): ["win"] * 9 + ["loss"] + ["tie"] * 10,
            ("a", "c"): ["inconsistent"] * 20,
            ("b", "c"): ["loss"] * 20,
        }
    )
    table = pairs_of(graded).set_index(["deployment", "other"])
    first = table.loc[("a", "b")]
    assert first[["n", "only_first", "only_second", "difference"]].tolist() == [20, 9, 1, 0.4]
    assert first["p_value"] == pytest.approx(22 / 1024)  # two-sided sign test, 9 of 10
    assert first["p_adjusted"] == pytest.approx(2 * 22 / 1024)
    assert list(table["verdict"]) == ["better", "tie", "worse"]


def test_two_copies_of_one_model_are_one_hypothesis() -> None:
    """As everywhere else: on one and on two threads, with the same answers and verdicts."""
    rest = ["win"] * 9 + ["loss"] + ["tie"] * 10
    twins = {("a1", "a2"): ["identical"] * 20, ("a1", "b"): rest, ("a2", "b"): rest}
    p_value = 22 / 1024  # two-sided sign test, 9 of 10
    for models, tests in (({"a1": "org/a", "a2": "org/a"}, 1), ({}, 3)):
        table = pairs_of(made(twins), models).set_index(["deployment", "other"])
        p = [table.loc[("a1", "b"), "p_adjusted"], table.loc[("a2", "b"), "p_adjusted"]]
        assert p == pytest.approx([tests * p_value] * 2)


def test_pairs_that_were_not_judged_are_compared_over_the_baseline() -> None:
    graded = made({("a", "base"): ["win"] * 30, ("b", "base"): ["loss"] * 29 + ["win"]})
    table = pairs_of(graded).set_index(["deployment", "other"])
    assert len(table) == 3
    assert table.loc[("a", "b"), "verdict"] == "better"
    assert table.loc[("a", "b"), "difference"] == pytest.approx(29 / 30)


def drawn(rng: np.random.Generator, strength: dict[str, float], n: int) -> pd.DataFrame:
    def one(a: str, b: str) -> list[str]:
        chance = strength[a] / (strength[a] + strength[b])
        return list(np.where(rng.random(n) < chance, "win", "loss"))

    names = list(strength)
    return made({(a, b): one(a, b) for i, a in enumerate(names) for b in names[i + 1 :]})


def test_bradley_terry_finds_the_order_and_its_intervals_hold_what_is_true(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bradley_terry, "RESAMPLES", 200)
    strength = {"a": 4.0, "b": 1.0, "c": 0.5, "d": 0.5}
    truth = {name: s / (s + 1) for name, s in strength.items()}  # geometric mean 1
    rng = np.random.default_rng(7)
    held, ordered, runs = 0, 0, 50
    for _ in range(runs):
        table = preferences.strengths(drawn(rng, strength, 60)).set_index("deployment")
        ordered += table["value"].idxmax() == "a" and table["value"]["b"] > table["value"]["c"]
        held += sum(
            table.loc[name, "low"] <= t <= table.loc[name, "high"] for name, t in truth.items()
        )
    assert ordered >= 0.95 * runs
    assert 0.90 <= held / (4 * runs) <= 0.99


def test_strength_against_the_baseline_is_the_chance_to_beat_it() -> None:
    graded = made({("a", "b"): ["win"] * 60 + ["loss"] * 20 + ["tie"] * 20})
    table = preferences.strengths(graded, baseline="b").set_index("deployment")
    assert table.loc["a", "value"] == pytest.approx(71 / 102, abs=1e-4)
    assert 0.57 < table.loc["a", "low"] < 0.65 < 0.74 < table.loc["a", "high"] < 0.8
    assert table.loc["b", ["value", "low", "high"]].tolist() == pytest.approx([0.5] * 3)


def test_a_candidate_that_never_lost_is_strong_but_not_certain() -> None:
    graded = made({(a, b): ["win"] * 20 for a, b in (("a", "b"), ("a", "c"), ("b", "c"))})
    table = preferences.strengths(graded).set_index("deployment")
    assert list(table["value"].sort_values(ascending=False).index) == ["a", "b", "c"]
    assert 0.8 < table.loc["a", "value"] < 1.0
    assert table.loc["a", "low"] < table.loc["a", "value"] < table.loc["a", "high"] <= 1.0


def test_items_of_one_group_make_the_interval_wider() -> None:
    outcomes = (["win"] * 10 + ["loss"] * 10) * 5
    alone = preferences.strengths(made({("a", "b"): outcomes}))
    groups = [f"g{n // 10}" for n in range(100)]
    together = preferences.strengths(made({("a", "b"): outcomes}, groups))
    width = [table["high"][0] - table["low"][0] for table in (alone, together)]
    assert width[1] > 2 * width[0]


def test_a_deployment_that_was_never_compared_has_no_strength() -> None:
    graded = made({("a", "b"): ["win", "loss"], ("a", "c"): ["left out", "no verdict"]})
    table = preferences.strengths(graded).set_index("deployment")
    assert table["n"].to_dict() == {"a": 2, "b": 2, "c": 0}
    assert table["value"].isna().to_dict() == {"a": False, "b": False, "c": True}


def test_a_few_ties_are_no_certainty() -> None:
    table = preferences.strengths(made({("a", "b"): ["tie"] * 3}))
    assert table["value"].tolist() == pytest.approx([0.5, 0.5])
    assert (table["high"] - table["low"] > 0.2).all()
