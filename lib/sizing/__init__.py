"""Parameters to tier, memory and machine."""

from lib.sizing.model_config import config_facts
from lib.sizing.tiers import (
    BOUNDS,
    OUTSIDE,
    TIERS,
    against_measurements,
    benchmark_points,
    packed_weights,
    shortlist,
    wanted_tiers,
)

__all__ = [
    "BOUNDS", "OUTSIDE", "TIERS", "against_measurements", "benchmark_points", "config_facts",
    "packed_weights", "shortlist", "wanted_tiers",
]  # fmt: skip
