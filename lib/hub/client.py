"""The one file that asks the Hub: the token, the limits, what is tried again, the cache.

It takes huggingface_hub's session and raw JSON: `HfApi.model_info` gives up at the first 429,
`list_models` carries the token wherever a link points, and `ModelInfo` breaks on odd answers.
"""

import json
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import constants, errors, utils

from lib.artifacts import write_bytes
from lib.untrusted import retry_after

REFUSED = "access refused: accept the terms on the model's page or ask its owner, and set HF_TOKEN"
MISSING = "not found on the Hub, or private: check the name, and HF_TOKEN if it is yours"
BUSY = "too many requests: wait five minutes and run the step again"
REFUSALS = {401: MISSING, 403: REFUSED, 404: MISSING, 410: MISSING, 429: BUSY}
CODES = {  # the Hub's own, which say more
    "GatedRepo": REFUSED,
    "RevisionNotFound": "the repository has no commit like this: check the revision",
    "EntryNotFound": "the repository has no such file at this revision: check the file name",
}


class Failed(Exception):
    """A request had no answer; its text is a sentence for people, `status` 0 if nothing came."""

    def __init__(self, text: str, status: int = 0, code: str | None = None) -> None:
        super().__init__(text)
        self.status, self.code = status, code


class Unreachable(Failed):
    """There is no connection to the host at all."""


def refusal(status: int, code: str | None = None) -> str:
    """What an error status means; the error's own text may quote headers, and the token."""
    text = REFUSALS.get(status, f"the Hub answered {status}: run the step again later")
    return CODES.get(code or "", text)


def offline() -> str:
    """That HF_HUB_OFFLINE is set, also after huggingface_hub had been imported; else empty."""
    late = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    return "HF_HUB_OFFLINE is set" if constants.is_offline_mode() or late else ""


def is_hub() -> bool:
    """Whether the endpoint is Hugging Face itself and no mirror: nobody else gets the token."""
    return bool(re.fullmatch(r"https://(([\w-]+\.)*huggingface\.co|hf\.co)", constants.ENDPOINT))


def token_problem() -> str:
    """What is wrong with the Hub's token, if one is set: elsewhere an expired one is like none."""
    token = hf.get_token()
    if not token or offline() or not is_hub():
        return ""
    headers = hf.build_hf_headers(token=token)
    try:
        reply = hf.get_session().get(f"{constants.ENDPOINT}/api/whoami-v2", headers=headers)
    except httpx2.HTTPError as error:
        return f"the Hub at {host()} cannot be asked who the token is ({type(error).__name__})"
    refused = reply.status_code in (401, 403)
    return "the Hub does not know the token: it is wrong or expired, renew it" if refused else ""


def host() -> str:
    """The endpoint's host, for messages."""
    return address(constants.ENDPOINT).partition("/")[0]


def address(url: str) -> str:
    """A URL without its scheme and without a user name and password."""
    return re.sub(r"^(\w*://)?(.*@)?", "", url)


hf: Any = utils  # whose names are not marked as exported
# Set here and not by variables, which are read once: another module may have imported it first.
constants.HF_HUB_DISABLE_TELEMETRY = True
if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
    hf.disable_progress_bars()
NO_CONNECTION = (httpx2.ConnectError, httpx2.ConnectTimeout)
UNREACHABLE = (*NO_CONNECTION, httpx2.ProxyError, httpx2.InvalidURL, httpx2.UnsupportedProtocol,
               errors.OfflineModeIsEnabled)  # fmt: skip
RETRIED = (408, 429, 500, 502, 503, 504)
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 0.0)  # after each attempt
MOST_WAIT_MIN = 6.0  # the Hub's window is five minutes: who asks for more is not waited for
SLACK_S = 1.0  # the Hub counts whole seconds
MOST_BYTES = {"api": 50_000_000, "resolvers": 5_000_000}  # the Hub limits questions and files apart
DRIP = 10  # an answer may take this many times the time-out in all, so that no trickle holds a run
THREADS = 16
JSON = dict[str, Any]
NOT_JSON = "the answer is not the Hub's JSON ({}): check proxy and HF_ENDPOINT"


class Limit:
    """What a host still allows; the threads of a client keep to it together."""

    def __init__(self, say: Callable[[str], Any], stopped: threading.Event) -> None:
        self._say, self._stopped, self._few = say, stopped, threading.Lock()
        self._left, self._until = math.inf, 0.0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait while nothing is allowed; the last requests of a window go one at a time."""
        scarce = self._left <= THREADS and time.monotonic() < self._until
        with self._few if scarce else nullcontext():
            while self._left == 0 and (seconds := self._until - time.monotonic()) > 0:
                if (minutes := seconds / 60) > MOST_WAIT_MIN:
                    raise Failed(f"the Hub asks to wait {minutes:.0f} minutes: run it again then")
                if round(seconds) and not self._stopped.is_set():
                    self._say(f"the Hub asks to wait: going on in {seconds:.0f} s")
                if self._stopped.wait(seconds):
                    raise Failed("stopped before it was asked")
                self._say("models")
            yield

    def heed(self, response: httpx2.Response) -> None:
        """Note what an answer says about the limit, and how long to stay away."""
        window, now = hf.parse_ratelimit_headers(response.headers), time.monotonic()
        pause = retry_after(response.headers) if response.status_code in RETRIED else None
        if pause is not None and not (window and window.remaining == 0):
            self._left, self._until = 0, now + min(pause, 10**6)
        elif window:
            until = now + min(window.reset_in_seconds, 10**6) + SLACK_S
            same = until < self._until + 2 * SLACK_S
            self._left = min(self._left, window.remaining) if same else window.remaining
            self._until = max(until, self._until)


class Client:
    """Asks one host, with threads that keep to its limits together.

    `timeout_s` holds for each part of an answer, `cache` keeps one JSON file an answer, and `say`
    is told about a wait for the limit. With `token` the Hub gets the user's; a mirror never does.
    """

    def __init__(self, timeout_s: float, cache: Path = Path(), *, token: bool = True,
                 say: Callable[[str], Any] = lambda text: None) -> None:  # fmt: skip
        self._timeout_s, self._cache = timeout_s, cache
        self._headers = hf.build_hf_headers(token=None if token and is_hub() else False)
        self.with_token = "authorization" in self._headers
        self._reached, self._stopped = False, threading.Event()
        self._limits = {bucket: Limit(say, self._stopped) for bucket in MOST_BYTES}
        self.lost = offline()

    def each(self, ask: Callable[[Any], Any], questions: Iterable[Any]) -> Iterator[Any]:
        """The answers in order, several asked at a time; an error ends all waits at once."""
        pool = ThreadPoolExecutor(THREADS)
        try:
            yield from pool.map(ask, questions)
        except BaseException:
            self._stopped.set()
            raise
        finally:
            pool.shutdown(wait=False)

    def fetch(self, name: str, url: str, params: JSON, max_age_days: float) -> JSON:
        """The answer stored under a file name where it is young enough, else the host's, stored.

        It has `retrieved_at answer source`. Where the host does not answer, it is the stored one or
        none, with `missed` (no connection) or `problem` (a sentence) and its `code`.
        """
        path, full_url, stored = self._cache / f"{name}.json", address(url), {}
        with suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
            entry = json.loads(path.read_bytes())
            date = datetime.fromisoformat(entry["retrieved_at"])
            if entry["asked"] == full_url and isinstance(entry["answer"], dict | None):
                stored = {**entry, "source": f"hub (cached {date.date()})"}
                if 0 <= (datetime.now(UTC) - date).total_seconds() <= max_age_days * 86400:
                    return stored
        try:
            answer, _ = self.get(url, params)
        except Unreachable:
            return stored | {"missed": True}
        except Failed as error:
            stored = stored if error.status in (0, *RETRIED) else {}
            return stored | {"problem": str(error), "code": error.code}
        if not isinstance(answer, dict | None):
            return stored | {"problem": NOT_JSON.format(type(answer).__name__)}
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = {"asked": full_url, "retrieved_at": now, "answer": answer}
        write_bytes(path, json.dumps(entry).encode())
        return entry | {"source": "hub"}

    def get(self, url: str, params: JSON) -> tuple[Any, str | None]:
        """The JSON of an answer, None for a file that is not there, and the next page's URL.

        Once Unreachable is raised all requests raise it; Failed is this request's alone.
        """
        for pause in PAUSES_S:
            try:
                return self._once(url, params)
            except Exception as error:  # whatever one answer breaks must not lose the others
                failure, again = self._failure(error)
            if not again or self._stopped.wait(pause):
                break
        if isinstance(failure, Unreachable):
            self.lost = str(failure)
        raise failure

    def _failure(self, error: Exception) -> tuple[Failed, bool]:
        """What went wrong, and whether asking again may help."""
        kind, plain = type(error).__name__, isinstance(error, NO_CONNECTION)
        if isinstance(error, Failed):
            return error, error.status in RETRIED
        if isinstance(error, UNREACHABLE):  # nothing to wait for where there is no network
            return Unreachable(str(error) if plain else kind), plain and self._reached
        if isinstance(error, httpx2.TimeoutException):
            return Failed(f"no answer within {self._timeout_s:g} s: run the step again"), False
        if isinstance(error, httpx2.HTTPError):
            text = f"the answer broke off ({kind}): run the step again"
            return Failed(text), isinstance(error, httpx2.ReadError | httpx2.RemoteProtocolError)
        return Failed(NOT_JSON.format(kind)), False

    def _once(self, url: str, params: JSON) -> tuple[Any, str | None]:
        self.lost = offline() or self.lost
        if self.lost:
            raise Unreachable(self.lost)
        bucket = "resolvers" if "/resolve/" in url else "api"
        limit, most_bytes = self._limits[bucket], MOST_BYTES[bucket]
        options: JSON = {"params": params, "headers": self._headers, "follow_redirects": True}
        options["timeout"] = httpx2.Timeout(self._timeout_s, pool=None)
        with limit.turn(), hf.get_session().stream("GET", url, **options) as response:
            self._reached = True
            limit.heed(response)
            status, code = response.status_code, response.headers.get("X-Error-Code")
            if code == "EntryNotFound" and bucket == "resolvers":
                return None, None
            if status != 200:
                raise Failed(refusal(status, code), status, code)
            body, ends = bytearray(), time.monotonic() + DRIP * self._timeout_s
            for part in response.iter_bytes():
                body += part
                if len(body) > most_bytes:
                    raise Failed(f"larger than {most_bytes / 1e6:g} MB: not read", status)
                if time.monotonic() > ends:
                    raise httpx2.ReadTimeout("the answer trickles")
            if "/resolve/" in url and not url.endswith(".json"):
                return {"text": body.decode("utf-8", "replace")}, None
            return json.loads(body), response.links.get("next", {}).get("url")
