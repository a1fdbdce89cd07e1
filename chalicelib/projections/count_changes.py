"""Count what the change stream says, and have those batches gone on with to which it matters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

from chalicelib.domain.batch import needs_care
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.job import Job
from chalicelib.domain.lanes import STREAM
from chalicelib.ports import Clock
from chalicelib.usecases.clerk import Clerk, send_on
from chalicelib.usecases.count_jobs import count_jobs

Change = tuple[str, Job | None, Job | None]
T = TypeVar("T")

AT_ONCE = 100  # jobs whose marks are read together
PAUSES = (0.2, 0.5, 1.0)  # seconds between tries while a store does not answer


def count_changes(clerk: Clerk, changes: Iterable[Change]) -> None:
    """Count the newest image of each job. One that cannot be read, or counted, is set aside by its id and stops no other.

    Raises:
        Unavailable: the ledger did not answer; the stream gives the records again, and none is counted twice.
    """
    newest: dict[str, Job] = {}
    for job_id, before, after in changes:
        if after is None and before is None:
            _set_aside(clerk, job_id, "the change record could not be read")
        elif after is not None and (job_id not in newest or newest[job_id].version < after.version):
            newest[job_id] = after
    jobs = list(newest.values())
    for start in range(0, len(jobs), AT_ONCE):
        _count(clerk, jobs[start : start + AT_ONCE])
    _go_on(clerk, {(job.tenant, job.batch_id) for job in jobs if job.batch_id is not None})


def _count(clerk: Clerk, jobs: Sequence[Job]) -> None:
    """Together; or each alone, to find the one that cannot be."""
    try:
        left = _patiently(clerk.clock, partial(count_jobs, clerk.ledger, clerk.clock, jobs))
    except Unavailable:
        raise
    except Exception as exc:  # noqa: BLE001 - a record that always fails would stop its shard for a day, and then be lost
        if len(jobs) == 1:
            clerk.log("a change was not counted", job_id=jobs[0].id, error=exc)
            _set_aside(clerk, jobs[0].id, f"not counted: {type(exc).__name__}")
            return
        for job in jobs:
            _count(clerk, [job])
        return
    for job_id in left:
        _set_aside(clerk, job_id, "not counted: others counted it at every try")


def _go_on(clerk: Clerk, touched: set[tuple[str, str]]) -> None:
    for tenant, batch_id in sorted(touched):
        try:
            batch = clerk.batches.get(tenant, batch_id)
            if batch is not None and needs_care(batch, clerk.counts(batch_id), clerk.clock.now()):
                send_on(clerk.queues, batch)
        except Unavailable as exc:  # what is counted is counted; the sweep goes on with the batch
            clerk.log("a batch was not gone on with", batch_id=batch_id, tenant=tenant, error=exc)


def _set_aside(clerk: Clerk, job_id: str, reason: str) -> None:
    _patiently(clerk.clock, partial(clerk.queues.set_aside, STREAM, job_id, reason))


def _patiently(clock: Clock, call: Callable[[], T]) -> T:
    """Call again where a store did not answer.

    Raises:
        Unavailable: it still does not.
    """
    for pause in PAUSES:
        try:
            return call()
        except Unavailable:
            clock.sleep(pause)
    return call()
