"""What a judge's errors do to its scores, and the scores as people would have given them."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from lib.stats.intervals import Estimate, Floats, Groups, Rows, bootstrap, group_numbers, jackknife

DRAWS = 20_000
NOTHING_IS_KNOWN = float("nan"), 0.0, 1.0


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


def judge_agreement(human: npt.ArrayLike, judged: npt.ArrayLike, *, rated: bool) -> Estimate:
    """Agreement beyond chance, with its bootstrap interval.

    Cohen's κ (1960) of labels; of ratings κ with quadratic weights, which for numbers is Lin's
    concordance (1989). It is 0 where one label is everywhere.
    """

    def kappa(rows: Rows) -> float:
        one, other = np.asarray(human)[rows], np.asarray(judged)[rows]
        if len({*one, *other}) < 2:
            return 0.0
        if not rated:
            from sklearn.metrics import cohen_kappa_score  # 0.2 s, and few steps measure a judge

            return float(cohen_kappa_score(one, other))
        apart = one.var() + other.var() + (one.mean() - other.mean()) ** 2
        return float(2 * np.mean((one - one.mean()) * (other - other.mean())) / apart)

    return bootstrap(kappa, len(np.asarray(human)))


def corrected_rate(
    score: npt.ArrayLike, judged: npt.ArrayLike, counts: Rates, *, groups: Groups = None
) -> Estimate:
    """The pass rate people would have given, from a judge that errs (Rogan and Gladen 1978).

    θ = (p + specificity − 1) / (sensitivity + specificity − 1) among the answers that were
    judged; those that needed no judge (empty, truncated, refused) stay wrong. The interval
    draws p, sensitivity and specificity from their Jeffreys posteriors. Where the judge is no
    better than chance, or people's labels are of one kind: NaN, 0 and 1.
    """
    passed, by_judge = np.asarray(score, dtype=float), np.asarray(judged, dtype=bool)
    n, n_passed = len(passed), int(by_judge.sum())
    if not n or not counts.youden > 0:
        return NOTHING_IS_KNOWN
    rate = passed[by_judge].mean() if n_passed else 0.0
    specificity = counts.failed_right / counts.human_fails
    value = n_passed / n * float(np.clip((rate + specificity - 1) / counts.youden, 0, 1))
    rng = np.random.default_rng(0)

    def posterior(right: float, total: float) -> Floats:
        return rng.beta(right + 0.5, total - right + 0.5, DRAWS)

    worth = 1 / _design_effect(passed, groups)
    p = posterior(rate * n_passed * worth, n_passed * worth)
    part = posterior(n_passed * worth, n * worth) if n_passed < n else np.ones(DRAWS)
    sensitive, specific = posterior(*counts[:2]), posterior(*counts[2:])
    youden = sensitive + specific - 1
    better = youden > 0  # where a drawn judge is a coin, anything is possible
    drawn = np.clip(part * (p + specific - 1) / np.where(better, youden, 1), 0, part)
    low = float(np.quantile(np.where(better, drawn, 0), 0.025))
    high = float(np.quantile(np.where(better, drawn, part), 0.975))
    return value, min(low, value), max(high, value)


def _design_effect(values: Floats, groups: Groups) -> float:
    """How many items are worth one, because items come in groups and groups are few."""
    group, influence = group_numbers(groups), (values - values.mean()) / len(values)
    if group is None or not np.ptp(values):
        return 1.0
    (variance, freedom), (alone, _) = jackknife(influence, group), jackknife(influence)
    return float(variance / alone * (t.ppf(0.975, freedom) / 1.959964) ** 2)


def corrected_mean(
    score: npt.ArrayLike, judged: npt.ArrayLike, bias: npt.ArrayLike, *, groups: Groups = None
) -> Estimate:
    """A mean score less the judge's mean bias, within 0 and 1, with its 95 % interval.

    This is the rectifier of prediction-powered inference (Angelopoulos et al. 2023), with Welch's
    degrees of freedom; the labelled answers must be like the judged ones. `bias` is judge minus
    human per calibration item; what was not `judged` carries none.
    """
    values, errors = np.asarray(score, dtype=float), np.asarray(bias, dtype=float)
    if not len(values) or len(errors) < 2:
        return NOTHING_IS_KNOWN
    share = float(np.mean(np.asarray(judged, dtype=bool)))
    mean = values.mean() - share * errors.mean()
    variance, freedom = _variance(values, groups)
    doubt, doubts = _variance(errors, None)
    doubt *= share**2
    welch = (variance + doubt) ** 2 / (variance**2 / freedom + doubt**2 / doubts)
    reach = float(t.ppf(0.975, welch)) * (variance + doubt) ** 0.5
    low, value, high = np.clip([mean - reach, mean, mean + reach], 0, 1)
    return float(value), float(low), float(high)


def _variance(values: Floats, groups: Groups) -> tuple[float, float]:
    """Variance of a mean and its degrees of freedom."""
    n = len(values)
    if np.ptp(values) > 0:
        return jackknife((values - values.mean()) / n, group_numbers(groups))
    # Equal values are not certainty: as if two more lay a step of a five-point rubric away.
    return 2 * 0.25**2 / (n + 1) / n, max(n - 1.0, 1.0)
