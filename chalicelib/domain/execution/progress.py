"""How far an attempt has come, told from the text as it streams. One tracker an attempt; it takes the time as an argument.

The percentage is linear in the tokens up to 90 at the expected length, approaches 95 beyond it, and is 100 only at the end: the expected
length is a guess, and a bar that waits at 100 looks broken. Work that is no text says itself which part of it is done. It never goes back
within an attempt.

How long it will take is told from the first moment on: by what was measured of other jobs, and more and more by what this stream does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from chalicelib.domain.execution.marker_scanner import MarkerScanner
from chalicelib.domain.jobs.job_type import JobType, Marker
from chalicelib.domain.metrics.throughput import UNMEASURED, Percentiles, Throughput
from chalicelib.domain.units import Ms, parse_rfc3339, rfc3339, seconds

Event = dict[str, Any]

MAX_MILESTONES = 50  # every snapshot carries them all
LINEAR_TO, LIMIT = 90.0, 95.0
OTHERS_WEIGH = 1.0  # seconds of this stream's own text that what was measured of others counts for
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


class ProgressTracker:
    """The stages, milestones and figures of one attempt of `job_type`, whose answer is expected to have `expected_tokens` until more is
    learnt.

    Every method answers the events that it caused, `{"kind": "stage" | "milestone", ...}`: what the log keeps and watchers are told.
    """

    def __init__(self, job_type: JobType, expected_tokens: int) -> None:
        self._type = job_type
        self._answer = Percentiles(expected_tokens, expected_tokens, expected_tokens)
        self._speed = UNMEASURED
        self._began_at: Ms | None = None
        self._seen_at: Ms | None = None
        self._stages = [_Stage(name) for name in job_type.stages]
        self._current = -1
        self._scanner = MarkerScanner(job_type.markers)
        self._milestones: list[dict[str, Any]] = []
        self._received = 0
        self._opening = 0  # tokens of the first piece: they came before the rate could be measured
        self._first_text_at: Ms | None = None
        self._last_text_at: Ms | None = None
        self._percentage = 0.0
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

    def calibrate(self, speed: Throughput, max_tokens: int) -> None:
        """Expect what was measured of other jobs. It may come at any time: the percentage goes on from where it is."""
        self._speed, self._answer = speed, speed.expected_output(self._type.typical_tokens, max_tokens)

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
        self._began_at = now if self._began_at is None else self._began_at
        return self._advance(0, now)

    def start_stage(self, stage: str, now: Ms) -> list[Event]:
        """Begin `stage`, which ends the ones before it. Nothing happens if the type has no such stage or is already beyond its start."""
        return self._advance(next((index for index, one in enumerate(self._stages) if one.name == stage), -1), now)

    def feed(self, text: str, now: Ms, tokens: int = 1) -> list[Event]:
        """More text of the answer, which stands for `tokens` tokens (a delta of the provider is one)."""
        if not text:
            return []
        events = self.start_stage(self._type.streaming_stage, now) if self._first_text_at is None else []
        self._count(tokens, now)
        for marker, groups in self._scanner.feed(text):
            events += self._see(marker, groups, now)
        return events

    def report_progress(self, done: float, total: float, now: Ms) -> list[Event]:
        """`done` of `total` parts of work that is no text. Told at each whole percent, never back, and 100 only at the end."""
        part = min(1.0, max(0.0, done / total)) if total > 0 else 0.0
        if self._reported is None or part >= self._reported[0]:
            self._reported = part, now
        before, self._percentage = self._percentage, max(self._percentage, math.floor(LAST_PART * part * 10) / 10)
        if int(self._percentage) <= int(before):
            return []
        return [{"kind": "progress", "progress_percentage": self._percentage, "at": rfc3339(now)}]

    def add_milestone(self, name: str, description: str, now: Ms) -> list[Event]:
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
        remaining, between = self._remaining()
        return {
            "progress_percentage": self._percentage,
            "stage": self.stage,
            "stages": [stage.shape() for stage in self._stages],
            "milestones": [dict(milestone) for milestone in self._milestones],
            "tokens_received": self._received,
            "estimated_total_tokens": self._total(),
            "tokens_per_second": None if rate is None else round(rate, 1),
            "estimated_seconds_remaining": remaining,
            "estimated_seconds_remaining_range": between,
        }

    def _advance(self, target: int, now: Ms) -> list[Event]:
        """Complete the stages before `target` and begin it. One that is skipped took no time."""
        events = []
        self._seen_at = now
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
        self._last_text_at = self._seen_at = now
        self._received += tokens
        self._percentage = max(self._percentage, _percentage(self._received / self._expected))

    def _see(self, marker: Marker, groups: dict[str, str], now: Ms) -> list[Event]:
        events = self.start_stage(marker.stage, now) if marker.stage else []
        if marker.milestone:
            events += self.add_milestone(marker.milestone.format_map(groups), marker.description.format_map(groups), now)
        return events

    @property
    def _expected(self) -> int:
        return max(1, round(self._answer.p50))

    def _rate(self) -> float | None:
        """Tokens a second since the first text; None until two pieces came at different times."""
        if self._first_text_at is None or self._last_text_at is None or self._last_text_at <= self._first_text_at:
            return None
        return (self._received - self._opening) * 1000 / (self._last_text_at - self._first_text_at)

    def _total(self) -> int | None:
        """The expected length; once it is passed, a little more than there is, until the end tells. Work has none."""
        if self._type.handler is not None:
            return None
        if self._percentage >= 100:
            return self._received
        return self._expected if self._received < self._expected else math.ceil(self._received * 1.05)

    def _remaining(self) -> tuple[float | None, list[float] | None]:
        """Seconds to the end, and between which two figures they are in four of five cases."""
        if self._percentage >= 100:
            return 0.0, [0.0, 0.0]
        total, first, rate = self._total(), self._speed.first_token_ms, self._speed.tokens_per_second
        if total is None:
            return self._remaining_work(*self._reported) if self._reported else (None, None)
        expected = self._left(total, first.p50, rate.p50)
        quick = self._left(self._answer.p10, first.p10, rate.p90)
        slow = self._left(max(total, self._answer.p90), first.p90, rate.p10)
        return round(expected, 1), [round(min(quick, expected), 1), round(max(slow, expected), 1)]

    def _left(self, total: float, first_ms: float, rate: float) -> float:
        """Seconds until there are `total` tokens: the first after `first_ms` and the others at `rate`, as far as that is not known."""
        writing = max(0.0, total - self._received)
        if self._first_text_at is None or self._last_text_at is None:
            waited = (self._seen_at or 0) - (self._began_at or 0)
            return (max(0.0, first_ms - waited) if not self._received else 0.0) / 1000 + writing / rate
        elapsed = (self._last_text_at - self._first_text_at) / 1000
        return writing * (elapsed + OTHERS_WEIGH) / (self._received - self._opening + rate * OTHERS_WEIGH)

    def _remaining_work(self, part: float, said_at: Ms) -> tuple[float | None, list[float] | None]:
        """By how fast the part that is done was done; half as fast or twice as fast is no surprise."""
        if not part or self._began_at is None or said_at <= self._began_at:
            return None, None
        left = (said_at - self._began_at) / 1000 * (1 - part) / part
        return round(left, 1), [round(left / 2, 1), round(left * 2, 1)]


def _stage_event(stage: _Stage, now: Ms) -> Event:
    return {"kind": "stage", **stage.shape(), "at": rfc3339(now)}


def _percentage(ratio: float) -> float:
    if ratio <= 1:
        return math.floor(LINEAR_TO * ratio * 10) / 10
    return math.floor((LIMIT - (LIMIT - LINEAR_TO) * math.exp(1 - ratio)) * 10) / 10
