"""How far a judge can be trusted: its agreement with people on answers that both have judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, Field, ValidationError
from scipy.stats import spearmanr, t
from sklearn.metrics import cohen_kappa_score

from lib.artifacts import shown
from lib.brief.deployment import Deployment
from lib.brief.evaluation import Judge
from lib.brief.project import Project
from lib.errors import PlaybookError
from lib.evaluate.correction import rates
from lib.legal import lineage
from lib.stats import paired_tests as stats

__all__ = ["agreement", "confusion", "load", "same_family", "trust", "usable"]

Numbers = npt.NDArray[np.float64]


class Labelled(BaseModel):
    """One answer and what people said of it."""

    id: str = Field(min_length=1)
    input: str = ""
    target: str = ""
    output: str
    human: str | float


def load(brief: Project) -> pd.DataFrame:
    """Read the calibration items that `judge.calibration` names, beside the brief.

    Returns:
        One row per item: `item_id input target output human`; `human` is one of the judge's
        labels, or for kind `scoring` a number on its scale. No rows without calibration.

    Raises:
        PlaybookError: A line is not usable, or people gave one verdict only.
    """
    judge = brief.evaluation.judge
    columns = ["item_id", "input", "target", "output", "human"]
    if judge is None or judge.calibration is None:
        return pd.DataFrame(columns=columns)
    path = brief.folder / judge.calibration
    where = shown(path)
    if not path.is_file():
        raise PlaybookError(f"{where}: no such file; evaluation.judge.calibration names it")
    lines = enumerate(path.read_bytes().splitlines(), start=1)
    rows = [_parse(line, f"{where} line {n}", brief) for n, line in lines if line.strip()]
    table = pd.DataFrame(rows, columns=columns)
    if twice := table.loc[table["item_id"].duplicated(), "item_id"].to_list():
        raise PlaybookError(f"{where}: the id {twice[0]!r} is used twice")
    shown_too = {(shot.input, shot.output) for shot in judge.shots}
    for name, asked, output in table[["item_id", "input", "output"]].to_numpy():
        if {(asked, output), ("", output)} & shown_too:
            raise PlaybookError(
                f"{where}: item {name!r} is also a shot; a worked example is no test"
            )
    if len(table) < 2:
        raise PlaybookError(f"{where}: {len(table)} items; a judge is measured on two or more")
    if brief.evaluation.kind != "scoring":
        passes = int(table["human"].isin(judge.pass_labels).sum())
        if passes in (0, len(table)):
            missing = "failed" if passes else "passed"
            raise PlaybookError(f"{where}: add answers that people {missing}; there is none")
    return table


def _parse(line: bytes, where: str, brief: Project) -> tuple[Any, ...]:
    judge = brief.evaluation.judge
    assert judge is not None
    try:
        item = Labelled.model_validate_json(line, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = f"{first['loc'][0]}: " if first["loc"] else ""
        raise PlaybookError(f"{where}: {key}{first['msg']}") from None
    low, high = judge.scale
    if brief.evaluation.kind == "scoring":
        if isinstance(item.human, str) or not low <= item.human <= high:
            raise PlaybookError(
                f"{where}: human must be a number from {low:g} to {high:g}, not {item.human!r:.80}"
            )
    elif item.human not in judge.labels:
        raise PlaybookError(f"{where}: human must be one of {judge.labels}, not {item.human!r:.80}")
    return item.id, item.input, item.target, item.output, item.human


def usable(checked: pd.DataFrame) -> pd.DataFrame:
    """The calibration items that the judge gave a verdict on."""
    return checked[checked["judge_error"] == ""]


def confusion(checked: pd.DataFrame) -> pd.DataFrame:
    """Counts of people's label against the judge's: `human verdict count`."""
    counts = usable(checked).groupby(["human", "verdict"], sort=False).size()
    return counts.rename("count").reset_index()


def agreement(checked: pd.DataFrame, *, pass_labels: list[str] | None = None) -> pd.DataFrame:
    """How well the judge agrees with people, each figure with its 95 % interval.

    Labels: Cohen's κ (1960) over all labels, accuracy, and the shares of people's passes and
    fails that it found (sensitivity and specificity), with Wilson intervals. Ratings: κ with
    quadratic weights, which for numbers is Lin's concordance (1989), Spearman's ρ, and the
    mean bias, judge minus human on the rubric's scale, with a t interval.

    Args:
        checked: From `judging.calibrate`: `human verdict rating judge_error`.
        pass_labels: The labels that pass; without them people and judge gave ratings.

    Returns:
        One row per figure: `metric value low high n`.
    """
    known = usable(checked)
    n = len(known)
    if pass_labels is None:
        human, judged = (known[c].to_numpy(dtype=float) for c in ("human", "rating"))
        found = [
            ("κ (quadratic weights)", *_bootstrap(_concordance, human, judged), n),
            ("Spearman's ρ", *_bootstrap(_spearman, human, judged), n),
            ("mean bias", *_mean(judged - human), n),
        ]
    else:
        meant, said = (known[c].to_numpy(dtype=str) for c in ("human", "verdict"))
        counted = rates(checked, pass_labels)
        found = [
            ("Cohen's κ", *_bootstrap(_kappa, meant, said), n),
            ("accuracy", *_share(int((said == meant).sum()), n), n),
            ("sensitivity", *_share(*counted[:2]), counted.human_passes),
            ("specificity", *_share(*counted[2:]), counted.human_fails),
        ]
    return pd.DataFrame(found, columns=["metric", "value", "low", "high", "n"])


def trust(brief: Project, checked: pd.DataFrame) -> str:
    """One sentence for people: how far the judge's scores can be relied on."""
    judge = brief.evaluation.judge
    assert judge is not None
    if checked.empty:
        return (
            f"The judge {judge.model} is uncalibrated: how often it is right is not known;"
            " label some answers yourselves and name the file in judge.calibration."
        )
    labels = None if brief.evaluation.kind == "scoring" else judge.pass_labels
    figures = agreement(checked, pass_labels=labels)
    first = figures.iloc[0]
    said = f"{first['metric']} {first['value']:.2f} ({first['low']:.2f} to {first['high']:.2f})"
    answers = f"{first['n']} labelled answers"
    if lost := len(checked) - first["n"]:
        answers += f" ({lost} more got no verdict that can be read)"
    if labels is not None and not rates(checked, labels).youden > 0:
        return (
            f"The judge {judge.model} is no better than chance on {answers} ({said}):"
            " its scores are not usable; try another wording or another judge."
        )
    doubt = "" if first["low"] > 0 else "; it may be no better than chance, so label more answers"
    return f"The judge {judge.model} was measured on {answers}: {said}{doubt}."


def same_family(
    judge: Judge, deployments: list[Deployment], models: pd.DataFrame | None = None
) -> list[str]:
    """One sentence for each candidate that is of the judge's own family: it may favour its kind.

    Args:
        judge: Of the brief.
        deployments: The candidates.
        models: `repo_id family base_model`, from `tables.models`; a model that is not there
            counts as of its owner's family.
    """
    listed = pd.DataFrame(columns=["repo_id", "family", "base_model"]) if models is None else models
    families = listed.set_index("repo_id")["family"].dropna().to_dict()
    direct = lineage.bases(listed)

    def kin(repo_id: str) -> dict[str, str]:
        line = [repo_id, *lineage.ancestors(repo_id, direct)]
        names = [str(families.get(one, one.split("/")[0])) for one in line]
        return {name.casefold(): name for name in names}

    judges = kin(judge.model)
    return [
        f"the judge {judge.model} and the candidate {d.name!r} ({d.model}) are both of the family"
        f" {judges[min(shared)]}: a judge may favour its own kind, so judge with another model"
        " or look at the calibration of this candidate's answers"
        for d in deployments
        if (shared := judges.keys() & kin(d.model).keys())
    ]


def _bootstrap(
    statistic: Callable[[Any, Any], float], human: npt.NDArray[Any], judged: npt.NDArray[Any]
) -> tuple[float, float, float]:
    return stats.bootstrap(lambda rows: statistic(human[rows], judged[rows]), len(human))


def _share(right: int, n: int) -> tuple[float, float, float]:
    return (right / n if n else float("nan"), *stats.wilson(right, n))


def _mean(values: Numbers) -> tuple[float, float, float]:
    if len(values) < 2:
        return (float("nan"),) * 3
    mean = float(values.mean())
    spread = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
    return mean, mean - spread, mean + spread


def _kappa(human: npt.NDArray[Any], judged: npt.NDArray[Any]) -> float:
    # One label only, on both sides: no agreement beyond chance can be shown.
    several = len(set(human) | set(judged)) > 1
    return float(cohen_kappa_score(human, judged)) if several else 0.0


def _concordance(human: Numbers, judged: Numbers) -> float:
    if len(set(human) | set(judged)) < 2:
        return 0.0
    apart = human.var() + judged.var() + (human.mean() - judged.mean()) ** 2
    return float(2 * np.mean((human - human.mean()) * (judged - judged.mean())) / apart)


def _spearman(human: Numbers, judged: Numbers) -> float:
    several = len(set(human)) > 1 and len(set(judged)) > 1
    return float(spearmanr(human, judged).statistic) if several else 0.0
