"""What an endpoint bears: the pace of calls, in virtual time."""

from __future__ import annotations

import asyncio

import pytest
from virtual_time import run

from lib.brief.deployment import Limits
from lib.endpoints.throttle import LONGEST_PAUSE_S, Throttle


async def calls(
    throttle: Throttle, n: int, *, takes_s: float = 0.0, tokens: float = 0.0, unused: float = 0.0
) -> list[float]:
    """Send n calls as fast as they are let through; returns when each was."""
    loop = asyncio.get_running_loop()
    sent: list[float] = []

    async def one() -> None:
        await throttle.enter(tokens)
        sent.append(loop.time())
        await asyncio.sleep(takes_s)
        throttle.answered()
        throttle.leave(unused=unused)

    await asyncio.gather(*(one() for _ in range(n)))
    return sent


def most_in_a_minute(sent: list[float]) -> int:
    return max(sum(start <= at < start + 60 for at in sent) for start in sent)


def test_no_minute_holds_more_requests_than_the_limit() -> None:
    sent = run(lambda: calls(Throttle(50, Limits(requests_per_minute=30)), 200))
    assert most_in_a_minute(sent) == 30
    assert sent[-1] - sent[0] == pytest.approx(199 * 2)


def test_tokens_are_estimated_before_and_corrected_after() -> None:
    def spread(unused: float) -> float:
        throttle = Throttle(1, Limits(tokens_per_minute=6000))
        load = {"tokens": 1000, "unused": unused, "takes_s": 0.001}
        sent: list[float] = run(lambda: calls(throttle, 101, **load))
        return sent[-1] - sent[0]

    assert spread(0) == pytest.approx(100 * 10, rel=0.01)
    assert spread(900) == pytest.approx(100 * 1, rel=0.01)
    assert spread(-1000) == pytest.approx(100 * 20, rel=0.01)


def test_without_limits_only_the_calls_in_flight_count() -> None:
    sent = run(lambda: calls(Throttle(10), 100, takes_s=1.0))
    assert max(sent) - min(sent) == pytest.approx(9)


def test_a_429_halves_once_for_all_that_were_sent_before_it() -> None:
    async def work() -> tuple[float, float, float]:
        throttle = Throttle(16)

        async def one() -> None:
            sent_in = await throttle.enter()
            await asyncio.sleep(0.1)
            throttle.put_off(sent_in, 1.0)
            throttle.leave()

        await asyncio.gather(*(one() for _ in range(16)))
        once = throttle.places.total_tokens
        await one()
        twice = throttle.places.total_tokens
        for _ in range(10):
            throttle.put_off(throttle.round, 1.0)
        return once, twice, throttle.places.total_tokens

    assert run(work) == (8, 4, 1)


def test_it_recovers_by_one_a_round_and_never_above_what_is_configured() -> None:
    async def work() -> list[float]:
        throttle = Throttle(8)
        throttle.put_off(await throttle.enter(), 0.0)
        seen = []
        for _ in range(40):
            throttle.answered()
            seen.append(throttle.places.total_tokens)
        return seen

    seen = run(work)
    # 4 answers allow a fifth call, 5 more a sixth, then 6 and 7.
    assert [seen.index(n) + 1 for n in (5, 6, 7, 8)] == [4, 9, 15, 22]
    assert max(seen) == 8


def test_a_pause_holds_back_every_call() -> None:
    async def work() -> list[float]:
        throttle = Throttle(4)
        throttle.put_off(await throttle.enter(), 30.0)
        throttle.leave()
        return await calls(throttle, 6)

    assert min(run(work)) == pytest.approx(1030)


def test_pauses_without_a_time_double_and_have_an_end() -> None:
    async def work() -> list[float]:
        throttle, loop, waits = Throttle(4), asyncio.get_running_loop(), []
        for _ in range(9):
            before = loop.time()
            throttle.put_off(await throttle.enter(), None)
            waits.append(loop.time() - before)
            throttle.leave()
        return waits[1:]

    assert run(work) == pytest.approx([0.5, 1, 2, 4, 8, 16, LONGEST_PAUSE_S, LONGEST_PAUSE_S])


def test_an_endpoint_that_bears_less_is_found_out() -> None:
    """A server that refuses the eleventh call at once ends near ten, with few calls refused."""

    async def work() -> tuple[int, int, float]:
        throttle, loop = Throttle(64), asyncio.get_running_loop()
        flying = refused = answered = 0

        async def one() -> None:
            nonlocal flying, refused, answered
            while True:
                sent_in = await throttle.enter()
                flying += 1
                bears = flying <= 10
                await asyncio.sleep(1.0 if bears else 0.01)
                flying -= 1
                if bears:
                    answered += 1
                    throttle.answered()
                else:
                    refused += 1
                    throttle.put_off(sent_in, 0.1)
                throttle.leave()
                if bears:
                    return

        start = loop.time()
        await asyncio.gather(*(one() for _ in range(2000)))
        return answered, refused, (loop.time() - start) / 200

    answered, refused, times_ideal = run(work)
    assert answered == 2000 and refused < 150 and times_ideal < 1.6


def test_a_cancelled_wait_gives_its_turn_back() -> None:
    async def work() -> int:
        throttle = Throttle(1, Limits(requests_per_minute=1))
        await throttle.enter()
        throttle.leave()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await throttle.enter()
        return throttle.places.borrowed_tokens

    assert run(work) == 0
