"""A stream that also tells when nothing comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

T = TypeVar("T")


async def ticking(items: AsyncIterator[T], tick_s: float) -> AsyncGenerator[T | None, None]:
    """The items as they come, and None after each `tick_s` seconds without one."""

    async def step() -> T | None:
        return await anext(items, None)

    while True:
        waiting = asyncio.create_task(step())
        try:
            while not (await asyncio.wait({waiting}, timeout=tick_s))[0]:
                yield None
        finally:
            if not waiting.done():
                # Until the step has really ended, its connection can't be closed.
                waiting.cancel()
                await asyncio.wait({waiting})
        item = waiting.result()
        if item is None:
            return
        yield item
