"""Define every change of a job record as a pure function from the record to the next one.

None means that the job does not allow the change. `services/update_job.py` writes the result only
if the record still has the version that was read, and decides again on the newer record otherwise.
So each function states a protocol rule once (docs/protocol.md), and no concurrent write can break
it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from chalicelib.domain.failures import DependencyFailed, OutputInvalid, final_suggestion
from chalicelib.domain.jobs.job import DEPENDENCIES, START_LATER, Job, JobError, JobPause, Status, Usage, Wait
from chalicelib.domain.units import DAY_MS, Ms, Nano

END_CHECK_DELAY_MS = 60_000  # the change stream serves recipients and dependents of an end within this time, or the sweep does
QUEUED_CHECK_DELAY_MS = 120_000  # a wake-up may take this long before the sweeper checks the job
RECHECK_MS = 60_000  # how often the sweeper checks a job that a worker has claimed
MAX_DELAY_SECONDS = 900  # the most that SQS delays a message; a later wake-up is the sweeper's
MAX_RECHECK_MS = 3_600_000
MAX_HELD_MS = 30 * DAY_MS  # the longest time that a job without another end is held in a line before it is checked
MAX_WAITS = 8  # kept on the record
MAX_ISOLATED_CRASHES = 3  # workers that may die while they run nothing but this job
PAUSED = "paused"  # the reason of a job that is held by a pause
OWN_PAUSE = "pause:job"  # the cause of a job that is held by its own pause, until it is resumed
HANDED_OVER = "handed_over"  # the reason after a worker reached its deadline before the response ended
COMPLETED_RETENTION_DAYS = 30
OTHER_RETENTION_DAYS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptOutcome:
    """How an attempt ended, as the terminal write records it."""

    status: Status
    length: int  # code points of its text
    usage: Usage | None = None  # None: no tokens were counted
    cost: Nano | None = None  # nano-dollars; None: unknown
    error: JobError | None = None  # None: it did not fail
    incomplete_reason: str | None = None  # None: `status` is not `incomplete`
    first_token_at: Ms | None = None  # None: there was no text


def claim(
    job: Job, generation: int, owner: str, now: Ms, *, alone: bool = False, model: str | None = None, slots: tuple[str, ...] = ()
) -> Job | None:
    """Claim the job for a new attempt (protocol rule 1: the generation is the fencing token; 4: one
    attempt number per request), or for the one whose response outlived its worker (protocol rule 5:
    one attempt, one response, one text). Idempotent per owner (protocol rule 3: the owner is a
    nonce).

    A queued job keeps its `due_at`, so that the claim changes no index. A job that is too late ends
    instead.

    Args:
        alone: the worker runs no other job.
        model: the model of the attempt, if it is a fallback model.
        slots: keys of the slots that the attempt takes. One that is continued has its slots already.
    """
    if owns(job, generation, owner):
        return job
    if job.generation != generation or not is_claimable(job):
        return None
    if (end := expire_if_late(job, now)) is not None:
        return end
    keep_due_at = job.status is Status.QUEUED and job.due_at is not None and job.due_at > now
    new_attempts = 0 if job.is_resumable else 1
    return _next(
        job,
        now,
        status=Status.PROCESSING,
        owner=owner,
        attempt=job.attempt + new_attempts,
        tries=job.tries + new_attempts,
        started_at=job.started_at or now,
        first_token_at=None,
        length=None,
        reason=None,
        resume_at=None,
        run_alone=alone,
        pause=None,
        attempt_model=model if model != job.model else None,
        slots=job.slots if job.is_resumable else slots,
        due_at=job.due_at if keep_due_at else now + RECHECK_MS,
    )


def is_claimable(job: Job) -> bool:
    """Whether a wake-up may start the job: a waiting or held job only if it waits for a time or in a
    line.
    """
    if job.status is Status.HELD:
        return job.resume_at is not None or job.cause is not None
    return job.status in (Status.QUEUED, Status.RETRYING) or (job.status is Status.WAITING and job.reason == START_LATER)


def hold(
    job: Job, generation: int, reason: str, until: Ms | None, now: Ms, cause: str | None = None, *, by_user: bool = False
) -> Job | None:
    """Hold a job that an admission gate refuses (a gate uses up no attempt).

    It waits at most until it would expire or until its last attempt may start; then it ends. A job
    that stands in the line already keeps its place. Idempotent per generation, reason and cause.

    Args:
        until: when it may probably continue; None: unknown.
        cause: the line in which it waits for its release; None: it continues at `until` by itself.
        by_user: it stands there among the jobs of its user.
    """
    if job.status is Status.HELD and job.generation == generation + 1 and (job.reason, job.cause) == (reason, cause):
        return job  # this write has succeeded before; only its response was lost
    if job.generation != generation or not is_claimable(job):
        return None
    if (end := expire_if_late(job, now)) is not None:
        return end
    if cause is not None and (job.status, job.cause, job.reason) == (Status.HELD, cause, reason):
        return job
    return _held(job, now, reason, until, cause, generation=job.generation + 1, by_user=by_user)


def message_delay(job: Job, now: Ms) -> int | None:
    """Return the delay of the wake-up in seconds; None: longer than SQS allows, the sweeper sends
    it; or the job stands in a line, and a scheduler sends it.
    """
    if job.is_in_line:
        return None
    seconds = -(-max(0, (job.resume_at or 0) - now) // 1000)
    return seconds if seconds <= MAX_DELAY_SECONDS else None


def first_check_at(until: Ms, now: Ms) -> Ms:
    """Return when the sweeper must check a job that may continue at `until`: some time after its
    wake-up, or in time to send it.
    """
    return until + QUEUED_CHECK_DELAY_MS if until - now <= MAX_DELAY_SECONDS * 1000 else until


def spec_ttl(job: Job) -> int:
    """Return until when the job's spec is kept, in seconds since 1970: its last start and the retention after it."""
    return (job.expires_at + COMPLETED_RETENTION_DAYS * DAY_MS) // 1000


def owns(job: Job, generation: int, owner: str) -> bool:
    """Whether this claim still owns the job (protocol rule 2: only the owner writes)."""
    return job.status is Status.PROCESSING and job.generation == generation and job.owner == owner


def store_response_id(job: Job, generation: int, owner: str, response_id: str, now: Ms) -> Job | None:
    """Store the response id of a durable attempt, so that the next worker can continue the response
    (protocol rule 6: the response id is stored first).
    """
    if not owns(job, generation, owner):
        return None
    if job.response_id == response_id:
        return job
    return _next(job, now, response_id=response_id, response_at=now)


def hand_over(job: Job, generation: int, owner: str, now: Ms) -> Job | None:
    """Hand a durable attempt to the next worker when this one reaches its deadline. Call it after
    all text that was read is stored (protocol rule 8: the terminal write comes last).

    `cancel_requested` stays set: the next worker cancels the job, because it must stop the response
    as well.
    """
    if job.is_resumable and job.generation == generation + 1 and job.owner == owner:
        return job  # this write has succeeded before; only its response was lost
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
    """End the job with the outcome of its attempt, or as `cancelled`, with its text, if a cancel
    was requested (protocol rule 2: only the owner writes; 8: the terminal write comes last).
    Idempotent per owner.
    """
    if job.status.is_terminal and job.generation == generation and job.owner == owner:
        return job  # this write has succeeded before; only its response was lost
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
    """Queue the job for another attempt at `due`, or end it if a cancel was requested.

    Idempotent per owner. `length` records the end of the failed attempt's text, so that readers
    stop there even if a stalled worker appends more.

    Args:
        counts_as_attempt: the attempt counts against `max_attempts`.
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
        invalid_answer=outcome.error.message if outcome.error and outcome.error.code == OutputInvalid.code else job.invalid_answer,
        cost=(job.cost or 0) + outcome.cost if outcome.cost is not None else job.cost,
        reason=outcome.error.code if outcome.error else None,
        response_id=None,
        response_at=None,
    )


def hold_after_attempt(
    job: Job,
    generation: int,
    owner: str,
    outcome: AttemptOutcome,
    reason: str,
    until: Ms | None,
    now: Ms,
    *,
    without: str | None = None,
    cause: str | None = None,
    by_user: bool = False,
) -> Job | None:
    """Hold a job whose attempt failed for a cause outside the job: the rate limit was reached, or,
    before a response started, the probe of an open circuit failed, the account was refused, a
    fallback model refused the request, or there is no OpenAI key that can be used.

    Like `retry_later`, but the attempt does not count. It keeps its attempt record.

    Args:
        without: the fallback model that is not asked again in this run.
        until, cause, by_user: as of `hold`.
    """
    if job.status is Status.HELD and job.generation == generation + 1 and job.owner == owner:
        return job
    new = retry_later(job, generation, owner, outcome, now, now, counts_as_attempt=False)
    if new is None or new.status is not Status.RETRYING:
        return new
    models = tuple(model for model in new.fallback_models if model != without)
    queued_at = job.queued_at if cause is not None else new.queued_at  # it keeps its place
    held = _held(new, now, reason, until, cause, by_user=by_user)
    return replace(held, version=new.version, queued_at=queued_at, fallback_models=models)


def _held(job: Job, now: Ms, reason: str, until: Ms | None, cause: str | None, *, by_user: bool = False, **changes: Any) -> Job:
    """One in a line is due when it may wait no longer, and no earlier: its scheduler releases it."""
    last = latest_start(job)
    if until is not None and last is not None:
        until = min(until, last)
    if cause is not None:
        due_at = latest_start(job) or now + MAX_HELD_MS
    else:
        until = now if until is None else until
        due_at = first_check_at(until, now)
    waits = (*_ended_waits(job, now), Wait(reason=reason, since=now, cause=cause))[-MAX_WAITS:]
    changes |= {"cause": cause, "line_by_user": by_user and cause is not None}
    changes |= {"status": Status.HELD, "reason": reason, "resume_at": until, "due_at": due_at, "waits": waits}
    return _next(job, now, **changes)


def _ended_waits(job: Job, now: Ms) -> tuple[Wait, ...]:
    """Return the waits of a job that leaves its line now."""
    if not job.waits or job.waits[-1].until is not None:
        return job.waits
    return (*job.waits[:-1], replace(job.waits[-1], until=now))


def release(job: Job, now: Ms) -> Job | None:
    """Release a job whose parents have ended: queue it, or let it wait for its start time. Several
    callers may find the parents ended; one of them releases it (protocol rule 22: a dependent is
    released only from waiting).

    `retry_until` counts from now on; `expires_at` stays.
    """
    if not waits_for_parents(job):
        return None
    start = max(now, job.resume_at or 0)
    later = start if start > now else None
    return _next(
        job,
        now,
        status=Status.WAITING if later else Status.QUEUED,
        reason=START_LATER if later else None,
        resume_at=later,
        generation=job.generation + 1,
        queued_at=start,
        retry_until=start + job.retry_until - job.queued_at,
        due_at=first_check_at(start, now),
    )


def add_dependent(job: Job, now: Ms) -> Job:
    """Note that another job waits for this one, so that its end is due until that job is released
    (protocol rule 26). One that has ended stays as it is: whoever asks sees its end.
    """
    return job if job.has_dependents or job.status.is_terminal else _next(job, now, has_dependents=True)


def dependency_failed(job: Job, parent: str, status: str, now: Ms) -> Job | None:
    """Cancel a job because a parent ended without being completed (protocol rule 22: a dependent is
    released only from waiting).
    """
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
    """Whether the job waits for the end of its parents."""
    return job.status is Status.WAITING and job.reason == DEPENDENCIES


def parent_failed(parent: str, status: str) -> str:
    """Return the error message of a child that does not run."""
    return f"It depends on {parent}, which is {status}."


def cancel(job: Job, now: Ms) -> Job | None:
    """Cancel the job at once, or request it from the owner of a running one (protocol rule 10: a
    running job is cancelled by its owner). None: it has ended.

    Between two workers of a durable attempt the request is for the next one, which must stop the
    response.
    """
    if job.status.is_terminal:
        return None
    if job.status is Status.PROCESSING or job.is_resumable:
        return job if job.cancel_requested else _next(job, now, cancel_requested=True)
    return _end(job, now, Status.CANCELLED, length=job.length or 0, error=None)


def expire(job: Job, now: Ms) -> Job:
    """End a job that was not started before `expires_at`."""
    return _end(job, now, Status.EXPIRED, length=job.length or 0)


def restart(job: Job, now: Ms, expires_in: Ms, retry_for: Ms, places: tuple[str, ...] = ()) -> Job | None:
    """Apply a manual retry: start a `retrying`, held or delayed job now, or start a new run of an
    ended job, but not of a completed one (protocol rule 11: terminal is final for a run).

    Attempt numbers continue (protocol rule 4: one attempt number per request).

    Args:
        expires_in: milliseconds within which the new run must start.
        retry_for: milliseconds after which the new run starts no further attempt.
        places: the places of a new run in the queue of its tenant.
    """
    if is_paused(job, now):
        return None
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
        places=places,
        ttl=None,
    )


def pause(job: Job, by: str, reason: str | None, until: Ms | None, now: Ms) -> Job | None:
    """Pause a job that is not running, until it is resumed or `until`. None: it is running, or has ended.

    It is held at once and keeps its place, or waits on for its parents or its start time and is held
    after that. Between two workers of a durable attempt it is running. Expiry and the end of its
    retries stay as they are.
    """
    if job.status.is_terminal or job.status is Status.PROCESSING or job.is_resumable:
        return None
    retry_at = job.resume_at if job.status is Status.RETRYING else None
    paused = JobPause(by=by, since=now, reason=reason, until=until, retry_at=retry_at)
    if job.status is Status.WAITING:
        return _next(job, now, pause=paused)
    return _held(job, now, PAUSED, until, own_cause(paused), generation=job.generation + 1, pause=paused)


def own_cause(pause: JobPause) -> str | None:
    """Return the cause of a job that its own pause holds; None: it waits for the end of the pause.

    Nobody serves the line of the cause: the job is resumed, and nothing else releases it.
    """
    return OWN_PAUSE if pause.until is None else None


def is_paused(job: Job, now: Ms) -> bool:
    """Whether the job itself is paused. It may still be waiting for something else."""
    return job.pause is not None and not job.status.is_terminal and not job.pause.is_over(now)


def resume(job: Job, now: Ms) -> Job | None:
    """End the pause of a job: queue it with its old place, or for the time of its retry.

    Returns the same object if it is not paused; None if it has ended.
    """
    if job.status.is_terminal:
        return None
    if job.pause is None:
        return job
    if not holds_itself(job):
        return _next(job, now, pause=None)
    retry_at = job.pause.retry_at if job.pause.retry_at is not None and job.pause.retry_at > now else None
    return _next(
        job,
        now,
        status=Status.RETRYING if retry_at else Status.QUEUED,
        generation=job.generation + 1,
        reason=job.error.code if retry_at and job.error else None,
        resume_at=retry_at,
        due_at=first_check_at(retry_at, now) if retry_at else now + QUEUED_CHECK_DELAY_MS,
        pause=None,
    )


def holds_itself(job: Job) -> bool:
    """Whether the job is held by its own pause, and not by that of a scope."""
    return job.status is Status.HELD and job.pause is not None and job.reason == PAUSED and job.cause in (None, OWN_PAUSE)


def mark_deleted(job: Job, now: Ms) -> Job | None:
    """Mark an ended job as deleted, so that it cannot be restarted while its data is removed."""
    if not job.status.is_terminal:
        return None
    return job if job.is_deleted else _next(job, now, due_at=None, ttl=(job.finished_at or now) // 1000)


def is_stored(stored: Job | None, new: Job) -> bool:
    """Whether `stored` is the record that a write of `new` left. The `due_at` of an ended job is
    compared with nothing: it changes without a new version (protocol rule 26: an end is due until
    its notifications are stored).
    """
    if stored is None or not new.status.is_terminal:
        return stored == new
    return replace(stored, due_at=None) == replace(new, due_at=None)


def postpone_check(job: Job, now: Ms) -> Job | None:
    """Set the next check after one that found nothing to do; the interval grows with the wait."""
    if job.status.is_terminal:
        return None
    if job.status is Status.PROCESSING:
        return _next(job, now, due_at=now + RECHECK_MS)
    waited = now - (job.created_at if waits_for_parents(job) else max(job.queued_at, job.resume_at or 0))
    return _next(job, now, due_at=now + min(MAX_RECHECK_MS, max(QUEUED_CHECK_DELAY_MS, waited)))


def postpone(job: Job, until: Ms, now: Ms) -> Job | None:
    """Postpone the next check to `until` at the earliest, because a check failed."""
    if job.status.is_terminal:
        return None
    return job if (job.due_at or 0) >= until else _next(job, now, due_at=until)


def reclaim(job: Job, lease_id: str, length: int, cost: Nano | None, now: Ms) -> Job | None:
    """Reclaim a job from a worker whose lease is dead: queue it again, or end it (protocol rule 16:
    act only on an unchanged record; 18: a dead letter is a hint).

    The attempt does not count against `max_attempts`, but a job that crashes alone
    `MAX_ISOLATED_CRASHES` times fails. The next worker continues a durable attempt (protocol
    rule 6: the response id is stored first).

    Args:
        length: code points of the attempt's stored text.
        cost: what the attempt has cost at least; None: unknown.
    """
    if job.status is not Status.PROCESSING or lease_of(job) != lease_id:
        return None
    total = (job.cost or 0) + cost if cost is not None else job.cost
    generation = job.generation + 1  # a dead worker that wakes up must not take the end for its own
    if job.cancel_requested:
        return _end(job, now, Status.CANCELLED, length=length, cost=total, generation=generation)
    isolated_crashes = job.isolated_crashes + job.run_alone
    if isolated_crashes >= MAX_ISOLATED_CRASHES:
        error = _worker_lost(job)
        crashed = {"crashes": job.crashes + 1, "isolated_crashes": isolated_crashes}
        return _end(job, now, Status.FAILED, length=length, cost=total, generation=generation, error=error, **crashed)
    lost = {} if job.is_resumable else {"tries": max(0, job.tries - 1), "length": length, "cost": total}
    return _next(
        job,
        now,
        status=Status.QUEUED,
        generation=generation,
        crashes=job.crashes + 1,
        isolated_crashes=isolated_crashes,
        queued_at=now,
        due_at=now + QUEUED_CHECK_DELAY_MS,
        reason="worker_lost",
        **lost,
    )


def give_up(job: Job, now: Ms) -> Job | None:
    """Fail a job that may start no further attempt, with its last error. None: it still may."""
    was_attempted = job.status is Status.RETRYING or (job.status is Status.HELD and job.started_at is not None)
    if not was_attempted or not job.retry_until or now < job.retry_until:
        return None
    return _end(job, now, Status.FAILED, length=job.length or 0, error=job.error or _waited_too_long(job))


def expire_if_late(job: Job, now: Ms) -> Job | None:
    """End a job that starts too late, or was held too long. None: it is in time."""
    if now >= job.expires_at and job.started_at is None:
        return expire(job, now)
    return give_up(job, now) if job.status is Status.HELD else None


def latest_start(job: Job) -> Ms | None:
    """Return until when the next attempt of a job may start; None: there is no limit."""
    return job.expires_at if job.started_at is None else job.retry_until or None


def lease_of(job: Job) -> str:
    """Return the id of the lease under which the job was claimed."""
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


def counted_by(job: Job) -> set[str]:
    """Return the keys of all that counts the job: its slots and its places in queues."""
    return {*job.slots, *job.places}


def keeps_slots(job: Job) -> bool:
    """Whether the job keeps the slots that its claim took: until its attempt ends, whoever ends it.

    A durable attempt keeps them between two workers, because its response goes on.
    """
    return job.status is Status.PROCESSING or job.is_resumable


def _next(job: Job, now: Ms, **changes: Any) -> Job:
    """Return the next record. A job that is not held any more stands in no line, and one whose attempt
    has ended has no slots; one that has ended itself has no place in a queue.
    """
    if job.status is Status.HELD and changes.get("status", Status.HELD) is not Status.HELD:
        changes = {"cause": None, "line_by_user": False, "waits": _ended_waits(job, now), **changes}
    new = replace(job, version=job.version + 1, updated_at=now, **changes)
    if new.slots and not keeps_slots(new):
        new = replace(new, slots=())
    return replace(new, places=()) if new.places and new.status.is_terminal else new


def _end(job: Job, now: Ms, status: Status, **changes: Any) -> Job:
    """End the job. One with recipients or dependents stays due until they are served (protocol
    rule 26).
    """
    error = changes.get("error")
    if status is Status.FAILED and isinstance(error, JobError):
        changes["error"] = replace(error, suggestion=final_suggestion(error.code, error.suggestion))
    days = COMPLETED_RETENTION_DAYS if status in (Status.COMPLETED, Status.INCOMPLETE) else OTHER_RETENTION_DAYS
    return _next(
        job,
        now,
        status=status,
        finished_at=now,
        due_at=now + END_CHECK_DELAY_MS if job.notifies or job.has_dependents else None,
        resume_at=None,
        reason=None,
        pause=None,
        invalid_answer=None,
        ttl=now // 1000 + days * 86_400,
        **changes,
    )
