"""Facts of the log that others count: one line each, with the same fields wherever it is said."""

from __future__ import annotations

from chalicelib.domain.admission import OPENAI_NOT_CONFIGURED
from chalicelib.domain.job import Job, Status
from chalicelib.usecases.engine import Engine, Log

AGAIN_MS = 300_000


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


def note_no_key(engine: Engine) -> None:
    """Say that no key of OpenAI is stored: once in five minutes for each environment, however many jobs meet it."""
    board, now = engine.local_state, engine.clock.now()
    if board.api_key_reported_missing_at is None or now - board.api_key_reported_missing_at >= AGAIN_MS:
        board.api_key_reported_missing_at = now
        engine.log("openai is not configured", code=OPENAI_NOT_CONFIGURED)
