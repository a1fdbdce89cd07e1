"""Say what a job waits for: the limit, how many jobs stand before it, and when it probably starts.

An estimate is made when somebody asks for it. It assumes that the jobs before it are like it, and that
the other tenants that wait for the same go on to do so. All functions are pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import ceil

from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.transitions import waits_for_parents
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker, CircuitState, retry_at
from chalicelib.domain.limits.sliding_window import Frames, Limits, free_at, used
from chalicelib.domain.units import Ms

MINUTE_MS = 60_000


class LimitKind(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"  # to a model, in a minute
    TOKENS = "tokens"  # of a model, in a minute
    STARTS = "starts"  # of jobs of a type, in a minute
    CONCURRENCY = "concurrency"  # jobs that run at once


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitLimit:
    """A limit that lets a job wait; what it is a limit of is set."""

    kind: LimitKind
    value: int
    model: str | None = None
    type: str | None = None
    tenant: str | None = None
    user: str | None = None  # of `tenant`: the limit of each of its users


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWait:
    """What is known about the wait of a job."""

    limit: WaitLimit | None = None  # None: it does not wait for a limit, or its value is not known
    start_at: Ms | None = None  # when it probably starts; None: nobody can know
    ahead: int | None = None  # jobs before it in its line; None: it stands in no line, or they were not counted
    more_ahead: bool = False  # there are more than `ahead`


def start_by_record(job: Job, now: Ms) -> Ms | None:
    """Return when a job probably starts, as far as its record alone tells."""
    if job.status not in (Status.WAITING, Status.HELD, Status.RETRYING) or waits_for_parents(job) or job.resume_at is None:
        return None
    if job.is_in_line and job.resume_at <= now:
        return None
    return max(now, job.resume_at)


def limit_of_model(model: str, allowed: Limits, frames: Frames, tokens: int, now: Ms) -> WaitLimit | None:
    """Return the limit of a model that is the scarcer one for a request of so many tokens; None: none is known."""
    requests_used, tokens_used = used(frames, now)
    found: list[tuple[float, WaitLimit]] = []
    if allowed.requests is not None:
        limit = WaitLimit(kind=LimitKind.REQUESTS, value=allowed.requests, model=model)
        found.append(((requests_used + 1) / allowed.requests, limit))
    if allowed.tokens is not None:
        limit = WaitLimit(kind=LimitKind.TOKENS, value=allowed.tokens, model=model)
        found.append(((tokens_used + tokens) / allowed.tokens, limit))
    return max(found, key=lambda one: one[0])[1] if found else None


def start_within_rate(allowed: Limits, frames: Frames, tokens: int, ahead: int, turns: float, now: Ms) -> Ms | None:
    """Return when a request starts that has so many before it in its line.

    Args:
        tokens: of the request, and of each before it.
        turns: how many of all tenants start for each one of its tenant.

    Returns: None if it never can, or if no limit is known, so that only an attempt can tell.
    """
    if allowed.requests is None and allowed.tokens is None:
        return allowed.blocked_until if (allowed.blocked_until or 0) > now else None
    first = free_at(frames, allowed, tokens, now)
    if first is None:
        return None
    speed = allowed.factor * min(1.0, allowed.pace)
    by_requests = MINUTE_MS / (allowed.requests * speed) if allowed.requests else 0.0
    by_tokens = tokens * MINUTE_MS / (allowed.tokens * speed) if allowed.tokens else 0.0
    return first + ceil(ahead * max(by_requests, by_tokens) * max(1.0, turns))


def start_with_slot(slots: int, duration: Ms | None, ahead: int, turns: float, now: Ms) -> Ms | None:
    """Return when a slot is free for a job that has so many before it; None: how long jobs take is not known."""
    if duration is None or slots < 1:
        return None
    return now + ceil((ahead * max(1.0, turns) + 1) * duration / slots)


def start_after_circuit(circuit: CircuitBreaker | None, tenant_mark: str, now: Ms) -> Ms | None:
    """Return when a job may probably ask again; None: an operator opened the circuit, so nobody knows."""
    if circuit is None:
        return now
    if circuit.is_forced and circuit.state is not CircuitState.CLOSED:
        return None
    return retry_at(circuit, tenant_mark, now)
