"""Step 4 for every kind of task: ask, have it judged, score and compare."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lib import tables
from lib.brief.project import Deployment, Project
from lib.endpoints import budget as spending
from lib.evaluate import answers, calibration, comparison, correction, judging, racing, scoring
from lib.evaluate.answers import admitted
from lib.evaluate.export import write as export
from lib.evaluate.forecast import dry_run
from lib.stats import paired_tests as stats
from lib.stats.paired_tests import tie_groups

__all__ = [
    "Gathered",
    "admitted",
    "calibrate",
    "compare",
    "dry_run",
    "export",
    "gather",
    "judge_notes",
    "non_inferiority",
    "score",
    "summarise",
    "tie_groups",
]

GRADERS = {"scoring": judging, "judged": judging, "comparison": comparison}
BASELINE = "the baseline: compared with, not chosen"
NO_RACE = pd.DataFrame(
    {"deployment": [], "dropped": pd.Series(dtype=bool), "after_items": [], "reason": []}
)


class Gathered(NamedTuple):
    """What came back: the answers, the judge's records, and who was dropped from a race."""

    answers: pd.DataFrame
    graded: pd.DataFrame | None
    race: pd.DataFrame


def gather(
    brief: Project,
    deployments: list[Deployment],
    items: pd.DataFrame,
    run: Path,
    *,
    progress: bool = True,
) -> Gathered:
    """Ask the deployments, and the judge where the kind of task has one.

    With `strategy: racing` items are asked in blocks, and who cannot win any more is dropped.
    Answers and verdicts are on disk the moment they arrive; nothing is asked twice.

    Args:
        brief: Its `evaluation` says what is asked and who judges.
        deployments: From `answers.admitted`.
        items: From `items.load_items`.
        run: The run directory.
        progress: Show bars.

    Raises:
        PlaybookError: An endpoint or a key is missing, or the budget is used up.
    """
    if brief.evaluation.kind == "inspect":
        from lib.evaluate import inspection

        return Gathered(inspection.ask(brief, deployments, run), None, NO_RACE)
    budget = spending.budget_of(brief, run)

    def ask(asked: list[Deployment], some: pd.DataFrame) -> pd.DataFrame:
        return answers.ask(brief, asked, some, run, progress=progress, budget=budget)

    def grade(told: pd.DataFrame) -> pd.DataFrame | None:
        module = GRADERS.get(brief.evaluation.kind)
        if module is None or told.empty:
            return None
        graded: pd.DataFrame = module.grade(
            brief, told, run, items=items, progress=progress, budget=budget
        )
        return graded

    if brief.evaluation.strategy == "full":
        told = ask(deployments, items)
        return Gathered(told, grade(told), NO_RACE)

    def rated(told: pd.DataFrame) -> pd.DataFrame:
        return scoring.score_answers(brief, told, items, graded=grade(told))

    told, log = racing.run(brief, deployments, items, ask, rated)
    return Gathered(told, grade(told), log)


def score(brief: Project, gathered: Gathered, items: pd.DataFrame) -> pd.DataFrame:
    """The answers with `outcome predicted score`; see `scoring.score_answers`."""
    return scoring.score_answers(brief, gathered.answers, items, graded=gathered.graded)


def calibrate(brief: Project, run: Path, *, progress: bool = True) -> pd.DataFrame:
    """The judge's verdicts on the items people labelled; empty without a judge or labels."""
    if brief.evaluation.kind not in ("scoring", "judged"):
        return pd.DataFrame()
    budget = spending.budget_of(brief, run)
    return judging.calibrate(brief, run, progress=progress, budget=budget)


def judge_notes(
    brief: Project,
    checked: pd.DataFrame,
    deployments: list[Deployment],
    *,
    graded: pd.DataFrame | None = None,
) -> list[str]:
    """What to know about the judge: how far it can be trusted, and whom it may favour.

    Args:
        brief: The brief.
        checked: From `calibrate`.
        deployments: From `answers.admitted`.
        graded: From `gather`; a comparison says how often the swap of places changed a verdict.
    """
    judge = brief.evaluation.judge
    if judge is None or brief.evaluation.kind not in GRADERS:
        return []
    kin = calibration.same_family(judge, deployments, tables.models())
    if brief.evaluation.kind != "comparison":
        return [calibration.trust(brief, checked), *kin]
    return [*([] if graded is None else _swaps(graded)), *kin]


def _swaps(graded: pd.DataFrame) -> list[str]:
    """Inconsistency and position lean of a judge that saw every pair in both orders."""
    found = comparison.consistency(graded).set_index("measure")
    said = []
    for measure, text in (
        ("inconsistent", "the swap of places changed the verdict in {value:.0%} of {n:.0f} pairs"),
        ("first of all", "it named the first answer in {value:.0%} of {n:.0f} verdicts"),
        ("no verdict", "it gave no verdict that can be read in {value:.0%} of {n:.0f} pairs"),
    ):
        row = found.loc[measure]
        if row["n"]:
            bounds = f" ({row['low']:.0%} to {row['high']:.0%})"
            said.append("the judge: " + text.format(value=row["value"], n=row["n"]) + bounds)
    return said


def summarise(
    brief: Project,
    scored: pd.DataFrame,
    checked: pd.DataFrame,
    *,
    deployments: list[Deployment],
    race: pd.DataFrame = NO_RACE,
) -> pd.DataFrame:
    """One row per deployment and metric, corrected for the judge's errors where measured.

    `standing` says who may be chosen: a `candidate`, not the baseline or what a race dropped.

    Args:
        brief: The brief.
        scored: From `score`.
        checked: From `judging.calibrate`; empty without a judge or calibration.
        deployments: From `answers.admitted`.
        race: From `gather`.
    """
    scores = scoring.summarise(brief, scored, deployments=deployments)
    scores = correction.correct(brief, scores, scored, checked)
    standing = {d.name: BASELINE for d in deployments if d.baseline}
    dropped = race[race["dropped"].astype(bool)]
    for name, n, reason in dropped[["deployment", "after_items", "reason"]].to_numpy():
        standing[str(name)] = f"dropped after {n} items: {reason}"
    return scores.assign(standing=[standing.get(d, "candidate") for d in scores["deployment"]])


def compare(brief: Project, scored: pd.DataFrame, gathered: Gathered) -> pd.DataFrame:
    """Every pair of deployments on the same items; comparisons by the judge's own verdicts.

    What a race dropped is not compared: with fewer items it would only weaken the other tests.
    """
    if brief.evaluation.kind == "comparison" and gathered.graded is not None:
        return comparison.pairs(gathered.graded)
    dropped = gathered.race.loc[gathered.race["dropped"].astype(bool), "deployment"]
    return stats.compare_pairs(scored[~scored["deployment"].isin(dropped)])


def non_inferiority(brief: Project, scored: pd.DataFrame) -> pd.DataFrame:
    """Whether each deployment is good enough to replace the baseline; empty without one."""
    baseline = [d.name for d in brief.deployments if d.baseline]
    named = [name for name in baseline if name in set(scored["deployment"])]
    if not named:
        columns = "deployment baseline n difference low high margin p_value verdict note"
        return pd.DataFrame(columns=columns.split())
    return stats.non_inferiority(scored, baseline=named[0], margin=brief.evaluation.margin)
