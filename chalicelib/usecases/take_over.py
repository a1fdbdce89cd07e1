"""What becomes of a job whose worker is dead: finished, run again, gone on with, or ended."""

from __future__ import annotations

from chalicelib.domain import transitions
from chalicelib.domain.errors import ChunkConflict, JobTypeNotFound
from chalicelib.domain.estimate import REQUEST_TOKENS, tokens
from chalicelib.domain.job import Job, Ms, Nano, Status, Usage
from chalicelib.domain.result import WORKER_LOST, Result
from chalicelib.domain.transcript import Chunk, join
from chalicelib.domain.transitions import Outcome
from chalicelib.domain.wakeup import WakeUp
from chalicelib.usecases.advance import advance
from chalicelib.usecases.broom import Broom, change
from chalicelib.usecases.facts import note_failure
from chalicelib.usecases.model_request import instructions
from chalicelib.usecases.prompt import with_parents_if_there
from chalicelib.usecases.usage import cost_of


def take_over(broom: Broom, job: Job, lease_id: str) -> str:
    """Finish what a dead worker had as good as finished, or have the job run again."""
    if job.status is not Status.PROCESSING or transitions.lease_of(job) != lease_id:
        return "nothing"
    kept = broom.results.get(job.id, job.attempt)
    now = broom.clock.now()
    if kept is not None and kept.status in (Status.COMPLETED, Status.INCOMPLETE):
        outcome = Outcome(
            status=Status(kept.status),
            length=len(kept.text),
            usage=kept.usage,
            cost=kept.cost,
            incomplete_reason=kept.finish_reason,
            first_token_at=kept.first_token_at,
        )
        generation, owner = job.generation, job.owner or ""
        return change(broom, job, lambda seen: transitions.finish(seen, generation, owner, outcome, now), "finished")
    cost, length = (None, 0) if _goes_on(job, lease_id, now) else _write_off(broom, job, kept, now)
    taken = advance(
        broom.jobs, job, lambda seen: transitions.take_back(seen, lease_id, length, cost, now) if seen.attempt == job.attempt else None
    )
    if taken is None:
        return "nothing"
    note_failure(broom.log, taken)
    if taken.status is Status.QUEUED:
        broom.queues.send(taken.lane, WakeUp(taken.id, taken.generation), taken.tenant)
    broom.log("a worker was lost", job_id=job.id, tenant=job.tenant, attempt=job.attempt, lease=lease_id, crashes=taken.crashes)
    return f"taken back: {taken.status.value}"


def _goes_on(job: Job, lease_id: str, now: Ms) -> bool:
    """Whether another worker will go on with the very attempt."""
    taken = transitions.take_back(job, lease_id, 0, None, now)
    return taken is not None and taken.is_resumable


def _write_off(broom: Broom, job: Job, kept: Result | None, now: Ms) -> tuple[Nano | None, int]:
    """What the dead worker's attempt has cost, and how long its text is. A response that is left to itself is stopped [6]."""
    if job.response_id is not None:
        broom.cancel_response(job.response_id)
    chunks = broom.chunks.read(job.id, job.attempt) if kept is None else []
    text = _text_of(chunks) if kept is None else kept.text
    lost = kept or _loss(broom, job, text, now, asked=_asked(chunks))
    if kept is None and lost is not None:  # before the job is given on: whoever dies in between, the ledger has its row
        broom.results.put_if_absent(lost, job.tenant)
    return lost.cost if lost else None, len(text)


def _loss(broom: Broom, job: Job, text: str, now: Ms, *, asked: bool) -> Result | None:
    """A killed attempt, for the ledger: what it must have used at least, marked as an estimate. `asked`: the provider was."""
    body = broom.job_specs.get(job.id)
    try:
        kind = broom.job_type(job.type)
    except JobTypeNotFound:  # taken away since: whoever claims the job next says so
        return None
    if body is None:
        return None
    if body.depends_on:
        body = with_parents_if_there(broom.jobs, broom.results, body, kind)
    given = tokens(body.prompt) + tokens(instructions(body.config, kind)) + REQUEST_TOKENS
    if kind.handler is not None:
        usage = Usage()
    else:
        usage = Usage(input=given, output=tokens(text), estimated=True) if asked else Usage(estimated=True)
    return Result(
        job_id=job.id,
        attempt=job.attempt,
        text=text,
        generation=job.generation,
        status=Status.FAILED.value,
        finish_reason=WORKER_LOST,
        model=job.asked_model,
        usage=usage,
        cost=cost_of(broom.prices, job.asked_model, usage) if asked else 0,
        finished_at=now,
        error_code=WORKER_LOST,
        ttl=now // 1000 + transitions.KEEP_COMPLETED_DAYS * 86_400,
    )


def _text_of(chunks: list[Chunk]) -> str:
    try:
        return join(chunks, 0)
    except ChunkConflict:
        return ""


def _asked(chunks: list[Chunk]) -> bool:
    """Whether the attempt's text came from the provider, as far as the log can tell: a cached answer took no request."""
    measured = (chunks[-1].progress.get("performance_metrics") or {}) if chunks else {}
    return measured.get("api_call_count") != 0
