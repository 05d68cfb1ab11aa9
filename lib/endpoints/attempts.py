"""One call, tried until it is answered: at the endpoint's pace, within the budget."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import httpx2
import openai

from lib.brief.project import Deployment, Evaluation
from lib.endpoints import budget as spending
from lib.endpoints import replies
from lib.endpoints.price import Rate
from lib.endpoints.requests import Call
from lib.endpoints.serving import Served, redacted, scrub
from lib.endpoints.throttle import Throttle
from lib.waiting import retry_after

__all__ = ["Job", "Link", "Refused", "answer_call"]

PATHS = {"chat": "/chat/completions", "rerank": "/rerank"}
HOPELESS = (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError)
BUSY = (429, 503)
PASSING = (408, 409, *BUSY)
MOST_WAIT_S = 120.0  # who asks for more is not waited for, as in OpenAI's client
LONGEST_PAUSE_S = 8.0

Record = dict[str, Any]


class Refused(Exception):
    """The endpoint refuses whatever is asked: a wrong key, no such model, no money left."""


class Job(NamedTuple):
    """What one deployment is asked; `keys` are those of the calls that no earlier job makes."""

    deployment: Deployment
    calls: Iterable[Call]
    keys: set[str]
    evaluation: Evaluation
    budget: spending.Budget | None
    rate: Rate | None

    @property
    def threads(self) -> int:
        """The threads it takes of this machine; a hosted endpoint takes none."""
        endpoint = self.deployment.endpoint
        return endpoint.threads if endpoint and endpoint.local else 0


class Link(NamedTuple):
    """The endpoint that a job is asked through."""

    job: Job
    served: Served
    api: openai.AsyncOpenAI
    throttle: Throttle


class _Attempt(NamedTuple):
    """What became of one request: what to keep, and whether and when to try again."""

    facts: Record
    status: int = 200
    again: bool = False
    hopeless: bool = False
    wait_s: float | None = None
    charged: bool = True  # whether the endpoint may have charged for it


async def answer_call(link: Link, call: Call) -> Record:
    """The record of a call, tried until there is an answer or no more tries are left.

    Whoever is only put off (429, 503 with a time) may be tried more often, for as long as one
    answer may take: quotas a minute are no fault of a call.

    Raises:
        Refused, Exhausted: Asking is hopeless, or the budget does not allow it.
    """
    most, usd = link.job.evaluation.max_retries, 0.0
    patience_until = time.monotonic() + link.job.evaluation.timeout_s
    for retries in itertools.count():
        attempt, charge = await _take_turn(link, call)
        usd += charge
        put_off = attempt.status == 429 or (attempt.status == 503 and attempt.wait_s is not None)
        patient = most > 0 and put_off and time.monotonic() < patience_until
        if not attempt.again or (retries >= most and not patient):
            break
        if attempt.status not in BUSY:  # those wait for their turn
            pause_s = min(LONGEST_PAUSE_S, 0.5 * 2.0 ** min(retries, 10))
            jittered_s = pause_s * (1 - random.random() / 4)
            await asyncio.sleep(jittered_s if attempt.wait_s is None else attempt.wait_s)
    if attempt.hopeless:
        raise Refused(attempt.facts["error"])
    record = replies.blank(call.key, link.served.model) | attempt.facts
    return record | {"retries": retries, "usd": usd if link.job.budget else None, "cached": False}


async def _take_turn(link: Link, call: Call) -> tuple[_Attempt, float]:
    """One request when the endpoint's limits and the budget let it through, and its dollars."""
    throttle, budget, rate = link.throttle, link.job.budget, link.job.rate
    estimated = spending.prompt_bytes(call) / spending.BYTES_PER_TOKEN
    estimated += spending.most_tokens(call) or 0
    used, usd, ticket = estimated, 0.0, ""
    sent_in = await throttle.enter(estimated)
    try:
        if budget and rate:
            usd = spending.worst_usd(rate, call, link.job.deployment.name)
            ticket = await budget.reserve(usd)
        attempt = await _send(link, call)
        read, written = map(attempt.facts.get, ("prompt_tokens", "completion_tokens"))
        if not attempt.charged:
            used, usd = 0.0, 0.0
        elif read is not None and written is not None:
            used, usd = read + written, spending.usd(rate, read, written) if rate else 0.0
        if budget:
            budget.settle(ticket, usd)
        if attempt.status in BUSY:
            throttle.put_off(sent_in, attempt.wait_s)
        elif attempt.status == 200:
            throttle.answered()
    finally:
        await throttle.leave(estimated=estimated, used=used)
    return attempt, usd


async def _send(link: Link, call: Call) -> _Attempt:
    """Send a request and read the reply; every way to fail is a sentence."""
    served, timeout_s = link.served, link.job.evaluation.timeout_s
    body = {"model": served.model, **call.body}
    start = time.perf_counter()
    try:
        # The client's own timeout counts from byte to byte: a trickle would never end.
        async with asyncio.timeout(timeout_s):
            response = await link.api.post(PATHS[call.api], cast_to=httpx2.Response, body=body)
        facts = replies.read(call.api, response.content, lambda text: redacted(text, served))
    except TimeoutError:
        return _failed(served, f"Timeout: no answer in {timeout_s:g} s", again=True)
    except replies.Unreadable as error:
        return _failed(served, error.args[0], again=error.args[1])
    except openai.APIStatusError as error:
        return _refused(served, error)
    except openai.APIError as error:
        never_sent = isinstance(error.__cause__, httpx2.ConnectError)
        text = f"{type(error).__name__}: {error.message}"
        return _failed(served, text, again=True, charged=not never_sent)
    except (TypeError, ValueError) as error:  # a key that no header can hold
        text = f"the request cannot be sent ({type(error).__name__})"
        return _failed(served, text, charged=False)
    return _Attempt(facts | {"latency_s": round(time.perf_counter() - start, 4)})


def _failed(served: Served, error: str, *, status: int = 0, **facts: Any) -> _Attempt:
    return _Attempt({"error": scrub(error, served)}, status, **facts)


def _refused(served: Served, error: openai.APIStatusError) -> _Attempt:
    status, wait_s = error.status_code, retry_after(error.response.headers)
    hopeless = isinstance(error, HOPELESS) or error.code == "insufficient_quota"
    passing = (status in PASSING or status >= 500) and not hopeless
    return _failed(
        served,
        f"{status} {error.message}" if hopeless else f"HTTP {status}: {error.message}",
        status=status,
        again=passing and (wait_s or 0.0) <= MOST_WAIT_S,
        hopeless=hopeless,
        wait_s=wait_s,
        charged=status >= 500 and status not in BUSY,
    )
