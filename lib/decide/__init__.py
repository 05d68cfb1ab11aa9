"""Cost, requirements, the pick and its record."""

from lib.decide.decision import check, choose, cost, qualify, stability, tradeoffs
from lib.decide.record import write_decision

__all__ = ["check", "choose", "cost", "qualify", "stability", "tradeoffs", "write_decision"]
