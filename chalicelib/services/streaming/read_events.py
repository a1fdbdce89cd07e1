"""One slice of an event stream: what has happened since the client's position."""

from __future__ import annotations

import re
from dataclasses import dataclass

from chalicelib.domain.errors import Detail, InvalidRequest, ResultExpired
from chalicelib.domain.jobs.job import Job
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
    """Where a client is: after `offset` of `attempt`.

    `version` only after an event that tells a state of the record which is not its end, so that it is told once. `ended` is the run whose
    end the client has had: a person may have opened another one since.
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
        """Read an event's id: `attempt:offset`, `attempt:offset:v<version>`, `attempt:offset:end` or, after a retry, `...:end:<run>`.

        Raises:
            InvalidRequest: it is none of ours.
        """
        match = _ID.fullmatch(text)
        if match is None:
            raise InvalidRequest(details=(Detail("Last-Event-ID", "is not an id of this stream; begin without one"),))
        ended = int(match["run"] or 1) if match["end"] else 0
        return cls(int(match["attempt"]), min(int(match["offset"]), LAST_OFFSET), int(match["version"] or 0), ended)

    def has_all(self, job: Job) -> bool:
        """Whether the client has had everything that there will be."""
        return job.status.is_terminal and (self.attempt, self.ended) == (job.attempt, job.run)


def events_since(chunks: Chunks, results: Results, job: Job, position: Position | None, now: Ms) -> list[tuple[Position, Frame]]:
    """Each event with the position after it; nothing if nothing has happened since `position`. None: a client that begins."""
    at = Position(job.attempt, position.offset if position and position.attempt == job.attempt else 0)
    events = [(at, frame) for frame in _opening(job, position, at.offset, now)]
    try:
        part = read_text(chunks, results, job, at.offset)
    except ResultExpired:
        missing, at = at.offset, Position(at.attempt, job.length or 0)  # behind what is lost, so that it is told once
        events.append((at, frames.gap(job, missing, None, now)))
        part = None
    if part is not None:
        told = _told(job, part, now)
        events += told
        at = told[-1][0] if told else at
    state = frames.state(job, now) if part is None or part.done else None
    if state is not None and (job.status.is_terminal or position is None or position.version < job.version):
        ended = job.run if job.status.is_terminal else 0
        events.append((Position(at.attempt, at.offset, 0 if ended else job.version, ended), state))
    return events


def _opening(job: Job, position: Position | None, offset: int, now: Ms) -> list[Frame]:
    """What a client must know before it is told more: where it begins, or that what it has is void."""
    if position is None or (position.ended and position.attempt == job.attempt and not job.status.is_terminal):
        return [frames.connected(job, offset, now)]  # also for one that holds the end of a former run
    if position.attempt < job.attempt and position.offset:
        return [frames.reset(job, "a new attempt began", now)]
    return []


def _told(job: Job, part: TextSlice, now: Ms) -> list[tuple[Position, Frame]]:
    """A stretch of text as events: its tokens, the milestones reached in it, and the progress at its end."""
    offset, kept, told = part.offset, part.progress, []
    for piece in split_text(part.text, MAX_FRAME_POINTS):
        received, percentage = kept.get("tokens_received", 0), kept.get("progress_percentage")
        frame = frames.tokens(job.id, job.attempt, job.version, offset, piece, now, received, percentage)
        offset += len(piece)
        told.append((Position(job.attempt, offset), frame))
    at = Position(job.attempt, offset)
    reached = [event for event in part.events if event["kind"] == "milestone"]
    told += [(at, frames.milestone(job, {key: value for key, value in event.items() if key != "kind"}, now)) for event in reached]
    if part.events:
        told.append((at, frames.progress(job, kept, now)))
    return told
