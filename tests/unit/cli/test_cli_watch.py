"""`cli.watch`: when it subscribes again, pings, reconnects and changes the transport."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cli.errors import Unreachable
from cli.reducer import Appended, Finished, Lost, StartedOver
from cli.watch import MAX_FAILURES, ConnectionLost, Interrupted, Listening, Transport, TransportFailed, WatchEvent, watch

Frame = dict[str, Any]
JOB = "job_1"


def tokens(offset: int, text: str, attempt: int = 1) -> Frame:
    return {"event": "tokens", "job_id": JOB, "attempt": attempt, "version": 2, "offset": offset, "text": text}


def connected(status: str = "processing", attempt: int = 1) -> Frame:
    return {"event": "connected", "job_id": JOB, "attempt": attempt, "version": 1, "status": status, "offset": 0}


def end(length: int, attempt: int = 1) -> Frame:
    return {"event": "job_completed", "job_id": JOB, "attempt": attempt, "version": 9, "length": length}


class FakeClock:
    """A clock that advances only when something sleeps or waits."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class FakeConnection:
    """Plays a script of frames, seconds of silence (a number) and exceptions to raise.

    After the script there is silence. `answers(n)` are the frames that answer subscription n.
    """

    def __init__(
        self, clock: FakeClock, script: list[Frame | float | Exception], answers: Callable[[int], list[Frame]] | None = None
    ) -> None:
        self.clock, self.script, self.answers = clock, script, answers
        self.subscriptions: list[tuple[float, int, int]] = []
        self.pings: list[float] = []
        self.closed = False

    def subscribe(self, attempt: int, offset: int) -> None:
        self.subscriptions.append((self.clock.now(), attempt, offset))
        if self.answers:
            self.script[:0] = self.answers(len(self.subscriptions))

    def receive(self, timeout: float) -> Frame | None:
        step = self.script[0] if self.script else 1e9
        if isinstance(step, Exception):
            raise step
        if isinstance(step, dict):
            self.script.pop(0)
            return step
        self.clock.time += min(step, timeout)
        if step <= timeout:
            self.script.pop(0)
        else:
            self.script[:1] = [step - timeout]
        return None

    def ping(self) -> None:
        self.pings.append(self.clock.now())

    def close(self) -> None:
        self.closed = True


class Scene:
    """A watch over scripted connections."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.events: list[WatchEvent] = []

    def connection(self, *script: Frame | float | Exception, answers: Callable[[int], list[Frame]] | None = None) -> FakeConnection:
        return FakeConnection(self.clock, list(script), answers)

    def transport(self, name: str, *connections: FakeConnection | Exception) -> Transport:
        """A transport that opens these connections in order, and the last one repeatedly."""
        remaining = list(connections)

        def connect() -> FakeConnection:
            connection = remaining.pop(0) if len(remaining) > 1 else remaining[0]
            if isinstance(connection, Exception):
                raise connection
            return connection

        return Transport(name, connect)

    def watch(self, *transports: Transport) -> str:
        return watch(JOB, transports, self.events.append, self.clock).text


def test_streaming_job_is_watched_until_it_ends() -> None:
    scene = Scene()
    connection = scene.connection(connected(), tokens(0, "Hello"), tokens(5, " world"), end(11))

    text = scene.watch(scene.transport("socket", connection))

    assert text == "Hello world"
    assert connection.subscriptions == [(0.0, 0, 0)]
    assert connection.closed
    assert [o for o in scene.events if isinstance(o, Listening | Appended)] == [Listening("socket"), Appended("Hello"), Appended(" world")]
    assert isinstance(scene.events[-1], Finished)


def test_missing_text_is_requested_once_and_then_by_the_timer() -> None:
    """At 0 s when the hole is seen, then at 3 s and 9 s without an answer.

    Frames beyond the hole change nothing.
    """
    scene = Scene()
    connection = scene.connection(
        connected(), tokens(0, "a"), tokens(2, "c"), 1.0, tokens(3, "d"), 1.0, tokens(4, "e"), 8.0, tokens(1, "bcde"), end(5)
    )

    text = scene.watch(scene.transport("socket", connection))

    assert text == "abcde"
    assert connection.subscriptions == [(0.0, 0, 0), (0.0, 1, 1), (3.0, 1, 1), (9.0, 1, 1)]


def test_watch_subscribes_again_after_thirty_seconds_of_silence() -> None:
    scene = Scene()
    connection = scene.connection(connected(), tokens(0, "ab"), 29.0, tokens(2, "c"), 31.0, tokens(3, "d"), end(4))

    scene.watch(scene.transport("socket", connection))

    assert connection.subscriptions == [(0.0, 0, 0), (59.0, 1, 3)]


def test_job_that_waits_for_an_hour_is_watched_on_one_connection() -> None:
    """Each subscription is answered by `connected`: no progress, but an answer."""
    scene = Scene()
    connection = scene.connection(answers=lambda n: [connected("queued", 0)] if n < 120 else [tokens(0, "x"), end(1)])

    assert scene.watch(scene.transport("socket", connection)) == "x"
    assert len(connection.subscriptions) == 120
    assert scene.clock.now() == pytest.approx(119 * 30)


def test_frames_of_other_jobs_are_ignored() -> None:
    scene = Scene()
    other = {**tokens(0, "zzz", attempt=7), "job_id": "job_2"}
    connection = scene.connection(other, tokens(0, "a"), 20.0, other, 15.0, end(1))

    assert scene.watch(scene.transport("socket", connection)) == "a"
    assert connection.subscriptions == [(0.0, 0, 0), (30.0, 1, 1)]


def test_lost_connection_is_reopened_at_the_position() -> None:
    scene = Scene()
    first = scene.connection(connected(), tokens(0, "Hel"), ConnectionLost("gone"))
    second = scene.connection(tokens(0, "Hello"), end(5))

    text = scene.watch(scene.transport("socket", first, second))

    assert text == "Hello"
    [(reopened_at, *position)] = second.subscriptions
    assert 0.25 <= reopened_at <= 0.5
    assert position == [1, 3]
    assert Interrupted("socket", "gone") in scene.events


def test_closing_frame_opens_another_connection() -> None:
    scene = Scene()
    first = scene.connection(tokens(0, "a"), {"event": "closing"})
    second = scene.connection(end(1))

    assert scene.watch(scene.transport("socket", first, second)) == "a"


def test_failing_connections_fall_back_to_the_next_transport() -> None:
    scene = Scene()
    good = scene.connection(tokens(0, "a"), end(1))

    text = scene.watch(scene.transport("socket", ConnectionLost("refused")), scene.transport("slices", good))

    assert text == "a"
    interruptions = [o for o in scene.events if isinstance(o, Interrupted)]
    assert interruptions == [Interrupted("socket", "refused")] * (MAX_FAILURES - 1) + [Interrupted("slices", "socket: refused")]


def test_error_frame_falls_back_to_the_next_transport() -> None:
    scene = Scene()
    bad = scene.connection({"event": "error", "code": "job_not_found", "message": "No such job."})
    good = scene.connection(tokens(0, "a"), end(1))

    assert scene.watch(scene.transport("socket", bad), scene.transport("slices", good)) == "a"


def test_watcher_that_is_one_too_many_polls() -> None:
    """The refusal of its subscription makes it go on over the next transport, from where it is."""
    refused = {
        "event": "error",
        "code": "too_many_watchers",
        "message": "As many clients as may.",
        "poll": "/jobs/job_1/text",
        "retry_after": 5,
    }
    clock = FakeClock()
    live, polling = FakeConnection(clock, [refused]), FakeConnection(clock, [connected(), tokens(0, "hello"), end(5)])

    seen: list[WatchEvent] = []
    assembly = watch(JOB, [Transport("websocket", lambda: live), Transport("polling", lambda: polling)], seen.append, clock)

    assert assembly.text == "hello"
    assert live.closed
    assert [event.next_transport for event in seen if isinstance(event, Interrupted)] == ["polling"]


def test_missing_text_that_never_comes_falls_back_to_the_next_transport() -> None:
    """The connection works, but the missing text never comes."""
    scene = Scene()
    stuck = scene.connection(answers=lambda _: [tokens(1, "b"), end(2)])
    good = scene.connection(tokens(0, "ab"), end(2))

    assert scene.watch(scene.transport("socket", stuck), scene.transport("slices", good)) == "ab"


def test_watch_without_a_working_transport_raises_unreachable() -> None:
    scene = Scene()

    with pytest.raises(Unreachable, match="polling: no network"):
        scene.watch(scene.transport("socket", TransportFailed("none")), scene.transport("polling", ConnectionLost("no network")))


def test_connection_that_only_receives_is_pinged() -> None:
    scene = Scene()
    steps = [step for offset in range(60) for step in (tokens(offset, "x"), 10.0)]
    connection = scene.connection(*steps, end(60))

    scene.watch(scene.transport("socket", connection))

    assert connection.pings == [240.0, 480.0]


def test_new_attempt_is_reported() -> None:
    scene = Scene()
    connection = scene.connection(tokens(0, "old"), tokens(0, "new", attempt=2), end(3, attempt=2))

    assert scene.watch(scene.transport("socket", connection)) == "new"
    assert StartedOver(2, None) in scene.events


def test_expired_text_ends_the_watch() -> None:
    scene = Scene()
    connection = scene.connection(
        connected("completed"), {"event": "gap", "job_id": JOB, "attempt": 1, "version": 9, "requested": 0, "earliest": None}
    )

    assert scene.watch(scene.transport("socket", connection)) == ""
    assert scene.events[-1] == Lost(None)


def test_two_watchers_of_one_lost_stage_come_back_at_different_times() -> None:
    """Each draws its own delays."""

    def subscribed_at() -> list[float]:
        scene = Scene()
        lost = [scene.connection(connected(), tokens(number, "a"), ConnectionLost("closed")) for number in range(3)]
        last = scene.connection(connected(), end(3))
        scene.watch(scene.transport("socket", *lost, last))
        return [connection.subscriptions[0][0] for connection in (*lost, last)]

    assert subscribed_at() != subscribed_at()
