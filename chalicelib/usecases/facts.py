"""Facts of the log that others count: one line each, with the same fields wherever it is said."""

from __future__ import annotations

from chalicelib.domain.job import Job, Status
from chalicelib.usecases.engine import Log


def note_failure(log: Log, job: Job) -> None:
    """Say that a job failed for good, if it did: once by whoever wrote its end."""
    if job.status is Status.FAILED:
        log(
            "job failed",
            job_id=job.id,
            tenant=job.tenant,
            type=job.type,
            model=job.model,
            code=job.error.code if job.error else "internal_error",
            run=job.run,
            attempt=job.attempt,
            crashes=job.crashes,
        )
