"""The event loop of a worker's environment, and the threads for its blocking calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

T = TypeVar("T")
STORE_THREADS, SEND_THREADS = 16, 12  # for the calls of ten jobs and their sockets; each thread mostly waits
MAX_CALL_SECONDS = 20.0  # three tries with their timeouts, see adapters/aws/client.py


class WorkerLoop:
    """One event loop and its threads for the life of an environment.

    The provider's connections belong to the loop. Frames to sockets have threads of their own: they
    may be slow and many, and must not delay the renewal of a lease.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._stores = ThreadPoolExecutor(STORE_THREADS, thread_name_prefix="store")
        self._sends = ThreadPoolExecutor(SEND_THREADS, thread_name_prefix="send")
        self._calls: set[Future[Any]] = set()

    async def offload(self, call: Callable[..., T], *args: Any) -> T:
        """Make a call to a store on a thread."""
        return await self._call(self._stores, call, *args)

    async def offload_sends(self, call: Callable[..., T], *args: Any) -> T:
        """Send a frame on a thread of the sockets."""
        return await self._call(self._sends, call, *args)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run an invocation's work and wait for its calls.

        Lambda would freeze a running thread with the environment, and its write would be made
        minutes later (protocol rule 20: a handler returns after its tasks).
        """
        try:
            self._loop.run_until_complete(work)
        finally:
            wait(list(self._calls), timeout=MAX_CALL_SECONDS)

    async def _call(self, threads: ThreadPoolExecutor, call: Callable[..., T], *args: Any) -> T:
        future = threads.submit(call, *args)
        self._calls.add(future)
        future.add_done_callback(self._calls.discard)
        return await asyncio.wrap_future(future)
