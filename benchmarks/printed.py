"""The one table of `make bench`: what was measured, its target, and what another tool says."""

from __future__ import annotations

from collections.abc import Iterable

# What, measured, target, reached (None where there is no target), another tool's figure.
Row = tuple[str, str, str, bool | None, str]
WIDTHS = "{:<48} {:>32}  {:<12} {:<7}  {}"


def show(rows: Iterable[Row], head: bool = True) -> None:
    """Print each row as soon as it is there."""
    if head:
        print(WIDTHS.format("", "measured", "target", "reached", "peer").rstrip())
    for what, value, target, reached, peer in rows:
        mark = "" if reached is None else "yes" if reached else "NO"
        print(WIDTHS.format(what, value, target, mark, peer).rstrip(), flush=True)
