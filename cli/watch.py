"""Watch a job over the first transport that works: WebSocket, Server-Sent Events or polling.

This module decides when to subscribe, ping, reconnect and fall back; `Assembly` decides what frames
mean. Only the position is carried from one connection to the next, so a connection may be lost at
any time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cli.checks.frames import is_frame
from cli.errors import Unreachable
from cli.reducer import Frame, Outcome, Resubscribe, TextAssembler

SILENCE_TIMEOUT = 30.0  # seconds without a frame, then subscribe again (protocol rule 13: silence makes the client subscribe again)
ASK_TIMEOUT = 3.0  # seconds until an unanswered `Resubscribe` is repeated; doubles each time
MAX_UNANSWERED_ASKS = 3  # then the connection counts as lost
PING_INTERVAL = 240.0  # API Gateway closes a WebSocket that was idle for ten minutes
MAX_FAILURES = 2  # connections in a row without progress, then fall back to the next transport
MAX_FAILURES_LAST_TRANSPORT = 8  # the same for the last transport, which has no fallback
MAX_RECONNECT_DELAY = 20.0


class ConnectionLost(Exception):
    """This connection is of no more use. Another one over the same transport may work."""


class TransportFailed(Exception):
    """This transport does not work here. The next one may."""


class Connection(Protocol):
    """One connection that delivers the frames of one job."""

    def subscribe(self, attempt: int, offset: int) -> None:
        """Request all frames from this position on. Raises ConnectionLost."""

    def receive(self, timeout: float) -> Frame | None:
        """The next frame; None if none came in about `timeout` seconds.

        Raises ConnectionLost, TransportFailed.
        """

    def ping(self) -> None:
        """Keep the connection from being closed as idle."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Transport:
    """A way to receive frames.

    `connect` raises ConnectionLost or TransportFailed; an ApiError from it ends the watch.
    """

    name: str
    connect: Callable[[], Connection]


class Clock(Protocol):
    def now(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


class MonotonicClock:
    """The monotonic clock of this machine."""

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Listening:
    """A connection over this transport is open."""

    transport: str


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A connection failed with `error`. The next one uses `next_transport`."""

    next_transport: str
    error: str


WatchEvent = Outcome | Listening | Interrupted


def watch(
    job_id: str, transports: Sequence[Transport], on_event: Callable[[WatchEvent], None], clock: Clock | None = None
) -> TextAssembler:
    """Receive frames until the text of the job is complete or lost.

    Raises Unreachable if no transport works.
    """
    session = WatchSession(job_id, on_event, clock or MonotonicClock())
    for transport, fallback in zip(transports, [*transports[1:], None], strict=True):
        try:
            session.run(transport, MAX_FAILURES if fallback else MAX_FAILURES_LAST_TRANSPORT)
            return session.assembly
        except TransportFailed as failed:
            if fallback is None:
                raise Unreachable(f"The job cannot be watched: {failed}") from failed
            on_event(Interrupted(fallback.name, str(failed)))
    raise Unreachable("There is no way to watch a job.")


def reconnect_delay(failures: int, random_part: float) -> float:
    """Seconds until the next connection, of which `random_part` (0 to 1) decides half.

    When API Gateway closes all sockets of a stage, their clients must not come back together.
    """
    longest: float = min(0.5 * 2**failures, MAX_RECONNECT_DELAY)
    return longest * (0.5 + random_part / 2)


class WatchSession:
    """The watch of one job. It has one assembly and, one after the other, many connections."""

    def __init__(self, job_id: str, on_event: Callable[[WatchEvent], None], clock: Clock) -> None:
        self.assembly = TextAssembler()
        self._job_id = job_id
        self._emit = on_event
        self._clock = clock

    def run(self, transport: Transport, max_failures: int) -> None:
        """Open connections over one transport until the watch is over.

        Raises TransportFailed after `max_failures` connections in a row that brought no progress. A
        connection that stayed open longer than the silence timeout counts as progress too: the job
        may just be waiting.
        """
        failures = 0
        while not self.assembly.over:
            before, opened_at = self._progress(), self._clock.now()
            try:
                self._use_connection(transport)
            except ConnectionLost as lost:
                stayed_open = self._clock.now() - opened_at > SILENCE_TIMEOUT and not self.assembly.has_hole
                made_progress = stayed_open or self._progress() != before
                failures = 0 if made_progress else failures + 1
                if failures >= max_failures:
                    raise TransportFailed(f"{transport.name}: {lost}") from lost
                self._emit(Interrupted(transport.name, str(lost)))
                self._clock.sleep(reconnect_delay(failures, random.random()))

    def _use_connection(self, transport: Transport) -> None:
        connection = transport.connect()
        try:
            self._emit(Listening(transport.name))
            self._receive_frames(connection)
        finally:
            connection.close()

    def _receive_frames(self, connection: Connection) -> None:
        timers = Timers(self._clock.now())
        self._apply(self.assembly.resubscribe(), connection, timers)
        while not self.assembly.over:
            before = self._progress()
            frame = connection.receive(timers.remaining(self._clock.now(), self.assembly.has_hole))
            now = self._clock.now()
            if frame is not None and not is_frame(frame):
                raise ConnectionLost("what was received is no frame of a job")
            if frame is not None:
                self._on_frame(frame, connection, timers)
            received = frame is not None and frame.get("job_id") == self._job_id
            timers.update(now, received, answered=self._progress() != before or (received and not self.assembly.has_hole))
            if timers.ask_due(now, self.assembly.has_hole):
                timers.unanswered += 1
                if timers.unanswered > MAX_UNANSWERED_ASKS:
                    raise ConnectionLost("no answer")
                self._apply(self.assembly.resubscribe(), connection, timers)
            if timers.ping_due(now):
                connection.ping()
                timers.sent_at = now

    def _on_frame(self, frame: Frame, connection: Connection, timers: Timers) -> None:
        match frame.get("event"):
            case "closing":
                raise ConnectionLost("the server closes this connection")
            case "error" | "stream_error" if frame.get("job_id", self._job_id) == self._job_id:
                raise TransportFailed(str(frame.get("message") or frame.get("code")))
            case _ if frame.get("job_id") == self._job_id:
                self._apply(self.assembly.receive(frame), connection, timers)

    def _apply(self, outcomes: list[Outcome], connection: Connection, timers: Timers) -> None:
        """Subscribe again for each `Resubscribe` and report all outcomes."""
        for outcome in outcomes:
            if isinstance(outcome, Resubscribe):
                connection.subscribe(outcome.attempt, outcome.offset)
                timers.asked_at = timers.received_at = timers.sent_at = self._clock.now()
            self._emit(outcome)

    def _progress(self) -> tuple[int, int, int]:
        return self.assembly.attempt, self.assembly.position, self.assembly.version


class Timers:
    """When to subscribe again and when to ping.

    While text is missing, the `Resubscribe` is repeated soon, however many later frames arrive; otherwise
    only silence counts.
    """

    def __init__(self, now: float) -> None:
        self.received_at = self.asked_at = self.sent_at = now
        self.unanswered = 0

    def remaining(self, now: float, has_hole: bool) -> float:
        """Seconds until the next of them is due."""
        return max(0.0, min(self._ask_due_at(has_hole), self.sent_at + PING_INTERVAL) - now)

    def update(self, now: float, received: bool, answered: bool) -> None:
        """Note whether a frame of the job was received and whether it answers the pending `Resubscribe`."""
        if received:
            self.received_at = now
        if answered:
            self.unanswered = 0
            self.asked_at = now

    def ask_due(self, now: float, has_hole: bool) -> bool:
        return now >= self._ask_due_at(has_hole)

    def ping_due(self, now: float) -> bool:
        return now >= self.sent_at + PING_INTERVAL

    def _ask_due_at(self, has_hole: bool) -> float:
        return self.asked_at + ASK_TIMEOUT * 2**self.unanswered if has_hole else self.received_at + SILENCE_TIMEOUT
