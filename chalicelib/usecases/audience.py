"""Everybody who watches an attempt over WebSocket: one follower each, found again whenever the job's bell rings."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from chalicelib.domain.errors import HeadraceError
from chalicelib.domain.pacing import frame_pace
from chalicelib.usecases.attempt import Attempt
from chalicelib.usecases.engine import Engine
from chalicelib.usecases.follow import Follower

DRAIN_SECONDS = 1.0  # how long the terminal write waits for sockets, so that whoever is told of the end has the text
FAREWELL_SECONDS = 8.0  # how long a slow socket may take to get the rest; afterwards it asks by itself


class Audience:
    """The followers of one attempt. All of them have ended when `dismiss` returns."""

    def __init__(self, engine: Engine, attempt: Attempt) -> None:
        self._engine, self._attempt = engine, attempt
        self._pace = frame_pace(attempt.body.config.streaming_mode, engine.frames_per_second)
        self._bell = ""
        self._followers: dict[str, tuple[Follower, asyncio.Task[None]]] = {}
        self._left: list[asyncio.Task[None]] = []

    async def hear(self, bell: str) -> None:
        """Look who is there, if the bell has another tone than the last time."""
        if bell != self._bell:
            await self.refresh()
            self._bell = bell

    async def refresh(self) -> None:
        """Follow for whoever came or subscribed anew; leave whoever went."""
        now = self._engine.clock.now()
        rows = await self._engine.offload(self._engine.watchers.of, self._attempt.job.id)
        watchers = {watcher.connection_id: watcher for watcher in rows if watcher.expires_at > now}
        for connection_id in list(self._followers):
            follower, task = self._followers[connection_id]
            watcher = watchers.get(connection_id)
            if watcher is None or watcher.since != follower.watcher.since:
                task.cancel()
                self._left.append(task)
                del self._followers[connection_id]
        for connection_id, watcher in watchers.items():
            if connection_id not in self._followers:
                follower = Follower(self._engine, self._attempt, watcher, self._pace)
                self._followers[connection_id] = follower, asyncio.create_task(follower.run())

    async def turn_away(self) -> None:
        """Stop following for those whose key is not valid any more, and close their sockets."""
        engine = self._engine
        for connection_id, (follower, task) in list(self._followers.items()):
            if await engine.offload(engine.is_welcome, follower.watcher.key_hash):
                continue
            task.cancel()
            self._left.append(task)
            self._followers.pop(connection_id, None)
            await engine.offload(engine.watchers.remove, follower.watcher.job_id, connection_id)
            with suppress(HeadraceError):  # it may be gone already, which is as well
                await engine.offload(engine.sockets.close, follower.watcher.endpoint, connection_id)

    async def drain(self) -> None:
        """Give every socket a moment to get the text that is complete now."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._attempt.until(lambda: all(follower.drained for follower, _ in self._followers.values()))

    async def dismiss(self) -> None:
        """Let the followers tell the end, and end them: no task of an attempt outlives it [20]."""
        tasks = [task for _, task in self._followers.values()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=FAREWELL_SECONDS if self._attempt.over else 0)
            for task in late:
                task.cancel()
        results = await asyncio.gather(*tasks, *self._left, return_exceptions=True)
        for problem in results:
            if isinstance(problem, Exception):
                self._engine.log("a follower ended early", job_id=self._attempt.job.id, attempt=self._attempt.number, error=problem)
