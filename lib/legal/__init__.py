"""Licence, company, country and lineage to a verdict."""

from lib.legal.clauses import VERDICTS
from lib.legal.counsel import for_counsel, host_objection
from lib.legal.licenses import CLASSES, class_of, keys_on_hub

from lib.legal.verdicts import (  # isort: skip
    JUDGED, ancestors, base_names, bases, by_family, findings, judge, same_names, what_if,
)  # fmt: skip

__all__ = [
    "CLASSES", "JUDGED", "VERDICTS", "ancestors", "base_names", "bases", "by_family", "class_of",
    "findings", "for_counsel", "host_objection", "judge", "keys_on_hub", "same_names", "what_if",
]  # fmt: skip
