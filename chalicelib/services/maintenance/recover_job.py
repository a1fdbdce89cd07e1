"""What becomes of a job whose worker is dead: finished, run again, gone on with, or ended."""

from __future__ import annotations

from chalicelib.domain.errors import ChunkConflict, JobTypeNotFound
from chalicelib.domain.execution.result import WORKER_LOST, Result
from chalicelib.domain.execution.transcript import Chunk, join_chunks
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Job, Status, Usage
from chalicelib.domain.jobs.transitions import AttemptOutcome
from chalicelib.domain.metrics.estimate import REQUEST_TOKENS, estimate_tokens
from chalicelib.domain.units import Ms, Nano
from chalicelib.services.maintenance.context import SweepContext, SweepResult, apply_transition
from chalicelib.services.prompts.model_request import instructions
from chalicelib.services.prompts.render import fill_parent_results_if_available
from chalicelib.services.update_job import update_job
from chalicelib.services.wake_up import send_wake_up
from chalicelib.services.worker.log_events import log_job_failed
from chalicelib.services.worker.usage import cost_of


def recover_job(ctx: SweepContext, job: Job, lease_id: str) -> SweepResult:
    """Finish what a dead worker had as good as finished, or have the job run again."""
    if job.status is not Status.PROCESSING or transitions.lease_of(job) != lease_id:
        return SweepResult.NOTHING
    kept = ctx.results.get(job.id, job.attempt)
    now = ctx.clock.now()
    if kept is not None and kept.status in (Status.COMPLETED, Status.INCOMPLETE):
        outcome = AttemptOutcome(
            status=Status(kept.status),
            length=len(kept.text),
            usage=kept.usage,
            cost=kept.cost,
            incomplete_reason=kept.finish_reason,
            first_token_at=kept.first_token_at,
        )
        generation, owner = job.generation, job.owner or ""
        return apply_transition(ctx, job, lambda seen: transitions.finish(seen, generation, owner, outcome, now), SweepResult.FINISHED)
    cost, length = (None, 0) if _goes_on(job, lease_id, now) else _settle_lost_attempt(ctx, job, kept, now)
    taken = update_job(
        ctx.jobs, job, lambda seen: transitions.reclaim(seen, lease_id, length, cost, now) if seen.attempt == job.attempt else None
    )
    if taken is None:
        return SweepResult.NOTHING
    log_job_failed(ctx.log, taken)
    if taken.status is Status.QUEUED:
        send_wake_up(ctx.queues, taken, now)
    ctx.log("worker_lost", job_id=job.id, tenant=job.tenant, attempt=job.attempt, lease=lease_id, crashes=taken.crashes)
    if taken.is_resumable:
        return SweepResult.HANDED_OVER
    return SweepResult.RECLAIMED if taken.status is Status.QUEUED else SweepResult.ENDED


def _goes_on(job: Job, lease_id: str, now: Ms) -> bool:
    """Whether another worker will go on with the very attempt."""
    taken = transitions.reclaim(job, lease_id, 0, None, now)
    return taken is not None and taken.is_resumable


def _settle_lost_attempt(ctx: SweepContext, job: Job, kept: Result | None, now: Ms) -> tuple[Nano | None, int]:
    """What the dead worker's attempt has cost, and how long its text is. A response that is left to itself is stopped [6]."""
    if job.response_id is not None:
        ctx.cancel_response(job.response_id)
    chunks = ctx.chunks.read(job.id, job.attempt) if kept is None else []
    text = _text_of(chunks) if kept is None else kept.text
    lost = kept or _lost_attempt_result(ctx, job, text, now, asked=_provider_was_called(chunks))
    if kept is None and lost is not None:  # before the job is given on: whoever dies in between, the ledger has its row
        ctx.results.put_if_absent(lost, job.tenant)
    return lost.cost if lost else None, len(text)


def _lost_attempt_result(ctx: SweepContext, job: Job, text: str, now: Ms, *, asked: bool) -> Result | None:
    """A killed attempt, for the ledger: what it must have used at least, marked as an estimate. `asked`: the provider was."""
    body = ctx.job_specs.get(job.id)
    try:
        kind = ctx.job_type(job.type)
    except JobTypeNotFound:  # taken away since: whoever claims the job next says so
        return None
    if body is None:
        return None
    if body.depends_on:
        body = fill_parent_results_if_available(ctx.jobs, ctx.results, body, kind)
    given = estimate_tokens(body.prompt) + estimate_tokens(instructions(body.config, kind)) + REQUEST_TOKENS
    if kind.handler is not None:
        usage = Usage()
    else:
        usage = Usage(input=given, output=estimate_tokens(text), estimated=True) if asked else Usage(estimated=True)
    return Result(
        job_id=job.id,
        attempt=job.attempt,
        text=text,
        generation=job.generation,
        status=Status.FAILED.value,
        finish_reason=WORKER_LOST,
        model=job.asked_model,
        usage=usage,
        cost=cost_of(ctx.prices, job.asked_model, usage) if asked else 0,
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
    """Whether the attempt's text came from the provider, as far as the log can tell: a cached answer took no request."""
    measured = (chunks[-1].progress.get("performance_metrics") or {}) if chunks else {}
    return measured.get("api_call_count") != 0
