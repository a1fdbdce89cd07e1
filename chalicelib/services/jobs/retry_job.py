"""Start a job again by a person's wish: a `retrying` one now, an ended one as a new run [11]."""

from __future__ import annotations

from dataclasses import dataclass

from chalicelib.domain.errors import HeadraceError, IdempotencyKeyTaken, JobNotFound, JobNotRetryable
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.services.context import JobContext
from chalicelib.services.idempotency import IdempotentRequest
from chalicelib.services.update_job import update_job
from chalicelib.services.wake_up import send_wake_up


@dataclass(frozen=True, slots=True)
class Retried:
    """The head after a retry. `replayed`: the request had its effect before."""

    job: Job
    replayed: bool = False


def retry_once(ctx: JobContext, job: Job, run: int | None, once: IdempotentRequest) -> Retried:
    """As `retry_job`, for a request with an Idempotency-Key: however often it comes, it starts the job again once.

    Before anything is changed the key is given the generation that the request saw; a repetition finds it, and every start of a job makes
    the generation grow.

    Raises:
        IdempotencyConflict: the key stands for another request.
        JobNotRetryable: as in `retry_job`; the key is not used up then.
    """
    remembered = once.lookup(ctx.jobs, ctx.clock.now())
    replayed = remembered is not None
    if remembered is None:
        if not _has_begun(job, run) and transitions.restart(job, ctx.clock.now(), 0, 0) is None:
            raise _refusal(job)
        try:
            ctx.jobs.save_idempotency(once.to_record(ctx.clock.now(), generation=job.generation), job.id, ctx.clock.now())
        except IdempotencyKeyTaken:  # by the same request, at this moment
            remembered = once.lookup(ctx.jobs, ctx.clock.now())
    seen = remembered.generation if remembered is not None else job.generation
    return Retried(retry_job(ctx, job, run, seen), replayed)


def retry_job(ctx: JobContext, job: Job, run: int | None = None, generation: int | None = None) -> Job:
    """The head, queued again. `run` and `generation` are what the caller saw: when one of them has grown, nothing is changed any more.

    What is found queued is woken again: whoever repeats a request may do so because its wake-up could not be sent.

    Raises:
        JobNotRetryable: it is completed, under way, or its content is no longer kept.
        JobNotFound: it was deleted meanwhile.
        Unavailable: it may be queued, but its wake-up could not be sent; the sweep will, or a repetition.
    """

    def start_again(seen: Job) -> Job | None:
        if _has_begun(seen, run, generation):
            return seen
        body = ctx.job_specs.get(job.id)
        if body is None and not seen.is_deleted:
            raise JobNotRetryable("The content of this job is no longer kept. Submit it again.")
        if body is None:
            return None
        config = body.config
        return transitions.restart(seen, ctx.clock.now(), round(config.expires_in * 1000), round(config.retry_for * 1000))

    again = update_job(ctx.jobs, job, start_again)
    if again is None:
        now = ctx.jobs.get(job.id)
        raise JobNotFound(job.id) if now is None else _refusal(now)
    if again.status is Status.QUEUED:
        send_wake_up(ctx.queues, again, ctx.clock.now())
    return again


def _has_begun(job: Job, run: int | None, generation: int | None = None) -> bool:
    """Whether the job has been started again since somebody saw it at `run` or `generation`, or is about to be."""
    if run is not None and (job.run > run or job.status is Status.QUEUED):
        return True
    return generation is not None and job.generation > generation


def _refusal(job: Job) -> HeadraceError:
    if job.is_deleted:
        return JobNotFound(job.id)
    return JobNotRetryable(f"A {job.status.value} job cannot be retried.")
