"""Whether scores corrected for a judge's errors cover what people would say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lib.stats import intervals as stats
from lib.stats import judge_errors
from lib.stats.judge_errors import Rates


def test_rogan_gladen_of_a_known_case() -> None:
    """p = 0.62 judged right with sensitivity 0.9 and specificity 0.8: (0.62 - 0.2) / 0.7."""
    value, low, high = judge_errors.corrected_rate(
        [1] * 62 + [0] * 38, [True] * 100, Rates(90, 100, 80, 100)
    )
    assert value == pytest.approx(0.6)
    assert 0.35 < low < 0.5 < 0.7 < high < 0.85


def test_answers_that_needed_no_judge_stay_wrong() -> None:
    judged = [True] * 100 + [False] * 100
    value, _, high = judge_errors.corrected_rate(
        [1] * 62 + [0] * 138, judged, Rates(90, 100, 80, 100)
    )
    assert value == pytest.approx(0.3)
    assert high < 0.5
    assert judge_errors.corrected_rate([0] * 9, [False] * 9, Rates(9, 9, 9, 9))[0] == 0.0


@pytest.mark.parametrize("counted", [Rates(5, 10, 5, 10), Rates(1, 10, 2, 10), Rates(5, 5, 0, 0)])
def test_a_judge_no_better_than_chance_is_not_usable(counted: Rates) -> None:
    value, low, high = judge_errors.corrected_rate([1, 0, 1], [True] * 3, counted)
    assert np.isnan(value)
    assert (low, high) == (0.0, 1.0)


def test_few_calibration_items_widen_the_interval() -> None:
    def width(m: int) -> float:
        _, low, high = judge_errors.corrected_rate(
            [1] * 140 + [0] * 60, [True] * 200, Rates(9 * m, 10 * m, 8 * m, 10 * m)
        )
        return high - low

    assert width(1) > 1.5 * width(5) > 1.5 * width(100)
    few, many = (
        np.diff(judge_errors.corrected_mean([0.5, 1] * 50, [True] * 100, [0.1, -0.1] * m)[1:])[0]
        for m in (3, 300)
    )
    assert few > 1.3 * many


def test_groups_widen_the_interval() -> None:
    score, groups = np.repeat([1, 0, 1, 1], 25), np.repeat(list("abcd"), 25)
    counted = Rates(900, 1000, 900, 1000)
    _, low, high = judge_errors.corrected_rate(score, [True] * 100, counted)
    _, wide_low, wide_high = judge_errors.corrected_rate(
        score, [True] * 100, counted, groups=groups
    )
    assert wide_high - wide_low > 2 * (high - low)


def test_exact_agreement_on_few_items_is_not_certainty() -> None:
    value, low, high = judge_errors.corrected_mean([1.0] * 200, [True] * 200, [0.0] * 4)
    assert value == 1.0
    assert low < 0.9
    assert high == 1.0


def rate_coverage(
    theta: float, sensitivity: float, specificity: float, n: int, m: int, *, runs: int = 700
) -> tuple[float, float]:
    """How often the corrected, and the judge's own, 95 % interval holds the true pass rate."""
    rng = np.random.default_rng(5)
    corrected = plain = 0
    for _ in range(runs):
        passes = int(np.clip(rng.binomial(m, 0.5), 1, m - 1))
        counted = Rates(
            int(rng.binomial(passes, sensitivity)),
            passes,
            int(rng.binomial(m - passes, specificity)),
            m - passes,
        )
        right = int(rng.binomial(n, theta * sensitivity + (1 - theta) * (1 - specificity)))
        score = np.arange(n) < right
        _, low, high = judge_errors.corrected_rate(score, np.ones(n, bool), counted)
        corrected += low <= theta <= high
        low, high = stats.wilson(right, n)
        plain += low <= theta <= high
    return corrected / runs, plain / runs


@pytest.mark.parametrize(
    "case",
    [
        (0.8, 0.9, 0.8, 200, 60),
        (0.6, 0.95, 0.7, 160, 40),
        (0.3, 0.85, 0.8, 300, 120),
        (0.9, 0.8, 0.75, 400, 100),
    ],
)
def test_corrected_rates_cover(monkeypatch: pytest.MonkeyPatch, case: Any) -> None:
    monkeypatch.setattr(judge_errors, "DRAWS", 4000)
    corrected, plain = rate_coverage(*case)
    assert 0.93 <= corrected <= 0.97
    assert plain < 0.85  # what a biased judge does to an interval that trusts it


@pytest.mark.parametrize(("n", "m"), [(100, 30), (300, 40), (60, 200)])
def test_corrected_means_cover(n: int, m: int) -> None:
    rng = np.random.default_rng(8)
    runs, corrected, plain = 1000, 0, 0
    truth = 0.6 + 0.0 * n
    for _ in range(runs):
        human = np.clip(rng.normal(truth, 0.15, n + m), 0.05, 0.95)
        judge = np.clip(human + 0.08 + rng.normal(0, 0.1, n + m), 0, 1.3)
        bias = (judge - human)[n:]
        _, low, high = judge_errors.corrected_mean(judge[:n], np.ones(n, bool), bias)
        corrected += low <= truth <= high
        mean, spread = judge[:n].mean(), 1.96 * judge[:n].std(ddof=1) / n**0.5
        plain += mean - spread <= truth <= mean + spread
    assert 0.93 <= corrected / runs <= 0.97
    assert plain / runs < 0.3
