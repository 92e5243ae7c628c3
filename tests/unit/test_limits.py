"""The rate limiter: nothing is sent beyond the limits, and nothing waits longer than it must."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slam_app.providers.limits import WINDOW_S, RateLimiter


class FakeTime:
    """A clock that a sleep moves on at once."""

    def __init__(self) -> None:
        self.now = 1000.0

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


def limiter_at(time: FakeTime, requests: int | None, tokens: int | None) -> RateLimiter:
    return RateLimiter(requests, tokens, clock=time.clock, sleep=time.sleep)


def test_without_limits_nothing_waits() -> None:
    time = FakeTime()
    limiter = limiter_at(time, None, None)

    async def many() -> None:
        for _ in range(1000):
            await limiter.acquire(10**9)

    asyncio.run(many())

    assert time.now == 1000.0


def test_the_request_after_the_last_allowed_one_waits_for_the_first_to_be_a_minute_old() -> None:
    time = FakeTime()
    limiter = limiter_at(time, 2, None)

    async def three() -> list[float]:
        moments = []
        for _ in range(3):
            await limiter.acquire(1)
            moments.append(time.now)
            time.now += 10
        return moments

    assert asyncio.run(three()) == [1000.0, 1010.0, 1060.0]


def test_tokens_are_counted_over_the_last_minute() -> None:
    time = FakeTime()
    limiter = limiter_at(time, None, 100)

    async def calls() -> list[float]:
        moments = []
        for tokens in (60, 40, 50):
            await limiter.acquire(tokens)
            moments.append(time.now)
        return moments

    assert asyncio.run(calls()) == [1000.0, 1000.0, 1060.0]


def test_a_settled_call_counts_with_its_actual_tokens() -> None:
    time = FakeTime()
    limiter = limiter_at(time, None, 100)

    async def calls() -> None:
        await limiter.acquire(90)
        limiter.settle(20)
        await limiter.acquire(80)

    asyncio.run(calls())

    assert time.now == 1000.0


def test_settling_names_its_call_when_several_run_at_once() -> None:
    time = FakeTime()
    limiter = limiter_at(time, None, 100)

    async def calls() -> None:
        first = await limiter.acquire(30)
        await limiter.acquire(70)
        limiter.settle(0, first)
        await limiter.acquire(30)
        assert time.now == 1000.0
        await limiter.acquire(1)

    asyncio.run(calls())

    assert time.now == 1060.0


def test_a_call_larger_than_the_limit_goes_alone() -> None:
    time = FakeTime()
    limiter = limiter_at(time, None, 100)

    async def calls() -> float:
        await limiter.acquire(30)
        await limiter.acquire(500)
        return time.now

    assert asyncio.run(calls()) == 1060.0


def test_a_cancelled_wait_gives_its_place_back() -> None:
    async def cancelled_then_next() -> float:
        limiter = RateLimiter(1, None)
        await limiter.acquire(1)
        limiter._grants[0].at -= WINDOW_S - 0.2  # the first call was 59.8 s ago
        waiting = asyncio.ensure_future(limiter.acquire(1))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        started = asyncio.get_running_loop().time()
        await asyncio.wait_for(limiter.acquire(1), timeout=5)
        return asyncio.get_running_loop().time() - started

    assert asyncio.run(cancelled_then_next()) < 1


def test_a_small_call_does_not_overtake_a_large_one_that_waits() -> None:
    waits: list[float] = []

    async def parked(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.Event().wait()

    async def several() -> None:
        limiter = RateLimiter(None, 100, clock=lambda: 1000.0, sleep=parked)
        first = await limiter.acquire(80)
        calls = [asyncio.ensure_future(limiter.acquire(85))]
        await asyncio.sleep(0)
        limiter.settle(10, first)
        calls.append(asyncio.ensure_future(limiter.acquire(5)))
        await asyncio.wait(calls, timeout=0.05)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    asyncio.run(several())

    assert waits == [60.0, 60.0]


def test_a_call_waits_only_until_enough_has_passed() -> None:
    time = FakeTime()
    limiter = limiter_at(time, None, 100)

    async def calls() -> None:
        await limiter.acquire(60)
        time.now += 10
        await limiter.acquire(30)
        await limiter.acquire(50)

    asyncio.run(calls())

    assert time.now == 1060.0


@given(
    requests=st.none() | st.integers(1, 5),
    tokens=st.none() | st.integers(10, 100),
    calls=st.lists(st.tuples(st.integers(0, 120), st.floats(0, 40)), max_size=30),
)
def test_no_minute_holds_more_than_the_limits(
    requests: int | None, tokens: int | None, calls: list[tuple[int, float]]
) -> None:
    time = FakeTime()
    limiter = limiter_at(time, requests, tokens)
    sent: list[tuple[float, int]] = []

    async def run() -> None:
        for size, pause in calls:
            time.now += pause
            await limiter.acquire(size)
            sent.append((time.now, size))

    asyncio.run(run())

    for end, _ in sent:
        # A hair less than a minute: the sums of floats differ in the last digit.
        window = [size for at, size in sent if end - WINDOW_S + 1e-6 < at <= end]
        assert requests is None or len(window) <= requests
        assert tokens is None or sum(window) <= tokens or len([size for size in window if size]) == 1
