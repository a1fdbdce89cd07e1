"""Send an attempt to one WebSocket connection, as fast as that connection takes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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

INITIAL_BACKOFF, MAX_BACKOFF = 0.5, 4.0  # seconds after a failed post, doubling


class SocketWriter:
    """Sends one attempt to one subscriber.

    One post is in flight at a time; what arrives meanwhile is merged into the next frame. If the
    answer to a post is unknown, the same text is sent again from the acknowledged offset; clients
    ignore the overlap.

    Args:
        slower: returns the factor by which pauses between frames are longer now.

    Attributes:
        offset: transcript offset up to which the connection has acknowledged the text.
        gone: API Gateway has reported that the connection no longer exists.
    """

    def __init__(
        self, ctx: WorkerContext, attempt: Attempt, subscription: Subscription, pace: FramePace, slower: Callable[[], float] = lambda: 1.0
    ) -> None:
        self.subscription = subscription
        self.offset = subscription.offset if subscription.attempt == attempt.number else 0
        self.gone = False
        self._warned = False  # the client knows that its socket will be closed
        self._needs_reset = attempt.number > 1 and subscription.attempt < attempt.number
        self._ctx, self._attempt, self._pace, self._slower = ctx, attempt, pace, slower
        self._events_sent = 0
        self._backoff = INITIAL_BACKOFF

    @property
    def drained(self) -> bool:
        """Whether the connection has all the text so far, or is gone."""
        return self.gone or self.offset >= len(self._attempt.output.transcript)

    async def run(self) -> None:
        """Send until the final frame is sent or the connection is gone."""
        attempt, clock = self._attempt, self._ctx.clock
        started_at: int | None = None
        if self._needs_reset:
            await self._post(frames.reset(attempt.job, "a new attempt began", clock.now()))
        while not self.gone:
            await attempt.output.wait_until(self._has_news)
            if started_at is None:
                started_at = clock.now()
            up_to_date = await self._send_text() and await self._send_events() and attempt.output.over and self.drained
            if up_to_date and (attempt.final_frame is None or await self._post(attempt.final_frame)):
                return
            await self._warn_before_closing()
            pause = self._pace.pause((clock.now() - started_at) / 1000)
            if not attempt.output.complete:
                await attempt.output.pause((pause or 1.0) * self._slower())

    def _has_news(self) -> bool:
        output = self._attempt.output
        may_send_text = self._pace.steady is not None or output.complete
        return output.over or (may_send_text and not self.drained) or len(output.events) > self._events_sent

    async def _warn_before_closing(self) -> None:
        """Tell the client once, some minutes before, that API Gateway will close its socket."""
        now = self._ctx.clock.now()
        if not self._warned and now >= self.subscription.closing_at:
            self._warned = await self._post(frames.closing(now))

    async def _send_text(self) -> bool:
        """Send the text beyond the acknowledged offset.

        What arrives meanwhile goes into the next frame.

        Returns: False if a post failed.
        """
        attempt = self._attempt
        if self._pace.steady is None and not attempt.output.complete:
            return True
        for text in split_text(attempt.output.transcript.read_from(self.offset), MAX_FRAME_POINTS):
            job, now = attempt.job, self._ctx.clock.now()
            frame = frames.tokens(
                job.id, attempt.number, job.version, self.offset, text, now, attempt.output.received, attempt.output.tracker.percentage
            )
            if not await self._post(frame):
                return False
            self.offset += len(text)
        attempt.output.notify_readers()
        return True

    async def _send_events(self) -> bool:
        """Send a frame for each new milestone, and one progress frame for all other new events.

        Returns: False if a post failed.
        """
        attempt, now = self._attempt, self._ctx.clock.now()
        events = attempt.output.events[self._events_sent :]
        unsent: list[dict[str, Any]] = [
            frames.milestone(attempt.job, _milestone_fields(event), now) for event in events if event["kind"] == "milestone"
        ]
        if any(event["kind"] in ("stage", "progress") for event in events):
            unsent.append(frames.progress(attempt.job, progress_of(attempt, now), now))
        for frame in unsent:
            if not await self._post(frame):
                return False
        self._events_sent += len(events)
        return True

    async def _post(self, frame: frames.Frame) -> bool:
        """Post one frame; back off if the connection is busy or API Gateway does not answer.

        Returns: False if the frame may not have arrived, or the connection is gone.
        """
        ctx, subscription = self._ctx, self.subscription
        try:
            await ctx.offload_sends(ctx.sockets.post, subscription.endpoint, subscription.connection_id, frames.encode(frame))
        except ConnectionGone as gone:
            self.gone = True
            await ctx.offload(drop_unreachable, ctx.connections, ctx.subscriptions, gone, subscription.connection_id, subscription.job_id)
            return False
        except (ConnectionBusy, Unavailable):
            backoff, self._backoff = self._backoff, min(self._backoff * 2, MAX_BACKOFF)
            await asyncio.sleep(backoff)
            return False
        self._backoff = INITIAL_BACKOFF
        return True


def _milestone_fields(event: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key != "kind"}
