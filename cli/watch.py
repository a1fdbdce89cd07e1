"""Watching a job to its end over whatever line works: WebSocket, else Server-Sent Events, else polling.

Here is only when to do what: `Assembly` says what frames mean, and a `Line` is one way to get them. Nothing but the position is kept
from one line to the next, so a line may break at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cli.errors import Unreachable
from cli.reducer import Ask, Assembly, Frame, Outcome

SILENCE = 30.0  # nothing came for so long: subscribe again
PATIENCE = 3.0  # an ask is answered within this, else asked again; doubles each time
ASKS = 3  # so often without an answer: the line is of no use
PING = 240.0  # AWS closes sockets on which nothing moved for ten minutes
FRUITLESS = 2  # so many lines of one kind in a row that brought nothing: try the next kind
STUBBORN = 8  # the same for the last kind
LONGEST_PAUSE = 20.0


class LineBroken(Exception):
    """This line brings nothing any more; another of its kind may."""


class WayClosed(Exception):
    """Lines of this kind are of no use here."""


class Line(Protocol):
    """One connection to the frames of one job."""

    def subscribe(self, attempt: int, offset: int) -> None:
        """Ask for everything from here on. Raises LineBroken."""

    def receive(self, timeout: float) -> Frame | None:
        """The next frame; None if none came in about `timeout` seconds. Raises LineBroken, WayClosed."""

    def ping(self) -> None:
        """Keep the connection from being closed as idle."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Way:
    """A kind of line, by its name for people. `open` raises LineBroken or WayClosed; a Refused by the API ends the watch."""

    name: str
    open: Callable[[], Line]


class Clock(Protocol):
    def now(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


class WallClock:
    """Seconds that only go forward."""

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Listening:
    """A line of this kind is open."""

    way: str


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A line broke; another follows, of the kind `way`."""

    way: str
    why: str


Told = Outcome | Listening | Interrupted


def watch(job_id: str, ways: Sequence[Way], on_outcome: Callable[[Told], None], clock: Clock | None = None) -> Assembly:
    """Listen until the job's text is whole, or lost. Raises Unreachable when no way works."""
    watcher = Watcher(job_id, on_outcome, clock or WallClock())
    for way, then in zip(ways, [*ways[1:], None], strict=True):
        try:
            watcher.stay(way, FRUITLESS if then else STUBBORN)
            return watcher.assembly
        except WayClosed as closed:
            if then is None:
                raise Unreachable(f"The job cannot be watched: {closed}") from closed
            on_outcome(Interrupted(then.name, str(closed)))
    raise Unreachable("There is no way to watch a job.")


class Watcher:
    """One watch: its assembly lives as long as it, its lines come and go."""

    def __init__(self, job_id: str, on_outcome: Callable[[Told], None], clock: Clock) -> None:
        self.assembly = Assembly()
        self._job_id = job_id
        self._tell = on_outcome
        self._clock = clock

    def stay(self, way: Way, tries: int) -> None:
        """Open lines of one kind, one after the other. Raises WayClosed when they bring nothing."""
        fruitless = 0
        while not self.assembly.over:
            before, began = self._progress(), self._clock.now()
            try:
                self._use(way)
            except LineBroken as broken:
                lasted = self._clock.now() - began > SILENCE and not self.assembly.has_hole
                fruitful = lasted or self._progress() != before
                fruitless = 0 if fruitful else fruitless + 1
                if fruitless >= tries:
                    raise WayClosed(f"{way.name}: {broken}") from broken
                self._tell(Interrupted(way.name, str(broken)))
                self._clock.sleep(min(0.5 * 2**fruitless, LONGEST_PAUSE))

    def _use(self, way: Way) -> None:
        line = way.open()
        try:
            self._tell(Listening(way.name))
            self._listen(line)
        finally:
            line.close()

    def _listen(self, line: Line) -> None:
        timers = Timers(self._clock.now())
        self._handle(self.assembly.ask_again(), line, timers)
        while not self.assembly.over:
            before = self._progress()
            frame = line.receive(timers.remaining(self._clock.now(), self.assembly.has_hole))
            now = self._clock.now()
            if frame is not None:
                self._take(frame, line, timers)
            heard = frame is not None and frame.get("job_id") == self._job_id
            timers.after(now, heard, answered=self._progress() != before or (heard and not self.assembly.has_hole))
            if timers.must_ask(now, self.assembly.has_hole):
                timers.unanswered += 1
                if timers.unanswered > ASKS:
                    raise LineBroken("no answer")
                self._handle(self.assembly.ask_again(), line, timers)
            if timers.must_ping(now):
                line.ping()
                timers.sent_at = now

    def _take(self, frame: Frame, line: Line, timers: Timers) -> None:
        match frame.get("event"):
            case "closing":
                raise LineBroken("the server closes this connection")
            case "error" | "stream_error" if frame.get("job_id", self._job_id) == self._job_id:
                raise WayClosed(str(frame.get("message") or frame.get("code")))
            case _ if frame.get("job_id") == self._job_id:
                self._handle(self.assembly.receive(frame), line, timers)

    def _handle(self, outcomes: list[Outcome], line: Line, timers: Timers) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Ask):
                line.subscribe(outcome.attempt, outcome.offset)
                timers.asked_at = timers.heard_at = timers.sent_at = self._clock.now()
            self._tell(outcome)

    def _progress(self) -> tuple[int, int, int]:
        return self.assembly.attempt, self.assembly.position, self.assembly.version


class Timers:
    """When to stop waiting. An ask for missing text is repeated soon, however much comes from above the hole; silence lasts longer."""

    def __init__(self, now: float) -> None:
        self.heard_at = self.asked_at = self.sent_at = now
        self.unanswered = 0

    def remaining(self, now: float, has_hole: bool) -> float:
        return max(0.0, min(self._due(has_hole), self.sent_at + PING) - now)

    def after(self, now: float, heard: bool, answered: bool) -> None:
        if heard:
            self.heard_at = now
        if answered:
            self.unanswered = 0
            self.asked_at = now

    def must_ask(self, now: float, has_hole: bool) -> bool:
        return now >= self._due(has_hole)

    def must_ping(self, now: float) -> bool:
        return now >= self.sent_at + PING

    def _due(self, has_hole: bool) -> float:
        return self.asked_at + PATIENCE * 2**self.unanswered if has_hole else self.heard_at + SILENCE
