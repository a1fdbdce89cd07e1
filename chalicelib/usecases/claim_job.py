"""Take a job for one attempt, with what it asks for."""

from __future__ import annotations

from dataclasses import replace

from chalicelib.domain import transitions
from chalicelib.domain.admission import RunNow
from chalicelib.domain.errors import AttemptFailed, ContentGone, JobTypeNotFound, RequestRefused
from chalicelib.domain.estimate import tokens
from chalicelib.domain.job import Job, JobError, Status, Usage
from chalicelib.domain.result import Result
from chalicelib.domain.transcript import join
from chalicelib.domain.transitions import Outcome
from chalicelib.domain.wakeup import WakeUp
from chalicelib.usecases.advance import advance
from chalicelib.usecases.attempt import Attempt
from chalicelib.usecases.engine import Engine
from chalicelib.usecases.facts import note_failure
from chalicelib.usecases.judge import job_error
from chalicelib.usecases.patience import patiently
from chalicelib.usecases.prompt import with_parents, with_parents_if_there
from chalicelib.usecases.read_answer import stop_response
from chalicelib.usecases.turns import give_turn_back
from chalicelib.usecases.usage import cost_of


async def claim_job(engine: Engine, wake_up: WakeUp, job: Job, owner: str, run: RunNow, *, alone: bool = False) -> Attempt | None:
    """The attempt that this worker may now make, as the gates let it through. None: somebody else has the job, or it has ended; the
    wake-up is dropped without harm.

    Raises:
        Unavailable: whether the claim was made is unknown; the message has to come again, or the sweep finds the job.
    """
    clock, generation = engine.clock, wake_up.generation

    def change(seen: Job) -> Job | None:
        return transitions.claim(seen, generation, owner, clock.now(), alone=alone, model=run.model)

    claimed = await patiently(engine, advance, engine.jobs, job, change)
    if claimed is None or not transitions.holds(claimed, generation, owner):
        await _leave_if_nobody_runs(engine, job, run)
        return None
    try:
        kind, body = engine.job_type(claimed.type), await patiently(engine, engine.job_specs.get, claimed.id)
        if body is None:
            raise ContentGone
        if body.depends_on:
            fill = with_parents_if_there if claimed.is_resumable else with_parents
            body = await patiently(engine, fill, engine.jobs, engine.results, body, kind)
    except (JobTypeNotFound, AttemptFailed) as exc:
        failure = exc if isinstance(exc, AttemptFailed) else RequestRefused(exc.message)
        await _end_at_once(engine, claimed, job_error(failure, claimed))
        await give_turn_back(engine, claimed.type, run.permit, ran=False)
        return None
    if claimed.attempt_model is not None:
        body = replace(body, config=replace(body.config, model=claimed.attempt_model))
    kept = await patiently(engine, engine.chunks.read, claimed.id, claimed.attempt) if claimed.is_resumable else ()
    attempt = Attempt(claimed, body, kind, owner, clock.now(), kept)
    attempt.probe, attempt.turn = run.probe, run.permit
    return attempt


async def _leave_if_nobody_runs(engine: Engine, job: Job, run: RunNow) -> None:
    """Give the slot of a wake-up back that starts nothing. Another worker with the same one may have claimed the job, and needs it."""
    if run.permit is None:
        return
    there = await engine.offload(engine.jobs.get, job.id)
    if there is None or there.status is not Status.PROCESSING or there.generation != job.generation:
        await give_turn_back(engine, job.type, run.permit, ran=False)


async def _end_at_once(engine: Engine, claimed: Job, error: JobError) -> None:
    """End a job that cannot be tried. Its attempt was taken, so the ledger has its row: nothing was asked, nothing is owed.

    Of an attempt that a former worker began the text is kept, and its response is stopped.
    """
    now, text, usage = engine.clock.now(), "", None
    if claimed.is_resumable and claimed.response_id is not None:
        await stop_response(engine.provider, engine.log, claimed.response_id)
        text = join(await patiently(engine, engine.chunks.read, claimed.id, claimed.attempt), 0)
        usage = Usage(output=tokens(text), estimated=True)  # only answers of a provider go on
    cost = cost_of(engine.prices, claimed.asked_model, usage)
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
        ttl=now // 1000 + transitions.KEEP_COMPLETED_DAYS * 86_400,
    )
    await patiently(engine, engine.results.put, row, claimed.tenant)
    failed = Outcome(status=Status.FAILED, length=len(text), usage=usage, cost=cost, error=error)
    generation, owner = claimed.generation, claimed.owner or ""
    ended = await patiently(
        engine, advance, engine.jobs, claimed, lambda seen: transitions.finish(seen, generation, owner, failed, engine.clock.now())
    )
    if ended is not None:
        note_failure(engine.log, ended)
