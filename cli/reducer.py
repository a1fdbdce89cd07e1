"""How a watcher puts the text of a job together from frames that may be lost, late, doubled or out of order.

`Assembly` is the whole of it: it is told frames, one by one, and answers with what happened. It has no clock and no connection;
whoever holds it sends what an `Ask` says and calls `ask_again` when a timer runs out. `clients/js/reducer.mjs` is its twin, and
`tests/unit/cli/reducer_cases.json` holds both to the same rules:

- `tokens` of the same attempt from `offset` <= position add what lies beyond the position; from beyond it there is a hole: ask, once;
- a frame of a lower attempt is dropped, one of a higher attempt starts over, whatever kind of frame it is;
- of the states the highest `version` wins, not the last to arrive;
- it is done when it holds exactly `length` of the final attempt: short of it, it asks, beyond it, it trims.

Offsets and lengths count Unicode code points.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Frame = dict[str, Any]

TERMINAL = frozenset({"completed", "incomplete", "failed", "cancelled", "expired"})


@dataclass(frozen=True, slots=True)
class Appended:
    """`text` belongs behind everything so far; `frame` is the one that brought it, with its count of tokens."""

    text: str
    frame: Frame = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class StartedOver:
    """Everything so far is void: `attempt` begins at offset 0."""

    attempt: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class Ask:
    """Text is missing: subscribe again from here."""

    attempt: int
    offset: int


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The newest state of the record that is known, as the frame told it."""

    status: str
    frame: Frame


@dataclass(frozen=True, slots=True)
class MilestoneReached:
    """One milestone of the job's type; later `progress` frames repeat it."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class Trimmed:
    """Text beyond `length` was shown but is not part of the result."""

    length: int


@dataclass(frozen=True, slots=True)
class Lost:
    """What was asked for is no longer kept, so no stream can complete the text: the result has to be fetched."""

    earliest: int | None


@dataclass(frozen=True, slots=True)
class Finished:
    """The text is exactly the one of the result."""

    status: str
    frame: Frame


Outcome = Appended | StartedOver | Ask | StateChanged | MilestoneReached | Trimmed | Lost | Finished


@dataclass(slots=True)
class Assembly:
    """The text of one job as far as it is known. `length` is that of `attempt`, once a terminal frame has told it."""

    attempt: int = 0
    position: int = 0
    version: int = -1
    status: str | None = None
    length: int | None = None
    lost: bool = False
    _pieces: list[str] = field(default_factory=list)
    _hole_ends: int | None = None  # an ask is under way until the position is here
    _announced: tuple[int, str, int] | None = None
    _newest: Frame = field(default_factory=dict)  # the frame that told `status`

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
        """Whether listening on can add nothing."""
        return self.done or self.lost

    @property
    def has_hole(self) -> bool:
        """Whether text is known to be missing, and was asked for."""
        return self._hole_ends is not None

    def receive(self, frame: Frame) -> list[Outcome]:
        """What `frame` changes. Frames without an attempt and events that are unknown here change nothing."""
        attempt = frame.get("attempt")
        if not isinstance(attempt, int) or attempt < self.attempt:
            return []
        outcomes = self._start_over(attempt, frame) if attempt > self.attempt else []
        match frame.get("event"):
            case "tokens":
                return outcomes + self._take(frame)
            case "gap":
                return outcomes + self._lose(frame)
            case "milestone":
                return [*outcomes, MilestoneReached(frame)]
        return outcomes + self._change(frame)

    def ask_again(self) -> list[Outcome]:
        """For a new connection, and for when a timer ran out: an ask went unanswered, or nothing came for long."""
        return [] if self.over else [Ask(self.attempt, self.position)]

    def _start_over(self, attempt: int, frame: Frame) -> list[Outcome]:
        """The first attempt of all is no new start: nothing was shown before it."""
        is_first = self.attempt == 0
        self.attempt, self.position, self.length, self.lost = attempt, 0, None, False
        self._pieces.clear()
        self._hole_ends = None
        return [] if is_first else [StartedOver(attempt, frame.get("reason"))]

    def _take(self, frame: Frame) -> list[Outcome]:
        offset = frame["offset"]
        if self.position == self.length or self.lost:
            return []  # what lies beyond the end is not part of the text
        if offset > self.position:
            return self._ask(offset)
        new = frame["text"][self.position - offset :]
        if self.length is not None:
            new = new[: self.length - self.position]
        if not new:
            return []
        self._pieces.append(new)
        self.position += len(new)
        if self._hole_ends is not None and self.position >= self._hole_ends:
            self._hole_ends = None
        return [Appended(new, frame), *self._settle()]

    def _change(self, frame: Frame) -> list[Outcome]:
        status, version = _status(frame), frame.get("version", 0)
        if status is None or version < self.version:
            return []
        if version == self.version and self.status in TERMINAL and status not in TERMINAL:
            return []  # one version has one status, and nothing but a new version leaves the end
        self.status, self.version, self._newest = status, version, frame
        if status not in TERMINAL:
            self._announced = None
        if str(frame.get("event")).startswith("job_"):
            self.length = frame.get("length") or 0
        return [StateChanged(status, frame), *self._settle()]

    def _settle(self) -> list[Outcome]:
        """Compare what is here with the length that the end told."""
        if self.length is None or self.status not in TERMINAL or self.lost:
            return []
        if self.position < self.length:
            return self._ask(self.length)
        outcomes: list[Outcome] = []
        if self.position > self.length:
            self._pieces[:] = [self.text[: self.length]]
            self.position = self.length
            outcomes.append(Trimmed(self.length))
        self._hole_ends = None
        end = (self.attempt, str(self.status), self.length)
        if self._announced != end:
            self._announced = end
            outcomes.append(Finished(str(self.status), self._newest))
        return outcomes

    def _ask(self, up_to: int) -> list[Outcome]:
        """Once for each hole: every frame above it shows it again, and each answer repeats everything behind it."""
        if self.has_hole or self.lost:
            return []
        self._hole_ends = up_to
        return [Ask(self.attempt, self.position)]

    def _lose(self, frame: Frame) -> list[Outcome]:
        if self.over:
            return []
        self.lost = True
        self._hole_ends = None
        return [Lost(frame.get("earliest"))]


def _status(frame: Frame) -> str | None:
    """The status that a state frame tells; None for frames that tell none."""
    event = str(frame.get("event"))
    if event.startswith("job_"):
        return event.removeprefix("job_")
    if event in ("retrying", "held"):
        return event
    status = frame.get("status")
    return status if isinstance(status, str) else None
