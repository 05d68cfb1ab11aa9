"""Scores by slice, who wins one, and that no reader takes a slice for the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from briefs import changed, write
from scored import gathered, summarise

from lib.brief.project import Project
from lib.decide.decision import tradeoffs
from lib.errors import PlaybookError
from lib.evaluate.items import load_items
from lib.evaluate.slices import by_slice, slice_winners
from lib.opening import open_project

N = 60


def brief(folder: Path, **evaluation: Any) -> Project:
    raw = changed()
    raw["evaluation"] |= evaluation
    return open_project(write(folder, raw))


def items(**fields: list[str]) -> pd.DataFrame:
    ids = [f"i{k}" for k in range(N)]
    table = {"item_id": ids, "input": "x", "target": "positive", "group": "", **fields}
    return pd.DataFrame(table)


def answers(**right: Any) -> pd.DataFrame:
    """By deployment, which items are right; None is a failed call."""
    tables = [
        pd.DataFrame(
            {"deployment": name, "repo_id": f"org/{name}", "item_id": [f"i{k}" for k in range(N)]}
        ).assign(score=scores)
        for name, scores in right.items()
    ]
    table = pd.concat(tables, ignore_index=True).astype({"score": "Float64"})
    outcome = np.where(table["score"].isna(), "failed", "answered")
    predicted = np.where((table["score"] == 1).fillna(False), "positive", "negative")
    return table.assign(outcome=outcome, predicted=predicted, target="positive", group="")


HALF = ["en"] * 30 + ["de"] * 30
A = [1] * 30 + [1] * 8 + [0] * 22  # better over all: 38 of 60
B = [0] * 26 + [1] * 4 + [1] * 30  # better in German: 34 of 60


def test_rows_of_slices_stand_beside_the_whole(tmp_path: Path) -> None:
    project, table = brief(tmp_path, slices=["language"]), answers(a=A, b=B)
    whole = summarise(project, table)
    scores = by_slice(project, whole, table, items(language=HALF))
    pd.testing.assert_frame_equal(scores[scores["slice"] == ""], whole)
    rows = scores[scores["slice"] != ""].set_index(["slice", "deployment"])
    assert rows.index[0] == ("language: en", "b")  # the worst first
    assert rows["value"].round(3).to_dict() == {
        ("language: en", "b"): 0.133, ("language: de", "a"): 0.267,
        ("language: en", "a"): 1.0, ("language: de", "b"): 1.0,
    }  # fmt: skip
    assert set(rows["n"]) == {30} and set(rows["metric"]) == {"accuracy"}
    assert not rows["primary"].any() and (rows["low"] < rows["high"]).all()


def test_no_slice_is_taken_for_the_whole(tmp_path: Path) -> None:
    project, table = brief(tmp_path, slices=["language"]), answers(a=A, b=B)
    whole = summarise(project, table)
    scores = by_slice(project, whole, table, items(language=HALF))
    columns = "deployment repo_id max_rps low high n basis p95_s p95_low p95_high".split()
    capacity = pd.DataFrame([["a", *[1] * 9], ["b", *[1] * 9]], columns=columns)
    capacity["basis"] = "measured here"
    cost = pd.DataFrame({"deployment": ["a", "b"], "usd_per_1k": 1.0})
    cost = cost.assign(usd_per_1k_low=1.0, usd_per_1k_high=1.0, replicas=float("nan"))
    pairs = pd.DataFrame(columns=["deployment", "other", "verdict"])
    with_slices, without = (tradeoffs(s, capacity, cost, pairs) for s in (scores, whole))
    pd.testing.assert_frame_equal(with_slices, without)
    assert len(with_slices) == 2


def with_baseline(project: Project) -> Project:
    """The same with its deployments `a`, the baseline, and `b`."""
    a, b = (project.deployments[0].model_copy(update={"name": name}) for name in "ab")
    a = a.model_copy(update={"baseline": True})
    return project.model_copy(update={"deployments": [a, b]})


def test_switch_or_stay_is_said_of_each_slice(tmp_path: Path) -> None:
    """B is as good in German and far worse in English, whatever it is over all."""
    project = with_baseline(brief(tmp_path, slices=["language"], margin=0.2))
    table = answers(a=[1] * N, b=[0] * 26 + [1] * 34)
    whole = summarise(project, table).assign(against_baseline="not decided")
    scores = by_slice(project, whole, table, items(language=HALF))
    scores = scores[scores["metric"] == "accuracy"].set_index(["deployment", "slice"])
    verdicts = scores["against_baseline"].to_dict()
    assert verdicts["b", "language: en"] == "worse"
    assert verdicts["b", "language: de"] == "good enough"
    assert verdicts["b", ""] == "not decided"
    assert verdicts["a", "language: en"] == ""


@pytest.mark.parametrize("slices", [["language"], ["language", "language"]])
def test_a_slice_that_is_a_cluster_or_named_twice_has_its_verdict(
    tmp_path: Path, slices: list[str]
) -> None:
    """Within the cluster items stand alone, for the baseline as for the candidate."""
    project = with_baseline(brief(tmp_path, group="language", slices=slices, margin=0.2))
    table = answers(a=[1] * N, b=[0] * 26 + [1] * 34).assign(group=HALF * 2)
    grouped = items(language=HALF).assign(group=HALF)
    whole = summarise(project, table).assign(against_baseline="")
    scores = by_slice(project, whole, table, grouped)
    rows = scores[scores["deployment"].eq("b") & scores["slice"].ne("")]
    assert rows["against_baseline"].tolist() == ["worse", "good enough"]


def test_of_many_equal_slices_few_are_told_to_stay(tmp_path: Path) -> None:
    project = brief(tmp_path, slices=["customer"], margin=0.01)
    project, rng = with_baseline(project), np.random.default_rng(5)
    customers, decided = items(customer=[str(k % 6) for k in range(N)]), 0
    for _ in range(40):
        table = answers(a=rng.integers(0, 2, N), b=rng.integers(0, 2, N))
        scores = by_slice(project, summarise(project, table), table, customers)
        verdicts = scores.loc[scores["deployment"].eq("b") & scores["slice"].ne(""), :]
        decided += verdicts["against_baseline"].isin(["worse"]).any()
    assert decided <= 4  # one in twenty, by Holm over the six


def test_failed_calls_and_small_slices_are_left_out(tmp_path: Path) -> None:
    project = brief(tmp_path, slices=["customer"])
    table = answers(a=[None] * 3 + [1] * 57, b=[1] * N)
    customers = ["x"] * 7 + ["y"] * 49 + [""] * 4
    scores = by_slice(project, summarise(project, table), table, items(customer=customers))
    rows = scores[scores["slice"] != ""]
    assert [tuple(r) for r in rows[["slice", "deployment", "n"]].to_numpy()] == [
        ("customer: x", "b", 7), ("customer: y", "a", 49), ("customer: y", "b", 49)
    ]  # fmt: skip


def test_the_winner_of_a_slice_is_told(tmp_path: Path) -> None:
    project, table = brief(tmp_path, slices=["language", "length"]), answers(a=A, b=B)
    (sentence,) = slice_winners(project, table, items(language=HALF), gathered(table))
    assert sentence.startswith(
        "language: de (30 items): b beats a, the best of all items, by 0.73 (p = "
    )
    assert sentence.endswith("Holm over 3 tests).")
    even = answers(a=A, b=[*A[:29], 0, *A[30:]])
    (sentence,) = slice_winners(project, even, items(language=HALF), gathered(even))
    assert sentence == "In no slice another beats a (Holm over 3 tests)."


def test_many_slices_of_equal_candidates_have_no_winner(tmp_path: Path) -> None:
    project, wins, rng = brief(tmp_path, slices=["customer"]), 0, np.random.default_rng(3)
    customers = items(customer=[str(k % 6) for k in range(N)])
    for _ in range(40):
        table = answers(a=rng.integers(0, 2, N), b=rng.integers(0, 2, N), c=rng.integers(0, 2, N))
        sentences = slice_winners(project, table, customers, gathered(table))
        wins += not sentences[0].startswith("In no slice")
    assert wins <= 3  # one in twenty at most, by Holm


def test_without_slices_groups_are_looked_at_and_nobody_wins(tmp_path: Path) -> None:
    project, table = brief(tmp_path), answers(a=A, b=B)
    groups = items(file_group=HALF)
    scores = by_slice(project, summarise(project, table), table, groups)
    assert set(scores["slice"]) == {"", "group: en", "group: de"}
    assert slice_winners(project, table, groups, gathered(table)) == []
    alone = by_slice(project, summarise(project, table), table, items())
    assert set(alone["slice"]) == {""}


def test_within_a_cluster_items_stand_alone(tmp_path: Path) -> None:
    project = brief(tmp_path, group="language", slices=["language"])
    table = answers(a=A, b=B)
    table["group"] = HALF * 2
    grouped = items(language=HALF).assign(group=HALF)
    scores = by_slice(project, summarise(project, table), table, grouped)
    rows = scores[scores["slice"] == "language: de"]
    assert (rows["high"] - rows["low"]).max() < 0.4
    assert "b beats a" in slice_winners(project, table, grouped, gathered(table))[0]


def test_a_quoted_score_has_no_slices(tmp_path: Path) -> None:
    project = brief(tmp_path)
    nothing = pd.DataFrame(columns=["deployment", "item_id", "group", "score", "outcome"])
    scores = pd.DataFrame({"deployment": ["a"], "slice": [""]})
    assert by_slice(project, scores, nothing, items()[:0]) is scores
    assert slice_winners(project, nothing, items()[:0], gathered()) == []


def test_the_length_is_built_in(tmp_path: Path) -> None:
    project, table = brief(tmp_path, slices=["length"]), answers(a=A)
    texts = items().assign(input=["x" * (10 + k) for k in range(N)])
    scores = by_slice(project, summarise(project, table), table, texts)
    rows = scores[scores["slice"] != ""].set_index("slice")["n"]
    assert rows.to_dict() == {
        "length: short": 20, "length: medium": 20, "length: long": 20
    }  # fmt: skip
    named = by_slice(project, summarise(project, table), table, texts.assign(length="L"))
    assert set(named["slice"]) == {"", "length: L"}


def test_a_slice_that_no_item_has_is_told(tmp_path: Path) -> None:
    line = '{"id": "1", "input": "x", "target": "positive", "customer": "c"}\n'
    (tmp_path / "items.jsonl").write_text(line)
    assert len(load_items(brief(tmp_path, slices=["length", "customer"]))) == 1
    with pytest.raises(PlaybookError, match="'custmer'; did you mean 'customer'"):
        load_items(brief(tmp_path, slices=["custmer"]))
    with pytest.raises(PlaybookError, match=r"no item has 'kunde'; known: .*target, length$"):
        load_items(brief(tmp_path, slices=["kunde"]))


def test_a_source_without_items_cannot_be_sliced(tmp_path: Path) -> None:
    raw = changed("evaluation", {"kind": "inspect", "inspect": {"task": "t"}, "slices": ["x"]})
    with pytest.raises(PlaybookError, match="slices: kind 'inspect' reads no items to slice"):
        open_project(write(tmp_path, raw))
