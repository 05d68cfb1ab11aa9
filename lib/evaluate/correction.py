"""Scores of a judge that errs, corrected by what people said of some answers.

A judge that passes too much or too little shifts every score it gives. Answers that people
labelled too say by how much, and an interval must carry the doubt of both samples: the judged
items and the labelled ones. Few labelled answers make it wide.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import t

from lib.brief.project import Project
from lib.evaluate.scoring import clusters
from lib.stats.intervals import codes, spread

__all__ = ["Rates", "correct", "corrected_difference", "corrected_mean", "corrected_rate", "rates"]

DRAWS = 20_000
Numbers = npt.NDArray[np.float64]
Groups = Iterable[object] | None


class Rates(NamedTuple):
    """What the judge did with answers that people passed, and with those they failed."""

    passed_right: int
    human_passes: int
    failed_right: int
    human_fails: int

    @property
    def youden(self) -> float:
        """Sensitivity + specificity − 1: 1 is a perfect judge, 0 a coin (Youden 1950)."""
        if not self.human_passes or not self.human_fails:
            return float("nan")
        return self.passed_right / self.human_passes + self.failed_right / self.human_fails - 1


def correct(
    brief: Project, scores: pd.DataFrame, scored: pd.DataFrame, checked: pd.DataFrame
) -> pd.DataFrame:
    """Say in every score's basis how its judge was measured, and correct the score if it was.

    Comparisons of candidates go on using the judge's own scores, item by item: see
    `corrected_difference`.

    Args:
        brief: Of kind `scoring` or `judged`; any other keeps its scores as they are.
        scores: From `scoring.summarise`.
        scored: From `scoring.score_answers`.
        checked: From `judging.calibrate`; empty where the brief names no calibration.

    Returns:
        The scores, each deployment led by its corrected figure, which is the primary one:
        "pass rate (corrected)" or "mean rating (corrected)". Its value is missing where the
        judge is no better than chance; then no requirement on quality can be met.
    """
    judge = brief.evaluation.judge
    if brief.evaluation.kind not in ("scoring", "judged") or judge is None:
        return scores
    if checked.empty:
        return scores.assign(basis=scores["basis"] + ", uncalibrated judge")
    known, parts = checked[checked["judge_error"] == ""], []
    counted = rates(checked, judge.pass_labels)
    width = judge.scale[1] - judge.scale[0]
    bias = (known["rating"].astype(float) - pd.to_numeric(known["human"], errors="coerce")) / width
    for name, own in scores.groupby("deployment", sort=False):
        rows = scored[(scored["deployment"] == name) & (scored["outcome"] != "failed")]
        values = rows["score"].to_numpy(dtype=float)
        judged, groups = (rows["outcome"] == "answered").to_numpy(), clusters(rows)
        value, low, high = (
            corrected_mean(values, judged, bias.to_numpy(), groups=groups)
            if brief.evaluation.kind == "scoring"
            else corrected_rate(values, judged, counted, groups=groups)
        )
        chief = own[own["primary"].astype(bool)]
        figures = {"value": value, "low": low, "high": high}
        better = chief.assign(metric=chief["metric"] + " (corrected)", **figures)
        parts += [better, own.assign(primary=False)]
    basis = f", judge measured on {len(known)} labelled answers"
    corrected = pd.concat(parts, ignore_index=True) if parts else scores
    return corrected.assign(basis=corrected["basis"] + basis)


def rates(checked: pd.DataFrame, pass_labels: list[str]) -> Rates:
    """Count the judge's right verdicts among the answers that people passed, and failed."""
    known = checked[checked["judge_error"] == ""]
    human, judged = known["human"].isin(pass_labels), known["verdict"].isin(pass_labels)
    return Rates(
        int((human & judged).sum()),
        int(human.sum()),
        int((~human & ~judged).sum()),
        int((~human).sum()),
    )


def corrected_rate(
    score: npt.ArrayLike,
    judged: npt.ArrayLike,
    counted: Rates,
    *,
    groups: Groups = None,
) -> tuple[float, float, float]:
    """The pass rate people would have given, from a judge that errs (Rogan and Gladen 1978).

    θ = (p + specificity − 1) / (sensitivity + specificity − 1) among the answers that were
    judged; those that needed no judge (empty, truncated, refused) stay wrong. The interval
    draws p, sensitivity and specificity from their Jeffreys posteriors, so few calibration
    items make it wide; in simulation it covers 94 to 97 % where the uncorrected one covers
    next to nothing. The labelled answers may hold more or fewer good ones than the items do,
    as long as the judge errs on both alike.

    Args:
        score: 1 or 0 per item.
        judged: Whether the judge gave that score.
        counted: What the judge did with answers people labelled, from `rates`.
        groups: Items of one group count as one cluster; their doubt grows accordingly.

    Returns:
        Value and 95 % interval, within 0 and 1; the value is NaN and the interval 0 to 1
        where the judge was no better than chance, or people's labels are of one kind.
    """
    passed, by_judge = np.asarray(score, dtype=float), np.asarray(judged, dtype=bool)
    n, asked = len(passed), int(by_judge.sum())
    if not n or not counted.youden > 0:
        return float("nan"), 0.0, 1.0
    share = asked / n
    rate = passed[by_judge].mean() if asked else 0.0
    specificity = counted.failed_right / counted.human_fails
    value = share * float(np.clip((rate + specificity - 1) / counted.youden, 0, 1))
    rng = np.random.default_rng(0)
    shrink = 1 / _design_effect(passed, groups)
    p = _posterior(rng, rate * asked * shrink, asked * shrink)
    part = _posterior(rng, asked * shrink, n * shrink) if asked < n else np.ones(DRAWS)
    sensitivity, specific = _posterior(rng, *counted[:2]), _posterior(rng, *counted[2:])
    youden = sensitivity + specific - 1
    return value, *_bounds(part * (p + specific - 1), youden, value, (np.zeros(DRAWS), part))


def corrected_difference(
    difference: float, low: float, high: float, counted: Rates
) -> tuple[float, float, float]:
    """What a difference in judged pass rates means in people's: it is divided by Youden's index.

    The judge errs on both candidates, which cancels in a paired test of "no difference": the
    verdict of `stats.compare_pairs` on the judge's labels stands as it is. The size does not:
    a judge with index 0.5 halves every difference, so a non-inferiority margin belongs on
    the corrected one. This holds while the judge errs alike on both candidates; a judge that
    favours one (its own family, say) is beyond any pooled correction.
    """
    if not counted.youden > 0:
        return float("nan"), -1.0, 1.0
    rng = np.random.default_rng(0)
    noise = rng.normal(difference, (high - low) / (2 * 1.959964), DRAWS)
    youden = _posterior(rng, *counted[:2]) + _posterior(rng, *counted[2:]) - 1
    value = float(np.clip(difference / counted.youden, -1, 1))
    return value, *_bounds(noise, youden, value, (-np.ones(DRAWS), np.ones(DRAWS)))


def _posterior(rng: np.random.Generator, right: float, total: float) -> Numbers:
    """Draws of a share from its Jeffreys posterior."""
    return rng.beta(right + 0.5, total - right + 0.5, DRAWS)


def _bounds(
    above: Numbers, youden: Numbers, value: float, limits: tuple[Numbers, Numbers]
) -> tuple[float, float]:
    """The 95 % interval of above / youden; where a drawn judge is a coin, anything is possible."""
    better = youden > 0
    ratio = np.clip(above / np.where(better, youden, 1), *limits)
    low = float(np.quantile(np.where(better, ratio, limits[0]), 0.025))
    high = float(np.quantile(np.where(better, ratio, limits[1]), 0.975))
    return min(low, value), max(high, value)


def corrected_mean(
    score: npt.ArrayLike,
    judged: npt.ArrayLike,
    bias: npt.ArrayLike,
    *,
    groups: Groups = None,
) -> tuple[float, float, float]:
    """A mean score less the judge's mean bias, within 0 and 1.

    This is the rectifier of prediction-powered inference (Angelopoulos et al. 2023); the
    95 % interval adds the variances of both samples, with Welch's degrees of freedom. It holds
    where the labelled answers are like the judged ones, best a random part of them: a judge
    that flatters bad answers only has another mean bias on a set with few of them.

    Args:
        score: 0 to 1 per item.
        judged: Whether the judge gave that score; the others carry no bias.
        bias: Judge minus human, on the same 0 to 1, per calibration item.
        groups: Items of one group count as one cluster; their doubt grows accordingly.
    """
    values, errors = np.asarray(score, dtype=float), np.asarray(bias, dtype=float)
    n, m = len(values), len(errors)
    if not n or m < 2:
        return float("nan"), 0.0, 1.0
    share = float(np.mean(np.asarray(judged, dtype=bool)))
    mean = float(values.mean() - share * errors.mean())
    variance, freedom = _spread(values, groups)
    doubt, doubts = _spread(errors, None)
    doubt *= share**2
    total = variance + doubt
    freedom = total**2 / (variance**2 / freedom + doubt**2 / doubts)
    reach = float(t.ppf(0.975, freedom)) * total**0.5
    low, value, high = np.clip([mean - reach, mean, mean + reach], 0, 1)
    return float(value), float(low), float(high)


def _spread(values: Numbers, groups: Groups) -> tuple[float, float]:
    """Variance of a mean and its degrees of freedom."""
    n = len(values)
    if np.ptp(values) > 0:
        return spread((values - values.mean()) / n, codes(groups, n))
    # Equal values are not certainty: as if two more lay a step of a five-point rubric away.
    return 2 * 0.25**2 / (n + 1) / n, max(n - 1.0, 1.0)


def _design_effect(values: Numbers, groups: Groups) -> float:
    """How many items are worth one, because items come in groups and groups are few."""
    group = codes(groups, len(values))
    if group is None or not np.ptp(values):
        return 1.0
    influence = (values - values.mean()) / len(values)
    (variance, freedom), (alone, _) = spread(influence, group), spread(influence)
    return float(variance / alone * (t.ppf(0.975, freedom) / 1.959964) ** 2)
