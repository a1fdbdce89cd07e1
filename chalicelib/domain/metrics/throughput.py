"""Measure how fast models write and how long their answers are, from completed jobs.

The counters are per job type, model and week. They are integers that are only incremented, so
counters can be merged by adding them. Speeds, lengths and delays are counted in logarithmic bins,
each about 20 % wider than the one before; a percentile read from them is accurate to about 10 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.metrics.counters import CounterIncrement, CountMark
from chalicelib.domain.metrics.estimate import FIRST_TOKEN_MS, TOKENS_PER_SECOND
from chalicelib.domain.units import Ms

SPEED = "speed"  # the key of this count in a count mark
RETENTION_SECONDS = 60 * 86_400
WEEK_MS = 7 * 86_400_000
MIN_SAMPLES = 5  # jobs; with fewer, nothing is derived from them
BINS_PER_DOUBLING = 4
# Relative error of a percentile: from the middle of a bin to its edge.
BIN_ERROR = 2 ** (1 / (2 * BINS_PER_DOUBLING)) - 1
LOWEST_BIN, HIGHEST_BIN = -16, 100  # values from 1/16 to 33 million
# Shorter answers give no rate, because ending the attempt takes longer than writing them.
MIN_TOKENS = 20
# For `duration_range`, which needs only a ratio of durations.
TYPICAL_TOKENS, HIGHEST_TOKENS = 600, 10**9
MAX_TOKENS_PER_SECOND = 5_000  # a higher rate means that the answer arrived in one piece
# Prefixes of the bins: tokens per second, tokens, milliseconds to the first text.
RATE, LENGTH, FIRST = "r", "o", "f"


@dataclass(frozen=True, slots=True)
class Percentiles:
    """The 10th, 50th and 90th percentile of a measure."""

    p10: float
    p50: float
    p90: float

    def capped(self, maximum: float) -> Percentiles:
        return Percentiles(min(self.p10, maximum), min(self.p50, maximum), min(self.p90, maximum))


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """What was measured for a job type and model; the defaults apply where nothing was."""

    n: int = 0  # completed jobs
    tokens_per_second: Percentiles = Percentiles(TOKENS_PER_SECOND / 2, TOKENS_PER_SECOND, TOKENS_PER_SECOND * 2)
    # None: too few jobs, so the type's `typical_tokens` is used.
    output_tokens: Percentiles | None = None
    first_token_ms: Percentiles = Percentiles(FIRST_TOKEN_MS / 2, FIRST_TOKEN_MS, FIRST_TOKEN_MS * 3)

    def expected_output(self, typical_tokens: int, max_tokens: int) -> Percentiles:
        """Return the expected length of an answer that is limited to `max_tokens`."""
        measured = self.output_tokens or Percentiles(typical_tokens / 2, typical_tokens, typical_tokens * 2)
        return measured.capped(max_tokens)

    def duration_range(self) -> tuple[float, float]:
        """Return the 10th and 90th percentile of an attempt's duration as factors of the median."""
        answer = self.expected_output(TYPICAL_TOKENS, HIGHEST_TOKENS)
        fast, median, slow = (
            first + 1000 * tokens / rate
            for first, tokens, rate in (
                (self.first_token_ms.p10, answer.p10, self.tokens_per_second.p90),
                (self.first_token_ms.p50, answer.p50, self.tokens_per_second.p50),
                (self.first_token_ms.p90, answer.p90, self.tokens_per_second.p10),
            )
        )
        return fast / median, slow / median


UNMEASURED = Throughput()


def count_job(mark: CountMark, job: Job) -> tuple[list[CounterIncrement], Any]:
    """Return what a job adds to the counters, and its count mark: the counted generation.

    Each job counts once. Cache hits, which have no usage, and estimated usages do not count.
    """
    counted_generation = mark.counted.get(SPEED)
    amounts = _amounts(job)
    if counted_generation is not None or amounts is None:
        return [], counted_generation
    ttl = (job.finished_at or 0) // 1000 + RETENTION_SECONDS
    return [CounterIncrement(key=counter_key(job.type, job.asked_model, job.finished_at or 0), amounts=amounts, ttl=ttl)], job.generation


def counter_key(job_type: str, model: str, at: Ms) -> tuple[str, str]:
    """Return the key of the counter of the week of `at`."""
    year, week, _ = datetime.fromtimestamp(at / 1000, UTC).isocalendar()
    return f"speed#{job_type}#{model}", f"w{year}-{week:02}"


def counter_keys(job_type: str, model: str, now: Ms) -> list[tuple[str, str]]:
    """Return the keys of the counters of this week and the last."""
    return [counter_key(job_type, model, now), counter_key(job_type, model, now - WEEK_MS)]


def throughput_from(counts: Iterable[Mapping[str, int]]) -> Throughput:
    """Return the throughput that several counters describe together."""
    sums: dict[str, int] = {}
    for numbers in counts:
        for name, amount in numbers.items():
            sums[name] = sums.get(name, 0) + amount
    if sums.get("n", 0) < MIN_SAMPLES:
        return UNMEASURED
    return Throughput(
        n=sums["n"],
        tokens_per_second=_percentiles(sums, RATE) or UNMEASURED.tokens_per_second,
        output_tokens=_percentiles(sums, LENGTH),
        first_token_ms=_percentiles(sums, FIRST) or UNMEASURED.first_token_ms,
    )


def bin_of(value: float) -> int:
    """Return the bin of a number above 0."""
    return max(LOWEST_BIN, min(HIGHEST_BIN, math.floor(math.log2(value) * BINS_PER_DOUBLING)))


def middle_of(number: int) -> float:
    """Return the geometric mean of the edges of a bin."""
    return float(2 ** ((number + 0.5) / BINS_PER_DOUBLING))


def _amounts(job: Job) -> dict[str, int] | None:
    """Return the increments of a job; None if it does not count."""
    usage = job.usage
    if job.status is not Status.COMPLETED or usage is None or usage.estimated or usage.output <= 0:
        return None
    if job.first_token_at is None or job.finished_at is None:
        return None
    streaming = max(0, job.finished_at - job.first_token_at)
    amounts = {"n": 1, "tokens": usage.output, "streaming_ms": streaming, f"{LENGTH}{bin_of(usage.output)}": 1}
    rate = usage.output * 1000 / streaming if streaming else math.inf
    if usage.output >= MIN_TOKENS and rate <= MAX_TOKENS_PER_SECOND:
        amounts[f"{RATE}{bin_of(rate)}"] = 1
    # The record does not have the start of a later attempt.
    if job.attempt == 1 and job.started_at is not None:
        first = max(1, job.first_token_at - job.started_at)
        amounts |= {"first": 1, "first_ms": first, f"{FIRST}{bin_of(first)}": 1}
    return amounts


def _percentiles(sums: Mapping[str, int], prefix: str) -> Percentiles | None:
    """Return the percentiles of one measure; None if it has too few samples."""
    bins = sorted((int(name[1:]), amount) for name, amount in sums.items() if name[0] == prefix and _is_integer(name[1:]) and amount > 0)
    total = sum(amount for _, amount in bins)
    if total < MIN_SAMPLES:
        return None
    return Percentiles(*(_percentile(bins, total, share) for share in (0.1, 0.5, 0.9)))


def _percentile(bins: list[tuple[int, int]], total: int, share: float) -> float:
    """Return the middle of the bin that contains the sample of this rank."""
    rank, cumulative = math.ceil(share * total), 0
    for number, amount in bins:
        cumulative += amount
        if cumulative >= rank:
            return middle_of(number)
    raise ValueError("no bins")


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isdigit()
