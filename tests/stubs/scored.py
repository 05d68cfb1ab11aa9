"""Step 4's scores of answers made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from lib.brief.deployment import Deployment
from lib.brief.project import Project
from lib.endpoints.requests import Call
from lib.evaluate import steps
from lib.evaluate.answers import plan
from lib.evaluate.items import load_items

__all__ = ["calls_of", "gathered", "grade", "score_answers", "summarise"]


def gathered(answers: Any = None, graded: Any = None, dropped: Any = None) -> Any:
    """What came back, from its parts."""
    return steps.Gathered(pd.DataFrame() if answers is None else answers, graded, dropped or {})


def score_answers(
    brief: Project, answers: pd.DataFrame, items: Any = None, *, graded: Any = None
) -> pd.DataFrame:
    """The answers of all deployments, scored."""
    return steps.score(brief, gathered(answers, graded), pd.DataFrame() if items is None else items)


def summarise(
    brief: Project,
    scored: pd.DataFrame,
    *,
    checked: pd.DataFrame | None = None,
    graded: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The scores of all deployments of the brief."""
    labelled = pd.DataFrame() if checked is None else checked
    names = {"deployments": brief.deployments, "gathered": gathered(scored, graded)}
    return steps.summarise(brief, scored, labelled, **names)


def grade(
    brief: Project, answers: pd.DataFrame, run: Path, *, items: Any = None, progress: bool = False
) -> Any:
    """The judge's records of answers made by hand."""
    known = load_items(brief) if items is None else items
    return steps.grade_answers(brief, answers, known, run=run, progress=progress)


def calls_of(brief: Project, deployment: Deployment, item: Any) -> list[Call]:
    """What is sent for one item."""
    return list(plan(brief, deployment, pd.DataFrame([item])))
