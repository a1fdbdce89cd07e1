"""Read one slice of a job's event stream: the events after the client's position."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from chalicelib.domain.errors import Detail, InvalidRequest, ResultExpired
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.limits.waiting import JobWait
from chalicelib.domain.streaming import frames
from chalicelib.domain.streaming.frames import Frame
from chalicelib.domain.streaming.subscriptions import LAST_OFFSET
from chalicelib.domain.text import MAX_FRAME_POINTS, split_text
from chalicelib.domain.units import Ms
from chalicelib.ports import Chunks, Results
from chalicelib.services.streaming.read_text import TextSlice, read_text

_ID = re.compile(r"(?P<attempt>\d{1,9}):(?P<offset>\d{1,12})(?::(?:v(?P<version>\d{1,9})|(?P<end>end)(?::(?P<run>\d{1,9}))?))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Position:
    """How far a client has read: up to `offset` of `attempt`.

    `version` is set after a state event that is not the end, so that each state is sent once.
    `ended` is the run whose end the client has received; a retry may have started another since.
    """

    attempt: int = 0
    offset: int = 0
    version: int = 0
    ended: int = 0

    def __str__(self) -> str:
        end = ":end" if self.ended == 1 else f":end:{self.ended}" if self.ended else ""
        return f"{self.attempt}:{self.offset}{end or (f':v{self.version}' if self.version else '')}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Parse an event id.

        It is `attempt:offset`, `attempt:offset:v<version>`, `attempt:offset:end` or, after a retry,
        `attempt:offset:end:<run>`.

        Raises:
            InvalidRequest: the text is not an event id.
        """
        match = _ID.fullmatch(text)
        if match is None:
            raise InvalidRequest(details=(Detail("Last-Event-ID", "is not an event id of this stream; start without one"),))
        ended = int(match["run"] or 1) if match["end"] else 0
        return cls(int(match["attempt"]), min(int(match["offset"]), LAST_OFFSET), int(match["version"] or 0), ended)

    def has_all(self, job: Job) -> bool:
        """Whether the client has received every event of the job, its end included."""
        return job.status.is_terminal and (self.attempt, self.ended) == (job.attempt, job.run)


def events_since(
    chunks: Chunks, results: Results, job: Job, position: Position | None, now: Ms, describe: Callable[[Job], JobWait] | None = None
) -> list[tuple[Position, Frame]]:
    """The events since `position` (None: a new client), each with the position after it.

    Args:
        describe: returns what is known of the wait of a job; None: frames say what its record tells.
    """
    at = Position(job.attempt, position.offset if position and position.attempt == job.attempt else 0)
    events = [(at, frame) for frame in _opening_frames(job, position, at.offset, now)]
    try:
        part = read_text(chunks, results, job, at.offset)
    except ResultExpired:
        missing, at = at.offset, Position(at.attempt, job.length or 0)  # after the lost text, so that the gap is reported once
        events.append((at, frames.gap(job, missing, None, now)))
        part = None
    if part is not None:
        text_events = _text_events(job, part, now)
        events += text_events
        at = text_events[-1][0] if text_events else at
    is_new = job.status.is_terminal or position is None or position.version < job.version
    wait = describe(job) if describe is not None and is_new and job.is_in_line else None
    has_text_left = part is not None and not part.done and job.attempt > 0
    state = frames.state(job, now, wait) if not has_text_left else None
    if state is not None and is_new:
        ended = job.run if job.status.is_terminal else 0
        events.append((Position(at.attempt, at.offset, 0 if ended else job.version, ended), state))
    return events


def _opening_frames(job: Job, position: Position | None, offset: int, now: Ms) -> list[Frame]:
    """Frames before the text: `connected` for a new client, `reset` if its text is void."""
    if position is None or (position.ended and position.attempt == job.attempt and not job.status.is_terminal):
        return [frames.connected(job, offset, now)]  # also for a client that has the end of an earlier run
    if position.attempt < job.attempt and position.offset:
        return [frames.reset(job, "a new attempt began", now)]
    return []


def _text_events(job: Job, part: TextSlice, now: Ms) -> list[tuple[Position, Frame]]:
    """A slice of text as events: its tokens, the milestones in it, and the progress at its end."""
    offset, progress, events = part.offset, part.progress, []
    for piece in split_text(part.text, MAX_FRAME_POINTS):
        received, percentage = progress.get("tokens_received", 0), progress.get("progress_percentage")
        frame = frames.tokens(job.id, job.attempt, job.version, offset, piece, now, received, percentage)
        offset += len(piece)
        events.append((Position(job.attempt, offset), frame))
    at = Position(job.attempt, offset)
    milestones = [event for event in part.events if event["kind"] == "milestone"]
    events += [(at, frames.milestone(job, {key: value for key, value in event.items() if key != "kind"}, now)) for event in milestones]
    if part.events:
        events.append((at, frames.progress(job, progress, now)))
    return events
