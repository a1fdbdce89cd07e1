"""How fast models write and how long their answers are, as measured: what is counted of each completed job, and what that says.

Counted by job type, model and week, as whole numbers that are only ever added to, so that any two counts merge into that of both. What has
no mean worth knowing is counted in bins, each a fifth wider than the one before: a percentile read from them is right to within a tenth.
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

SPEED = "speed"  # the name of this count in a job's mark
RETENTION_SECONDS = 60 * 86_400  # seconds
WEEK_MS = 7 * 86_400_000
MIN_SAMPLES = 5  # jobs, below which nothing is said
BINS_PER_DOUBLING = 4
BIN_ERROR = 2 ** (1 / (2 * BINS_PER_DOUBLING)) - 1  # of a percentile: from the middle of a bin to its edge
LOWEST_BIN, HIGHEST_BIN = -16, 100  # a sixteenth, and thirty-three million
MIN_TOKENS = 20  # tokens: of less the end of the attempt takes longer than the writing
TYPICAL_TOKENS, HIGHEST_TOKENS = 600, 10**9  # where only the ratio of times is asked for
MAX_TOKENS_PER_SECOND = 5_000  # tokens a second: above, the answer came in one piece
RATE, LENGTH, FIRST = "r", "o", "f"  # the bins of tokens a second, of tokens, of milliseconds to the first text


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of ten cases nine are above `low`, five below `middle`, nine below `high`."""

    p10: float
    p50: float
    p90: float

    def capped(self, most: float) -> Percentiles:
        return Percentiles(min(self.p10, most), min(self.p50, most), min(self.p90, most))


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """What `n` jobs of a type and model say. `output_tokens` is None where too few do: then the type's own guess is used."""

    n: int = 0
    tokens_per_second: Percentiles = Percentiles(TOKENS_PER_SECOND / 2, TOKENS_PER_SECOND, TOKENS_PER_SECOND * 2)
    output_tokens: Percentiles | None = None
    first_token_ms: Percentiles = Percentiles(FIRST_TOKEN_MS / 2, FIRST_TOKEN_MS, FIRST_TOKEN_MS * 3)

    def expected_output(self, typical_tokens: int, max_tokens: int) -> Percentiles:
        """How many tokens an answer will probably have that may have so many."""
        measured = self.output_tokens or Percentiles(typical_tokens / 2, typical_tokens, typical_tokens * 2)
        return measured.capped(max_tokens)

    def duration_range(self) -> tuple[float, float]:
        """By how much an attempt may be quicker, and slower, than the expected one: of the time that it takes."""
        answer = self.expected_output(TYPICAL_TOKENS, HIGHEST_TOKENS)
        quick, middle, slow = (
            first + 1000 * tokens / rate
            for first, tokens, rate in (
                (self.first_token_ms.p10, answer.p10, self.tokens_per_second.p90),
                (self.first_token_ms.p50, answer.p50, self.tokens_per_second.p50),
                (self.first_token_ms.p90, answer.p90, self.tokens_per_second.p10),
            )
        )
        return quick / middle, slow / middle


UNMEASURED = Throughput()


def count_job(mark: CountMark, job: Job) -> tuple[list[CounterIncrement], Any]:
    """What a job adds to the counters, and what its mark is to say of that: the generation in which it completed, so that it counts once.

    A hit of the cache has no usage, and counts for nothing; nor does what nobody has counted exactly.
    """
    seen = mark.counted.get(SPEED)
    amounts = _amounts(job)
    if seen is not None or amounts is None:
        return [], seen
    ttl = (job.finished_at or 0) // 1000 + RETENTION_SECONDS
    return [CounterIncrement(key=counter_key(job.type, job.asked_model, job.finished_at or 0), amounts=amounts, ttl=ttl)], job.generation


def counter_key(job_type: str, model: str, at: Ms) -> tuple[str, str]:
    """The keys of the counter of that week."""
    year, week, _ = datetime.fromtimestamp(at / 1000, UTC).isocalendar()
    return f"speed#{job_type}#{model}", f"w{year}-{week:02}"


def counter_keys(job_type: str, model: str, now: Ms) -> list[tuple[str, str]]:
    """The counters that say how it is now: of this week and of the last."""
    return [counter_key(job_type, model, now), counter_key(job_type, model, now - WEEK_MS)]


def throughput_from(counts: Iterable[Mapping[str, int]]) -> Throughput:
    """What some counters say together."""
    sums: dict[str, int] = {}
    for counted in counts:
        for name, amount in counted.items():
            sums[name] = sums.get(name, 0) + amount
    if sums.get("n", 0) < MIN_SAMPLES:
        return UNMEASURED
    return Throughput(
        n=sums["n"],
        tokens_per_second=_spread(sums, RATE) or UNMEASURED.tokens_per_second,
        output_tokens=_spread(sums, LENGTH),
        first_token_ms=_spread(sums, FIRST) or UNMEASURED.first_token_ms,
    )


def bin_of(value: float) -> int:
    """The bin of a number above 0."""
    return max(LOWEST_BIN, min(HIGHEST_BIN, math.floor(math.log2(value) * BINS_PER_DOUBLING)))


def middle_of(number: int) -> float:
    """What a bin stands for: the middle between its edges, as their ratio goes."""
    return float(2 ** ((number + 0.5) / BINS_PER_DOUBLING))


def _amounts(job: Job) -> dict[str, int] | None:
    """What the job is worth counting by; None if it is not."""
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
    if job.attempt == 1 and job.started_at is not None:  # of a later attempt the record does not say when it began
        first = max(1, job.first_token_at - job.started_at)
        amounts |= {"first": 1, "first_ms": first, f"{FIRST}{bin_of(first)}": 1}
    return amounts


def _spread(sums: Mapping[str, int], prefix: str) -> Percentiles | None:
    """The percentiles of one kind of bins; None where they hold too few."""
    bins = sorted((int(name[1:]), amount) for name, amount in sums.items() if name[0] == prefix and _is_number(name[1:]) and amount > 0)
    total = sum(amount for _, amount in bins)
    if total < MIN_SAMPLES:
        return None
    return Percentiles(*(_percentile(bins, total, part) for part in (0.1, 0.5, 0.9)))


def _percentile(bins: list[tuple[int, int]], total: int, part: float) -> float:
    """The middle of the bin in which the one stands that so many parts of all come before."""
    rank, below = math.ceil(part * total), 0
    for number, amount in bins:
        below += amount
        if below >= rank:
            return middle_of(number)
    raise ValueError("there is nothing to find it in")


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isdigit()
