"""Cost, requirements, the pick, how sure it is, and its record."""

from lib.decide.costs import by_volume, cost, crossings
from lib.decide.decision import check, choose, qualify, tradeoffs
from lib.decide.draws import certainty, regret, worth_of_items
from lib.decide.flips import flip_points
from lib.decide.record import write_decision

__all__ = [
    "by_volume", "certainty", "check", "choose", "cost", "crossings", "flip_points", "qualify",
    "regret", "tradeoffs", "worth_of_items", "write_decision",
]  # fmt: skip
