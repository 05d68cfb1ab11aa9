"""Load and capacity."""

from lib.speed.load import seconds_allowed
from lib.speed.measurement import dry_run, measure
from lib.speed.results import load_results
from lib.speed.summary import capacity, silent_deployments, summarise

__all__ = [
    "capacity", "dry_run", "load_results", "measure", "seconds_allowed", "silent_deployments",
    "summarise",
]  # fmt: skip
