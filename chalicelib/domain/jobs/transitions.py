"""Every way a job's head may change: pure functions from the head as it is to the head as it should be.

None means "not allowed from here". A store writes the answer only if the version it was decided on is still there, and asks again on
the newer head otherwise (`services/update_job.py`): so each function states a rule of the protocol once, and no write can break it.
The numbers in brackets are the protocol's (docs/protocol.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from chalicelib.domain.failures import DependencyFailed
from chalicelib.domain.jobs.job import DEPENDENCIES, START_LATER, Job, JobError, Status, Usage
from chalicelib.domain.units import Ms, Nano

QUEUED_CHECK_DELAY_MS = 120_000  # how long a wake-up may take before somebody looks for it
RECHECK_MS = 60_000  # how often somebody looks at a job that a worker has
MAX_DELAY_SECONDS = 900  # seconds, of an SQS message: beyond it the sweep sends the wake-up
MAX_RECHECK_MS = 3_600_000
MAX_ISOLATED_CRASHES = 3  # workers that may die with nothing else to do than this job
HANDED_OVER = "handed_over"  # the reason of a job whose worker's time was over before its response was
COMPLETED_RETENTION_DAYS = 30
OTHER_RETENTION_DAYS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptOutcome:
    """How an attempt ended: what the terminal write records."""

    status: Status
    length: int
    usage: Usage | None = None
    cost: Nano | None = None
    error: JobError | None = None
    incomplete_reason: str | None = None
    first_token_at: Ms | None = None


def claim(job: Job, generation: int, owner: str, now: Ms, *, alone: bool = False, model: str | None = None) -> Job | None:
    """Take the job for one attempt [1, 3, 4], or to go on with one whose response outlived its worker [5]. Asking again with the same
    owner answers the job as it is: the write had been done.

    `model` makes the attempt, if it is not the job's own. A queued job keeps its `due_at`, so that the claim changes no index.
    """
    if owns(job, generation, owner):
        return job
    if job.generation != generation or not is_claimable(job):
        return None
    if (end := expire_if_late(job, now)) is not None:
        return end
    keeps = job.status is Status.QUEUED and job.due_at is not None and job.due_at > now
    another = 0 if job.is_resumable else 1
    return _next(
        job,
        now,
        status=Status.PROCESSING,
        owner=owner,
        attempt=job.attempt + another,
        tries=job.tries + another,
        started_at=job.started_at or now,
        first_token_at=None,
        length=None,
        reason=None,
        resume_at=None,
        run_alone=alone,
        attempt_model=model if model != job.model else None,
        due_at=job.due_at if keeps else now + RECHECK_MS,
    )


def is_claimable(job: Job) -> bool:
    """Whether a wake-up may start it. Of those that wait or are held, only for a time: a wake-up is sent so that it comes then."""
    if job.status is Status.HELD:
        return job.resume_at is not None
    return job.status in (Status.QUEUED, Status.RETRYING) or (job.status is Status.WAITING and job.reason == START_LATER)


def hold(job: Job, generation: int, reason: str, until: Ms, now: Ms) -> Job | None:
    """Give back a job that a gate does not let through, to be looked at again at `until`: no attempt is made, no try is used up.

    It never waits beyond the time by which it must have begun, or the last one for another attempt: then it ends.
    """
    if job.status is Status.HELD and job.generation == generation + 1 and job.reason == reason:
        return job  # our own write, whose answer was lost
    if job.generation != generation or not is_claimable(job):
        return None
    if (end := expire_if_late(job, now)) is not None:
        return end
    last = job.expires_at if job.started_at is None else job.retry_until or until
    until = min(until, last)
    return _next(
        job, now, status=Status.HELD, generation=job.generation + 1, reason=reason, resume_at=until, due_at=first_check_at(until, now)
    )


def message_delay(job: Job, now: Ms) -> int | None:
    """Seconds by which the job's wake-up is to be delayed; None: further than a message can be, so the sweep sends it when it is near."""
    seconds = -(-max(0, (job.resume_at or 0) - now) // 1000)
    return seconds if seconds <= MAX_DELAY_SECONDS else None


def first_check_at(until: Ms, now: Ms) -> Ms:
    """When somebody must look at a job that may go on at `until`: a while after its wake-up, or in time to send it."""
    return until + QUEUED_CHECK_DELAY_MS if until - now <= MAX_DELAY_SECONDS * 1000 else until


def owns(job: Job, generation: int, owner: str) -> bool:
    """Whether this claim still owns the job: the fence of every later write [2]."""
    return job.status is Status.PROCESSING and job.generation == generation and job.owner == owner


def store_response_id(job: Job, generation: int, owner: str, response_id: str, now: Ms) -> Job | None:
    """Store the response of a durable attempt before anything of it is shown or kept [6]: from here on a successor goes on with it."""
    if not owns(job, generation, owner):
        return None
    if job.response_id == response_id:
        return job
    return _next(job, now, response_id=response_id, response_at=now)


def hand_over(job: Job, generation: int, owner: str, now: Ms) -> Job | None:
    """Give a durable attempt to the next worker as it is, once all that was read of it is kept [8]: this one's time is over.

    A cancel that was asked stays asked: the next worker obeys it, because the response has to be stopped as well.
    """
    if job.is_resumable and job.generation == generation + 1 and job.owner == owner:
        return job  # our own write, whose answer was lost
    if not owns(job, generation, owner) or not job.is_resumable:
        return None
    return _next(
        job,
        now,
        status=Status.QUEUED,
        generation=job.generation + 1,
        queued_at=now,
        due_at=now + QUEUED_CHECK_DELAY_MS,
        reason=HANDED_OVER,
    )


def finish(job: Job, generation: int, owner: str, outcome: AttemptOutcome, now: Ms) -> Job | None:
    """The terminal write of a worker [2, 8]. Whoever asked for a cancel before it gets `cancelled`, with the text that there is."""
    if job.status.is_terminal and job.generation == generation and job.owner == owner:
        return job  # our own write, whose answer was lost
    if not owns(job, generation, owner):
        return None
    status = Status.CANCELLED if job.cancel_requested else outcome.status
    return _end(
        job,
        now,
        status,
        length=outcome.length,
        usage=outcome.usage,
        cost=(job.cost or 0) + outcome.cost if outcome.cost is not None else job.cost,
        error=None if status is Status.CANCELLED else outcome.error,
        incomplete_reason=outcome.incomplete_reason if status is Status.INCOMPLETE else None,
        first_token_at=outcome.first_token_at or job.first_token_at,
    )


def retry_later(
    job: Job, generation: int, owner: str, outcome: AttemptOutcome, due: Ms, now: Ms, *, counts_as_attempt: bool = True
) -> Job | None:
    """Give the job back after a failed attempt, to be claimed again at `due` [8: never over a cancel flag].

    `length` keeps the end of the failed attempt's text, so that readers stop there whatever a stalled worker may still append.
    `counts_as_attempt`: the attempt counts against `max_attempts`.
    """
    if job.status is Status.RETRYING and job.generation == generation + 1 and job.owner == owner:
        return job
    if not owns(job, generation, owner):
        return None
    if job.cancel_requested:
        return finish(job, generation, owner, outcome, now)
    return _next(
        job,
        now,
        status=Status.RETRYING,
        generation=job.generation + 1,
        due_at=first_check_at(due, now),
        resume_at=due,
        queued_at=now,
        tries=job.tries if counts_as_attempt else max(0, job.tries - 1),
        length=outcome.length,
        error=outcome.error,
        cost=(job.cost or 0) + outcome.cost if outcome.cost is not None else job.cost,
        reason=outcome.error.code if outcome.error else None,
        response_id=None,
        response_at=None,
    )


def hold_after_attempt(job: Job, generation: int, owner: str, outcome: AttemptOutcome, reason: str, until: Ms, now: Ms) -> Job | None:
    """Give back a job whose attempt met, before a response was begun, what is no fault of its own: it was the probe of an open circuit in
    vain, or found no key of OpenAI.

    The attempt is in the ledger, and counts for nothing. As `retry_later` otherwise.
    """
    if job.status is Status.HELD and job.generation == generation + 1 and job.owner == owner:
        return job
    given = retry_later(job, generation, owner, outcome, min(until, job.retry_until or until), now, counts_as_attempt=False)
    return replace(given, status=Status.HELD, reason=reason) if given is not None and given.status is Status.RETRYING else given


def release(job: Job, now: Ms) -> Job | None:
    """Let a job go on whose parents have ended [22]: to the queue, or to wait for its time. Only from where it waits for them, so that of
    all who find them ended one releases it.

    How long it may be tried counts from here. By when it must have begun stays as it was said.
    """
    if not waits_for_parents(job):
        return None
    begins = max(now, job.resume_at or 0)
    later = begins if begins > now else None
    return _next(
        job,
        now,
        status=Status.WAITING if later else Status.QUEUED,
        reason=START_LATER if later else None,
        resume_at=later,
        generation=job.generation + 1,
        queued_at=begins,
        retry_until=begins + job.retry_until - job.queued_at,
        due_at=first_check_at(begins, now),
    )


def dependency_failed(job: Job, parent: str, status: str, now: Ms) -> Job | None:
    """Cancel a job one of whose parents ended without being completed, once and for all [22]."""
    if not waits_for_parents(job):
        return None
    error = JobError(
        code=DependencyFailed.code,
        error_class=DependencyFailed.error_class,
        retryable=DependencyFailed.retryable,
        message=parent_failed(parent, status),
        suggestion=DependencyFailed.suggestion,
        attempt=job.attempt,
    )
    return _end(job, now, Status.CANCELLED, length=job.length or 0, error=error)


def waits_for_parents(job: Job) -> bool:
    return job.status is Status.WAITING and job.reason == DEPENDENCIES


def parent_failed(parent: str, status: str) -> str:
    """Why a child does not run."""
    return f"It depends on {parent}, which is {status}."


def cancel(job: Job, now: Ms) -> Job | None:
    """Cancel at once what nobody works on; ask the owner of what is being worked on [10]. None: it has ended.

    A response that goes on between two workers is stopped by the next one.
    """
    if job.status.is_terminal:
        return None
    if job.status is Status.PROCESSING or job.is_resumable:
        return job if job.cancel_requested else _next(job, now, cancel_requested=True)
    return _end(job, now, Status.CANCELLED, length=job.length or 0, error=None)


def expire(job: Job, now: Ms) -> Job:
    """End a job that nobody started in time."""
    return _end(job, now, Status.EXPIRED, length=job.length or 0)


def restart(job: Job, now: Ms, expires_in: Ms, retry_for: Ms) -> Job | None:
    """A person's retry: a `retrying`, held or delayed job now, or a new run of an ended one, never of a completed one [11].

    Attempts go on counting [4].
    """
    if not job.status.is_terminal and job.status is not Status.QUEUED and is_claimable(job):
        due = now + QUEUED_CHECK_DELAY_MS
        return _next(job, now, status=Status.QUEUED, generation=job.generation + 1, queued_at=now, due_at=due, reason=None, resume_at=None)
    if not job.status.is_terminal or job.status is Status.COMPLETED or job.is_deleted:
        return None
    return _next(
        job,
        now,
        status=Status.QUEUED,
        generation=job.generation + 1,
        run=job.run + 1,
        tries=0,
        crashes=0,
        cancel_requested=False,
        response_id=None,
        response_at=None,
        queued_at=now,
        started_at=None,
        finished_at=None,
        expires_at=now + expires_in,
        retry_until=now + retry_for,
        due_at=now + QUEUED_CHECK_DELAY_MS,
        error=None,
        incomplete_reason=None,
        reason=None,
        resume_at=None,
        isolated_crashes=0,
        ttl=None,
    )


def mark_deleted(job: Job, now: Ms) -> Job | None:
    """Delete an ended job: its time is over with its end, so nothing starts it again while what is kept of it is removed."""
    if not job.status.is_terminal:
        return None
    return job if job.is_deleted else _next(job, now, ttl=(job.finished_at or now) // 1000)


def postpone_check(job: Job, now: Ms) -> Job | None:
    """Somebody looked and found nothing to do: the next look is further away the longer the job has been waiting."""
    if job.status.is_terminal:
        return None
    if job.status is Status.PROCESSING:
        return _next(job, now, due_at=now + RECHECK_MS)
    waited = now - (job.created_at if waits_for_parents(job) else max(job.queued_at, job.resume_at or 0))
    return _next(job, now, due_at=now + min(MAX_RECHECK_MS, max(QUEUED_CHECK_DELAY_MS, waited)))


def postpone(job: Job, until: Ms, now: Ms) -> Job | None:
    """Have the job looked at no earlier than `until`: a look at it failed."""
    if job.status.is_terminal:
        return None
    return job if (job.due_at or 0) >= until else _next(job, now, due_at=until)


def reclaim(job: Job, lease_id: str, length: int, cost: Nano | None, now: Ms) -> Job | None:
    """Take a job from a worker whose lease is dead [6, 16, 18]. `length` is the end of what is kept of the attempt's text, `cost` what it
    has cost at least.

    The dead attempt is not held against `max_attempts`: it was not the job's fault, until it dies alone again and again. A durable one is
    not dead: its successor goes on with it.
    """
    if job.status is not Status.PROCESSING or lease_of(job) != lease_id:
        return None
    total = (job.cost or 0) + cost if cost is not None else job.cost
    disowned = job.generation + 1  # so that the dead worker, should it wake, takes no end for its own
    if job.cancel_requested:
        return _end(job, now, Status.CANCELLED, length=length, cost=total, generation=disowned)
    isolated_crashes = job.isolated_crashes + job.run_alone
    if isolated_crashes >= MAX_ISOLATED_CRASHES:
        error = _worker_lost(job)
        crashed = {"crashes": job.crashes + 1, "isolated_crashes": isolated_crashes}
        return _end(job, now, Status.FAILED, length=length, cost=total, generation=disowned, error=error, **crashed)
    lost = {} if job.is_resumable else {"tries": max(0, job.tries - 1), "length": length, "cost": total}
    return _next(
        job,
        now,
        status=Status.QUEUED,
        generation=disowned,
        crashes=job.crashes + 1,
        isolated_crashes=isolated_crashes,
        queued_at=now,
        due_at=now + QUEUED_CHECK_DELAY_MS,
        reason="worker_lost",
        **lost,
    )


def give_up(job: Job, now: Ms) -> Job | None:
    """End a job whose time for another attempt is over; the last failure says why it came to that."""
    begun = job.status is Status.RETRYING or (job.status is Status.HELD and job.started_at is not None)
    if not begun or not job.retry_until or now < job.retry_until:
        return None
    return _end(job, now, Status.FAILED, length=job.length or 0, error=job.error or _waited_too_long(job))


def expire_if_late(job: Job, now: Ms) -> Job | None:
    """The end of a job that wakes too late to begin, or was held until it was too late to go on. None: it is in time."""
    if now >= job.expires_at and job.started_at is None:
        return expire(job, now)
    return give_up(job, now) if job.status is Status.HELD else None


def lease_of(job: Job) -> str:
    """The lease under which the job was claimed."""
    return (job.owner or "").partition("#")[0]


def _worker_lost(job: Job) -> JobError:
    return JobError(
        code="worker_lost",
        error_class="internal",
        retryable=False,
        message=f"The worker died {MAX_ISOLATED_CRASHES} times while it ran this job alone.",
        suggestion="The job probably needs more memory than a worker has. Make it smaller, or tell the operator.",
        attempt=job.attempt,
    )


def _waited_too_long(job: Job) -> JobError:
    return JobError(
        code="held_too_long",
        error_class="held",
        retryable=False,
        message="The job was held until no time was left for another attempt (`config.retry_for`).",
        suggestion="See `GET /circuits` for what holds jobs now; retry the job when it is over.",
        attempt=job.attempt,
    )


def _next(job: Job, now: Ms, **changes: Any) -> Job:
    return replace(job, version=job.version + 1, updated_at=now, **changes)


def _end(job: Job, now: Ms, status: Status, **changes: Any) -> Job:
    days = COMPLETED_RETENTION_DAYS if status in (Status.COMPLETED, Status.INCOMPLETE) else OTHER_RETENTION_DAYS
    return _next(
        job, now, status=status, finished_at=now, due_at=None, resume_at=None, reason=None, ttl=now // 1000 + days * 86_400, **changes
    )
