"""Look at everything that is due, and bring right what nobody is working on any more: "nothing is lost, whatever dies".

Runs every minute, and decides afresh on what it finds: nothing here trusts what an index or an earlier look said [15, 16]. Two sweeps at
once do no harm, because every change is a swap of the head that was looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from chalicelib.domain import transitions
from chalicelib.domain.errors import ChunkConflict, JobTypeNotFound
from chalicelib.domain.estimate import REQUEST_TOKENS, tokens
from chalicelib.domain.job import Job, Ms, Nano, Status, Usage
from chalicelib.domain.job_type import JobType
from chalicelib.domain.result import Result
from chalicelib.domain.transcript import join
from chalicelib.domain.transitions import Outcome
from chalicelib.domain.wakeup import WakeUp
from chalicelib.ports import Bodies, Chunks, Clock, Jobs, Lease, Leases, Prices, Queues, Results
from chalicelib.usecases.advance import advance
from chalicelib.usecases.engine import Log
from chalicelib.usecases.facts import note_failure
from chalicelib.usecases.model_request import instructions
from chalicelib.usecases.usage import cost_of

MARGIN_MS = 5_000  # a lease is dead only so long after its end: clocks differ
AHEAD_MS = 65_000  # what comes due before the next sweep is sent now, with a delay, so that it begins in time
ROWS_EACH = 100  # of each partition of the index, for one run


@dataclass(frozen=True, kw_only=True)
class Broom:
    """What the sweep needs from outside. `abandon` stops a response at the provider, if it can be reached."""

    clock: Clock
    log: Log
    jobs: Jobs
    bodies: Bodies
    chunks: Chunks
    results: Results
    leases: Leases
    queues: Queues
    prices: Prices
    job_type: Callable[[str], JobType]
    abandon: Callable[[str], None]


def sweep(broom: Broom) -> Counter[str]:
    """One run; the answer counts what was done. What fails is looked at again later, and never stops the others."""
    done: Counter[str] = Counter()
    for lease in broom.leases.expired(broom.clock.now() - MARGIN_MS):
        done[_guarded(broom, partial(_bury, broom, lease), lease=lease.id)] += 1
    ids = broom.jobs.due(broom.clock.now() + AHEAD_MS, ROWS_EACH)
    for start in range(0, len(ids), 100):
        for job in broom.jobs.get_many(ids[start : start + 100]):
            done[_guarded(broom, partial(_look, broom, job), job_id=job.id, tenant=job.tenant)] += 1
    if done:
        broom.log("swept", **{name.replace(" ", "_").replace(":", ""): count for name, count in done.items()})
    return done


def _guarded(broom: Broom, work: Callable[[], str], **about: str) -> str:
    try:
        return work()
    except Exception as exc:  # noqa: BLE001 - what one record does to the sweep must not happen to all others
        broom.log("something could not be swept", error=exc, **about)
        return "failed"


def _bury(broom: Broom, lease: Lease) -> str:
    """Fence a dead worker's lease first, so that it can finish nothing more; then take its jobs back; then forget the lease [19]."""
    if not broom.leases.fence(lease):
        return "lease alive"
    for job in broom.jobs.get_many(lease.jobs, consistent=True):
        _take_over(broom, job, lease.id)
    broom.leases.bury(lease)
    return "lease buried"


def _look(broom: Broom, job: Job) -> str:
    """Decide afresh what a job that is due needs. The answer names what was done."""
    now = broom.clock.now()
    if job.status.is_terminal or job.due_at is None:
        return "nothing"
    if job.status is Status.PROCESSING:
        return _look_at_worker(broom, job, now)
    if now >= job.expires_at and job.started_at is None:
        return _change(broom, job, lambda seen: _if_same(seen, job, transitions.expire(seen, now)), "expired")
    if transitions.give_up(job, now) is not None:
        return _change(broom, job, lambda seen: transitions.give_up(seen, now), "given up")
    if job.due_at > now and not (job.until and transitions.is_claimable(job)):
        return "not yet"
    if transitions.is_claimable(job):
        return _resend(broom, job, now)
    return _change(broom, job, lambda seen: transitions.look_later(seen, now), "looked at")


def _look_at_worker(broom: Broom, job: Job, now: Ms) -> str:
    if (job.due_at or 0) > now:
        return "not yet"
    lease_id = transitions.lease_of(job)
    lease = broom.leases.get(lease_id)
    if lease is not None and lease.expires_at + MARGIN_MS >= now:
        return _change(broom, job, lambda seen: transitions.look_later(seen, now), "alive")
    if lease is not None and not broom.leases.fence(lease):
        return "alive"
    return _take_over(broom, job, lease_id)


def _resend(broom: Broom, job: Job, now: Ms) -> str:
    """Send the wake-up again, with the generation it had [17]: sent too often it is dropped, sent too seldom the job would wait."""
    delay = transitions.wake_delay(job, now)
    if delay is None:
        return "not yet"
    broom.queues.send(job.lane, WakeUp(job.id, job.generation), job.tenant, delay)
    later = now + delay * 1000
    return _change(
        broom, job, lambda seen: transitions.look_later(seen, later) if seen.generation == job.generation else None, "sent again"
    )


def _take_over(broom: Broom, job: Job, lease_id: str) -> str:
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
        return _change(broom, job, lambda seen: transitions.finish(seen, generation, owner, outcome, now), "finished")
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
    usage = Usage(input=given, output=tokens(text), estimated=True)
    return Result(
        job_id=job.id,
        attempt=job.attempt,
        text=text,
        generation=job.generation,
        status=Status.FAILED.value,
        finish_reason="worker_lost",
        model=job.model,
        usage=usage,
        cost=cost_of(broom.prices, job.model, usage),
        finished_at=now,
        error_code="worker_lost",
        ttl=now // 1000 + transitions.KEEP_COMPLETED_DAYS * 86_400,
    )


def _change(broom: Broom, job: Job, change: Callable[[Job], Job | None], name: str) -> str:
    changed = advance(broom.jobs, job, change)
    if changed is not None:
        note_failure(broom.log, changed)
    return name if changed is not None else "nothing"


def _if_same(seen: Job, job: Job, new: Job) -> Job | None:
    return new if seen.version == job.version else None


def _kept_text(broom: Broom, job: Job) -> str:
    try:
        return join(broom.chunks.read(job.id, job.attempt), 0)
    except ChunkConflict:
        return ""
