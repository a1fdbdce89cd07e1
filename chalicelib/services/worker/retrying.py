"""Patience with a store that does not answer, and with several things at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from chalicelib.domain.errors import Unavailable
from chalicelib.services.worker.context import WorkerContext

T = TypeVar("T")

RETRY_DELAYS = (0.2, 0.5, 1.0, 2.0, 5.0, 5.0, 10.0, 10.0, 10.0)  # seconds; the lease is renewed meanwhile, so nobody else takes the job


async def call_with_retry(ctx: WorkerContext, call: Callable[..., T], *args: Any) -> T:
    """Make a call that may be made again without harm, until it is answered: one throttled write must not cost a paid answer.

    Raises:
        Unavailable: the store did not answer for most of a minute.
    """
    for pause in RETRY_DELAYS:
        try:
            return await ctx.offload(call, *args)
        except Unavailable:
            await asyncio.sleep(pause)
    return await ctx.offload(call, *args)


async def gather_or_cancel(*work: Awaitable[Any]) -> None:
    """Wait for everything; if one part fails, the others are ended before its error is raised, so that none of them lives on."""
    tasks = [asyncio.ensure_future(part) for part in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
