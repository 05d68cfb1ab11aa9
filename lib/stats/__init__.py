"""Intervals, paired tests and ties."""

from lib.stats.betting import Bets, race_losers, shuffled_blocks
from lib.stats.intervals import (
    ALPHA,
    bootstrap,
    group_numbers,
    interval,
    items_needed,
    macro_f1_interval,
    quantile,
    ratio,
)
from lib.stats.judge_errors import Rates, corrected_mean, corrected_rate, judge_agreement
from lib.stats.paired_tests import by_item, compare_pairs, holm, non_inferiority, twins
from lib.stats.ranking import (
    beaten_by,
    both_sides,
    pairs,
    quality_groups,
    ranking_by_chance,
    ranking_measures,
    strengths,
    tie_groups,
)

__all__ = [
    "ALPHA", "Bets", "Rates", "beaten_by", "bootstrap", "both_sides", "by_item", "compare_pairs",
    "corrected_mean", "corrected_rate", "group_numbers", "holm", "interval", "items_needed",
    "judge_agreement", "macro_f1_interval", "non_inferiority", "pairs", "quality_groups",
    "quantile", "race_losers", "ranking_by_chance", "ranking_measures", "ratio", "shuffled_blocks",
    "strengths", "tie_groups", "twins",
]  # fmt: skip
