"""How far a judge can be trusted, and its scores as people would have given them.

A judge that passes too much or too little shifts every score it gives. Answers that people
labelled too say by how much. Intervals carry the doubt of both samples: few labels make them wide.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, Field, ValidationError
from scipy.stats import t
from sklearn.metrics import cohen_kappa_score

from lib.artifacts import shown
from lib.brief.deployment import Deployment
from lib.brief.evaluation import Judge
from lib.brief.project import Project
from lib.errors import PlaybookError
from lib.evaluate import kinds
from lib.evaluate.scoring import clusters
from lib.json_lines import read_json_lines
from lib.legal import verdicts as lineage
from lib.stats.intervals import bootstrap, group_numbers, jackknife

__all__ = ["Rates", "correct", "corrected_mean", "corrected_rate", "load", "same_family", "trust"]

DRAWS = 20_000
Numbers = npt.NDArray[np.float64]
Groups = Iterable[object] | None


class Labelled(BaseModel):
    """One answer and what people said of it."""

    id: str = Field(min_length=1)
    input: str = ""
    target: str = ""
    output: str
    human: str | float


def load(brief: Project) -> pd.DataFrame:
    """Read the items that `judge.calibration` names: `item_id input target output human`.

    `human` is one of the judge's labels, or where it gives ratings a number on its scale.
    """
    judge = brief.evaluation.judge
    columns = ["item_id", "input", "target", "output", "human"]
    if judge is None or judge.calibration is None:
        return pd.DataFrame(columns=columns)
    path, rated = brief.folder / judge.calibration, kinds.of(brief.evaluation.kind).RATED
    where = shown(path)
    if not path.is_file():
        raise PlaybookError(f"{where}: no such file; evaluation.judge.calibration names it")
    lines = read_json_lines(path, wanted="id, output and human")
    rows = [_checked(raw, place, judge, rated) for place, raw in lines]
    table = pd.DataFrame(rows, columns=columns)
    for name in table.loc[table["item_id"].duplicated(), "item_id"]:
        raise PlaybookError(f"{where}: the id {name!r} is used twice")
    shots = {(shot.input, shot.output) for shot in judge.shots}
    for name, question, output in table[["item_id", "input", "output"]].to_numpy():
        if {(question, output), ("", output)} & shots:
            raise PlaybookError(
                f"{where}: item {name!r} is also a shot; a worked example is no test"
            )
    if len(table) < 2:
        raise PlaybookError(f"{where}: {len(table)} items; a judge is measured on two or more")
    passes = table["human"].isin(judge.pass_labels)
    if not rated and passes.nunique() == 1:
        missing = "failed" if passes.all() else "passed"
        raise PlaybookError(f"{where}: add answers that people {missing}; there is none")
    return table


def _checked(raw: dict[str, Any], where: str, judge: Judge, rated: bool) -> tuple[Any, ...]:
    try:
        item = Labelled.model_validate(raw, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise PlaybookError(f"{where}: {first['loc'][0]}: {first['msg']}") from None
    low, high = judge.scale
    fits, wanted = item.human in judge.labels, f"one of {judge.labels}"
    if rated:
        fits = isinstance(item.human, float | int) and low <= item.human <= high
        wanted = f"a number from {low:g} to {high:g}"
    if not fits:
        raise PlaybookError(f"{where}: human must be {wanted}, not {item.human!r:.80}")
    return tuple(item.model_dump().values())


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


def rates(checked: pd.DataFrame, pass_labels: list[str]) -> Rates:
    """Count the judge's right verdicts among the answers that people passed, and failed."""
    judged = checked[checked["judge_error"] == ""]
    human, passed = (judged[column].isin(pass_labels) for column in ("human", "verdict"))
    counts = (human & passed).sum(), human.sum(), (~human & ~passed).sum(), (~human).sum()
    return Rates(*map(int, counts))


def trust(brief: Project, checked: pd.DataFrame) -> str:
    """One sentence for people: how far the judge's scores can be relied on.

    It names Cohen's κ (1960) over all labels, or of ratings κ with quadratic weights, which for
    numbers is Lin's concordance (1989). `checked` is from `steps.calibrate`.
    """
    judge = brief.evaluation.judge
    assert judge is not None
    if checked.empty:
        return (
            f"The judge {judge.model} is uncalibrated: how often it is right is not known;"
            " label some answers yourselves and name the file in judge.calibration."
        )
    rated = kinds.of(brief.evaluation.kind).RATED
    judged = checked[checked["judge_error"] == ""]
    both = judged[["human", "rating" if rated else "verdict"]].to_numpy(float if rated else str)
    value, low, high = bootstrap(lambda rows: _agreement(both[rows], rated), len(both))
    name = "κ (quadratic weights)" if rated else "Cohen's κ"
    figure = f"{name} {value:.2f} ({low:.2f} to {high:.2f})"
    answers = f"{len(judged)} labelled answers"
    if lost := len(checked) - len(judged):
        answers += f" ({lost} more got no verdict that can be read)"
    if not rated and not rates(checked, judge.pass_labels).youden > 0:
        return (
            f"The judge {judge.model} is no better than chance on {answers} ({figure}):"
            " its scores are not usable; try another wording or another judge."
        )
    doubt = "" if low > 0 else "; it may be no better than chance, so label more answers"
    return f"The judge {judge.model} was measured on {answers}: {figure}{doubt}."


def _agreement(both: npt.NDArray[Any], rated: bool) -> float:
    human, judged = both.T
    if len({*human, *judged}) < 2:  # no agreement beyond chance can be shown
        return 0.0
    if not rated:
        return float(cohen_kappa_score(human, judged))
    apart = human.var() + judged.var() + (human.mean() - judged.mean()) ** 2
    return float(2 * np.mean((human - human.mean()) * (judged - judged.mean())) / apart)


def same_family(judge: Judge, deployments: list[Deployment], models: pd.DataFrame) -> list[str]:
    """One sentence for each candidate that is of the judge's own family: it may favour its kind.

    A model that is not in `models` (`repo_id family base_model`) is of its owner's family.
    """
    families, direct = models.set_index("repo_id")["family"].dropna(), lineage.bases(models)

    def kin(repo_id: str) -> dict[str, str]:
        line = [repo_id, *lineage.ancestors(repo_id, direct)]
        names = (str(families.get(one, one.split("/")[0])) for one in line)
        return {name.casefold(): name for name in names}

    judges = kin(judge.model)
    return [
        f"the judge {judge.model} and the candidate {d.name!r} ({d.model}) are both of the family"
        f" {judges[min(shared)]}: a judge may favour its own kind, so judge with another model"
        " or look at the calibration of this candidate's answers"
        for d in deployments
        if (shared := judges.keys() & kin(d.model).keys())
    ]


def correct(
    brief: Project, scores: pd.DataFrame, scored: pd.DataFrame, checked: pd.DataFrame
) -> pd.DataFrame:
    """Say in every score's basis how its judge was measured, and correct the score if it was.

    Comparisons of candidates go on using the judge's own scores, item by item: its errors on
    both cancel in a paired test, as long as it favours neither. `scores` are from
    `steps.summarise`, `scored` from `steps.score` and `checked` from
    `steps.calibrate`.

    Returns:
        The scores, each deployment led by its corrected figure, now the primary one. It is missing
        where the judge is no better than chance; then no bar on quality can be met.
    """
    judge = brief.evaluation.judge
    assert judge is not None
    if checked.empty:
        return scores.assign(basis=scores["basis"] + ", uncalibrated judge")
    measured = checked[checked["judge_error"] == ""]
    bias = measured["rating"].astype(float) - pd.to_numeric(measured["human"], errors="coerce")
    bias /= judge.scale[1] - judge.scale[0]
    counts, parts = rates(checked, judge.pass_labels), []
    for name, figures in scores.groupby("deployment", sort=False):
        rows = scored[(scored["deployment"] == name) & (scored["outcome"] != "failed")]
        values = rows["score"].to_numpy(dtype=float)
        judged, groups = (rows["outcome"] == "answered").to_numpy(), clusters(rows)
        if kinds.of(brief.evaluation.kind).RATED:
            value, low, high = corrected_mean(values, judged, bias, groups=groups)
        else:
            value, low, high = corrected_rate(values, judged, counts, groups=groups)
        first = figures[figures["primary"].astype(bool)].assign(value=value, low=low, high=high)
        first["metric"] += " (corrected)"
        parts += [first, figures.assign(primary=False)]
    basis = f", judge measured on {len(measured)} labelled answers"
    corrected = pd.concat(parts, ignore_index=True) if parts else scores
    return corrected.assign(basis=corrected["basis"] + basis)


def corrected_rate(
    score: npt.ArrayLike, judged: npt.ArrayLike, counts: Rates, *, groups: Groups = None
) -> tuple[float, float, float]:
    """The pass rate people would have given, from a judge that errs (Rogan and Gladen 1978).

    θ = (p + specificity − 1) / (sensitivity + specificity − 1) among the answers that were
    judged; those that needed no judge (empty, truncated, refused) stay wrong. The interval
    draws p, sensitivity and specificity from their Jeffreys posteriors. The labelled answers
    may hold more or fewer good ones than the items do, as long as the judge errs on both alike.
    Where it is no better than chance, or people's labels are of one kind: NaN, 0 and 1.
    """
    passed, by_judge = np.asarray(score, dtype=float), np.asarray(judged, dtype=bool)
    n, asked = len(passed), int(by_judge.sum())
    if not n or not counts.youden > 0:
        return float("nan"), 0.0, 1.0
    rate = passed[by_judge].mean() if asked else 0.0
    specificity = counts.failed_right / counts.human_fails
    value = asked / n * float(np.clip((rate + specificity - 1) / counts.youden, 0, 1))
    rng = np.random.default_rng(0)

    def posterior(right: float, total: float) -> Numbers:
        return rng.beta(right + 0.5, total - right + 0.5, DRAWS)

    shrink = 1 / _design_effect(passed, groups)
    p = posterior(rate * asked * shrink, asked * shrink)
    part = posterior(asked * shrink, n * shrink) if asked < n else np.ones(DRAWS)
    sensitive, specific = posterior(*counts[:2]), posterior(*counts[2:])
    youden = sensitive + specific - 1
    better = youden > 0  # where a drawn judge is a coin, anything is possible
    ratio = np.clip(part * (p + specific - 1) / np.where(better, youden, 1), 0, part)
    low = float(np.quantile(np.where(better, ratio, 0), 0.025))
    high = float(np.quantile(np.where(better, ratio, part), 0.975))
    return value, min(low, value), max(high, value)


def _design_effect(values: Numbers, groups: Groups) -> float:
    """How many items are worth one, because items come in groups and groups are few."""
    group, influence = group_numbers(groups), (values - values.mean()) / len(values)
    if group is None or not np.ptp(values):
        return 1.0
    (variance, freedom), (alone, _) = jackknife(influence, group), jackknife(influence)
    return float(variance / alone * (t.ppf(0.975, freedom) / 1.959964) ** 2)


def corrected_mean(
    score: npt.ArrayLike, judged: npt.ArrayLike, bias: npt.ArrayLike, *, groups: Groups = None
) -> tuple[float, float, float]:
    """A mean score less the judge's mean bias, within 0 and 1, with its 95 % interval.

    This is the rectifier of prediction-powered inference (Angelopoulos et al. 2023); the
    interval adds the variances of both samples, with Welch's degrees of freedom. It holds
    where the labelled answers are like the judged ones, best a random part of them: a judge
    that flatters bad answers only has another mean bias on a set with few of them. `bias` is
    judge minus human per calibration item; what was not `judged` carries none.
    """
    values, errors = np.asarray(score, dtype=float), np.asarray(bias, dtype=float)
    if not len(values) or len(errors) < 2:
        return float("nan"), 0.0, 1.0
    share = float(np.mean(np.asarray(judged, dtype=bool)))
    mean = values.mean() - share * errors.mean()
    variance, freedom = _variance(values, groups)
    doubt, doubts = _variance(errors, None)
    doubt *= share**2
    total = variance + doubt
    welch = total**2 / (variance**2 / freedom + doubt**2 / doubts)
    reach = float(t.ppf(0.975, welch)) * total**0.5
    low, value, high = np.clip([mean - reach, mean, mean + reach], 0, 1)
    return float(value), float(low), float(high)


def _variance(values: Numbers, groups: Groups) -> tuple[float, float]:
    """Variance of a mean and its degrees of freedom."""
    n = len(values)
    if np.ptp(values) > 0:
        return jackknife((values - values.mean()) / n, group_numbers(groups))
    # Equal values are not certainty: as if two more lay a step of a five-point rubric away.
    return 2 * 0.25**2 / (n + 1) / n, max(n - 1.0, 1.0)
