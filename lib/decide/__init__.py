"""Cost, requirements, the pick, how sure it is, and its record."""

from lib.decide.bom import BOM, bill_of_materials
from lib.decide.costs import by_volume, cost, crossings
from lib.decide.decision import check, choose, qualify, tradeoffs
from lib.decide.fine_tuning import fine_tuning
from lib.decide.outlook import outlook
from lib.decide.record import VERSION, decision_record, write_decision
from lib.decide.steps import availability, estimated_load

__all__ = [
    "BOM", "VERSION", "availability", "bill_of_materials", "by_volume", "check", "choose", "cost",
    "crossings", "decision_record", "estimated_load", "fine_tuning", "outlook", "qualify",
    "tradeoffs", "write_decision",
]  # fmt: skip
