"""Start a job again by a person's wish: a `retrying` one now, an ended one as a new run [11]."""

from __future__ import annotations

from chalicelib.domain import transitions
from chalicelib.domain.errors import JobNotRetryable
from chalicelib.domain.job import Job
from chalicelib.domain.wakeup import WakeUp
from chalicelib.ports import Bodies, Clock, Jobs, Queues
from chalicelib.usecases.advance import advance


def retry_job(clock: Clock, jobs: Jobs, bodies: Bodies, queues: Queues, job: Job, run: int | None = None) -> Job:
    """The head, queued again. `run` is the run that the caller saw: a repeated request, whose run has begun already, changes nothing.

    Raises:
        JobNotRetryable: it is completed, under way, or its content is no longer kept.
    """
    if run is not None and job.run > run:
        return job
    body = bodies.get(job.id)
    if body is None:
        raise JobNotRetryable("The content of this job is no longer kept. Submit it again.")
    config = body.config
    expires_in, retry_for = round(config.expires_in * 1000), round(config.retry_for * 1000)
    again = advance(jobs, job, lambda seen: transitions.start_again(seen, clock.now(), expires_in, retry_for))
    if again is None:
        raise JobNotRetryable(f"A {job.status.value} job cannot be retried.")
    queues.send(again.lane, WakeUp(again.id, again.generation), again.tenant)
    return again
