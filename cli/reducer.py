"""Assemble the text of a job from frames that may be lost, late, repeated or out of order.

`TextAssembler` holds the rules of a client (protocol rule 12: token frames carry attempt and offset,
states carry the version). It gets one frame at a time and returns what changed. It has no clock and
no connection: the caller subscribes again as a `Resubscribe` says, and calls `resubscribe` when a timer runs
out. `clients/js/reducer.mjs` implements the same rules; `tests/unit/cli/reducer_cases.json` tests
both.

- `tokens` of the current attempt with `offset` <= position append what lies beyond the position.
  With a larger offset there is a hole: return one `Resubscribe`.
- Drop a frame of a lower attempt. Start over at a frame of a higher attempt, whatever its event.
- Of all states the one with the highest `version` wins, not the last one to arrive.
- The text is complete when it has exactly the `length` of the final attempt. If it is shorter, ask
  for the rest; if longer, trim.

Offsets and lengths count Unicode code points.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Frame = dict[str, Any]

TERMINAL = frozenset({"completed", "incomplete", "failed", "cancelled", "expired"})


@dataclass(frozen=True, slots=True)
class Appended:
    """`text` follows everything so far.

    `frame` is the frame it came with, which also has the token count.
    """

    text: str
    frame: Frame = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class StartedOver:
    """Discard everything so far: `attempt` begins at offset 0."""

    attempt: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class Resubscribe:
    """Text is missing: subscribe again from this position."""

    attempt: int
    offset: int


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The newest known state of the job record. `frame` has its fields."""

    status: str
    frame: Frame


@dataclass(frozen=True, slots=True)
class MilestoneReached:
    """The job reached a milestone of its type. Later `progress` frames repeat it."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class Trimmed:
    """Text beyond `length` was received but is not part of the result."""

    length: int


@dataclass(frozen=True, slots=True)
class Lost:
    """The missing text is no longer stored, so no stream can complete it: fetch the result."""

    earliest: int | None


@dataclass(frozen=True, slots=True)
class Finished:
    """The text is complete: it equals the text of the result."""

    status: str
    frame: Frame


Outcome = Appended | StartedOver | Resubscribe | StateChanged | MilestoneReached | Trimmed | Lost | Finished


@dataclass(slots=True)
class TextAssembler:
    """The text of one job as far as it has been received."""

    attempt: int = 0
    position: int = 0
    version: int = -1
    status: str | None = None
    length: int | None = None  # of the text of `attempt`; known from its terminal frame
    lost: bool = False
    _pieces: list[str] = field(default_factory=list)
    _hole_end: int | None = None  # a `Resubscribe` is pending until the position reaches this offset
    _announced_end: tuple[int, str, int] | None = None  # attempt, status and length of the last `Finished`, to send it once
    _state_frame: Frame = field(default_factory=dict)  # the frame that `status` is from

    @property
    def text(self) -> str:
        if len(self._pieces) > 1:
            self._pieces[:] = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    @property
    def done(self) -> bool:
        return self.status in TERMINAL and self.position == self.length

    @property
    def over(self) -> bool:
        """Whether no further frame can add text."""
        return self.done or self.lost

    @property
    def has_hole(self) -> bool:
        """Whether text is known to be missing and has been asked for."""
        return self._hole_end is not None

    def receive(self, frame: Frame) -> list[Outcome]:
        """Apply a frame and return what it changed.

        Frames without an attempt and unknown events change nothing.
        """
        attempt = frame.get("attempt")
        if not isinstance(attempt, int) or attempt < self.attempt:
            return []
        outcomes = self._start_over(attempt, frame) if attempt > self.attempt else []
        match frame.get("event"):
            case "tokens":
                return outcomes + self._append(frame)
            case "gap":
                return outcomes + self._mark_lost(frame)
            case "milestone":
                return [*outcomes, MilestoneReached(frame)]
        return outcomes + self._update_state(frame)

    def resubscribe(self) -> list[Outcome]:
        """Return a `Resubscribe` for the rest.

        Call it on a new connection, when a `Resubscribe` was not answered, and after a long silence.
        """
        return [] if self.over else [Resubscribe(self.attempt, self.position)]

    def _start_over(self, attempt: int, frame: Frame) -> list[Outcome]:
        """Begin an attempt.

        The first one returns no `StartedOver`, because nothing was shown before it.
        """
        is_first = self.attempt == 0
        self.attempt, self.position, self.length, self.lost = attempt, 0, None, False
        self._pieces.clear()
        self._hole_end = None
        return [] if is_first else [StartedOver(attempt, frame.get("reason"))]

    def _append(self, frame: Frame) -> list[Outcome]:
        offset = frame["offset"]
        if self.position == self.length or self.lost:
            return []  # text beyond the end is not part of the result
        if offset > self.position:
            return self._ask_for_rest(offset)
        new = frame["text"][self.position - offset :]
        if self.length is not None:
            new = new[: self.length - self.position]
        if not new:
            return []
        self._pieces.append(new)
        self.position += len(new)
        if self._hole_end is not None and self.position >= self._hole_end:
            self._hole_end = None
        return [Appended(new, frame), *self._check_length()]

    def _update_state(self, frame: Frame) -> list[Outcome]:
        status, version = _status(frame), frame.get("version", 0)
        if status is None or version < self.version:
            return []
        if version == self.version and self.status in TERMINAL and status not in TERMINAL:
            return []  # one version has one status: only a newer version (a manual retry) leaves a terminal status
        self.status, self.version, self._state_frame = status, version, frame
        if status not in TERMINAL:
            self._announced_end = None
        if str(frame.get("event")).startswith("job_"):
            self.length = frame.get("length") or 0
        return [StateChanged(status, frame), *self._check_length()]

    def _check_length(self) -> list[Outcome]:
        """Compare the received text with the length that the terminal frame named."""
        if self.length is None or self.status not in TERMINAL or self.lost:
            return []
        if self.position < self.length:
            return self._ask_for_rest(self.length)
        outcomes: list[Outcome] = []
        if self.position > self.length:
            self._pieces[:] = [self.text[: self.length]]
            self.position = self.length
            outcomes.append(Trimmed(self.length))
        self._hole_end = None
        end = (self.attempt, str(self.status), self.length)
        if self._announced_end != end:
            self._announced_end = end
            outcomes.append(Finished(str(self.status), self._state_frame))
        return outcomes

    def _ask_for_rest(self, up_to: int) -> list[Outcome]:
        """Return one `Resubscribe` per hole.

        Each later frame shows the same hole again, and each answer repeats all text after it:
        without this limit the server would send the text many times.
        """
        if self.has_hole or self.lost:
            return []
        self._hole_end = up_to
        return [Resubscribe(self.attempt, self.position)]

    def _mark_lost(self, frame: Frame) -> list[Outcome]:
        if self.over:
            return []
        self.lost = True
        self._hole_end = None
        return [Lost(frame.get("earliest"))]


def _status(frame: Frame) -> str | None:
    """The status that a frame carries; None if it carries none."""
    event = str(frame.get("event"))
    if event.startswith("job_"):
        return event.removeprefix("job_")
    if event in ("retrying", "held"):
        return event
    status = frame.get("status")
    return status if isinstance(status, str) else None
