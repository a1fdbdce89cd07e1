"""Read what a job waits for, when somebody asks: the limit, its place in the line and its estimated start.

A job that is not held in a line costs no request. One in a line costs a count of the jobs before it,
up to `MAX_AHEAD`, and a few small reads.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from chalicelib.domain.bounded_cache import BoundedCache
from chalicelib.domain.errors import JobTypeNotFound, Unavailable, UnreadableRecord
from chalicelib.domain.jobs.index_keys import place_in_line
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.domain.jobs.transitions import OWN_PAUSE
from chalicelib.domain.limits import type_rate
from chalicelib.domain.limits.admission import HoldReason
from chalicelib.domain.limits.circuit_breaker import tenant_mark
from chalicelib.domain.limits.pauses import line_pause
from chalicelib.domain.limits.rate_limit import ACCOUNT, effective
from chalicelib.domain.limits.sliding_window import Limits
from chalicelib.domain.limits.slots import tenant_scope, user_scope
from chalicelib.domain.limits.tenant_limits import TenantLimits
from chalicelib.domain.limits.waiting import (
    JobWait,
    LimitKind,
    WaitLimit,
    limit_of_model,
    start_after_circuit,
    start_by_record,
    start_with_slot,
    start_within_rate,
)
from chalicelib.domain.queues.causes import CauseKind, bucket_of, kind_of, subject_of
from chalicelib.domain.units import Ms
from chalicelib.ports import CircuitBreakers, Jobs, Line, Pauses, Rates
from chalicelib.services.scheduling.context import LineContext
from chalicelib.services.scheduling.user_lines import scan_users

MAX_AHEAD = 300  # jobs of a line that are counted
USER_PAGES = 4  # of a line by user that are read to count its users
MAX_WEIGHTS = 50  # of other tenants that are looked up; the rest counts as 1
LINES_TTL_MS = 5_000  # how long an environment keeps which tenants have lines

LinesCache = BoundedCache[int, tuple[Ms, list[Line]]]  # by bucket


class WaitContext(LineContext, Protocol):
    """What reading a wait needs."""

    @property
    def jobs(self) -> Jobs: ...
    @property
    def rates(self) -> Rates: ...
    @property
    def circuit_breakers(self) -> CircuitBreakers: ...
    @property
    def pauses(self) -> Pauses: ...
    @property
    def lines_cache(self) -> LinesCache: ...
    def limits_of(self, tenant: str) -> TenantLimits: ...
    def job_type(self, name: str) -> JobType: ...


def describe_wait(ctx: WaitContext, job: Job) -> JobWait:
    """Return what is known about the wait of a job. What cannot be read is unknown."""
    now = ctx.clock.now()
    by_record = JobWait(start_at=start_by_record(job, now))
    if job.cause is None or not job.is_in_line:
        return by_record
    try:
        ahead = ctx.lines.count(job.cause, job.tenant, MAX_AHEAD + 1, before=place_in_line(job), by_user=job.line_by_user)
        users = _waiting_users(ctx, job, job.cause) if job.line_by_user else 1
        before = min(ahead, MAX_AHEAD) * (users or 1) + (users or 1) // 2  # half of the users have their turn first
        wait = replace(_wait_in_line(ctx, job, job.cause, before, now), ahead=min(ahead, MAX_AHEAD))
        if users is None:
            wait = replace(wait, start_at=None)
    except (Unavailable, UnreadableRecord) as exc:
        ctx.log("wait_not_read", job_id=job.id, tenant=job.tenant, cause=job.cause, error=exc)
        return by_record
    if wait.start_at is not None and 0 < job.expires_at < wait.start_at and job.started_at is None:
        wait = replace(wait, start_at=None)  # it expires before
    return replace(wait, more_ahead=True, start_at=None) if ahead > MAX_AHEAD else wait


def limit_of(ctx: WaitContext, job: Job, reason: str, cause: str | None, now: Ms) -> WaitLimit | None:
    """Return the limit for which a job waits, or has waited, as it is now; None: there is none, or it is not known.

    Raises:
        Unavailable, UnreadableRecord: it could not be read.
    """
    match kind_of(cause) if cause is not None else None:
        case CauseKind.RATE:
            return _rate(ctx, job, subject_of(cause or ""), now)[0]
        case CauseKind.TYPE:
            return _type_limit(ctx, subject_of(cause or ""), reason)
        case CauseKind.SLOTS:
            return _slot_limit(ctx, job, subject_of(cause or ""))
    return None


def lines_of(ctx: WaitContext, cause: str) -> list[Line]:
    """Return the lines of a cause, as they were some seconds ago at most."""
    bucket, now = bucket_of(cause), ctx.clock.now()
    known = ctx.lines_cache.get(bucket)
    if known is None or not 0 <= now - known[0] < LINES_TTL_MS:
        known = now, ctx.lines.rows(bucket)
        ctx.lines_cache.put(bucket, known)
    return [line for line in known[1] if line.cause == cause]


def _wait_in_line(ctx: WaitContext, job: Job, cause: str, ahead: int, now: Ms) -> JobWait:
    wait, subject = JobWait(ahead=ahead, start_at=start_by_record(job, now)), subject_of(cause)
    match kind_of(cause):
        case CauseKind.RATE:
            limit, start = _rate(ctx, job, subject, now, ahead, cause)
            return replace(wait, limit=limit, start_at=start)
        case CauseKind.TYPE:
            return replace(wait, limit=_type_limit(ctx, subject, job.reason or ""), start_at=_type_start(ctx, job, cause, ahead, now))
        case CauseKind.SLOTS:
            limit = _slot_limit(ctx, job, subject)
            start = start_with_slot(limit.value, job.estimated_ms, ahead, 1.0, now) if limit is not None else None
            return replace(wait, limit=limit, start_at=start)
        case CauseKind.CIRCUIT:
            return replace(wait, start_at=start_after_circuit(ctx.circuit_breakers.get(subject), tenant_mark(job.tenant), now))
        case CauseKind.PAUSE:
            return replace(wait, start_at=_end_of_pause(ctx, job, subject, now))
    return replace(wait, start_at=None)  # nobody knows when a key is stored or a version deployed


def _rate(ctx: WaitContext, job: Job, model: str, now: Ms, ahead: int = 0, cause: str | None = None) -> tuple[WaitLimit | None, Ms | None]:
    """Return the limit of a model that is the scarcer one for a job, and with its cause when the job starts."""
    stored = ctx.rates.limit(ACCOUNT, model)
    if stored is None:
        return None, start_by_record(job, now)
    allowed = effective(stored, now)
    is_known = allowed.requests is not None or allowed.tokens is not None
    frames = ctx.rates.frames(ACCOUNT, model, now) if is_known else ()
    turns = _turns(ctx, job.tenant, cause) if cause is not None and ahead else 1.0
    return limit_of_model(model, allowed, frames, job.tokens, now), start_within_rate(allowed, frames, job.tokens, ahead, turns, now)


def _turns(ctx: WaitContext, tenant: str, cause: str) -> float:
    """How many jobs of all tenants start for each one of this tenant, by the weights of those that wait."""
    others = list(dict.fromkeys(line.tenant for line in lines_of(ctx, cause) if line.tenant != tenant))
    weights = [ctx.limits_of(other).weight for other in others[:MAX_WEIGHTS]]
    return 1.0 + (sum(weights) + len(others) - len(weights)) / ctx.limits_of(tenant).weight


def _waiting_users(ctx: WaitContext, job: Job, cause: str) -> int | None:
    """How many users of a tenant have jobs in its line; each has its turn. None: more than it is worth to count."""
    scan = scan_users(ctx.lines, cause, job.tenant, None, USER_PAGES)
    return len({other.user for other in scan.jobs} | {job.user}) if scan.end is None else None


def _type_limit(ctx: WaitContext, name: str, reason: str) -> WaitLimit | None:
    limits = _kind(ctx, name)
    if limits is None or limits.limits is None:
        return None
    if reason == HoldReason.TYPE_RATE:
        value, kind = limits.limits.per_minute, LimitKind.STARTS
    else:
        value, kind = limits.limits.concurrency, LimitKind.CONCURRENCY
    return WaitLimit(kind=kind, value=value, type=name) if value is not None else None


def _type_start(ctx: WaitContext, job: Job, cause: str, ahead: int, now: Ms) -> Ms | None:
    """The later of what the slots and the starts of a type allow."""
    kind = _kind(ctx, subject_of(cause))
    if kind is None or kind.limits is None:
        return None
    turns = _turns(ctx, job.tenant, cause) if ahead else 1.0
    starts: list[Ms | None] = []
    if kind.limits.per_minute is not None:
        frames = ctx.rates.frames(type_rate.ACCOUNT, kind.name, now)
        starts.append(start_within_rate(Limits(requests=kind.limits.per_minute), frames, 0, ahead, turns, now))
    if kind.limits.concurrency is not None and job.reason == HoldReason.TYPE_CONCURRENCY:
        starts.append(start_with_slot(kind.limits.concurrency, job.estimated_ms, ahead, turns, now))
    known = [start for start in starts if start is not None]
    return max(known) if starts and len(known) == len(starts) else None


def _slot_limit(ctx: WaitContext, job: Job, scope: str) -> WaitLimit | None:
    limit = ctx.limits_of(job.tenant).slot_limit(scope)
    if limit is None or scope not in (tenant_scope(job.tenant), user_scope(job.tenant, job.user)):
        return None
    user = job.user if scope == user_scope(job.tenant, job.user) else None
    return WaitLimit(kind=LimitKind.CONCURRENCY, value=limit.limit, tenant=job.tenant, user=user)


def _end_of_pause(ctx: WaitContext, job: Job, scope: str, now: Ms) -> Ms | None:
    """Return when the pause that holds a job ends by itself; None: when it is resumed."""
    if job.cause == OWN_PAUSE:
        return job.pause.until if job.pause is not None else None
    board = ctx.pauses.board()
    own = ctx.pauses.of_tenant(job.tenant).pauses if board.may_concern(job.tenant, now) else ()
    pause = line_pause(scope, job.tenant, (*board.pauses, *own), now)
    return now if pause is None else pause.until


def _kind(ctx: WaitContext, name: str) -> JobType | None:
    try:
        return ctx.job_type(name)
    except JobTypeNotFound:
        return None
