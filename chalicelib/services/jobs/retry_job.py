"""Retry a job manually: start a `retrying` job now, or an ended one as a new run (protocol rule 11:
terminal is final for a run).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from chalicelib.domain.errors import HeadraceError, IdempotencyKeyTaken, JobNotFound, JobNotRetryable
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.services.idempotency import IdempotentRequest
from chalicelib.services.limits.places import PlaceContext, Places, take_places_again
from chalicelib.services.notifications.job_ends import JobEndContext, notify_before_change
from chalicelib.services.update_job import update_job
from chalicelib.services.wake_up import send_wake_up


@dataclass(frozen=True, slots=True)
class Retried:
    """The job record after a retry."""

    job: Job
    replayed: bool = False  # the request had been sent before


class RetryContext(PlaceContext, JobEndContext, Protocol):
    """What retrying a job needs."""


def retry_once(ctx: RetryContext, job: Job, run: int | None, idempotent_request: IdempotentRequest) -> Retried:
    """Like `retry_job`, for a request with an Idempotency-Key, which starts the job only once.

    The key is stored with the generation that the request saw, before the job changes. A repeated
    request reads that generation and finds that the job has passed it.

    Raises:
        IdempotencyConflict: the key belongs to another request.
        JobNotRetryable: as in `retry_job`; the key stays unused.
    """
    result = idempotent_request.lookup(ctx.jobs, ctx.clock.now())
    replayed = result is not None
    if result is None:
        if not _was_restarted(job, run) and transitions.restart(job, ctx.clock.now(), 0, 0) is None:
            raise _refusal(job)
        try:
            record = idempotent_request.to_record(ctx.clock.now(), generation=job.generation)
            ctx.jobs.save_idempotency(record, job.id, ctx.clock.now())
        except IdempotencyKeyTaken:  # a concurrent copy of this request came first
            result = idempotent_request.lookup(ctx.jobs, ctx.clock.now())
    generation = result.generation if result is not None else job.generation
    return Retried(retry_job(ctx, job, run, generation), replayed)


def retry_job(ctx: RetryContext, job: Job, run: int | None = None, generation: int | None = None) -> Job:
    """Queue the job again, and return its record.

    The job spec is kept for the new run before the record needs it. A job that is already queued
    gets another wake-up: the request may be repeated because the first one could not be sent.

    Args:
        run, generation: as the caller saw them; if one of them has grown since, the job is not
            changed.

    Raises:
        JobNotRetryable: the job is completed or running, or its job spec is no longer stored.
        JobNotFound: the job was deleted meanwhile.
        QueueFull: its tenant has as many unfinished jobs as it may.
        Unavailable: the job may be queued without a wake-up; the sweeper or a repeated request
            sends it.
    """

    def restart(places: Places, seen: Job) -> Job | None:
        if _was_restarted(seen, run, generation):
            return seen
        spec = ctx.job_specs.get(job.id)
        if spec is None and not seen.is_deleted:
            raise _content_gone()
        if spec is None:
            return None
        config = spec.config
        notify_before_change(ctx, seen)
        new = transitions.restart(seen, ctx.clock.now(), round(config.expires_in * 1000), round(config.retry_for * 1000), places)
        # The content of a job that ended long ago must outlive its new run; this comes before the run exists.
        if new is not None and new.expires_at > seen.expires_at and not ctx.job_specs.extend_ttl(job.id, transitions.spec_ttl(new)):
            raise _content_gone()
        if new is not None and new.run > seen.run:  # fallback models that refused the request before may take it now
            new = replace(new, fallback_models=tuple(config.fallback_models))
        return new

    restarted = take_places_again(ctx, job, lambda places, limits: update_job(ctx.jobs, job, partial(restart, places), limits or None))
    if restarted is None:
        current = ctx.jobs.get(job.id)
        raise JobNotFound(job.id) if current is None else _refusal(current)
    if restarted.status is Status.QUEUED:
        send_wake_up(ctx.queues, restarted, ctx.clock.now())
    return restarted


def _was_restarted(job: Job, run: int | None, generation: int | None = None) -> bool:
    """Whether the job was restarted, or queued, after the caller saw it at `run` or `generation`."""
    if run is not None and (job.run > run or job.status is Status.QUEUED):
        return True
    return generation is not None and job.generation > generation


def _content_gone() -> HeadraceError:
    return JobNotRetryable("The content of this job is no longer kept. Submit it again.")


def _refusal(job: Job) -> HeadraceError:
    if job.is_deleted:
        return JobNotFound(job.id)
    if job.pause is not None:
        return JobNotRetryable("This job is paused. Resume it.")
    return JobNotRetryable(f"A {job.status.value} job cannot be retried.")
