"""How long a server asks us to wait."""

import time
from email.utils import parsedate_to_datetime
from typing import Any


def retry_after(headers: Any) -> float | None:
    """Seconds from a Retry-After header: a number or a date; None where there is none."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        text = str(headers.get(name) or "").strip()
        try:
            seconds = float(text) / unit
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    try:
        date = parsedate_to_datetime(str(headers.get("retry-after") or ""))
        return max(0.0, date.timestamp() - time.time())
    except (ValueError, OverflowError, OSError):
        return None
