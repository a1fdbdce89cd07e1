"""Recover a job whose worker has died: finish it, queue it again, hand it over, or end it."""

from __future__ import annotations

from dataclasses import replace

from chalicelib.domain.errors import ChunkConflict, JobTypeNotFound
from chalicelib.domain.execution.result import WORKER_LOST, Result
from chalicelib.domain.execution.transcript import Chunk, join_chunks
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Job, Status, Usage
from chalicelib.domain.jobs.spec import requested_tier
from chalicelib.domain.jobs.transitions import AttemptOutcome
from chalicelib.domain.metrics.estimate import REQUEST_TOKENS, estimate_tokens
from chalicelib.domain.units import Ms, Nano
from chalicelib.services.maintenance.context import SweepContext, SweepResult, apply_transition
from chalicelib.services.prompts.model_request import instructions
from chalicelib.services.prompts.render import fill_parent_results_if_available
from chalicelib.services.scheduling.slot_lines import release_after
from chalicelib.services.update_job import update_job
from chalicelib.services.wake_up import send_wake_up
from chalicelib.services.worker.log_events import log_job_failed
from chalicelib.services.worker.usage import cost_of


def recover_job(ctx: SweepContext, job: Job, lease_id: str) -> SweepResult:
    """Recover a job that the lease's dead worker was processing.

    A job whose result is stored is finished with it. Any other job is reclaimed: queued again, or
    failed or cancelled if it must not run again.

    Returns:
        What was done; `NOTHING` if the job is no longer processed under this lease.
    """
    if job.status is not Status.PROCESSING or transitions.lease_of(job) != lease_id:
        return SweepResult.NOTHING
    stored = ctx.results.get(job.id, job.attempt)
    now = ctx.clock.now()
    if stored is not None and stored.status in (Status.COMPLETED, Status.INCOMPLETE):
        outcome = AttemptOutcome(
            status=Status(stored.status),
            length=len(stored.text),
            usage=stored.usage,
            cost=stored.cost,
            incomplete_reason=stored.finish_reason,
            first_token_at=stored.first_token_at,
        )
        generation, owner = job.generation, job.owner or ""
        finished = apply_transition(
            ctx, job, lambda current: transitions.finish(current, generation, owner, outcome, now), SweepResult.FINISHED
        )
        if finished is SweepResult.FINISHED:
            release_after(ctx, None, job, replace(job, slots=()))
            if job.response_id is not None:
                ctx.delete_response(job.response_id)
        return finished
    cost, length = (None, 0) if _is_resumed(job, lease_id, now) else _settle_lost_attempt(ctx, job, stored, now)
    reclaimed = update_job(
        ctx.jobs, job, lambda current: transitions.reclaim(current, lease_id, length, cost, now) if current.attempt == job.attempt else None
    )
    if reclaimed is None:
        return SweepResult.NOTHING
    release_after(ctx, None, job, reclaimed)
    log_job_failed(ctx.log, reclaimed)
    if reclaimed.status is Status.QUEUED:
        send_wake_up(ctx.queues, reclaimed, now)
    ctx.log("worker_lost", job_id=job.id, tenant=job.tenant, attempt=job.attempt, lease=lease_id, crashes=reclaimed.crashes)
    if reclaimed.is_resumable:
        return SweepResult.HANDED_OVER
    if job.response_id is not None:
        ctx.delete_response(job.response_id)
    return SweepResult.RECLAIMED if reclaimed.status is Status.QUEUED else SweepResult.ENDED


def _is_resumed(job: Job, lease_id: str, now: Ms) -> bool:
    """Whether another worker will continue the attempt by resuming its background response."""
    reclaimed = transitions.reclaim(job, lease_id, 0, None, now)
    return reclaimed is not None and reclaimed.is_resumable


def _settle_lost_attempt(ctx: SweepContext, job: Job, stored: Result | None, now: Ms) -> tuple[Nano | None, int]:
    """Stop the dead worker's response and store the row of its attempt.

    The response is stopped because no worker reads it any more (protocol rule 6: the response id
    is stored first).

    Returns:
        Cost and text length of the attempt.
    """
    if job.response_id is not None:
        ctx.cancel_response(job.response_id)
    chunks = ctx.chunks.read(job.id, job.attempt) if stored is None else []
    text = _text_of(chunks) if stored is None else stored.text
    lost = stored or _lost_attempt_result(ctx, job, text, now, provider_called=_provider_was_called(chunks))
    if stored is None and lost is not None:  # store it before the reclaim: a crash in between must not lose it
        ctx.results.put_if_absent(lost, job.tenant)
    return lost.cost if lost else None, len(text)


def _lost_attempt_result(ctx: SweepContext, job: Job, text: str, now: Ms, *, provider_called: bool) -> Result | None:
    """The result row of a lost attempt, with its least usage as an estimate.

    None if the spec or the job type no longer exists.
    """
    spec = ctx.job_specs.get(job.id)
    try:
        kind = ctx.job_type(job.type)
    except JobTypeNotFound:  # the type was removed; the next claim of the job reports it
        return None
    if spec is None:
        return None
    if spec.depends_on:
        spec = fill_parent_results_if_available(ctx.jobs, ctx.results, spec, kind)
    input_tokens = estimate_tokens(spec.prompt) + estimate_tokens(instructions(spec.config, kind)) + REQUEST_TOKENS
    if kind.handler is not None:
        usage = Usage()
    else:
        output_tokens = estimate_tokens(text)
        usage = Usage(input=input_tokens, output=output_tokens, estimated=True) if provider_called else Usage(estimated=True)
    return Result(
        job_id=job.id,
        attempt=job.attempt,
        text=text,
        generation=job.generation,
        status=Status.FAILED.value,
        finish_reason=WORKER_LOST,
        model=job.asked_model,
        usage=usage,
        cost=cost_of(ctx.prices, job.asked_model, usage, requested_tier(spec.config.openai)) if provider_called else 0,
        finished_at=now,
        error_code=WORKER_LOST,
        ttl=now // 1000 + transitions.COMPLETED_RETENTION_DAYS * 86_400,
    )


def _text_of(chunks: list[Chunk]) -> str:
    try:
        return join_chunks(chunks, 0)
    except ChunkConflict:
        return ""


def _provider_was_called(chunks: list[Chunk]) -> bool:
    """Whether the attempt called the provider; without metrics, assume that it did."""
    metrics = (chunks[-1].progress.get("performance_metrics") or {}) if chunks else {}
    return metrics.get("api_call_count") != 0
