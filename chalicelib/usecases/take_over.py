"""What becomes of a job whose worker is dead: finished, run again, gone on with, or ended."""

from __future__ import annotations

from chalicelib.domain import transitions
from chalicelib.domain.errors import ChunkConflict, JobTypeNotFound
from chalicelib.domain.estimate import REQUEST_TOKENS, tokens
from chalicelib.domain.job import Job, Ms, Nano, Status, Usage
from chalicelib.domain.result import WORKER_LOST, Result
from chalicelib.domain.transcript import join
from chalicelib.domain.transitions import Outcome
from chalicelib.domain.wakeup import WakeUp
from chalicelib.usecases.advance import advance
from chalicelib.usecases.broom import Broom, change
from chalicelib.usecases.facts import note_failure
from chalicelib.usecases.model_request import instructions
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
    return taken is not None and taken.goes_on


def _write_off(broom: Broom, job: Job, kept: Result | None, now: Ms) -> tuple[Nano | None, int]:
    """What the dead worker's attempt has cost, and how long its text is. A response that is left to itself is stopped [6]."""
    if job.response_id is not None:
        broom.abandon(job.response_id)
    text = _kept_text(broom, job) if kept is None else kept.text
    lost = kept or _loss(broom, job, text, now)
    if kept is None and lost is not None:  # before the job is given on: whoever dies in between, the ledger has its row
        broom.results.put_if_absent(lost, job.tenant)
    return lost.cost if lost else None, len(text)


def _loss(broom: Broom, job: Job, text: str, now: Ms) -> Result | None:
    """A killed attempt, for the ledger: what it must have used at least, marked as an estimate."""
    body = broom.bodies.get(job.id)
    try:
        kind = broom.job_type(job.type)
    except JobTypeNotFound:  # taken away since: whoever claims the job next says so
        return None
    if body is None:
        return None
    given = tokens(body.prompt) + tokens(instructions(body.config, kind)) + REQUEST_TOKENS
    usage = Usage(input=given, output=tokens(text), estimated=True) if kind.work is None else Usage()
    return Result(
        job_id=job.id,
        attempt=job.attempt,
        text=text,
        generation=job.generation,
        status=Status.FAILED.value,
        finish_reason=WORKER_LOST,
        model=job.asked_model,
        usage=usage,
        cost=cost_of(broom.prices, job.asked_model, usage),
        finished_at=now,
        error_code=WORKER_LOST,
        ttl=now // 1000 + transitions.KEEP_COMPLETED_DAYS * 86_400,
    )


def _kept_text(broom: Broom, job: Job) -> str:
    try:
        return join(broom.chunks.read(job.id, job.attempt), 0)
    except ChunkConflict:
        return ""
