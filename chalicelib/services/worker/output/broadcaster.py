"""Everybody who watches an attempt over WebSocket: one follower each, found again whenever the job's bell rings."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from chalicelib.domain.errors import HeadraceError, Unavailable
from chalicelib.domain.streaming.pacing import frame_pace
from chalicelib.domain.streaming.subscriptions import Subscription
from chalicelib.domain.units import Ms
from chalicelib.services.worker.attempt import Attempt
from chalicelib.services.worker.context import WorkerContext
from chalicelib.services.worker.output.socket_writer import SocketWriter

DRAIN_SECONDS = 1.0  # how long the terminal write waits for sockets, so that whoever is told of the end has the text
CLOSE_TIMEOUT_SECONDS = 8.0  # how long a slow socket may take to get the rest; afterwards it asks by itself
KEY_CHECK_INTERVAL_MS = 15_000  # a revocation holds within 60 s: 30 that a key is kept, and this
MAX_UNVERIFIED_MS = 60_000  # after so long without an answer about their keys nobody is told any more


class Broadcaster:
    """The followers of one attempt. All of them have ended when `dismiss` returns."""

    def __init__(self, ctx: WorkerContext, attempt: Attempt) -> None:
        self._ctx, self._attempt = ctx, attempt
        self._pace = frame_pace(attempt.body.config.streaming_mode, ctx.frames_per_second)
        self._bell = ""
        self._followers: dict[str, tuple[SocketWriter, asyncio.Task[None]]] = {}
        self._left: list[asyncio.Task[None]] = []
        self._checked_at: Ms = ctx.clock.now()
        self._closed = False
        self._looking = asyncio.Lock()

    async def on_control(self, bell: str) -> None:
        """Look who is there if the bell has another tone than the last time, and from time to time whether they still may be."""
        if bell != self._bell:
            await self.sync_followers()
            self._bell = bell
        elif self._ctx.clock.now() - self._checked_at >= KEY_CHECK_INTERVAL_MS:
            await self._turn_away()

    async def sync_followers(self) -> None:
        """Follow for whoever came or subscribed anew; leave whoever went or may no longer watch."""
        async with self._looking:
            now = self._ctx.clock.now()
            rows = await self._ctx.offload(self._ctx.subscriptions.for_job, self._attempt.job.id)
            welcome = await self._welcome({watcher.key_hash for watcher in rows})
            watchers = {row.connection_id: row for row in rows if row.expires_at > now and row.key_hash in welcome}
            if self._closed:
                return
            self._checked_at = now
            for connection_id, (follower, _) in list(self._followers.items()):
                watcher = watchers.get(connection_id)
                if watcher is None or watcher.subscription_id != follower.watcher.subscription_id:
                    self._leave(connection_id)
            for connection_id, watcher in watchers.items():
                if connection_id not in self._followers:
                    self._follow(watcher)

    async def drain(self) -> None:
        """Give every socket a moment to get the text that is complete now."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._attempt.wait_until(lambda: all(follower.drained for follower, _ in self._followers.values()))

    async def close(self) -> None:
        """Let the followers tell the end, and end them: no task of an attempt outlives it [20]."""
        self._closed = True
        tasks = [task for _, task in self._followers.values()]
        try:
            if tasks and self._attempt.over:
                await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_SECONDS)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, *self._left, return_exceptions=True)
        for problem in results:
            if isinstance(problem, Exception):
                self._ctx.log("socket_writer_failed", job_id=self._attempt.job.id, attempt=self._attempt.number, error=problem)

    async def _turn_away(self) -> None:
        """Leave those whose key is not valid any more, and close their sockets. In doubt for long, nobody is told any more."""
        ctx, now = self._ctx, self._ctx.clock.now()
        followed = {connection_id: follower.watcher for connection_id, (follower, _) in self._followers.items()}
        try:
            welcome = await self._welcome({watcher.key_hash for watcher in followed.values()})
        except Unavailable:
            if now - self._checked_at < MAX_UNVERIFIED_MS:
                raise
            welcome = set()
        self._checked_at = now
        for connection_id, watcher in followed.items():
            if watcher.key_hash not in welcome:
                self._leave(connection_id)
                await ctx.offload(ctx.subscriptions.remove, watcher.job_id, connection_id)
                with suppress(HeadraceError):  # it may be gone already, which is as well
                    await ctx.offload_sends(ctx.sockets.close, watcher.endpoint, connection_id)

    async def _welcome(self, key_hashes: set[str]) -> set[str]:
        ctx, job = self._ctx, self._attempt.job
        return {key_hash for key_hash in key_hashes if await ctx.offload(ctx.may_stream, key_hash, job)}

    def _follow(self, watcher: Subscription) -> None:
        follower = SocketWriter(self._ctx, self._attempt, watcher, self._pace)
        self._followers[watcher.connection_id] = follower, asyncio.create_task(follower.run())

    def _leave(self, connection_id: str) -> None:
        _, task = self._followers.pop(connection_id, (None, None))
        if task is not None:
            task.cancel()
            self._left.append(task)
