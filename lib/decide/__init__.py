"""Cost, requirements, the pick and its record."""

from lib.decide.costs import by_volume, cost, crossings
from lib.decide.decision import check, choose, qualify, stability, tradeoffs
from lib.decide.record import write_decision

__all__ = [
    "by_volume", "check", "choose", "cost", "crossings", "qualify", "stability", "tradeoffs",
    "write_decision",
]  # fmt: skip
