"""The pause of a model: after an answer of 429 no worker asks for it until the provider's wait is over.

It is part of the record of the model's circuit, which every worker reads before it starts a job. It
counts as no failure, and jobs that meet it wait without an attempt.

The first refused request sets the pause; those that were on their way then do not prolong it. If
the first request after a pause is refused again, the next pause is somewhat longer than asked,
because many providers say when one more request is free, and not when all who wait are served. The
first success sets that back.

A job that is refused again although others were answered since its last pause waits alone: what it
meets may be about this job only.
"""

from __future__ import annotations

from dataclasses import replace

from chalicelib.domain.execution.retry_policy import MAX_RETRY_AFTER
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker, CircuitState, Origin
from chalicelib.domain.units import Ms

MAX_PAUSE_MS = round(1000 * MAX_RETRY_AFTER)
UNASKED_MS, MAX_UNASKED_MS = 2_000, 60_000  # the pause if the provider names no wait; doubles with each in a row
GROWTH, MAX_GROWTH_MS = 1.5, 15_000  # of a pause that follows the one before without a success
REMEMBERED_MS = 60_000  # after a pause; then the next one is a first one again
MIN_EXTENSION_MS = 1_000  # a pause that would end less later is not written: all jobs are spread by as much
MIN_SPREAD_MS, MAX_SPREAD_MS = 1_000, 10_000  # over how long the jobs that wait for the end of a pause start
MAX_ALONE_MS = 300_000  # the longest wait of a job that waits alone, without one that the provider asked for
# A job with fallback models waits for its own model if the pause is over by then.
FALLBACK_AFTER_MS = 60_000


def pause_model(circuit: CircuitBreaker, asked: int | None, began_at: Ms, origin: Origin, random: float, now: Ms) -> CircuitBreaker:
    """Pause a model after a request that began at `began_at` was refused.

    Args:
        asked: the seconds that the provider asks to wait; None: it says nothing.
        random: a random number in [0, 1), for the jitter of a wait that nobody asked for.

    Returns: the same object if nothing changes.
    """
    before = circuit.paused_until
    if before is not None and began_at < before:
        until = now + _wait(asked, circuit.pauses, random) if asked is not None else before
        return _paused(circuit, until, circuit.pauses, circuit.paused_by) if until >= before + MIN_EXTENSION_MS else circuit
    is_recent = before is not None and now - before <= REMEMBERED_MS
    if is_recent and not circuit.pauses and circuit.paused_by == origin.failure:
        return circuit
    pauses = circuit.pauses + 1 if is_recent else 1
    return _paused(circuit, now + _wait(asked, pauses, random), pauses, origin.failure)


def is_paused(circuit: CircuitBreaker, now: Ms) -> bool:
    """Whether no request may be made now."""
    return circuit.paused_until is not None and now < circuit.paused_until


def end_pauses(circuit: CircuitBreaker, began_at: Ms, mark: str) -> CircuitBreaker:
    """Note that a request that began after the last pause was answered."""
    if not circuit.pauses or began_at < (circuit.paused_until or 0):
        return circuit
    kept = circuit.mark if circuit.state is CircuitState.HALF_OPEN else mark
    return replace(circuit, pauses=0, version=circuit.version + 1, mark=kept)


def wait_alone(asked: int | None, refusals: int, random: float) -> Ms:
    """Return how long one job waits after it was refused so many times.

    Without a wait that was asked for it is exponential, with jitter.
    """
    if asked is not None:
        return min(MAX_PAUSE_MS, asked * 1000)
    return round((0.5 + random / 2) * min(MAX_ALONE_MS, UNASKED_MS << min(max(0, refusals - 1), 16)))


def spread(wait: Ms, random: float) -> Ms:
    """Return how much later than the end of its wait a job starts, so that not all ask at once.

    Short waits are spread over as long as they last: less throughput is lost.
    """
    return round(random * min(MAX_SPREAD_MS, max(MIN_SPREAD_MS, wait)))


def _wait(asked: int | None, pauses: int, random: float) -> Ms:
    if asked is None:
        return round((0.5 + random / 2) * min(MAX_UNASKED_MS, UNASKED_MS << min(max(0, pauses - 1), 16)))
    wait = min(MAX_PAUSE_MS, asked * 1000)
    return wait + min(MAX_GROWTH_MS, round(wait * (GROWTH ** min(max(0, pauses - 1), 16) - 1)))


def _paused(circuit: CircuitBreaker, until: Ms, pauses: int, by: str | None) -> CircuitBreaker:
    """The mark stays: it is that of a probe, perhaps."""
    return replace(circuit, paused_until=until, pauses=pauses, paused_by=by, version=circuit.version + 1)
