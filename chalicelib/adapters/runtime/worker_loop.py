"""The event loop of a worker's environment, and the threads in which it makes calls that would stop it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

T = TypeVar("T")
STORE_THREADS, POST_THREADS = 16, 12  # for the calls of ten jobs and their sockets; each spends its time waiting
MAX_CALL_SECONDS = 20.0  # seconds: three tries with their timeouts, see adapters/aws/client.py


class WorkerLoop:
    """The one event loop of an environment, kept between invocations because the provider's connections belong to it, and its threads.

    Posts to sockets, which may be slow and many, have threads of their own: a lease must be renewed whatever the audience does.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._stores = ThreadPoolExecutor(STORE_THREADS, thread_name_prefix="store")
        self._posts = ThreadPoolExecutor(POST_THREADS, thread_name_prefix="post")
        self._calls: set[Future[Any]] = set()

    async def offload(self, call: Callable[..., T], *args: Any) -> T:
        return await self._call(self._stores, call, *args)

    async def offload_sends(self, call: Callable[..., T], *args: Any) -> T:
        return await self._call(self._posts, call, *args)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run an invocation's work, and wait for its calls: a thread that is frozen with its environment would thaw as a zombie."""
        try:
            self._loop.run_until_complete(work)
        finally:
            wait(list(self._calls), timeout=MAX_CALL_SECONDS)

    async def _call(self, threads: ThreadPoolExecutor, call: Callable[..., T], *args: Any) -> T:
        future = threads.submit(call, *args)
        self._calls.add(future)
        future.add_done_callback(self._calls.discard)
        return await asyncio.wrap_future(future)
