"""Step 4 for every kind of task: ask, have it judged, score and compare."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd

from lib import hub, stats
from lib.brief import Deployment, Project
from lib.endpoints import Session
from lib.evaluate import answers, judge, kinds, racing
from lib.evaluate.answers import visible_answers
from lib.evaluate.scoring import FIGURES_OF_CALLS, Figure, counts_of_calls, model_notes

MOST_UNPARSED = 0.05  # of answers: beyond it, people see what was unreadable
BASELINE = "the baseline: compared with, not chosen"
COLUMNS = f"""deployment repo_id metric value low high {" ".join(FIGURES_OF_CALLS)} comparable
    basis primary""".split()


class Gathered(NamedTuple):
    """What came back: the answers, the judge's records, and why who was dropped from a race."""

    answers: pd.DataFrame
    graded: pd.DataFrame | None
    dropped: dict[str, str]

    @property
    def notes(self) -> list[str]:
        """Who was dropped, who shares another's answers, and which models answered: sentences."""
        pairs = self.answers[["deployment", "shared_with"]].drop_duplicates()
        same = "the same weights, wording and options as {}: asked once, latency not shared"
        common = [f"{name}: {same.format(o)}" for name, o in pairs.dropna().to_numpy() if o]
        out = [f"{name}: {reason}" for name, reason in self.dropped.items()]
        return out + common + model_notes(self.answers)


def gather(
    brief: Project, deployments: list[Deployment], items: pd.DataFrame, run: Path
) -> Gathered:
    """Ask the deployments, in a race if the brief says so, and the judge where there is one."""
    source = kinds.of(brief.evaluation.kind).gather(brief, deployments, run)
    if source is not None:
        return Gathered(source, None, {})
    # Who is compared to whom hangs on all that are asked, not on who is left of a race.
    brief = brief.model_copy(update={"deployments": deployments})
    if brief.evaluation.strategy == "full":
        texts = answers.ask(brief, deployments, items, run)
        return Gathered(texts, grade_answers(brief, texts, items, run=run), {})
    with Session(brief, run).opened() as session:
        calls: Any = {"run": run, "session": session}
        grade: Callable[..., Any] = partial(grade_answers, brief, items=items, **calls)
        texts, dropped = racing.run(
            brief,
            items,
            partial(answers.ask, brief, **calls),
            lambda block: score(brief, Gathered(block, grade(block), {}), items),
        )
        return Gathered(texts, grade(texts), dropped)


def grade_answers(
    brief: Project, answers: pd.DataFrame, items: pd.DataFrame, *, run: Path, **calls: Any
) -> pd.DataFrame | None:
    """What the judge says of the usable answers, None for a kind without a judge."""
    kind, texts = kinds.of(brief.evaluation.kind), visible_answers(brief, answers)
    graded: pd.DataFrame | None = kind.grade(brief, texts, items, run=run, **calls)
    return kind.read_verdicts(brief, graded) if kind.read_verdicts else graded


def score(brief: Project, gathered: Gathered, items: pd.DataFrame) -> pd.DataFrame:
    """The answers gathered, none left out, with `outcome predicted score detail`.

    `outcome` is `answered`, `truncated`, `refused`, `unparsed`, `empty` or `failed`. A failed call
    has no score; another answer that cannot be used scores 0.
    """
    answers, graded, _ = gathered
    texts = visible_answers(brief, answers).reset_index(drop=True)
    why = texts["unusable"]
    facts = {"outcome": why, "predicted": None, "score": 0.0, "detail": ""}
    scored = pd.DataFrame(facts, dtype=object)
    scored.loc[why == "failed", "score"] = None
    if len(usable := np.flatnonzero(why.isna())):
        kind, readable = kinds.of(brief.evaluation.kind), texts.iloc[usable].reset_index(drop=True)
        result = kind.score(brief, readable, items=items, graded=graded).set_index(usable)
        scored.loc[usable, result.columns] = result.astype(object)
    score = scored["score"].astype("Float64")
    scored = scored.fillna({"detail": ""}).astype("str").assign(score=score)
    return answers.assign(**scored.set_index(answers.index))


def first_outcome(brief: Project, deployment: Deployment, item: pd.DataFrame, run: Path) -> str:
    """The `outcome` of an item that was asked, as far as it shows before a judge sees it."""
    kind = kinds.of(brief.evaluation.kind)
    if len(answers.plan(brief, deployment, item).parts[0]) > 1:
        return "answered"  # one call of several says nothing of it
    texts = answers.ask(brief, [deployment], item, run, progress=False)
    if kind.JUDGED_BY:
        return visible_answers(brief, texts)["unusable"].iloc[0] or "answered"
    return str(score(brief, Gathered(texts, None, {}), item)["outcome"].iloc[0])


def unreadable(scored: pd.DataFrame) -> pd.DataFrame:
    """Up to three answers that cannot be read, where over 5 %: `deployment share output`."""
    came = scored[scored["outcome"] != "failed"]
    unparsed = came["outcome"] == "unparsed"
    share = unparsed.groupby(came["deployment"]).transform("mean")
    often = came.assign(share=share)[unparsed & (share > MOST_UNPARSED)]
    examples = often.groupby("deployment", sort=False).head(3)
    return examples[["deployment", "share", "output"]].reset_index(drop=True)


def calibrate(brief: Project, run: Path) -> pd.DataFrame:
    """The judge's verdicts on what people labelled, asked exactly as about any answer."""
    kind = kinds.of(brief.evaluation.kind)
    labelled = judge.load_labelled(brief) if kind.read_verdicts else pd.DataFrame()
    if labelled.empty:
        return labelled
    replies = judge.ask(brief, labelled, run, label="calibration")
    return pd.DataFrame(kind.read_verdicts(brief, replies))


def judge_notes(
    brief: Project, checked: pd.DataFrame, deployments: list[Deployment], gathered: Gathered
) -> list[str]:
    """What to know about the judge: how far it can be trusted, and whom it may favour."""
    kind = kinds.of(brief.evaluation.kind)
    if brief.evaluation.judge is None or not kind.JUDGED_BY:
        return []
    kin = judge.same_family(brief.evaluation.judge, deployments, hub.catalogue(brief))
    return [*kind.judge_notes(brief, gathered.graded, checked), *kin]


def summarise(
    brief: Project, scored: pd.DataFrame, checked: pd.DataFrame, *,
    deployments: list[Deployment], gathered: Gathered,
) -> pd.DataFrame:  # fmt: skip
    """One row per deployment and metric, corrected for the judge's errors where measured.

    `scored` is from `score`, `checked` from `calibrate`; the deployments are those asked. The
    columns are `COLUMNS`, `standing` and a `slice`, blank for all items: `n` is how many answers
    the metric is of, exactly one metric of each deployment is `primary`, and `standing` says who
    may be chosen: a `candidate`, not the baseline or what a race dropped.
    """
    kind = kinds.of(brief.evaluation.kind)
    by_name = {d.name: d for d in deployments}
    joint = kind.joint_scores(brief, gathered.graded)
    table: list[dict[str, Any]] = []
    for name, rows_of_one in scored.groupby("deployment", sort=False):
        metrics = kind.metrics(brief, rows_of_one[rows_of_one["outcome"] != "failed"])
        metrics += joint[joint["deployment"] == name].to_dict("records")
        common = {
            "deployment": name,
            "repo_id": rows_of_one["repo_id"].iloc[0],
            **counts_of_calls(rows_of_one),
        }
        recorded = getattr(by_name[str(name)].endpoint, "recorded", None)
        common["basis"] = f"recorded ({recorded})" if recorded else "measured here"
        table += [{**common, **m, "primary": i == 0} for i, m in enumerate(metrics)]
    if not kind.ASKS_ITEMS and scored.empty:
        table = [row for row in kind.metrics(brief, scored) if row["deployment"] in by_name]
    scores = kind.correct(brief, pd.DataFrame(table, columns=COLUMNS), scored, checked)
    standing = {d.name: BASELINE for d in deployments if d.baseline}
    standing |= gathered.dropped
    of_rows = [standing.get(name, "candidate") for name in scores["deployment"]]
    return cast(pd.DataFrame, scores.assign(standing=of_rows, slice="", against_baseline=""))


def detail(
    brief: Project, scored: pd.DataFrame, scores: pd.DataFrame, *,
    items: pd.DataFrame, gathered: Gathered,
) -> Figure:  # fmt: skip
    """Where do the candidates go wrong? A generic figure's name and frames, for `pages.draw`."""
    if scored.empty:
        return "empty", {"text": "Nothing was asked: the figures are quoted, not measured."}
    if scored["score"].isna().all():
        return "empty", {"text": "No answer has a score: every call failed, or the judge's did."}
    figure = kinds.of(brief.evaluation.kind).figure
    return cast(Figure, figure(brief, scored, scores, items=items, graded=gathered.graded))


def compare(brief: Project, scored: pd.DataFrame, gathered: Gathered) -> pd.DataFrame:
    """Every pair of deployments on the same items, but not what a race dropped."""
    in_race = scored[~scored["deployment"].isin(gathered.dropped)]
    return cast(pd.DataFrame, kinds.of(brief.evaluation.kind).compare(in_race, gathered.graded))


def non_inferiority(
    brief: Project, scored: pd.DataFrame, checked: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Whether each deployment is good enough to replace the baseline, if there is one.

    Not decided where the judge's labels, `checked`, show that it tells nothing.
    """
    baseline = next((d.name for d in brief.deployments if d.baseline), "")
    table = stats.non_inferiority(scored, baseline=baseline, margin=brief.evaluation.margin)
    if checked is not None and len(checked) and (flaw := judge.flaw(brief, checked)):
        table = table.assign(verdict="not decided", note=f"the judge {flaw}")
    return table
