"""A host's limit of requests, which the threads of a pull keep to together."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

__all__ = ["RETRIED", "Failed", "Pace"]

RETRIED = (408, 429, 500, 502, 503, 504)
MOST_WAIT_S = 360.0  # the Hub's window is five minutes: who asks for more is not waited for
SLACK_S = 1.0  # the Hub counts whole seconds


class Failed(Exception):
    """This request had no answer; its text is a sentence for people, `status` 0 if none came."""

    def __init__(self, text: str, status: int = 0, code: str | None = None) -> None:
        super().__init__(text)
        self.status, self.code = status, code

    @property
    def passing(self) -> bool:
        """Whether asking again later may help, so that an older answer still counts."""
        return self.status in (0, *RETRIED)


class Pace:
    """How many requests a host still allows in its window; the threads of a pull share it."""

    def __init__(self, say: Callable[[str], Any], stopped: threading.Event) -> None:
        self._say, self._stopped = say, stopped
        self._changed = threading.Condition()
        self._left: int | None = None
        self._limit: int | None = None
        self._until = 0.0
        self._flying = 0
        self._said = False

    @property
    def waits(self) -> bool:
        """Whether the next request must wait for the window: then no other wait is due."""
        return self._left == 0 and time.monotonic() < self._until

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until the host allows one more request than those on their way."""
        with self._changed:
            while not self._free():
                seconds = self._until - time.monotonic()
                if seconds > MOST_WAIT_S:
                    raise Failed(
                        f"the Hub asks to wait {seconds / 60:.0f} minutes: run the step again then"
                    )
                if self._left == 0 and not self._said:
                    self._said = True
                    limit = f"the limit of {self._limit} requests is used up"
                    why = limit if self._limit else "the Hub asks to wait"
                    self._say(f"{why}: going on in {seconds:.0f} s")
                self._changed.wait(max(0.0, seconds))
            self._flying += 1
        try:
            yield
        finally:
            with self._changed:
                self._flying -= 1
                self._changed.notify_all()

    def _free(self) -> bool:
        if self._stopped.is_set():
            raise Failed("stopped before it was asked")
        if self._left is not None and time.monotonic() >= self._until:
            self._left, self._said = self._limit, False
        return self._left is None or self._left > self._flying

    def heed(self, response: httpx2.Response) -> None:
        """Note what an answer says about the limit, and how long to stay away."""
        now = time.monotonic()
        told = parse_ratelimit_headers(response.headers)
        after = _retry_after(response) if response.status_code in RETRIED else None
        with self._changed:
            if told:
                until = now + min(told.reset_in_seconds, 10**6) + SLACK_S
                same = self._left is not None and until < self._until + 2 * SLACK_S
                left = min(self._left or 0, told.remaining) if same else told.remaining
                self._left, self._until = left, max(until, self._until)
                self._limit = told.limit or self._limit
            if after is not None:
                used_up = told is not None and told.remaining == 0
                self._left, self._until = 0, max(now + after, self._until if used_up else 0.0)
            self._changed.notify_all()

    def wake(self) -> None:
        """Let every waiting thread look again."""
        with self._changed:
            self._changed.notify_all()


def _retry_after(response: httpx2.Response) -> float | None:
    """Seconds, from whole seconds or from an HTTP date."""
    text = response.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    zoned = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (zoned - datetime.now(UTC)).total_seconds())
