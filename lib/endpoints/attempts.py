"""One call, tried until it is answered: at the endpoint's pace, within the budget."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any, NamedTuple

import httpx2
import openai

from lib.brief.project import Deployment, Evaluation
from lib.endpoints import budget as spending
from lib.endpoints import replies
from lib.endpoints.price import Rate
from lib.endpoints.requests import Call
from lib.endpoints.serving import Served, redacted, scrub
from lib.endpoints.throttle import MOST_WAIT_S, Throttle, retry_after

__all__ = ["Link", "ask"]

PATHS = {"chat": "/chat/completions", "rerank": "/rerank"}
HOPELESS = (
    openai.AuthenticationError,
    openai.PermissionDeniedError,
    openai.NotFoundError,
)
BUSY = (429, 503)
PASSING = (408, 409, *BUSY)

Record = dict[str, Any]


class _Attempt(NamedTuple):
    """What became of one request: what to keep, and whether and when to try again."""

    facts: Record
    status: int = 200
    again: bool = False
    hopeless: bool = False
    wait_s: float | None = None
    charged: bool = True  # whether the endpoint may have charged for it


class Link(NamedTuple):
    """A deployment that is being asked."""

    deployment: Deployment
    served: Served
    throttle: Throttle
    evaluation: Evaluation
    budget: spending.Budget | None
    rate: Rate | None


async def ask(api: openai.AsyncOpenAI, link: Link, call: Call) -> tuple[Record, bool]:
    """Try until there is an answer, or no more tries are left; and whether asking is hopeless.

    Whoever is only put off (429, 503 with a time) may be tried more often, for as long as one
    answer may take: quotas a minute are no fault of a call.
    """
    evaluation, retries, cost = link.evaluation, 0, 0.0
    patience_until = time.monotonic() + evaluation.timeout_s
    while True:
        attempt, usd = await _take_turn(api, link, call)
        cost += usd
        put_off = attempt.status == 429 or (attempt.status == 503 and attempt.wait_s is not None)
        busy = put_off and time.monotonic() < patience_until
        again = attempt.again and evaluation.max_retries and not attempt.hopeless
        if not again or (attempt.wait_s or 0.0) > MOST_WAIT_S:
            break
        if retries >= evaluation.max_retries and not busy:
            break
        if attempt.status not in BUSY:  # those wait for their turn
            wait_s = min(8.0, 0.5 * 2.0 ** min(retries, 10)) * (1 - random.random() / 4)
            await asyncio.sleep(wait_s if attempt.wait_s is None else attempt.wait_s)
        retries += 1
    record = replies.blank(call.key, link.served.model) | attempt.facts
    known = {"retries": retries, "usd": cost if link.budget else None, "cached": False}
    return record | known, attempt.hopeless


async def _take_turn(api: openai.AsyncOpenAI, link: Link, call: Call) -> tuple[_Attempt, float]:
    """One request when the endpoint's limits and the budget let it through, and its dollars."""
    throttle, budget, rate = link.throttle, link.budget, link.rate
    estimated = 0.0
    if link.deployment.limits.tokens_per_minute:
        estimated = spending.prompt_bytes(call) / spending.BYTES_PER_TOKEN
        estimated += spending.most_tokens(call) or 0
    used: float | None = None
    spent = 0.0
    sent_in = await throttle.enter(estimated)
    try:
        ticket = ""
        if budget and rate:
            worst = spending.worst_usd(rate, call, link.deployment.name)
            ticket = await budget.reserve(worst)
            spent = worst
        attempt = await _send(api, link, call)
        prompt, completion = map(attempt.facts.get, ("prompt_tokens", "completion_tokens"))
        if prompt is not None and completion is not None:
            used = float(prompt + completion)
            spent = spending.usd(rate, prompt, completion) if rate else 0.0
        elif not attempt.charged:
            used, spent = 0.0, 0.0
        if budget and ticket:
            budget.settle(ticket, spent)
        if attempt.status in BUSY:
            throttle.put_off(sent_in, attempt.wait_s)
        elif not attempt.facts["error"]:
            throttle.answered()
    finally:
        await throttle.leave(estimated=estimated, used=used)
    return attempt, spent


async def _send(api: openai.AsyncOpenAI, link: Link, call: Call) -> _Attempt:
    """Send a request and read the reply; every way to fail is a sentence."""
    served = link.served
    body = {"model": served.model, **call.body}
    start = time.perf_counter()
    try:
        # The client's own timeout counts from byte to byte: a trickle would never end.
        async with asyncio.timeout(link.evaluation.timeout_s):
            response = await api.post(PATHS[call.api], cast_to=httpx2.Response, body=body)
        facts = replies.read(call.api, response.content, lambda text: redacted(text, served))
    except TimeoutError:
        return _failed(f"Timeout: no answer in {link.evaluation.timeout_s:g} s", again=True)
    except replies.Unreadable as error:
        return _failed(scrub(str(error), served), again=error.passing)
    except openai.APIStatusError as error:
        return _refused(error, served)
    except openai.APIError as error:
        never_sent = isinstance(error.__cause__, httpx2.ConnectError)
        said = scrub(f"{type(error).__name__}: {error.message}", served)
        return _failed(said, again=True)._replace(charged=not never_sent)
    except (TypeError, ValueError) as error:  # a key that no header can hold
        said = f"the request cannot be sent ({type(error).__name__})"
        return _failed(said)._replace(charged=False)
    facts["latency_s"] = round(time.perf_counter() - start, 4)
    return _Attempt(facts)


def _failed(error: str, *, again: bool = False) -> _Attempt:
    return _Attempt({"error": error}, 0, again)


def _refused(error: openai.APIStatusError, served: Served) -> _Attempt:
    status = error.status_code
    hopeless = isinstance(error, HOPELESS) or error.code == "insufficient_quota"
    said = f"{status} {error.message}" if hopeless else f"HTTP {status}: {error.message}"
    return _Attempt(
        {"error": scrub(said, served)},
        status,
        again=status in PASSING or status >= 500,
        hopeless=hopeless,
        wait_s=retry_after(error.response.headers),
        charged=status >= 500 and status not in BUSY,
    )
