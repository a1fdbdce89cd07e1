"""Tasks that run beside a block and do not outlive it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def background(*work: Coroutine[Any, Any, Any]) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Run all of `work` while the block runs; at its end cancel what still runs and wait until it has ended
    (protocol rule 20: a handler returns after its tasks).

    Unlike in an `asyncio.TaskGroup`, a task that fails does not end the block: its error is raised where the block
    awaits the task, because a reader's error must not cut off the provider's stream.
    """
    tasks = [asyncio.create_task(part) for part in work]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
