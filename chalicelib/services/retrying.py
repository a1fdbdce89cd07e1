"""Repeat a store call that was not answered. Only calls that may be repeated without harm come here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.units import Ms
from chalicelib.ports import Clock, Offload

T = TypeVar("T")
CONSUMER_RETRY_DELAYS = (0.2, 0.5, 1.0)  # seconds; a consumer of the change stream has a time budget for its whole batch
# Seconds; most of a minute, because one throttled write must not cost a paid answer. The heartbeat renews the lease
# meanwhile, so no other worker takes the job.
WORKER_RETRY_DELAYS = (0.2, 0.5, 1.0, 2.0, 5.0, 5.0, 10.0, 10.0, 10.0)

CONFLICT_RETRY_DELAYS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)  # seconds before each try, on average; other writers of one counter pass first
CANCEL_RETRY_DELAYS = (0.5, 1.0, 0.0)  # seconds after a provider response that could not be cancelled


class OffloadContext(Protocol):
    """What `offload_with_retry` needs."""

    @property
    def offload(self) -> Offload: ...


def call_with_retry(clock: Clock, call: Callable[[], T], until: Ms) -> T:
    """Make a call, and repeat it while a store does not answer and the next pause would end before `until`.

    Raises:
        Unavailable: the store did not answer the last call either.
    """
    for pause in CONSUMER_RETRY_DELAYS:
        try:
            return call()
        except Unavailable:
            if clock.now() + round(pause * 1000) > until:
                raise
            clock.sleep(pause)
    return call()


async def offload_with_retry(ctx: OffloadContext, call: Callable[..., T], *args: Any) -> T:
    """Make a call off the event loop, and repeat it while a store does not answer.

    Raises:
        Unavailable: the store did not answer for most of a minute.
    """
    for pause in WORKER_RETRY_DELAYS:
        try:
            return await ctx.offload(call, *args)
        except Unavailable:
            await asyncio.sleep(pause)
    return await ctx.offload(call, *args)


async def gather_or_cancel(*work: Awaitable[Any]) -> None:
    """Wait for all; if one fails, cancel the others and wait for their end before its error is raised."""
    tasks = [asyncio.ensure_future(part) for part in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
