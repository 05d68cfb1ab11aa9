"""Items to answers to scores."""

from lib.evaluate.answers import ask, dry_run, forecast, plan, spending
from lib.evaluate.disagreement import side_by_side
from lib.evaluate.items import load_items
from lib.evaluate.judge import as_deployment, load_labelled
from lib.evaluate.kinds import problems
from lib.evaluate.slices import by_slice, slice_winners
from lib.evaluate.steps import (
    calibrate,
    compare,
    detail,
    first_outcome,
    gather,
    judge_notes,
    non_inferiority,
    score,
    summarise,
    unreadable,
)

__all__ = [
    "as_deployment", "ask", "by_slice", "calibrate", "compare", "detail", "dry_run",
    "first_outcome", "forecast", "gather", "judge_notes", "load_items", "load_labelled",
    "non_inferiority", "plan", "problems", "score", "side_by_side", "slice_winners", "spending",
    "summarise", "unreadable",
]  # fmt: skip
