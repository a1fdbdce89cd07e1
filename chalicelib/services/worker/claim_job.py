"""Take a job for one attempt, with what it asks for."""

from __future__ import annotations

from dataclasses import replace

from chalicelib.domain.errors import JobTypeNotFound
from chalicelib.domain.execution.result import Result
from chalicelib.domain.execution.transcript import join_chunks
from chalicelib.domain.failures import AttemptFailed, ContentExpired, RequestRefused
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Job, JobError, Status, Usage
from chalicelib.domain.jobs.transitions import AttemptOutcome
from chalicelib.domain.limits.admission import RunNow
from chalicelib.domain.metrics.estimate import estimate_tokens
from chalicelib.domain.queues.wakeup import WakeUp
from chalicelib.services.prompts.render import fill_parent_results, fill_parent_results_if_available
from chalicelib.services.retrying import offload_with_retry
from chalicelib.services.update_job import update_job
from chalicelib.services.worker.admission.type_limit_gate import release_permit
from chalicelib.services.worker.attempt import Attempt
from chalicelib.services.worker.context import WorkerContext
from chalicelib.services.worker.evaluate_attempt import job_error
from chalicelib.services.worker.log_events import log_job_failed
from chalicelib.services.worker.stream_response import cancel_response
from chalicelib.services.worker.usage import cost_of


async def claim_job(ctx: WorkerContext, wake_up: WakeUp, job: Job, owner: str, run: RunNow, *, alone: bool = False) -> Attempt | None:
    """The attempt that this worker may now make, as the gates let it through. None: somebody else has the job, or it has ended; the
    wake-up is dropped without harm.

    Raises:
        Unavailable: whether the claim was made is unknown; the message has to come again, or the sweep finds the job.
    """
    clock, generation = ctx.clock, wake_up.generation

    def change(seen: Job) -> Job | None:
        return transitions.claim(seen, generation, owner, clock.now(), alone=alone, model=run.model)

    claimed = await offload_with_retry(ctx, update_job, ctx.jobs, job, change)
    if claimed is None or not transitions.owns(claimed, generation, owner):
        await _leave_if_nobody_runs(ctx, job, run)
        return None
    try:
        kind, body = ctx.job_type(claimed.type), await offload_with_retry(ctx, ctx.job_specs.get, claimed.id)
        if body is None:
            raise ContentExpired
        if body.depends_on:
            fill = fill_parent_results_if_available if claimed.is_resumable else fill_parent_results
            body = await offload_with_retry(ctx, fill, ctx.jobs, ctx.results, body, kind)
    except (JobTypeNotFound, AttemptFailed) as exc:
        failure = exc if isinstance(exc, AttemptFailed) else RequestRefused(exc.message)
        await _end_at_once(ctx, claimed, job_error(failure, claimed))
        await release_permit(ctx, claimed.type, run.permit, ran=False)
        return None
    if claimed.attempt_model is not None:
        body = replace(body, config=replace(body.config, model=claimed.attempt_model))
    kept = await offload_with_retry(ctx, ctx.chunks.read, claimed.id, claimed.attempt) if claimed.is_resumable else ()
    return Attempt(claimed, body, kind, owner, clock.now(), run, kept)


async def _leave_if_nobody_runs(ctx: WorkerContext, job: Job, run: RunNow) -> None:
    """Give the slot of a wake-up back that starts nothing. Another worker with the same one may have claimed the job, and needs it."""
    if run.permit is None:
        return
    there = await ctx.offload(ctx.jobs.get, job.id)
    if there is None or there.status is not Status.PROCESSING or there.generation != job.generation:
        await release_permit(ctx, job.type, run.permit, ran=False)


async def _end_at_once(ctx: WorkerContext, claimed: Job, error: JobError) -> None:
    """End a job that cannot be tried. Its attempt was taken, so the ledger has its row: nothing was asked, nothing is owed.

    Of an attempt that a former worker began the text is kept, and its response is stopped.
    """
    now, text, usage = ctx.clock.now(), "", None
    if claimed.is_resumable and claimed.response_id is not None:
        await cancel_response(ctx.provider, ctx.log, claimed.response_id)
        text = join_chunks(await offload_with_retry(ctx, ctx.chunks.read, claimed.id, claimed.attempt), 0)
        usage = Usage(output=estimate_tokens(text), estimated=True)  # only answers of a provider go on
    cost = cost_of(ctx.prices, claimed.asked_model, usage)
    row = Result(
        job_id=claimed.id,
        attempt=claimed.attempt,
        text=text,
        generation=claimed.generation,
        status=Status.FAILED.value,
        finish_reason=Status.FAILED.value,
        model=claimed.asked_model,
        usage=usage,
        cost=cost,
        started_at=now,
        finished_at=now,
        error_code=error.code,
        ttl=now // 1000 + transitions.COMPLETED_RETENTION_DAYS * 86_400,
    )
    await offload_with_retry(ctx, ctx.results.put, row, claimed.tenant)
    failed = AttemptOutcome(status=Status.FAILED, length=len(text), usage=usage, cost=cost, error=error)
    generation, owner = claimed.generation, claimed.owner or ""
    ended = await offload_with_retry(
        ctx, update_job, ctx.jobs, claimed, lambda seen: transitions.finish(seen, generation, owner, failed, ctx.clock.now())
    )
    if ended is not None:
        log_job_failed(ctx.log, ended)
