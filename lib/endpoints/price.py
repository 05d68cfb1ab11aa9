"""What a deployment and a call cost, and a budget that stops before it is exceeded."""

import asyncio
import contextlib
import json
import math
import statistics
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import genai_prices
import genai_prices.data_snapshot
import pandas as pd

from lib import tables
from lib.brief import Deployment, Price, Size
from lib.endpoints import store
from lib.endpoints.requests import Call
from lib.errors import PlaybookError, did_you_mean
from lib.tables import Row

LEDGER = "04_spending.jsonl"
# A request's worth: a million tokens at once would be in the tier for long prompts.
THOUSAND = genai_prices.Usage(input_tokens=1_000, output_tokens=1_000)
BYTES_PER_TOKEN = 4.0  # English in today's vocabularies; other scripts take up to one token a byte


class Rate(NamedTuple):
    """What a deployment costs: by the hour or by million tokens, and where that comes from."""

    usd_per_hour: float | None
    input_usd_per_million: float | None
    output_usd_per_million: float | None
    basis: str


def price_of(deployment: Deployment, hardware: pd.DataFrame) -> Rate:
    """The brief's price, genai-prices', or the machine's; PlaybookError where none is known."""
    price = deployment.price
    if price and price.provider:
        return _provider_price(deployment, price)
    if price:
        basis = price.basis + (f" ({price.source_url})" if price.source_url else "")
        per_token = price.input_usd_per_million, price.output_usd_per_million
        return Rate(price.usd_per_hour, *per_token, basis)
    priced = hardware.dropna(subset=["usd_per_hour"]).set_index("hardware")
    if deployment.hardware not in priced.index:
        raise PlaybookError(
            f"deployment {deployment.name!r}: data/hardware.csv has no price for"
            f" {deployment.hardware!r}; give price in the brief, or a machine"
            f" that has one ({did_you_mean(str(deployment.hardware), priced.index, most=3)})"
        )
    row: Any = priced.loc[deployment.hardware]
    return Rate(float(row["usd_per_hour"]), None, None, f"{row['price_basis']}, data/hardware.csv")


def _provider_price(deployment: Deployment, price: Price) -> Rate:
    model = price.model or deployment.model
    try:
        quotes = _quotes(model, price.provider, THOUSAND)
    except LookupError:
        raise PlaybookError(
            f"deployment {deployment.name!r}: genai-prices knows no price of {model!r} at"
            f" {price.provider!r}; give price.model as that provider names it"
            f" ({_names_near(model, price.provider or '')}), or input_usd_per_million and"
            " output_usd_per_million"
        ) from None
    amounts = [(float(q.input_price) * 1000, float(q.output_price) * 1000) for q in quotes]
    moves = ", mean over the day: it depends on the hour" if len(set(amounts)) > 1 else ""
    price_in, price_out = (statistics.mean(side) for side in zip(*amounts, strict=True))
    basis = f"list price of {price.provider} for {quotes[0].model.id}, genai-prices{moves}"
    return Rate(None, price_in, price_out, basis)


def _names_near(model: str, provider: str) -> str:
    """A hint at the names most like it: of a provider's models with a price, or of providers."""
    providers = {one.id: one for one in genai_prices.data_snapshot.get_snapshot().providers}
    if provider not in providers:
        return did_you_mean(provider, sorted(providers))
    names = list[str]()
    for one in providers[provider].models:
        with contextlib.suppress(LookupError):
            _quotes(one.id, provider, THOUSAND, hours=1)
            names.append(one.id)
    return did_you_mean(model.rpartition("/")[2], names, most=3, otherwise="none is near it")


def usd_of_answers(deployment: Deployment, rate: Rate, answers: pd.DataFrame) -> list[float]:
    """Dollars of each answer by its tokens; a list price has tiers and a price of cached tokens."""
    price, columns = deployment.price, ["prompt_tokens", "completion_tokens", "cached_tokens"]
    counts = answers.reindex(columns=columns).fillna({"cached_tokens": 0}).astype(int)
    usages = counts.itertuples(index=False, name=None)
    if not (price and price.provider):
        return [usd(rate, read, written) for read, written, _ in usages]
    model = price.model or deployment.model
    return [_usd_of_usage(model, price.provider, *usage) for usage in usages]


@cache
def _usd_of_usage(model: str, provider: str, read: int, written: int, cached: int) -> float:
    if cached > read:  # nobody knows what was read
        return math.nan
    counts = {"input_tokens": read, "output_tokens": written, "cache_read_tokens": cached or None}
    quotes = _quotes(model, provider, genai_prices.Usage(**counts))
    return float(statistics.mean(quote.total_price for quote in quotes))


def _quotes(model: str, provider: str | None, usage: Any, *, hours: int = 24) -> list[Any]:
    """What genai-prices says at each hour of today, as some prices depend on it; or LookupError."""
    times = [datetime.now(UTC).replace(hour=hour, minute=30) for hour in range(hours)]
    at: Any = partial(genai_prices.calc_price, usage, model, provider_id=provider)
    quotes = [at(genai_request_timestamp=time) for time in times]
    if any(None in (q.model_price.input_mtok, q.model_price.output_mtok) for q in quotes):
        raise LookupError  # listed without a price, which calc_price takes for zero
    return quotes


def prompt_bytes(call: Call) -> int:
    """The size of what is sent: no tokenizer makes more tokens of it than it has bytes."""
    return len(json.dumps(call.body, ensure_ascii=False).encode(errors="replace"))


def most_tokens(call: Call) -> int | None:
    """How many tokens an answer may have at most; None where the request does not say."""
    if call.api == "rerank":
        return 0
    limits = [call.body.get(name) for name in ("max_tokens", "max_completion_tokens")]
    return max((limit for limit in limits if isinstance(limit, int)), default=None)


def context_tokens(calls: Iterable[Call], size: Size) -> int:
    """The tokens of a request that a local server must hold: the brief's, or what calls need."""
    most = 0.0
    for call in calls:
        prompt, answer = prompt_bytes(call), most_tokens(call)
        room = max(size.context_tokens, prompt / 3 + (answer or 0))
        most = max(most, room if answer is None else min(room, prompt + answer))
    return math.ceil(most)


def usd(rate: Rate, prompt_tokens: float, completion_tokens: float) -> float:
    """Dollars of one call; by the hour a call costs nothing of its own."""
    price_in, price_out = rate.input_usd_per_million or 0.0, rate.output_usd_per_million or 0.0
    return (prompt_tokens * price_in + completion_tokens * price_out) / 1e6


def worst_usd(rate: Rate, call: Call, name: str) -> float:
    """The most that a call can cost: each byte a token; an answer must have a greatest length."""
    if rate.usd_per_hour is not None:
        return 0.0
    if (most := most_tokens(call)) is None:
        raise PlaybookError(
            f"deployment {name!r}: evaluation.max_usd needs max_tokens, which options.extra_body"
            " takes away; give max_completion_tokens there"
        )
    return usd(rate, prompt_bytes(call), most)


class Exhausted(Exception):
    """The next call could exceed the budget, and nothing in flight can free any of it."""


class Budget:
    """Dollars of a run that are spent, reserved and left; it survives a crash and a restart.

    Before a call is sent its worst case is written down, and after it what it did cost.
    """

    def __init__(self, run: Path, *, max_usd: float) -> None:
        self.max_usd, self.spent, self.exhausted = max_usd, 0.0, False
        self._path = run / LEDGER
        self._reserved: dict[str, float] = {}
        self._append: Callable[[Row], None]
        self._freed = asyncio.Event()

    def rate(self, deployment: Deployment) -> Rate:
        """The price of a deployment, which a budget needs to know."""
        try:
            return price_of(deployment, tables.hardware())
        except PlaybookError as error:
            raise PlaybookError(f"evaluation.max_usd needs every price; {error}") from None

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the ledger alone, as it is on disk now."""
        self.exhausted, self._reserved = False, {}
        with store.appending_records(self._path) as self._append:
            self.spent = sum(e["usd"] for e in store.read_records(self._path).values())
            yield

    async def reserve(self, usd: float) -> str:
        """Set the worst case of a call aside; returns a ticket for `settle`, or Exhausted."""
        if usd == 0:
            return ""
        while self.exhausted or self.spent + sum(self._reserved.values()) + usd > self.max_usd:
            if self.exhausted or not self._reserved:
                self.exhausted = True
                self._freed.set()
                raise Exhausted
            await self._freed.wait()
        return self._set_aside(usd)

    def _set_aside(self, usd: float) -> str:
        ticket = uuid.uuid4().hex
        self._append({"key": ticket, "usd": usd})
        self._reserved[ticket] = usd
        return ticket

    @contextlib.contextmanager
    def paying(self, deployment: Deployment, items: list[list[Call]]) -> Iterator[list[Row]]:
        """Let a load of items be sent if the most that it may cost is left; yields a list.

        Its requests, put there, are paid for: uncounted tokens are charged with the most.
        """
        rate, name = self.rate(deployment), deployment.name
        most = [sum(worst_usd(rate, call, name) for call in item) for item in items]
        if self.spent + sum(most) > self.max_usd:
            raise PlaybookError(
                f"evaluation.max_usd of ${self.max_usd:g} would be exceeded: ${self.spent:.4g} is"
                f" spent and the next load of {name!r} may take ${sum(most):.4g}; what was measured"
                " is kept, a higher max_usd goes on from there"
            )
        ticket, requests, charged = self._set_aside(sum(most)), list[Row](), 0.0
        yield requests
        for dearest, request in zip(most, requests, strict=False):
            read, written = request.get("prompt_tokens"), request.get("completion_tokens")
            uncounted = read is None or written is None
            charged += dearest if uncounted else usd(rate, read or 0, written or 0)
        self.settle(ticket, charged)

    def settle(self, ticket: str, usd: float) -> None:
        """Put what a call did cost in the place of what was set aside."""
        if not ticket:
            return
        del self._reserved[ticket]
        self._append({"key": ticket, "usd": usd})
        self.spent += usd
        self._freed.set()
        self._freed = asyncio.Event()  # a new one: each belongs to the loop that waits for it
