"""Send an attempt to its WebSocket subscribers: one socket writer per subscription."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from chalicelib.domain.errors import HeadraceError, Unavailable, UnreadableRecord
from chalicelib.domain.streaming.pacing import frame_pace
from chalicelib.domain.streaming.subscriptions import Subscription
from chalicelib.domain.units import Ms
from chalicelib.services.worker.attempt import Attempt
from chalicelib.services.worker.context import WorkerContext
from chalicelib.services.worker.output.socket_writer import SocketWriter

DRAIN_SECONDS = 1.0  # how long the terminal write waits for sockets, so that subscribers have the text before the end
CLOSE_TIMEOUT_SECONDS = 8.0  # how long a slow socket may take for the rest; after that its client subscribes again
KEY_CHECK_INTERVAL_MS = 15_000  # revocation takes effect within 60 s: keys are cached for 30 s, and this
MAX_UNVERIFIED_MS = 60_000  # if keys could not be checked for so long, nothing more is sent


class Broadcaster:
    """The socket writers of one attempt. All of them have ended when `close` returns."""

    def __init__(self, ctx: WorkerContext, attempt: Attempt) -> None:
        self._ctx, self._attempt = ctx, attempt
        self._pace = frame_pace(attempt.spec.config.streaming_mode, ctx.frames_per_second)
        self._version = ""  # the `subscribers_version` at the last reload
        self._writers: dict[str, tuple[SocketWriter, asyncio.Task[None]]] = {}  # by connection id
        self._stopped: list[asyncio.Task[None]] = []  # cancelled, to be awaited by `close`
        self._checked_at: Ms = ctx.clock.now()  # when the subscribers' keys were last checked
        self._closed = False
        self._sync_lock = asyncio.Lock()

    async def on_control(self, version: str) -> None:
        """Reload the subscriptions if `subscribers_version` has changed.

        Otherwise check the subscribers' API keys every 15 seconds.
        """
        if version != self._version:
            await self.sync_writers()
            self._version = version
        elif self._ctx.clock.now() - self._checked_at >= KEY_CHECK_INTERVAL_MS:
            await self._drop_revoked()

    async def sync_writers(self) -> None:
        """Reload the subscriptions; start and stop writers accordingly.

        A subscription whose API key is not valid gets no writer.
        """
        async with self._sync_lock:
            now = self._ctx.clock.now()
            rows = await self._ctx.offload(self._ctx.subscriptions.for_job, self._attempt.job.id)
            allowed = await self._allowed_keys({row.key_hash for row in rows})
            subscriptions = {row.connection_id: row for row in rows if row.expires_at > now and row.key_hash in allowed}
            if self._closed:
                return
            self._checked_at = now
            for connection_id, (writer, _) in list(self._writers.items()):
                subscription = subscriptions.get(connection_id)
                if subscription is None or subscription.subscription_id != writer.subscription.subscription_id:
                    self._stop(connection_id)
            for connection_id, subscription in subscriptions.items():
                if connection_id not in self._writers:
                    self._start(subscription)

    async def drain(self) -> None:
        """Wait until all sockets have the text, at most for a second."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._attempt.output.wait_until(lambda: all(writer.drained for writer, _ in self._writers.values()))

    async def close(self) -> None:
        """Let the writers send the final frame, then end them
        (protocol rule 20: a handler returns after its tasks).
        """
        self._closed = True
        tasks = [task for _, task in self._writers.values()]
        try:
            if tasks and self._attempt.output.over:
                await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_SECONDS)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, *self._stopped, return_exceptions=True)
        for error in results:
            if isinstance(error, Exception):
                self._ctx.log("socket_writer_failed", job_id=self._attempt.job.id, attempt=self._attempt.number, error=error)

    async def _drop_revoked(self) -> None:
        """Stop the writers whose API key is no longer valid, and close their sockets.

        If the keys could not be checked for a minute, all writers are stopped.

        Raises:
            Unavailable: the keys could not be checked now, but less than a minute ago.
        """
        ctx, now = self._ctx, self._ctx.clock.now()
        subscriptions = {connection_id: writer.subscription for connection_id, (writer, _) in self._writers.items()}
        try:
            allowed = await self._allowed_keys({subscription.key_hash for subscription in subscriptions.values()})
        except Unavailable:
            if now - self._checked_at < MAX_UNVERIFIED_MS:
                raise
            allowed = set()
        self._checked_at = now
        for connection_id, subscription in subscriptions.items():
            if subscription.key_hash not in allowed:
                self._stop(connection_id)
                await ctx.offload(ctx.subscriptions.remove, subscription.job_id, connection_id)
                with suppress(HeadraceError):  # the connection may already be gone
                    await ctx.offload_sends(ctx.sockets.close, subscription.endpoint, connection_id)

    async def _allowed_keys(self, key_hashes: set[str]) -> set[str]:
        """Return the hashes of the keys that are valid and may read the job; not of unreadable keys."""
        ctx, job, allowed = self._ctx, self._attempt.job, set[str]()
        for key_hash in key_hashes:
            with suppress(UnreadableRecord):
                allowed |= {key_hash} if await ctx.offload(ctx.may_stream, key_hash, job) else set()
        return allowed

    def _start(self, subscription: Subscription) -> None:
        writer = SocketWriter(self._ctx, self._attempt, subscription, self._pace)
        self._writers[subscription.connection_id] = writer, asyncio.create_task(writer.run())

    def _stop(self, connection_id: str) -> None:
        _, task = self._writers.pop(connection_id, (None, None))
        if task is not None:
            task.cancel()
            self._stopped.append(task)
