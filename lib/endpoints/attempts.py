"""One call, tried until it is answered; what comes back is read as hostile bytes."""

import asyncio
import contextlib
import itertools
import json
import math
import random
from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import httpx2
import openai

from lib import replies
from lib.brief import Deployment, Evaluation, Size
from lib.endpoints import price
from lib.endpoints.requests import Call, refuses_schema
from lib.endpoints.servers import Served, redact, scrub
from lib.endpoints.throttle import Throttle
from lib.tables import Row
from lib.untrusted import retry_after

PATHS = {"chat": "/chat/completions", "rerank": "/rerank"}
HOPELESS = (401, 403, 404)
BUSY = (425, 429, 503, 529)
PASSING = (408, 409, *BUSY)
MOST_WAIT_S = 60.0  # who asks for more is not waited for, as in OpenAI's client
LONGEST_PAUSE_S = 8.0
FACTS = """output tool_calls finish_reason asked_by retries prompt_tokens completion_tokens
    cached_tokens latency_s usd served_model fingerprint provider"""


class Refused(Exception):
    """The endpoint refuses whatever is asked: a wrong key, no such model, no money left."""


class Job(NamedTuple):
    """What one deployment is asked; `keys` are those of the calls that no earlier job makes."""

    deployment: Deployment
    calls: Iterable[Call]
    keys: set[str]
    evaluation: Evaluation
    size: Size
    budget: price.Budget | None
    rate: price.Rate | None

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

    facts: Row
    status: int = 0  # of HTTP, where there was an answer or an error of it
    again: bool = False
    hopeless: bool = False
    wait_s: float | None = None
    charged: bool = True  # whether the endpoint may have charged for it


def blank(key: str, served: str) -> Row:
    """The record of a call nothing is known of yet."""
    return {"key": key, "served": served, "error": "", **dict.fromkeys(FACTS.split())}


async def answer_call(link: Link, call: Call) -> Row:
    """The record of a call, tried until there is an answer or no more tries are left.

    One that is only put off (429, or another of `BUSY` with a time) is tried for as long as one
    answer may take: quotas a minute are no fault of a call.
    """
    most, usd, clock = link.job.evaluation.max_retries, 0.0, asyncio.get_running_loop().time
    patience_until = clock() + link.job.evaluation.timeout_s
    for retries in itertools.count():
        attempt, charge = await _take_turn(link, call)
        usd += charge
        put_off = attempt.status == 429 or (attempt.status in BUSY and attempt.wait_s is not None)
        patient = most > 0 and put_off and clock() < patience_until
        if not attempt.again or (retries >= most and not patient):
            break
        if attempt.status not in BUSY:  # those wait for their turn
            pause_s = min(LONGEST_PAUSE_S, 0.5 * 2.0 ** min(retries, 10)) * random.uniform(0.75, 1)
            await asyncio.sleep(pause_s if attempt.wait_s is None else attempt.wait_s)
    error = scrub(attempt.facts.get("error", ""), link.served)
    if attempt.hopeless:
        raise Refused(error)
    record = blank(call.key, link.served.model) | attempt.facts | {"error": error}
    facts = {"usd": None if math.isnan(usd) else usd, "deployment": link.job.deployment.name}
    return record | facts | {"retries": retries, "cached": False}


async def _take_turn(link: Link, call: Call) -> tuple[_Attempt, float]:
    """One request when the endpoint's limits and the budget let it through, and its dollars.

    What is charged without a count of tokens costs the most that it can, unknown without a budget.
    """
    throttle, budget, rate = link.throttle, link.job.budget, link.job.rate
    estimated = price.prompt_bytes(call) / price.BYTES_PER_TOKEN
    estimated += price.most_tokens(call) or 0
    used, usd, ticket = estimated, math.nan, ""
    sent_in = await throttle.enter(estimated)
    try:
        if budget and rate:
            usd = price.worst_usd(rate, call, link.job.deployment.name)
            ticket = await budget.reserve(usd)
        attempt = await _send(link, call)
        read, written = map(attempt.facts.get, ("prompt_tokens", "completion_tokens"))
        if not attempt.charged:
            used, usd = 0.0, 0.0
        elif read is not None and written is not None:
            used, usd = read + written, price.usd(rate, read, written) if rate else math.nan
        if budget:
            budget.settle(ticket, usd)
        if attempt.status in BUSY and attempt.again:
            throttle.put_off(sent_in, attempt.wait_s)
        elif attempt.status == 200:
            throttle.answered()
    finally:
        throttle.leave(unused=estimated - used)
    return attempt, usd


async def _send(link: Link, call: Call) -> _Attempt:
    """Send a request and read the reply; every way to fail is a sentence."""
    served, timeout_s = link.served, link.job.evaluation.timeout_s
    body = {"model": served.model, **call.body}
    if link.throttle.text_only:
        body.pop("response_format", None)
    clock = asyncio.get_running_loop().time
    start = clock()
    try:
        # The client's own timeout counts from byte to byte: a trickle would never end.
        async with asyncio.timeout(timeout_s):
            response = await link.api.post(PATHS[call.api], cast_to=httpx2.Response, body=body)
    except TimeoutError:
        text = f"Timeout: no answer in {timeout_s:g} s"
        return _Attempt({"error": text}, again=True)
    except openai.APIStatusError as error:
        if refuses_schema(error.status_code, error.message, body):
            link.throttle.text_only = True
            return await _send(link, call)
        return _status_failure(served, error)
    except openai.APIError as error:
        cause, never_sent = error.__cause__, isinstance(error.__cause__, httpx2.ConnectError)
        # Our own limits say which; an error of the library may hold the key.
        ours = isinstance(cause, httpx2.DecodingError | httpx2.TooManyRedirects)
        text = f"{type(error).__name__}: {cause if ours else error.message}"
        if never_sent:
            url = link.api.base_url
            at = f"{url.scheme}://{url.host}" + (f":{url.port}" if url.port else "")
            text = f"no connection to {at} (is it up?)"
        return _Attempt({"error": text}, again=True, charged=not never_sent)
    except (TypeError, ValueError) as error:  # a key that no header can hold
        text = f"the request cannot be sent ({type(error).__name__})"
        return _Attempt({"error": text}, charged=False)
    attempt = _read(served, call.api, response, round(clock() - start, 4))
    attempt.facts["asked_by"] = "schema" if "response_format" in body else "text"
    return attempt


async def stream(api: openai.AsyncOpenAI, model: str, call: Call, **options: Any) -> replies.Timed:
    """Wait for a whole answer in a stream, no longer than the client's timeout, as it may raise."""
    body = {"model": model, **options, **call.body}
    async with asyncio.timeout(cast(float, api.timeout)):
        if call.api == "rerank":  # which comes whole
            reply = await api.post(PATHS["rerank"], cast_to=httpx2.Response, body=body)
            facts = replies.ranking(json.loads(reply.content))
            now = asyncio.get_running_loop().time()
            read, written = map(facts.get, ("prompt_tokens", "completion_tokens"))
            return replies.Timed(now, now, read, written)
        post: Any = api.post  # whose types know no response that is not read yet
        response = await post(
            PATHS["chat"],
            cast_to=httpx2.Response,
            body=body | {"stream": True},
            stream=True,
            stream_cls=openai.AsyncStream[Any],
        )
        async with contextlib.aclosing(response):
            return await replies.read_events(response)


def _status_failure(served: Served, error: openai.APIStatusError) -> _Attempt:
    """What an HTTP status means, with the endpoint's own words."""
    if error.code == "content_filter":  # as Azure refuses a prompt
        return _Attempt({"output": "", "finish_reason": "content_filter"}, 200, charged=False)
    # Half a key that a cut leaves would not be found.
    body = json.loads(redact(json.dumps(error.body, default=str), served))
    texts = map(replies.words_of, (body, redact(error.response.text, served)))
    words = next(filter(None, texts), error.response.reason_phrase)
    return _refusal(error.status_code, words, retry_after(error.response.headers), error.code)


def _refusal(
    status: int, words: str, wait_s: float | None = None, code: str | None = None
) -> _Attempt:
    hopeless = status in HOPELESS or code == "insufficient_quota"
    passing = (status in PASSING or status >= 500) and not hopeless
    late = f" (it asks to wait {wait_s:,.0f} s)" if (wait_s or 0.0) > MOST_WAIT_S else ""
    return _Attempt(
        {"error": f"{status} {words}" if hopeless else f"HTTP {status}: {words}{late}"},
        status,
        again=passing and not late,
        hopeless=hopeless,
        wait_s=wait_s,
        charged=status >= 500 and status not in BUSY,
    )


def _read(served: Served, api: str, response: httpx2.Response, latency_s: float) -> _Attempt:
    """The facts of a reply: an HTML page, broken JSON or a JSON of another shape is a failure."""
    parsed = False  # a gateway's page, or a reply cut off half-way, may be right next time
    try:
        reply = json.loads(response.content)
        parsed = True
        # Written again, every text is spelled in one way, so that the key can be taken out.
        text = json.dumps(reply, ensure_ascii=False).encode("utf-8", "replace").decode()
        reply = json.loads(redact(text, served))
        facts = (
            replies.completion(reply, response.headers) if api == "chat" else replies.ranking(reply)
        )
    except replies.ReplyError as error:
        attempt = _refusal(error.status, f"{error} (in a reply of status 200)")
        return attempt._replace(
            facts=attempt.facts | error.usage, charged=bool(error.usage) or attempt.charged
        )
    except replies.WRONG_SHAPE as error:
        what = "a chat completion" if api == "chat" else "a ranking"
        text = f"the answer is not {what} ({type(error).__name__})"
        return _Attempt({"error": text}, again=not parsed)
    return _Attempt(facts | {"latency_s": latency_s}, 200)
