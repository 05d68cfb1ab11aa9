"""Load and capacity."""

from lib.speed.measurement import capacity, dry_run, measure, summarise, unmeasured

__all__ = ["capacity", "dry_run", "measure", "summarise", "unmeasured"]
