"""Log events that alarms count.

Each is written by one function, so that its fields are always the same.
"""

from __future__ import annotations

from chalicelib.domain.failures import NotConfigured
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.services.log import Log
from chalicelib.services.worker.context import WorkerContext

REPEAT_INTERVAL_MS = 300_000


def log_job_failed(log: Log, job: Job) -> None:
    """Log that a job has failed for good, if it has.

    Only the function that wrote the end calls this, so it is logged once.
    """
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


def log_missing_api_key(ctx: WorkerContext, failure: NotConfigured | None = None) -> None:
    """Log that no OpenAI key is stored, or why it cannot be used, at most once in five minutes per environment."""
    state, now = ctx.local_state, ctx.clock.now()
    if state.api_key_reported_missing_at is None or now - state.api_key_reported_missing_at >= REPEAT_INTERVAL_MS:
        state.api_key_reported_missing_at = now
        ctx.log("openai_not_configured", code=(failure or NotConfigured).code, reason=(failure or NotConfigured()).message)
