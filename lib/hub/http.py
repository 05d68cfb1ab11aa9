"""One request to the Hub or its router: who gets the token, what is tried again, and the pace."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx2
import tenacity
from huggingface_hub import constants, errors
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    disable_progress_bars,
    get_session,
)

from lib.hub.pace import RETRIED, Failed, Pace

__all__ = [
    "UNREACHABLE", "Answer", "Failed", "Session", "Unreachable", "allowed", "host", "is_hub",
    "offline", "sentence",
]  # fmt: skip

BROKEN = (httpx2.ReadError, httpx2.RemoteProtocolError)
NO_CONNECTION = (httpx2.ConnectError, httpx2.ConnectTimeout)
# Set here and not by variables, which are read once: another module may have imported it first.
constants.HF_HUB_DISABLE_TELEMETRY = True
if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
    disable_progress_bars()

UNREACHABLE = (
    *(*NO_CONNECTION, httpx2.ProxyError, httpx2.InvalidURL, httpx2.UnsupportedProtocol),
    errors.OfflineModeIsEnabled,
)
BUCKETS = ("api", "resolvers")  # the Hub counts questions and files apart
ATTEMPTS = 5
BACKOFF = tenacity.wait_exponential_jitter(initial=1, max=8, jitter=1)
MOST_BYTES = 50_000_000
DRIP = 10  # an answer may take this many times the time-out in all, so that no trickle holds a run

REFUSED = "access refused: accept the terms on the model's page or ask its owner, and set HF_TOKEN"
NOT_FOUND = "not found on the Hub, or private: check the name, and HF_TOKEN if it is yours"
BUSY = "too many requests: wait five minutes and run the step again"
SENTENCES = {401: NOT_FOUND, 403: REFUSED, 404: NOT_FOUND, 410: NOT_FOUND, 429: BUSY}


class Answer(NamedTuple):
    """A whole answer: `status` 200 with its body, or 304 where what is kept still holds."""

    status: int
    body: bytes
    etag: str | None


class Unreachable(Exception):
    """No connection to the host at all; its text is the reason."""


def offline() -> bool:
    """Whether HF_HUB_OFFLINE is set, also after huggingface_hub had been imported."""
    late = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    return constants.is_offline_mode() or late


def host(url: str = "") -> str:
    """A URL's (the endpoint's) host for messages: without a user name and password."""
    url = url or constants.ENDPOINT
    return (url.partition("://")[2] or url).rpartition("@")[2].partition("/")[0]


def is_hub() -> bool:
    """Whether the endpoint is Hugging Face itself and no mirror."""
    hub = r"https://(?:(?:[\w-]+\.)*huggingface\.co|hf\.co)"
    return bool(re.fullmatch(hub, constants.ENDPOINT))


def allowed(token: str | None) -> str | bool | None:
    """The token to send to the endpoint; `False`: none, also not the stored one."""
    return ((token or "").strip() or None) if is_hub() else False


def sentence(status: int, code: str | None = None) -> str:
    """A refusal in our own words: an error's own text may quote headers, and the token."""
    if code == "GatedRepo":
        return REFUSED
    return SENTENCES.get(status, f"the Hub answered {status}: run the step again later")


class Session:
    """The requests of one pull to one host; its threads keep to the host's limit together.

    Args:
        timeout_s: Longest wait for a connection and for each part of an answer.
        token: What `allowed` gave; `False` sends none.
        say: Told once about each wait for the limit.
    """

    def __init__(
        self,
        *,
        timeout_s: float,
        token: str | bool | None = False,
        say: Callable[[str], Any] = lambda text: None,
    ) -> None:
        self._headers: dict[str, str] = build_hf_headers(token=token)
        self._timeout_s = timeout_s
        self._stopped = threading.Event()
        self._paces = {bucket: Pace(say, self._stopped) for bucket in BUCKETS}
        self._reached = False
        self.lost = "HF_HUB_OFFLINE is set" if offline() else ""
        self.with_token = "authorization" in self._headers

    def get(
        self,
        url: str,
        params: dict[str, Any] | None = None,
        *,
        bucket: str = "api",
        etag: str | None = None,
        most_bytes: int = MOST_BYTES,
    ) -> Answer:
        """Ask once, and again where that may help; redirects are followed without the token.

        Args:
            url: What to ask.
            params: The query.
            bucket: Which of the host's limits it counts against: `api` or `resolvers`.
            etag: Of a kept answer: the host then answers 304 where it still holds.
            most_bytes: Larger answers are refused.

        Raises:
            Unreachable: There is no connection; further requests then fail without trying.
            Failed: This request alone was refused, broke off or took too long.
        """
        headers = self._headers | ({"If-None-Match": etag} if etag else {})
        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception(self._worth_another),
            wait=lambda state: 0 if self._paces[bucket].waits else BACKOFF(state),
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            sleep=tenacity.nap.sleep_using_event(self._stopped),
            reraise=True,
        )
        try:
            return again(self._once, url, params, headers, self._paces[bucket], most_bytes)
        except UNREACHABLE as error:
            plain = isinstance(error, (*NO_CONNECTION, httpx2.UnsupportedProtocol))
            self.lost = (str(error) if plain else "") or self.lost or type(error).__name__
            raise Unreachable(self.lost) from None
        except httpx2.TimeoutException:
            text = f"no answer within {self._timeout_s:g} s: run the step again"
        except httpx2.HTTPError as error:
            text = f"the answer broke off ({type(error).__name__}): run the step again"
        raise Failed(text)

    @property
    def waits(self) -> bool:
        """Whether the host allows nothing more at the moment."""
        return any(pace.waits for pace in self._paces.values())

    def stop(self) -> None:
        """End every wait at once; what still waits to be asked is not asked any more."""
        self._stopped.set()
        for pace in self._paces.values():
            pace.wake()

    def _worth_another(self, error: BaseException) -> bool:
        if self._stopped.is_set() or self.lost:
            return False
        if isinstance(error, NO_CONNECTION):  # nothing to wait for where there is no network
            return self._reached
        return isinstance(error, BROKEN) or getattr(error, "status", 0) in RETRIED

    def _once(
        self,
        url: str,
        params: dict[str, Any] | None,
        headers: dict[str, str],
        pace: Pace,
        most_bytes: int,
    ) -> Answer:
        if offline():
            self.lost = "HF_HUB_OFFLINE is set"
        if self.lost:
            raise Unreachable(self.lost)
        timeout = httpx2.Timeout(self._timeout_s, pool=None)
        options: dict[str, Any] = {"timeout": timeout, "follow_redirects": True}
        with (
            pace.turn(),
            get_session().stream("GET", url, params=params, headers=headers, **options) as response,
        ):
            self._reached = True
            status = response.status_code
            pace.heed(response)
            if status not in (200, 304):
                code = response.headers.get("X-Error-Code")
                raise Failed(sentence(status, code), status, code)
            body, ends = bytearray(), time.monotonic() + DRIP * self._timeout_s
            for part in response.iter_bytes():
                body += part
                if len(body) > most_bytes:
                    raise Failed(f"larger than {most_bytes / 1e6:g} MB: not read", status)
                if time.monotonic() > ends:
                    raise httpx2.ReadTimeout("the answer trickles")
            return Answer(status, bytes(body), response.headers.get("ETag"))
