"""How far a judge can be trusted, and its scores as people would have given them.

A judge that passes too much or too little shifts every score it gives. Answers that people
labelled too say by how much.
"""

from functools import partial
from typing import Any

import pandas as pd
from pydantic import BaseModel, Field, TypeAdapter

from lib import legal
from lib.artifacts import shown
from lib.brief import Deployment, Judge, Project
from lib.errors import PlaybookError
from lib.evaluate import kinds
from lib.evaluate.scoring import clusters
from lib.lines import read_json_lines, validated
from lib.stats import Rates, corrected_mean, corrected_rate, judge_agreement


class Labelled(BaseModel):
    """One answer and what people said of it."""

    id: str = Field(min_length=1)
    input: str = ""
    target: str = ""
    output: str
    human: str | float


LABELLED = TypeAdapter(Labelled)


def load(brief: Project) -> pd.DataFrame:
    """The items of `judge.calibration`: `item_id input target output human`, a label or rating."""
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
    if len(table) < 2:
        raise PlaybookError(f"{where}: {len(table)} items; a judge is measured on two or more")
    passes = table["human"].isin(judge.pass_labels)
    if not rated and passes.nunique() == 1:
        missing = "failed" if passes.all() else "passed"
        raise PlaybookError(f"{where}: add answers that people {missing}; there is none")
    return table


def _checked(raw: dict[str, Any], where: str, judge: Judge, rated: bool) -> tuple[Any, ...]:
    item = validated(LABELLED, raw, where)
    low, high = judge.scale
    fits, wanted = item.human in judge.labels, f"one of {judge.labels}"
    if rated:
        fits = isinstance(item.human, float | int) and low <= item.human <= high
        wanted = f"a number from {low:g} to {high:g}"
    if not fits:
        raise PlaybookError(f"{where}: human must be {wanted}, not {item.human!r:.80}")
    if any(shot.output == item.output and shot.input in ("", item.input) for shot in judge.shots):
        raise PlaybookError(f"{where}: item {item.id!r} is also a shot; such an example is no test")
    return tuple(item.model_dump().values())


def rates(checked: pd.DataFrame, pass_labels: list[str]) -> Rates:
    """Count the judge's right verdicts among the answers that people passed, and failed."""
    judged = checked[checked["judge_error"] == ""]
    human, passed = (judged[column].isin(pass_labels) for column in ("human", "verdict"))
    counts = (human & passed).sum(), human.sum(), (~human & ~passed).sum(), (~human).sum()
    return Rates(*map(int, counts))


def trust(brief: Project, checked: pd.DataFrame) -> str:
    """One sentence for people: how far the judge's scores can be relied on.

    `checked` is from `steps.calibrate`.
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
    value, low, high = judge_agreement(*both.T, rated=rated)
    name = "κ (quadratic weights)" if rated else "Cohen's κ"
    figure = f"{name} {value:.2f} ({low:.2f} to {high:.2f})"
    unread = len(checked) - len(judged)
    more = f" ({unread} more got no verdict that can be read)" if unread else ""
    answers = f"{len(judged)} labelled answers{more}"
    if not rated and not rates(checked, judge.pass_labels).youden > 0:
        return (
            f"The judge {judge.model} is no better than chance on {answers} ({figure}):"
            " its scores are not usable; try another wording or another judge."
        )
    doubt = "" if low > 0 else "; it may be no better than chance, so label more answers"
    return f"The judge {judge.model} was measured on {answers}: {figure}{doubt}."


def same_family(judge: Judge, deployments: list[Deployment], models: pd.DataFrame) -> list[str]:
    """One sentence for each candidate that is of the judge's own family: it may favour its kind.

    A model that is not in `models` (`repo_id family base_model`) is of its owner's family.
    """
    families, direct = models.set_index("repo_id")["family"].dropna(), legal.bases(models)

    def kin(repo_id: str) -> dict[str, str]:
        line = [repo_id, *legal.ancestors(repo_id, direct)]
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

    Each deployment is led by its corrected figure, now the primary one. It is missing where the
    judge is no better than chance; then no bar on quality can be met. Comparisons of candidates
    go on using the judge's own scores, item by item: its errors on both cancel in a paired test,
    as long as it favours neither. `scored` is from `steps.score`, `checked` from `steps.calibrate`.
    """
    judge = brief.evaluation.judge
    assert judge is not None
    if checked.empty:
        return scores.assign(basis=scores["basis"] + ", uncalibrated judge")
    measured = checked[checked["judge_error"] == ""]
    bias = measured["rating"].astype(float) - pd.to_numeric(measured["human"], errors="coerce")
    bias /= judge.scale[1] - judge.scale[0]
    correction: Any = partial(corrected_rate, counts=rates(checked, judge.pass_labels))
    if kinds.of(brief.evaluation.kind).RATED:
        correction = partial(corrected_mean, bias=bias)
    parts = []
    for name, figures in scores.groupby("deployment", sort=False):
        rows = scored[(scored["deployment"] == name) & (scored["outcome"] != "failed")]
        values, judged = rows["score"].to_numpy(dtype=float), rows["outcome"] == "answered"
        value, low, high = correction(values, judged, groups=clusters(rows))
        first = figures[figures["primary"].astype(bool)].assign(value=value, low=low, high=high)
        first["metric"] += " (corrected)"
        parts += [first, figures.assign(primary=False)]
    basis = f", judge measured on {len(measured)} labelled answers"
    corrected = pd.concat(parts, ignore_index=True) if parts else scores
    return corrected.assign(basis=corrected["basis"] + basis)
