"""Intervals and tests against published figures, hand-computed values and seeded simulations."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from lib import stats


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_against_newcombe(right: int, n: int, low: float, high: float) -> None:
    assert stats.wilson(right, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_at_the_ends() -> None:
    assert stats.wilson(0, 0) == (0.0, 1.0)
    assert stats.wilson(5, 5)[1] == 1.0
    assert stats.wilson(0, 5)[0] == 0.0
    low, high = stats.wilson(30, 40)
    assert stats.wilson(10, 40) == pytest.approx((1 - high, 1 - low))


def test_wilson_covers() -> None:
    for p, n in ((0.85, 200), (0.5, 50), (0.97, 100)):
        k = np.arange(n + 1)
        inside = [low <= p <= high for low, high in (stats.wilson(int(i), n) for i in k)]
        assert 0.92 <= binom.pmf(k, n, p)[inside].sum() <= 0.98


def test_bootstrap_is_seeded_and_near_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(10, 2, 400)

    def mean(rows: stats.Rows) -> float:
        return float(values[rows].mean())

    value, low, high = stats.bootstrap(mean, 400)
    assert value == values.mean()
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((value - half, value + half), abs=0.03)
    assert stats.bootstrap(mean, 400) == (value, low, high)


def test_bootstrap_of_one_and_of_equal_values() -> None:
    value, low, high = stats.bootstrap(lambda rows: 7.0, 1)
    assert value == 7.0 and math.isnan(low) and math.isnan(high)
    assert stats.bootstrap(lambda rows: 7.0, 30) == (7.0, 7.0, 7.0)


def test_a_p95_needs_59_values_for_an_upper_bound() -> None:
    assert stats.quantile(np.arange(58.0), 0.95)[2] == math.inf
    value, low, high = stats.quantile(np.arange(59.0), 0.95)
    assert (value, high) == (56.0, 58.0)
    assert low == 52.0  # P(at most 6 of 59 above p95) = 0.97, at most 5: 0.93
    assert binom.cdf(58, 59, 0.95) > 0.95 > binom.cdf(57, 58, 0.95)


def test_quantiles_of_few_values() -> None:
    assert stats.quantile([3.0], 0.95) == (3.0, -math.inf, math.inf)
    value, low, high = stats.quantile([], 0.95)
    assert math.isnan(value) and (low, high) == (-math.inf, math.inf)
    assert stats.quantile([1.0] * 100, 0.95) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("n", [59, 100, 200])
def test_quantile_bounds_cover(n: int) -> None:
    random = np.random.default_rng(n)
    truth = -math.log(0.05)
    bounds = np.array([stats.quantile(random.exponential(size=n), 0.95)[1:] for _ in range(400)])
    assert (truth <= bounds[:, 1]).mean() >= 0.93  # 95 % sure: 0.95 less two standard errors
    assert (bounds[:, 0] <= truth).mean() >= 0.93


def scored(models: dict[str, str] | None = None, **scores: str) -> pd.DataFrame:
    """Scores as strings: `1` right, `0` wrong, `-` failed."""
    rows = [
        (name, (models or {}).get(name, f"org/{name}"), f"i{i}", None if mark == "-" else int(mark))
        for name, marks in scores.items()
        for i, mark in enumerate(marks)
    ]
    table = pd.DataFrame(rows, columns=["deployment", "repo_id", "item_id", "score"])
    return table.astype({"score": "Float64"})


def test_mcnemar_by_hand() -> None:
    # 8 items only a has, 1 only b: two-sided p = 2 * (C(9,0) + C(9,1)) / 2**9 = 20/512
    pair = stats.compare_pairs(scored(a="1" * 8 + "0" + "1" * 11, b="0" * 8 + "1" + "1" * 11))
    row = pair.iloc[0]
    assert (row["n"], row["only_first"], row["only_second"]) == (20, 8, 1)
    assert row["p_value"] == pytest.approx(20 / 512)
    assert row["p_adjusted"] == pytest.approx(20 / 512)
    assert row["difference"] == pytest.approx(7 / 20)
    assert row["verdict"] == "better"
    # Agresti and Min by hand: b = 8.5, c = 1.5, N = 22
    spread = 1.959964 * math.sqrt(10 - 49 / 22) / 22
    assert (row["low"], row["high"]) == pytest.approx((7 / 22 - spread, 7 / 22 + spread))


def test_the_other_way_round_is_worse() -> None:
    row = stats.compare_pairs(scored(b="0" * 8 + "1" * 12, a="1" * 20)).iloc[0]
    assert (row["deployment"], row["other"], row["verdict"]) == ("b", "a", "worse")
    assert row["p_value"] == pytest.approx(2 / 256)
    assert row["difference"] == -0.4


def test_no_difference_is_a_tie() -> None:
    row = stats.compare_pairs(scored(a="1010", b="1010")).iloc[0]
    assert (row["p_value"], row["p_adjusted"], row["verdict"]) == (1.0, 1.0, "tie")
    assert row["low"] < 0 < row["high"]


def test_only_items_both_answered_are_compared() -> None:
    row = stats.compare_pairs(scored(a="11-1", b="1-01")).iloc[0]
    assert (row["n"], row["only_first"], row["only_second"]) == (2, 0, 0)
    row = stats.compare_pairs(scored(a="--", b="11")).iloc[0]
    assert row["n"] == 0 and math.isnan(row["difference"])
    assert (row["low"], row["high"], row["verdict"]) == (-1.0, 1.0, "tie")


def test_holm_by_hand() -> None:
    # a beats b on 8:0 (p = 2/256), a beats c on 6:0 (p = 2/64), c against b on 2:0 (p = 1/2)
    pairs = stats.compare_pairs(scored(a="1" * 20, b="0" * 8 + "1" * 12, c="0" * 6 + "1" * 14))
    by = pairs.set_index(["deployment", "other"])
    assert by.loc[("a", "b"), "p_adjusted"] == pytest.approx(3 * 2 / 256)
    assert by.loc[("a", "c"), "p_adjusted"] == pytest.approx(2 * 2 / 64)
    assert by.loc[("b", "c"), "p_adjusted"] == pytest.approx(1 / 2)
    assert list(pairs["verdict"]) == ["better", "tie", "tie"]


def test_one_model_on_two_machines_is_one_hypothesis() -> None:
    marks = {"a1": "1" * 20, "a2": "1" * 20, "b1": "0" * 6 + "1" * 14, "b2": "0" * 6 + "1" * 14}
    same = {name: f"org/{name[0]}" for name in marks}
    pairs = stats.compare_pairs(scored(same, **marks)).set_index(["deployment", "other"])
    assert pairs.loc[("a1", "a2"), "verdict"] == "tie"
    for pair in (("a1", "b1"), ("a1", "b2"), ("a2", "b1"), ("a2", "b2")):
        assert pairs.loc[pair, "p_adjusted"] == pytest.approx(2 / 64)
        assert pairs.loc[pair, "verdict"] == "better"
    # Four models that happen to answer alike are four hypotheses, and six pairs are too many.
    pairs = stats.compare_pairs(scored(None, **marks)).set_index(["deployment", "other"])
    assert pairs.loc[("a1", "b1"), "p_adjusted"] == pytest.approx(6 * 2 / 64)
    assert pairs.loc[("a1", "b1"), "verdict"] == "tie"


def test_one_model_that_answers_differently_is_two_hypotheses() -> None:
    same = {"a1": "org/a", "a2": "org/a", "b": "org/b"}
    pairs = stats.compare_pairs(scored(same, a1="1" * 20, a2="1" * 19 + "0", b="0" * 6 + "1" * 14))
    p_adjusted = pairs.set_index(["deployment", "other"])["p_adjusted"]
    assert p_adjusted[("a1", "b")] == pytest.approx(3 * 2 / 64)


def test_one_deployment_or_none_has_no_pairs() -> None:
    for table in (scored(a="101"), scored()):
        pairs = stats.compare_pairs(table)
        assert len(pairs) == 0
        assert {"p_adjusted", "verdict", "difference"} <= set(pairs.columns)


def test_false_alarms_are_rare() -> None:
    """Four equal deployments: any difference found is an error; Holm keeps them under 5 %."""
    random = np.random.default_rng(3)
    alarms = 0
    for _ in range(30):
        marks = {name: "".join(random.choice(["0", "1"], 60, p=[0.2, 0.8])) for name in "abcd"}
        alarms += bool((stats.compare_pairs(scored(None, **marks))["verdict"] != "tie").any())
    assert alarms <= 3


def test_the_paired_interval_covers() -> None:
    random = np.random.default_rng(4)
    inside = 0
    for _ in range(300):
        a = random.random(150) < 0.9
        b = np.where(random.random(150) < 0.7, a, random.random(150) < 0.8)
        truth = 0.9 - (0.7 * 0.9 + 0.3 * 0.8)
        low, high = stats._paired_interval(int((a & ~b).sum()), int((b & ~a).sum()), 150)
        inside += low <= truth <= high
    assert inside / 300 >= 0.92


def groups(values: dict[str, float], ties: set[tuple[str, str]]) -> dict[str, int]:
    scores = pd.DataFrame({"deployment": list(values), "value": list(values.values())})
    rows = [
        (a, b, "tie" if (a, b) in ties or (b, a) in ties else "better")
        for a, b in combinations(values, 2)
    ]
    pairs = pd.DataFrame(rows, columns=["deployment", "other", "verdict"])
    return stats.tie_groups(scores, pairs)


def test_tie_groups() -> None:
    values = {"c": 0.7, "a": 0.9, "b": 0.85}
    assert groups(values, set()) == {"a": 1, "b": 2, "c": 3}
    assert groups(values, {("a", "b")}) == {"a": 1, "b": 1, "c": 2}
    # c is equal to b, but not to the best: it is not in the best's group
    assert groups(values, {("a", "b"), ("b", "c")}) == {"a": 1, "b": 1, "c": 2}
    assert groups(values, {("b", "c")}) == {"a": 1, "b": 2, "c": 2}
    assert groups(values, {("a", "c")}) == {"a": 1, "b": 2, "c": 1}
    assert groups({"a": 0.9}, set()) == {"a": 1}


def test_items_needed() -> None:
    assert stats.items_needed(0.9, 0.8, n=1000) == 1000  # decided already
    assert stats.items_needed(0.8, 0.8, n=100) is None  # on the bar: no number does it
    needed = [stats.items_needed(0.85, bar, n=100) for bar in (0.6, 0.7, 0.78, 0.8, 0.82, 0.84)]
    assert needed[0] == 100
    assert needed == sorted(needed, key=lambda n: n or 0)
    assert 150 <= (stats.items_needed(0.85, 0.8, n=100) or 0) <= 300
    for value, bar in ((0.85, 0.8), (0.75, 0.8), (0.99, 0.97)):
        total = stats.items_needed(value, bar, n=20)
        assert total is not None
        low, high = stats.wilson(round(value * total), total)
        assert low >= bar or high < bar
