"""Figures and pages: frames in, pictures out."""

from lib.pages.generic import draw
from lib.pages.notebook import sentence, table
from lib.pages.page import (
    answers_page,
    counsel_page,
    decision_page,
    disagreements,
    fleet_page,
    flips,
    grid,
)
from lib.pages.plots import (
    cost_by_volume,
    cost_per_correct,
    latency_by_load,
    quality_against,
    quality_by_size,
    score_intervals,
    verdicts_by_family,
)
from lib.pages.style import save

__all__ = [
    "answers_page", "cost_by_volume", "cost_per_correct", "counsel_page", "decision_page",
    "disagreements", "draw", "fleet_page", "flips", "grid", "latency_by_load",
    "quality_against", "quality_by_size", "save", "score_intervals", "sentence", "table",
    "verdicts_by_family",
]  # fmt: skip
