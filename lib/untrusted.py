"""Values from outside (files, the Hub, endpoints): what is of another shape becomes nothing."""

import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any


def as_dict(value: object) -> dict[str, Any]:
    """The value where it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    """The value where it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def as_text(value: object) -> str | None:
    """Hostile text on one line: no control or direction characters, 200 characters at most."""
    text = "".join(c if c.isprintable() else " " for c in value) if isinstance(value, str) else ""
    return " ".join(text.split())[:200] or None


def as_count(value: object) -> int | None:
    """A whole number from 0 that a table can hold."""
    return value if type(value) is int and 0 <= value < 2**63 else None


def as_number(value: object) -> float | None:
    """A finite number that a table can hold; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**63:
        return None
    return float(value) if math.isfinite(value) else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a server asks us to wait, given as a number or a date."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        if 0 <= seconds < math.inf:
            return seconds
    try:
        date = parsedate_to_datetime(headers.get("retry-after", ""))
        return max(0.0, date.timestamp() - time.time())
    except (ValueError, OverflowError, OSError):
        return None
