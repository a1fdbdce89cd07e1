"""Facts of the log that others count: one line each, with the same fields wherever it is said."""

from __future__ import annotations

from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.limits.admission import HoldReason
from chalicelib.services.log import Log
from chalicelib.services.worker.context import WorkerContext

REPEAT_INTERVAL_MS = 300_000


def log_job_failed(log: Log, job: Job) -> None:
    """Say that a job failed for good, if it did: once by whoever wrote its end."""
    if job.status is Status.FAILED:
        log(
            "job_failed",
            job_id=job.id,
            tenant=job.tenant,
            type=job.type,
            model=job.model,
            code=job.error.code if job.error else "internal_error",
            run=job.run,
            attempt=job.attempt,
            crashes=job.crashes,
        )


def log_missing_api_key(ctx: WorkerContext) -> None:
    """Say that no key of OpenAI is stored: once in five minutes for each environment, however many jobs meet it."""
    board, now = ctx.local_state, ctx.clock.now()
    if board.api_key_reported_missing_at is None or now - board.api_key_reported_missing_at >= REPEAT_INTERVAL_MS:
        board.api_key_reported_missing_at = now
        ctx.log("openai_not_configured", code=HoldReason.OPENAI_NOT_CONFIGURED)
