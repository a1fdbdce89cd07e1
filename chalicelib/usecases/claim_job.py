"""Take a job for one attempt, with what it asks for."""

from __future__ import annotations

from chalicelib.domain import transitions
from chalicelib.domain.errors import ContentGone, JobTypeNotFound, RequestRefused
from chalicelib.domain.job import Job, Status
from chalicelib.domain.transitions import Outcome
from chalicelib.domain.wakeup import WakeUp
from chalicelib.usecases.advance import advance
from chalicelib.usecases.attempt import Attempt
from chalicelib.usecases.engine import Engine
from chalicelib.usecases.facts import note_failure
from chalicelib.usecases.judge import job_error
from chalicelib.usecases.patience import patiently


async def claim_job(engine: Engine, wake_up: WakeUp, job: Job, owner: str, *, alone: bool = False) -> Attempt | None:
    """The attempt that this worker may now make. None: somebody else has the job, or it has ended; the wake-up is dropped without harm.

    Raises:
        Unavailable: whether the claim was made is unknown; the message has to come again, or the sweep finds the job.
    """
    clock, generation = engine.clock, wake_up.generation
    claimed = await patiently(
        engine, advance, engine.jobs, job, lambda seen: transitions.claim(seen, generation, owner, clock.now(), alone=alone)
    )
    if claimed is None or not transitions.holds(claimed, generation, owner):
        return None
    try:
        kind, body = engine.job_type(claimed.type), await patiently(engine, engine.bodies.get, claimed.id)
        if body is None:
            raise ContentGone
    except (JobTypeNotFound, ContentGone) as exc:
        failure = exc if isinstance(exc, ContentGone) else RequestRefused(exc.message)
        failed = Outcome(status=Status.FAILED, length=0, error=job_error(failure, claimed))
        ended = await patiently(
            engine, advance, engine.jobs, claimed, lambda seen: transitions.finish(seen, generation, owner, failed, clock.now())
        )
        if ended is not None:
            note_failure(engine.log, ended)
        return None
    kept = await patiently(engine, engine.chunks.read, claimed.id, claimed.attempt) if claimed.goes_on else ()
    return Attempt(claimed, body, kind, owner, clock.now(), kept)
