"""The watcher asks when it must and not more often, and survives every line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cli.errors import Unreachable
from cli.reducer import Appended, Finished, Lost, StartedOver
from cli.watch import FRUITLESS, Interrupted, LineBroken, Listening, Told, Way, WayClosed, watch

Frame = dict[str, Any]
JOB = "job_1"


def tokens(offset: int, text: str, attempt: int = 1) -> Frame:
    return {"event": "tokens", "job_id": JOB, "attempt": attempt, "version": 2, "offset": offset, "text": text}


def connected(status: str = "processing", attempt: int = 1) -> Frame:
    return {"event": "connected", "job_id": JOB, "attempt": attempt, "version": 1, "status": status, "offset": 0}


def end(length: int, attempt: int = 1) -> Frame:
    return {"event": "job_completed", "job_id": JOB, "attempt": attempt, "version": 9, "length": length}


class FakeClock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class FakeLine:
    """Plays a script: a frame arrives at once, a number is that many seconds of silence, an exception breaks the line.

    After the script there is silence. `answers` is what the server says to a subscription, by its number.
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
    """A watch over scripted lines."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.told: list[Told] = []
        self.lines: list[FakeLine] = []

    def line(self, *script: Frame | float | Exception, answers: Callable[[int], list[Frame]] | None = None) -> FakeLine:
        line = FakeLine(self.clock, list(script), answers)
        self.lines.append(line)
        return line

    def way(self, name: str, *lines: FakeLine | Exception) -> Way:
        """Opens these lines one after the other, the last one again and again."""
        left = list(lines)

        def open_line() -> FakeLine:
            line = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(line, Exception):
                raise line
            return line

        return Way(name, open_line)

    def watch(self, *ways: Way) -> str:
        return watch(JOB, ways, self.told.append, self.clock).text


def test_a_job_that_streams_is_watched_to_its_end() -> None:
    scene = Scene()
    line = scene.line(connected(), tokens(0, "Hello"), tokens(5, " world"), end(11))

    text = scene.watch(scene.way("socket", line))

    assert text == "Hello world"
    assert line.subscriptions == [(0.0, 0, 0)]
    assert line.closed
    assert [o for o in scene.told if isinstance(o, Listening | Appended)] == [Listening("socket"), Appended("Hello"), Appended(" world")]
    assert isinstance(scene.told[-1], Finished)


def test_a_hole_is_asked_for_once_and_then_by_the_timer() -> None:
    """At 0 s because it was seen, at 3 s and 9 s because nobody answered; what comes from above the hole changes nothing."""
    scene = Scene()
    line = scene.line(connected(), tokens(0, "a"), tokens(2, "c"), 1.0, tokens(3, "d"), 1.0, tokens(4, "e"), 8.0, tokens(1, "bcde"), end(5))

    text = scene.watch(scene.way("socket", line))

    assert text == "abcde"
    assert line.subscriptions == [(0.0, 0, 0), (0.0, 1, 1), (3.0, 1, 1), (9.0, 1, 1)]


def test_after_thirty_seconds_of_silence_it_subscribes_again() -> None:
    scene = Scene()
    line = scene.line(connected(), tokens(0, "ab"), 29.0, tokens(2, "c"), 31.0, tokens(3, "d"), end(4))

    scene.watch(scene.way("socket", line))

    assert line.subscriptions == [(0.0, 0, 0), (59.0, 1, 3)]


def test_a_job_that_waits_for_an_hour_is_waited_for() -> None:
    """Each silence is answered by `connected`, which is no progress but is an answer."""
    scene = Scene()
    line = scene.line(answers=lambda n: [connected("queued", 0)] if n < 120 else [tokens(0, "x"), end(1)])

    assert scene.watch(scene.way("socket", line)) == "x"
    assert len(line.subscriptions) == 120
    assert scene.clock.now() == pytest.approx(119 * 30)


def test_frames_of_other_jobs_do_not_count() -> None:
    scene = Scene()
    other = {**tokens(0, "zzz", attempt=7), "job_id": "job_2"}
    line = scene.line(other, tokens(0, "a"), 20.0, other, 15.0, end(1))

    assert scene.watch(scene.way("socket", line)) == "a"
    assert line.subscriptions == [(0.0, 0, 0), (30.0, 1, 1)]


def test_a_broken_line_is_replaced_and_goes_on_from_the_position() -> None:
    scene = Scene()
    first = scene.line(connected(), tokens(0, "Hel"), LineBroken("gone"))
    second = scene.line(tokens(0, "Hello"), end(5))

    text = scene.watch(scene.way("socket", first, second))

    assert text == "Hello"
    assert second.subscriptions == [(0.5, 1, 3)]
    assert Interrupted("socket", "gone") in scene.told


def test_a_closing_socket_is_replaced() -> None:
    scene = Scene()
    first = scene.line(tokens(0, "a"), {"event": "closing"})
    second = scene.line(end(1))

    assert scene.watch(scene.way("socket", first, second)) == "a"


def test_lines_that_bring_nothing_give_way_to_the_next_kind() -> None:
    scene = Scene()
    good = scene.line(tokens(0, "a"), end(1))

    text = scene.watch(scene.way("socket", LineBroken("refused")), scene.way("slices", good))

    assert text == "a"
    told = [o for o in scene.told if isinstance(o, Interrupted)]
    assert told == [Interrupted("socket", "refused")] * (FRUITLESS - 1) + [Interrupted("slices", "socket: refused")]


def test_an_error_frame_gives_way_to_the_next_kind_which_says_why() -> None:
    scene = Scene()
    bad = scene.line({"event": "error", "code": "job_not_found", "message": "No such job."})
    good = scene.line(tokens(0, "a"), end(1))

    assert scene.watch(scene.way("socket", bad), scene.way("slices", good)) == "a"


def test_a_hole_that_nobody_fills_gives_way_to_the_next_kind() -> None:
    """The line lives, but what is missing never comes."""
    scene = Scene()
    deaf = scene.line(answers=lambda _: [tokens(1, "b"), end(2)])
    good = scene.line(tokens(0, "ab"), end(2))

    assert scene.watch(scene.way("socket", deaf), scene.way("slices", good)) == "ab"


def test_when_no_way_works_it_says_so() -> None:
    scene = Scene()

    with pytest.raises(Unreachable, match="polling: no network"):
        scene.watch(scene.way("socket", WayClosed("none")), scene.way("polling", LineBroken("no network")))


def test_a_socket_that_only_listens_is_pinged() -> None:
    scene = Scene()
    steps = [step for offset in range(60) for step in (tokens(offset, "x"), 10.0)]
    line = scene.line(*steps, end(60))

    scene.watch(scene.way("socket", line))

    assert line.pings == [240.0, 480.0]


def test_a_new_attempt_is_told() -> None:
    scene = Scene()
    line = scene.line(tokens(0, "old"), tokens(0, "new", attempt=2), end(3, attempt=2))

    assert scene.watch(scene.way("socket", line)) == "new"
    assert StartedOver(2, None) in scene.told


def test_text_that_is_no_longer_kept_ends_the_watch() -> None:
    scene = Scene()
    line = scene.line(connected("completed"), {"event": "gap", "job_id": JOB, "attempt": 1, "version": 9, "requested": 0, "earliest": None})

    assert scene.watch(scene.way("socket", line)) == ""
    assert scene.told[-1] == Lost(None)
