"""Scoring: a model rates every answer on a scale."""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from lib.brief import Project
from lib.evaluate.judge import judge_of
from lib.evaluate.kinds import judged
from lib.evaluate.scoring import Figure, metric_row, outcome_shares
from lib.reading import find_rating

RATED, MARKS = True, judged.MARKS
JUDGED_BY, item_reader, judge_calls = judged.JUDGED_BY, judged.item_reader, judged.judge_calls
grade, judge_notes, correct = judged.grade, judged.judge_notes, judged.correct


def read_verdicts(brief: Project, replies: pd.DataFrame) -> pd.DataFrame:
    """Add `verdict` (the judge's words) and `rating`; no rating is an error of the judge."""
    scale = judge_of(brief).scale
    ratings = replies["said"].map(lambda text: find_rating(text, scale)).astype(float)
    rated = replies.assign(verdict=replies["said"], rating=ratings)
    return judged.mark_unread(rated, ratings.isna(), f"one number from {list(scale)}")


def score(brief: Project, usable: pd.DataFrame, *, graded: pd.DataFrame, **_: Any) -> pd.DataFrame:
    """A rating's place on the scale, from 0 to 1; see `judged.score`."""
    low, high = judge_of(brief).scale
    rating = graded["rating"].astype(float)
    predicted = rating.map("{:g}".format).where(rating.notna(), None)
    place = (rating - low) / (high - low)
    points = graded.assign(predicted=predicted, score=place, detail=graded["verdict"])
    return judged.score_verdicts(usable, points)


def metrics(brief: Project, scored: pd.DataFrame) -> list[dict[str, Any]]:
    """The mean rating from 0 to 1, and "rating", the same on the rubric's own scale."""
    mean = metric_row("mean rating", scored["score"], scored)
    low, high = judge_of(brief).scale
    ends = {key: low + mean[key] * (high - low) for key in ("value", "low", "high")}
    return [mean, mean | ends | {"metric": "rating"}]


def figure(brief: Project, scored: pd.DataFrame, scores: pd.DataFrame, **_: Any) -> Figure:
    """The ratings given: whole numbers where all are, five equal bands of the scale if not."""
    (low, high), ratings = judge_of(brief).scale, scored["predicted"].astype(float)
    if float(low).is_integer() and high - low <= 9 and (ratings.dropna() % 1 == 0).all():
        bands = [f"{low + step:g}" for step in range(int(high - low) + 1)]
        names = ratings.map("{:g}".format, na_action="ignore")
    else:
        edges = np.linspace(low, high, 6)
        bands = [f"{a:.3g} to {b:.3g}" for a, b in pairwise(edges)]
        names = pd.cut(ratings, edges.tolist(), labels=bands, include_lowest=True).astype(object)
    tones = {band: ("good", (n + 1) / len(bands)) for n, band in enumerate(bands)}
    title, metric = "Ratings given by the judge", "mean rating, 0 to 1"
    return outcome_shares(scored, names, tones, title=title, metric=metric)
