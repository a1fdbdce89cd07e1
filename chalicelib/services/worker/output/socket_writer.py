"""The socket reader: posts an attempt to one WebSocket connection, at the connection's own pace."""

from __future__ import annotations

import asyncio
from typing import Any

from chalicelib.domain.errors import ConnectionBusy, ConnectionGone, Unavailable
from chalicelib.domain.streaming import frames
from chalicelib.domain.streaming.pacing import FramePace
from chalicelib.domain.streaming.subscriptions import Subscription
from chalicelib.domain.text import MAX_FRAME_POINTS, split_text
from chalicelib.services.streaming.drop_connection import drop_unreachable
from chalicelib.services.worker.attempt import Attempt
from chalicelib.services.worker.context import WorkerContext
from chalicelib.services.worker.progress_snapshot import progress_of

INITIAL_BACKOFF, MAX_BACKOFF = 0.5, 4.0  # seconds after a busy answer, doubling


class SocketWriter:
    """Follows one attempt for one watcher from `offset` on, one post in flight; what arrives meanwhile is merged into the next.

    `offset` is the acknowledged position: after a post whose answer is unknown the same text is sent again, and overlap is harmless.
    """

    def __init__(self, ctx: WorkerContext, attempt: Attempt, watcher: Subscription, pace: FramePace) -> None:
        self.watcher = watcher
        self.offset = watcher.offset if watcher.attempt == attempt.number else 0
        self.gone = False
        self._warned = False
        self.told = False
        self._starts_over = attempt.number > 1 and watcher.attempt < attempt.number
        self._ctx, self._attempt, self._pace = ctx, attempt, pace
        self._events = 0
        self._wait = INITIAL_BACKOFF

    @property
    def drained(self) -> bool:
        """Whether the connection has all the text there is."""
        return self.gone or self.offset >= len(self._attempt.transcript)

    async def run(self) -> None:
        """Post until the attempt is over and its end was told, or the connection is gone."""
        attempt, clock = self._attempt, self._ctx.clock
        began: int | None = None
        if self._starts_over:
            await self._post(frames.reset(attempt.job, "a new attempt began", clock.now()))
        while not self.gone:
            await attempt.wait_until(self._has_news)
            if began is None:
                began = clock.now()
            if await self._send_text() and await self._send_events() and attempt.over and self.drained:
                self.told = attempt.final is None or await self._post(attempt.final)
                if self.told:
                    return
            await self._warn()
            pause = self._pace.pause((clock.now() - began) / 1000)
            if not attempt.complete:
                await attempt.pause(pause or 1.0)

    def _has_news(self) -> bool:
        text = self._pace.steady is not None or self._attempt.complete
        return self._attempt.over or (text and not self.drained) or len(self._attempt.events) > self._events

    async def _warn(self) -> None:
        """Tell the client once, in good time, that AWS will close its socket."""
        now = self._ctx.clock.now()
        if not self._warned and now >= self.watcher.closing_at:
            self._warned = await self._post(frames.closing(now))

    async def _send_text(self) -> bool:
        """Post what there is now beyond the acknowledged offset; what comes meanwhile is the next frame's. False: not all was posted."""
        attempt = self._attempt
        if self._pace.steady is None and not attempt.complete:
            return True
        for text in split_text(attempt.transcript.read_from(self.offset), MAX_FRAME_POINTS):
            job, now = attempt.job, self._ctx.clock.now()
            frame = frames.tokens(job.id, attempt.number, job.version, self.offset, text, now, attempt.received, attempt.tracker.percentage)
            if not await self._post(frame):
                return False
            self.offset += len(text)
        attempt.notify_readers()
        return True

    async def _send_events(self) -> bool:
        """Tell each milestone, and the progress once for all that has begun or gone on."""
        attempt, now = self._attempt, self._ctx.clock.now()
        news = attempt.events[self._events :]
        told: list[dict[str, Any]] = [frames.milestone(attempt.job, _shape(event), now) for event in news if event["kind"] == "milestone"]
        if any(event["kind"] in ("stage", "progress") for event in news):
            told.append(frames.progress(attempt.job, progress_of(attempt, now), now))
        for frame in told:
            if not await self._post(frame):
                return False
        self._events += len(news)
        return True

    async def _post(self, frame: frames.Frame) -> bool:
        """Post one frame. False: it may not have arrived, or the connection is gone."""
        ctx, watcher = self._ctx, self.watcher
        try:
            await ctx.offload_sends(ctx.sockets.post, watcher.endpoint, watcher.connection_id, frames.encode(frame))
        except ConnectionGone as gone:
            self.gone = True
            await ctx.offload(drop_unreachable, ctx.connections, ctx.subscriptions, gone, watcher.connection_id, watcher.job_id)
            return False
        except (ConnectionBusy, Unavailable):
            wait, self._wait = self._wait, min(self._wait * 2, MAX_BACKOFF)
            await asyncio.sleep(wait)
            return False
        self._wait = INITIAL_BACKOFF
        return True


def _shape(event: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key != "kind"}
