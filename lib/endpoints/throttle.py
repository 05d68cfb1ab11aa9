"""What an endpoint bears: calls in flight that adapt to its 429s, requests and tokens a minute."""

import asyncio

from anyio import CapacityLimiter

from lib.brief import Limits

LONGEST_PAUSE_S = 30.0
FIRST_PAUSE_S = 0.5
NO_LIMITS = Limits()


class Throttle:
    """One endpoint's share of calls: additive increase, multiplicative decrease, as in TCP.

    A 429 or 503 halves the calls in flight, once for all that were sent before it, and pauses
    every call; as many answers in a row as are allowed in flight allow one more, up to `most`.
    Requests and tokens a minute are spaced evenly (the generic cell rate algorithm).
    """

    def __init__(self, most: int, limits: Limits = NO_LIMITS) -> None:
        self.most, self.round = limits.concurrency or most, 0
        self.places = CapacityLimiter(self.most)
        self._gap_s = 60 / limits.requests_per_minute if limits.requests_per_minute else 0.0
        self._token_s = 60 / limits.tokens_per_minute if limits.tokens_per_minute else 0.0
        self._request_due = self._tokens_due = self._paused_until = 0.0
        self._answers = self._pauses = 0
        self.text_only = False  # the endpoint refused a JSON schema

    async def enter(self, tokens: float = 0.0) -> int:
        """Wait for a call's turn; returns its round, which `put_off` wants back."""
        clock = asyncio.get_running_loop().time
        await self.places.acquire()
        try:
            now = clock()
            start = max(now, self._request_due, self._tokens_due)
            self._request_due = max(self._request_due, now) + self._gap_s
            self._tokens_due = max(self._tokens_due, now) + tokens * self._token_s
            while (wait_s := max(start, self._paused_until) - clock()) > 0:
                await asyncio.sleep(wait_s)
        except BaseException:
            self.places.release()
            raise
        return self.round

    def leave(self, *, unused: float = 0.0) -> None:
        """Give the turn back, and the tokens that it was estimated to take and did not."""
        self._tokens_due -= unused * self._token_s
        self.places.release()

    def answered(self) -> None:
        """Note an answer: enough of them in a row allow one more call in flight."""
        self._pauses = 0
        if (allowed := self.places.total_tokens) < self.most:
            self._answers += 1
            if self._answers >= allowed:
                self.places.total_tokens, self._answers = allowed + 1, 0

    def put_off(self, sent_in: int, wait_s: float | None) -> None:
        """Note a 429 or 503 of a call that was sent in a round."""
        if sent_in == self.round:
            self.places.total_tokens = max(1, self.places.total_tokens // 2)
            self._answers = 0
            self.round += 1
            self._pauses += 1
            if wait_s is None:
                wait_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (self._pauses - 1))
        now = asyncio.get_running_loop().time()
        self._paused_until = max(self._paused_until, now + (wait_s or 0.0))
