"""Load and capacity."""

from lib.speed.measurement import capacity, measure, summarise

__all__ = ["capacity", "measure", "summarise"]
