"""Claim a job for one attempt and load its spec."""

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
from chalicelib.services.scheduling.slot_lines import release_after
from chalicelib.services.update_job import update_job
from chalicelib.services.worker.admission.gates import pass_on
from chalicelib.services.worker.admission.rate_gate import give_back, granted_rate
from chalicelib.services.worker.admission.type_gate import counted_by, uncount_start
from chalicelib.services.worker.attempt import Attempt
from chalicelib.services.worker.context import WorkerContext
from chalicelib.services.worker.evaluate_attempt import job_error
from chalicelib.services.worker.log_events import log_job_failed
from chalicelib.services.worker.stream_response import cancel_response, delete_response
from chalicelib.services.worker.usage import cost_of


async def claim_job(ctx: WorkerContext, wake_up: WakeUp, job: Job, owner: str, admission: RunNow, *, alone: bool = False) -> Attempt | None:
    """Claim the job and return the attempt that this worker makes.

    Args:
        owner: nonce of this claim (protocol rule 3: the owner is a nonce).
        admission: what the gates granted.
        alone: this invocation runs no other job.

    Returns: None if the wake-up may be acknowledged without an attempt: another worker has the job,
        or it has ended, or the claim ended it because it cannot be attempted.

    Raises:
        SlotsFull: others took the slots since the gate looked. Nothing was written.
        Unavailable: it is unknown whether the claim was written. The message must not be
            acknowledged; the sweeper recovers the job if the claim was written.
    """
    clock, generation = ctx.clock, wake_up.generation

    def change(seen: Job) -> Job | None:
        slots = tuple(admission.slots)
        return transitions.claim(seen, generation, owner, clock.now(), alone=alone, model=admission.model, slots=slots)

    claimed = await offload_with_retry(ctx, update_job, ctx.jobs, job, change, admission.slots or None)
    ctx.local_state.sent_for_slots.remove(job.id)
    if claimed is None or not transitions.owns(claimed, generation, owner):
        await return_taken(ctx, wake_up, job, admission, is_stale=claimed is None)
        if claimed is not None and claimed.status.is_terminal:
            await pass_on(ctx, job)
        return None
    try:
        if admission.refusal is not None:
            raise RequestRefused(admission.refusal)
        kind, spec = ctx.job_type(claimed.type), await offload_with_retry(ctx, ctx.job_specs.get, claimed.id)
        if kind.is_task != claimed.is_task:
            raise RequestRefused(f"The job type {kind.name} has changed since this job was submitted.")
        if spec is None:
            raise ContentExpired
        if spec.depends_on:
            fill = fill_parent_results_if_available if claimed.is_resumable else fill_parent_results
            spec = await offload_with_retry(ctx, fill, ctx.jobs, ctx.results, spec, kind)
    except (JobTypeNotFound, AttemptFailed) as exc:
        failure = exc if isinstance(exc, AttemptFailed) else RequestRefused(exc.message)
        await _fail_claimed_job(ctx, claimed, job_error(failure, claimed))
        await give_back(ctx, admission.rate)
        return None
    if claimed.attempt_model is not None:
        spec = replace(spec, config=replace(spec.config, model=claimed.attempt_model))
    chunks = await offload_with_retry(ctx, ctx.chunks.read, claimed.id, claimed.attempt) if claimed.is_resumable else ()
    return Attempt(claimed, spec, kind, owner, clock.now(), admission, chunks)


async def return_taken(ctx: WorkerContext, wake_up: WakeUp, job: Job, admission: RunNow, *, is_stale: bool) -> None:
    """Give back what was taken for a claim that did not happen.

    Args:
        is_stale: the wake-up no longer applies. If it came twice, the job uses what the scheduler has
            taken for it (protocol rule 32: a grant is counted), so that stays.
    """
    grant = wake_up.grant if is_stale else None
    if grant is None or admission.counted_at != counted_by(job, grant):
        await uncount_start(ctx, job, admission.counted_at)
    if grant is None or admission.rate != granted_rate(job, grant, grant.at):
        await give_back(ctx, admission.rate)


async def _fail_claimed_job(ctx: WorkerContext, claimed: Job, error: JobError) -> None:
    """Fail a claimed job that cannot be attempted.

    The claim took an attempt number, so an attempt record is written too (protocol rule 23: one row
    per attempt, one writer). If an earlier worker started the attempt, its text is kept and its
    response is cancelled.
    """
    now, text, usage = ctx.clock.now(), "", None
    if claimed.is_resumable and claimed.response_id is not None:
        await cancel_response(ctx.provider, ctx.log, claimed.response_id)
        text = join_chunks(await offload_with_retry(ctx, ctx.chunks.read, claimed.id, claimed.attempt), 0)
        usage = Usage(output=estimate_tokens(text), estimated=True)  # a resumable attempt is always a provider's response
    cost = cost_of(ctx.prices, claimed.asked_model, usage)
    result = Result(
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
    await offload_with_retry(ctx, ctx.results.put, result, claimed.tenant)
    outcome = AttemptOutcome(status=Status.FAILED, length=len(text), usage=usage, cost=cost, error=error)
    generation, owner = claimed.generation, claimed.owner or ""
    ended = await offload_with_retry(
        ctx, update_job, ctx.jobs, claimed, lambda seen: transitions.finish(seen, generation, owner, outcome, ctx.clock.now())
    )
    if ended is not None:
        await ctx.offload(release_after, ctx, ctx.local_state.sent_for_slots, claimed, ended)
        log_job_failed(ctx.log, ended)
        if claimed.response_id is not None:
            await delete_response(ctx.provider, ctx.log, claimed.response_id)
