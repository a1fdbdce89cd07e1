"""How far an attempt has come, told from the text as it streams. One tracker an attempt; it takes the time as an argument.

The percentage is linear in the tokens up to 90 at the expected length, approaches 95 beyond it, and is 100 only at the end: the expected
length is a guess, and a bar that waits at 100 looks broken. Work that is no text says itself which part of it is done. It never goes back
within an attempt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from chalicelib.domain.job import Ms
from chalicelib.domain.job_type import JobType, Marker
from chalicelib.domain.markers import Scanner
from chalicelib.domain.units import parse_rfc3339, rfc3339, seconds

Event = dict[str, Any]

MAX_MILESTONES = 50  # every snapshot carries them all
LINEAR_TO, LIMIT = 90.0, 95.0
LAST_PART = 99.0  # all that was to be done is done, and not yet kept


@dataclass(slots=True)
class _Stage:
    name: str
    started_at: Ms | None = None
    ended_at: Ms | None = None

    @property
    def status(self) -> str:
        if self.started_at is None:
            return "pending"
        return "processing" if self.ended_at is None else "completed"

    def shape(self) -> dict[str, Any]:
        took = None if self.started_at is None or self.ended_at is None else self.ended_at - self.started_at
        return {"name": self.name, "status": self.status, "started_at": rfc3339(self.started_at), "duration_seconds": seconds(took)}


class Tracker:
    """The stages, milestones and figures of one attempt of `job_type`, whose answer is expected to have `expected_tokens`.

    Every method answers the events that it caused, `{"kind": "stage" | "milestone", ...}`: what the log keeps and watchers are told.
    """

    def __init__(self, job_type: JobType, expected_tokens: int) -> None:
        self._type = job_type
        self._expected = max(1, expected_tokens)
        self._stages = [_Stage(name) for name in job_type.stages]
        self._current = -1
        self._scanner = Scanner(job_type.markers)
        self._milestones: list[dict[str, Any]] = []
        self._received = 0
        self._opening = 0  # tokens of the first piece: they came before the rate could be measured
        self._first_text_at: Ms | None = None
        self._last_text_at: Ms | None = None
        self._percentage = 0.0
        self._begun_at: Ms | None = None
        self._reported: tuple[float, Ms] | None = None  # which part of the work was done, and when that was said

    @property
    def tokens_received(self) -> int:
        return self._received

    @property
    def percentage(self) -> float:
        """0 to 100, one decimal."""
        return self._percentage

    @property
    def stage(self) -> str | None:
        """The stage at work: None before `begin`, the last one after the end."""
        begun = self._stages[: self._current + 1]
        return begun[-1].name if begun else None

    def restore(self, snapshot: dict[str, Any], text: str) -> None:
        """Go on from a snapshot of this attempt and the text that it had: nothing of that is told again. The rate is measured anew."""
        known = {stage["name"]: stage for stage in snapshot.get("stages", ())}
        for index, stage in enumerate(self._stages):
            shape = known.get(stage.name, {})
            if shape.get("started_at"):
                stage.started_at, self._current = parse_rfc3339(shape["started_at"]), index
                took = shape.get("duration_seconds")
                stage.ended_at = None if took is None else stage.started_at + round(took * 1000)
        self._milestones = [dict(milestone) for milestone in snapshot.get("milestones", ())]
        self._received = snapshot.get("tokens_received", 0)
        self._percentage = snapshot.get("progress_percentage", 0.0)
        self._scanner.feed(text)

    def begin(self, now: Ms) -> list[Event]:
        """The claim: the first stage begins."""
        self._begun_at = now
        return self._advance(0, now)

    def enter(self, stage: str, now: Ms) -> list[Event]:
        """Begin `stage`, which ends the ones before it. Nothing happens if the type has no such stage or is already beyond its start."""
        return self._advance(next((index for index, one in enumerate(self._stages) if one.name == stage), -1), now)

    def feed(self, text: str, now: Ms, tokens: int = 1) -> list[Event]:
        """More text of the answer, which stands for `tokens` tokens (a delta of the provider is one)."""
        if not text:
            return []
        events = self.enter(self._type.streaming_stage, now) if self._first_text_at is None else []
        self._count(tokens, now)
        for marker, groups in self._scanner.feed(text):
            events += self._see(marker, groups, now)
        return events

    def report(self, done: float, total: float, now: Ms) -> list[Event]:
        """`done` of `total` parts of work that is no text. Told at each whole percent, never back, and 100 only at the end."""
        part = min(1.0, max(0.0, done / total)) if total > 0 else 0.0
        if self._reported is None or part >= self._reported[0]:
            self._reported = part, now
        before, self._percentage = self._percentage, max(self._percentage, math.floor(LAST_PART * part * 10) / 10)
        if int(self._percentage) <= int(before):
            return []
        return [{"kind": "progress", "progress_percentage": self._percentage, "at": rfc3339(now)}]

    def reach(self, name: str, description: str, now: Ms) -> list[Event]:
        """A milestone that no text tells."""
        if len(self._milestones) >= MAX_MILESTONES:
            return []
        milestone = {"name": name, "description": description, "achieved_at": rfc3339(now), "progress_at_milestone": self._percentage}
        self._milestones.append(milestone)
        return [{"kind": "milestone", **milestone}]

    def end(self, now: Ms) -> list[Event]:
        """The answer is whole and kept: every stage is completed."""
        self._percentage = 100.0
        return self._advance(len(self._stages), now)

    def snapshot(self) -> dict[str, Any]:
        """The part of the Progress shape that is known here, as the log keeps it with each chunk and `/progress` shows it."""
        rate = self._rate()
        return {
            "progress_percentage": self._percentage,
            "stage": self.stage,
            "stages": [stage.shape() for stage in self._stages],
            "milestones": [dict(milestone) for milestone in self._milestones],
            "tokens_received": self._received,
            "estimated_total_tokens": self._total(),
            "tokens_per_second": None if rate is None else round(rate, 1),
            "estimated_seconds_remaining": self._remaining(rate),
        }

    def _advance(self, target: int, now: Ms) -> list[Event]:
        """Complete the stages before `target` and begin it. One that is skipped took no time."""
        events = []
        while self._current < target:
            if self._current >= 0:
                before = self._stages[self._current]
                before.ended_at = now
                events.append(_stage_event(before, now))
            self._current += 1
            if self._current < len(self._stages):
                self._stages[self._current].started_at = now
                events.append(_stage_event(self._stages[self._current], now))
        return events

    def _count(self, tokens: int, now: Ms) -> None:
        if self._first_text_at is None:
            self._first_text_at, self._opening = now, self._received + tokens
        self._last_text_at = now
        self._received += tokens
        self._percentage = max(self._percentage, _percentage(self._received / self._expected))

    def _see(self, marker: Marker, groups: dict[str, str], now: Ms) -> list[Event]:
        events = self.enter(marker.stage, now) if marker.stage else []
        if marker.milestone:
            events += self.reach(marker.milestone.format_map(groups), marker.description.format_map(groups), now)
        return events

    def _rate(self) -> float | None:
        """Tokens a second since the first text; None until two pieces came at different times."""
        if self._first_text_at is None or self._last_text_at is None or self._last_text_at <= self._first_text_at:
            return None
        return (self._received - self._opening) * 1000 / (self._last_text_at - self._first_text_at)

    def _total(self) -> int | None:
        """The expected length; once it is passed, a little more than there is, until the end tells. Work has none."""
        if self._type.work is not None:
            return None
        if self._percentage >= 100:
            return self._received
        return self._expected if self._received < self._expected else math.ceil(self._received * 1.05)

    def _remaining(self, rate: float | None) -> float | None:
        if self._percentage >= 100:
            return 0.0
        if self._reported is not None:
            return self._remaining_work(*self._reported)
        total = self._total()
        return round((total - self._received) / rate, 1) if rate and total is not None else None

    def _remaining_work(self, part: float, said_at: Ms) -> float | None:
        """By how fast the part that is done was done."""
        if not part or self._begun_at is None or said_at <= self._begun_at:
            return None
        return round((said_at - self._begun_at) / 1000 * (1 - part) / part, 1)


def _stage_event(stage: _Stage, now: Ms) -> Event:
    return {"kind": "stage", **stage.shape(), "at": rfc3339(now)}


def _percentage(ratio: float) -> float:
    if ratio <= 1:
        return math.floor(LINEAR_TO * ratio * 10) / 10
    return math.floor((LIMIT - (LIMIT - LINEAR_TO) * math.exp(1 - ratio)) * 10) / 10
