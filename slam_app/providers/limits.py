"""Keeps the calls of one connection inside its requests and tokens per minute."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

WINDOW_S = 60.0


@dataclass(slots=True, eq=False)
class Grant:
    """Leave for one call, given for the moment `at` (clock seconds), with the tokens it counts for."""

    at: float
    tokens: int


class RateLimiter:
    """First come, first served within a sliding window of a minute.

    Every call is given its moment when it asks, so waiting costs no polling and a large call is not
    overtaken for ever by small ones. Usable from several threads and event loops at once.

    Args:
        requests_per_minute, tokens_per_minute: None for no limit.
        clock, sleep: for tests.
    """

    def __init__(
        self,
        requests_per_minute: int | None,
        tokens_per_minute: int | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._requests = requests_per_minute
        self._tokens = tokens_per_minute
        self._clock = clock
        self._sleep = sleep
        self._grants: deque[Grant] = deque()
        self._lock = threading.Lock()

    async def acquire(self, estimated_tokens: int) -> Grant:
        """Wait until a call of about `estimated_tokens` (prompt and answer) may be sent.

        A call larger than the whole limit waits for an empty window and then goes: the server decides.
        """
        with self._lock:
            now = self._clock()
            grant = Grant(self._moment(now, estimated_tokens), estimated_tokens)
            self._grants.append(grant)
        try:
            while (left := grant.at - self._clock()) > 0:
                await self._sleep(left)
        except asyncio.CancelledError:
            with self._lock:
                self._grants.remove(grant)
            raise
        return grant

    def settle(self, actual_tokens: int, grant: Grant | None = None) -> None:
        """Correct the estimate once a call's usage is known; without `grant`, that of the latest call."""
        with self._lock:
            if grant is None and self._grants:
                grant = self._grants[-1]
            if grant is not None:
                grant.tokens = actual_tokens

    def _moment(self, now: float, tokens: int) -> float:
        """The earliest moment, not before any already given, at which the window has room."""
        while self._grants and self._grants[0].at + WINDOW_S <= now:
            self._grants.popleft()
        at = max(now, self._grants[-1].at if self._grants else now)
        counted = [grant for grant in self._grants if grant.at + WINDOW_S > at]
        total = sum(grant.tokens for grant in counted)
        for index, grant in enumerate(counted):
            requests = len(counted) - index
            fits = (self._requests is None or requests < self._requests) and (
                self._tokens is None or total + tokens <= self._tokens
            )
            if fits:
                break
            at = max(at, grant.at + WINDOW_S)
            total -= grant.tokens
        return at
