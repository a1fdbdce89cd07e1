"""Track the progress of an attempt: stages, milestones, percentage and remaining time.

The percentage is linear in the tokens and reaches 90 at the expected length, approaches 95 beyond
it, and is 100 only at the end: the expected length is a guess, and a bar that waits at 100 looks
broken. A task (work without a model) reports its own share of work done. The percentage never
decreases within an attempt.

The remaining time is estimated from the beginning: first from the measured throughput of other
jobs, then increasingly from the speed of this stream.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from chalicelib.domain.execution.marker_scanner import MarkerScanner
from chalicelib.domain.jobs.job_type import JobType, Marker
from chalicelib.domain.metrics.throughput import UNMEASURED, Percentiles, Throughput
from chalicelib.domain.units import Ms, parse_rfc3339, rfc3339, seconds

Event = dict[str, Any]

MAX_MILESTONES = 50  # every snapshot carries all of them
LINEAR_TO, LIMIT = 90.0, 95.0  # percent at the expected length, and the limit beyond it
# The measured throughput of other jobs weighs as much as this many seconds of this stream.
PRIOR_WEIGHT_SECONDS = 1.0
TASK_DONE_PERCENTAGE = 99.0  # of a task that has done all its work, before the result is stored


class StageStatus(StrEnum):
    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"


@dataclass(slots=True)
class _Stage:
    name: str
    started_at: Ms | None = None
    ended_at: Ms | None = None

    @property
    def status(self) -> StageStatus:
        if self.started_at is None:
            return StageStatus.PENDING
        return StageStatus.PROCESSING if self.ended_at is None else StageStatus.COMPLETED

    def shape(self) -> dict[str, Any]:
        duration = None if self.started_at is None or self.ended_at is None else self.ended_at - self.started_at
        return {
            "name": self.name,
            "status": self.status.value,
            "started_at": rfc3339(self.started_at),
            "duration_seconds": seconds(duration),
        }


class ProgressTracker:
    """The progress of one attempt. Methods take the current time as an argument.

    Every method that changes something returns the events that it caused, `{"kind": "stage" |
    "milestone" | "progress", ...}`, which are stored in the log and sent to subscribers.
    """

    def __init__(self, job_type: JobType, expected_tokens: int) -> None:
        """`expected_tokens`: the length of the answer to expect until `calibrate` is called."""
        self._type = job_type
        self._expected_length = Percentiles(expected_tokens, expected_tokens, expected_tokens)
        self._throughput = UNMEASURED
        self._started_at: Ms | None = None
        self._updated_at: Ms | None = None
        self._stages = [_Stage(name) for name in job_type.stages]
        self._current = -1  # index of the current stage
        self._scanner = MarkerScanner(job_type.markers)
        self._milestones: list[dict[str, Any]] = []
        self._received = 0  # tokens
        self._first_piece_tokens = 0  # they arrived before the rate could be measured
        self._first_text_at: Ms | None = None
        self._last_text_at: Ms | None = None
        self._percentage = 0.0
        # The share of a task that is done, and when it was reported.
        self._reported: tuple[float, Ms] | None = None

    @property
    def tokens_received(self) -> int:
        return self._received

    @property
    def percentage(self) -> float:
        """0 to 100, one decimal."""
        return self._percentage

    @property
    def stage(self) -> str | None:
        """The name of the current stage: None before `begin`, the last one after the end."""
        started = self._stages[: self._current + 1]
        return started[-1].name if started else None

    def calibrate(self, throughput: Throughput, max_tokens: int) -> None:
        """Use the measured throughput of other jobs.

        May be called at any time; the percentage does not jump back.
        """
        self._throughput, self._expected_length = throughput, throughput.expected_output(self._type.typical_tokens, max_tokens)

    def restore(self, snapshot: dict[str, Any], text: str) -> None:
        """Continue from a snapshot of this attempt and its text so far, without repeating events.

        The rate is measured from here on.
        """
        known = {stage["name"]: stage for stage in snapshot.get("stages", ())}
        for index, stage in enumerate(self._stages):
            shape = known.get(stage.name, {})
            if shape.get("started_at"):
                stage.started_at, self._current = parse_rfc3339(shape["started_at"]), index
                duration = shape.get("duration_seconds")
                stage.ended_at = None if duration is None else stage.started_at + round(duration * 1000)
        self._milestones = [dict(milestone) for milestone in snapshot.get("milestones", ())]
        self._received = snapshot.get("tokens_received", 0)
        self._percentage = snapshot.get("progress_percentage", 0.0)
        self._scanner.feed(text)

    def begin(self, now: Ms) -> list[Event]:
        """Start the first stage, after the claim."""
        self._started_at = now if self._started_at is None else self._started_at
        return self._advance(0, now)

    def start_stage(self, stage: str, now: Ms) -> list[Event]:
        """Start `stage` and end the ones before it.

        Does nothing if the type has no such stage or it has already started.
        """
        return self._advance(next((index for index, one in enumerate(self._stages) if one.name == stage), -1), now)

    def feed(self, text: str, now: Ms, tokens: int = 1) -> list[Event]:
        """Add text of the answer.

        `tokens`: how many tokens it stands for; one delta of the provider is one token.
        """
        if not text:
            return []
        events = self.start_stage(self._type.streaming_stage, now) if self._first_text_at is None else []
        self._count(tokens, now)
        for marker, groups in self._scanner.feed(text):
            events += self._apply_marker(marker, groups, now)
        return events

    def report_progress(self, done: float, total: float, now: Ms) -> list[Event]:
        """Record that `done` of `total` units of a task are done.

        Causes an event at each new whole percent, below 100.
        """
        share = min(1.0, max(0.0, done / total)) if total > 0 else 0.0
        if self._reported is None or share >= self._reported[0]:
            self._reported = share, now
        before, self._percentage = self._percentage, max(self._percentage, math.floor(TASK_DONE_PERCENTAGE * share * 10) / 10)
        if int(self._percentage) <= int(before):
            return []
        return [{"kind": "progress", "progress_percentage": self._percentage, "at": rfc3339(now)}]

    def add_milestone(self, name: str, description: str, now: Ms) -> list[Event]:
        """Add a milestone. Beyond `MAX_MILESTONES` it is ignored."""
        if len(self._milestones) >= MAX_MILESTONES:
            return []
        milestone = {"name": name, "description": description, "achieved_at": rfc3339(now), "progress_at_milestone": self._percentage}
        self._milestones.append(milestone)
        return [{"kind": "milestone", **milestone}]

    def end(self, now: Ms) -> list[Event]:
        """Complete every stage, once the answer is complete and stored."""
        self._percentage = 100.0
        return self._advance(len(self._stages), now)

    def snapshot(self) -> dict[str, Any]:
        """Return the progress as the log stores it with each chunk and `/progress` shows it."""
        rate = self._rate()
        remaining, remaining_range = self._remaining()
        return {
            "progress_percentage": self._percentage,
            "stage": self.stage,
            "stages": [stage.shape() for stage in self._stages],
            "milestones": [dict(milestone) for milestone in self._milestones],
            "tokens_received": self._received,
            "estimated_total_tokens": self._total(),
            "tokens_per_second": None if rate is None else round(rate, 1),
            "estimated_seconds_remaining": remaining,
            "estimated_seconds_remaining_range": remaining_range,
        }

    def _advance(self, target: int, now: Ms) -> list[Event]:
        """Complete the stages before `target` and start it. A skipped stage has duration zero."""
        events = []
        self._updated_at = now
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
            self._first_text_at, self._first_piece_tokens = now, self._received + tokens
        self._last_text_at = self._updated_at = now
        self._received += tokens
        self._percentage = max(self._percentage, _percentage(self._received / self._expected_tokens))

    def _apply_marker(self, marker: Marker, groups: dict[str, str], now: Ms) -> list[Event]:
        events = self.start_stage(marker.stage, now) if marker.stage else []
        if marker.milestone:
            events += self.add_milestone(marker.milestone.format_map(groups), marker.description.format_map(groups), now)
        return events

    @property
    def _expected_tokens(self) -> int:
        return max(1, round(self._expected_length.p50))

    def _rate(self) -> float | None:
        """Return tokens per second since the first text; None until they can be measured."""
        if self._first_text_at is None or self._last_text_at is None or self._last_text_at <= self._first_text_at:
            return None
        return (self._received - self._first_piece_tokens) * 1000 / (self._last_text_at - self._first_text_at)

    def _total(self) -> int | None:
        """Return the expected length, or a little more than was received once that is exceeded.

        Tasks have none.
        """
        if self._type.handler is not None:
            return None
        if self._percentage >= 100:
            return self._received
        return self._expected_tokens if self._received < self._expected_tokens else math.ceil(self._received * 1.05)

    def _remaining(self) -> tuple[float | None, list[float] | None]:
        """Return the seconds to the end, and the range from the 10th to the 90th percentile."""
        if self._percentage >= 100:
            return 0.0, [0.0, 0.0]
        total, first, rate = self._total(), self._throughput.first_token_ms, self._throughput.tokens_per_second
        if total is None:
            return self._remaining_task(*self._reported) if self._reported else (None, None)
        expected = self._seconds_until(total, first.p50, rate.p50)
        fast = self._seconds_until(self._expected_length.p10, first.p10, rate.p90)
        slow = self._seconds_until(max(total, self._expected_length.p90), first.p90, rate.p10)
        return round(expected, 1), [round(min(fast, expected), 1), round(max(slow, expected), 1)]

    def _seconds_until(self, total: float, first_ms: float, rate: float) -> float:
        """Return the seconds until `total` tokens are received.

        Before the first text it is predicted from `first_ms` and `rate` alone; later the rate of
        this stream is weighed in.
        """
        remaining_tokens = max(0.0, total - self._received)
        if self._first_text_at is None or self._last_text_at is None:
            waited = (self._updated_at or 0) - (self._started_at or 0)
            return (max(0.0, first_ms - waited) if not self._received else 0.0) / 1000 + remaining_tokens / rate
        elapsed = (self._last_text_at - self._first_text_at) / 1000
        measured_tokens = self._received - self._first_piece_tokens
        return remaining_tokens * (elapsed + PRIOR_WEIGHT_SECONDS) / (measured_tokens + rate * PRIOR_WEIGHT_SECONDS)

    def _remaining_task(self, share: float, reported_at: Ms) -> tuple[float | None, list[float] | None]:
        """Extrapolate the speed so far; the range allows for half and double that speed."""
        if not share or self._started_at is None or reported_at <= self._started_at:
            return None, None
        remaining = (reported_at - self._started_at) / 1000 * (1 - share) / share
        return round(remaining, 1), [round(remaining / 2, 1), round(remaining * 2, 1)]


def _stage_event(stage: _Stage, now: Ms) -> Event:
    return {"kind": "stage", **stage.shape(), "at": rfc3339(now)}


def _percentage(ratio: float) -> float:
    if ratio <= 1:
        return math.floor(LINEAR_TO * ratio * 10) / 10
    return math.floor((LIMIT - (LIMIT - LINEAR_TO) * math.exp(1 - ratio)) * 10) / 10
