"""Parameters to tier, memory and machine."""

from lib.sizing.model_config import config_facts
from lib.sizing.tiers import (
    BOUNDS,
    COUNTS_AGREE,
    OUTSIDE,
    TIERS,
    against_measurements,
    benchmark_points,
    bytes_of,
    packed_weights,
    shortlist,
    wanted_tiers,
)

__all__ = [
    "BOUNDS", "COUNTS_AGREE", "OUTSIDE", "TIERS", "against_measurements", "benchmark_points",
    "bytes_of", "config_facts", "packed_weights", "shortlist", "wanted_tiers",
]  # fmt: skip
