"""Count what the change stream says, have those batches gone on with to which it matters, and tell those who watch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from chalicelib.domain.batch import Batch, needs_care
from chalicelib.domain.batch_counts import Counts
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.job import Job, Ms
from chalicelib.domain.lanes import STREAM
from chalicelib.projections.each_change import PATIENCE_MS as COUNTING_MS
from chalicelib.projections.each_change import Change, patiently
from chalicelib.usecases.clerk import Clerk, send_on
from chalicelib.usecases.count_jobs import count_jobs
from chalicelib.usecases.tell_of_batch import PATIENCE_MS, tell_of_batch

AT_ONCE = 100  # jobs whose marks are read together


def count_changes(clerk: Clerk, changes: Iterable[Change]) -> None:
    """Count the newest image of each job. One that cannot be read, or counted, is set aside by its id and stops no other.

    Raises:
        Unavailable: the ledger did not answer; the stream gives the records again, and none is counted twice.
    """
    until = clerk.clock.now() + COUNTING_MS
    newest: dict[str, Job] = {}
    ends: set[str] = set()
    for job_id, before, after in changes:
        if after is None and before is None:
            _set_aside(clerk, job_id, "the change record could not be read", until)
        elif after is not None and (job_id not in newest or newest[job_id].version < after.version):
            newest[job_id] = after
        if after is not None and after.status.is_terminal and (before is None or not before.status.is_terminal):
            ends.add(job_id)
    jobs = list(newest.values())
    for start in range(0, len(jobs), AT_ONCE):
        _count(clerk, jobs[start : start + AT_ONCE], until)
    touched: defaultdict[tuple[str, str], list[Job]] = defaultdict(list)
    for job in jobs:
        if job.batch_id is not None:
            touched[job.tenant, job.batch_id] += [job] if job.id in ends and job.status.is_terminal else []
    _tell(clerk, _go_on(clerk, sorted(touched)), touched)


def _count(clerk: Clerk, jobs: Sequence[Job], until: Ms) -> None:
    """Together; or each alone, to find the one that cannot be."""
    try:
        left = patiently(clerk.clock, partial(count_jobs, clerk.counters, clerk.clock, jobs), until)
    except Unavailable:
        raise
    except Exception as exc:  # noqa: BLE001 - a record that always fails would stop its shard for a day, and then be lost
        if len(jobs) == 1:
            clerk.log("a change was not counted", job_id=jobs[0].id, error=exc)
            _set_aside(clerk, jobs[0].id, f"not counted: {type(exc).__name__}", until)
            return
        for job in jobs:
            _count(clerk, [job], until)
        return
    for job_id in left:
        _set_aside(clerk, job_id, "not counted: others counted it at every try", until)


def _go_on(clerk: Clerk, touched: Iterable[tuple[str, str]]) -> list[tuple[Batch, Counts]]:
    """Have somebody go on with those batches that it matters to. The answer is how they all stand."""
    seen = []
    for tenant, batch_id in touched:
        try:
            batch = clerk.batches.get(tenant, batch_id)
            if batch is None:
                continue
            counts = clerk.counts(batch_id)
            seen.append((batch, counts))
            if needs_care(batch, counts, clerk.clock.now()):
                send_on(clerk.queues, batch)
        except Unavailable as exc:  # what is counted is counted; the sweep goes on with the batch
            clerk.log("a batch was not gone on with", batch_id=batch_id, tenant=tenant, error=exc)
    return seen


def _tell(clerk: Clerk, seen: Iterable[tuple[Batch, Counts]], ended: Mapping[tuple[str, str], Sequence[Job]]) -> None:
    """Afterwards: no row waits for a socket."""
    until = clerk.clock.now() + PATIENCE_MS
    for batch, counts in seen:
        tell_of_batch(clerk, batch, counts, until, ended[batch.tenant, batch.id])


def _set_aside(clerk: Clerk, job_id: str, reason: str, until: Ms) -> None:
    patiently(clerk.clock, partial(clerk.queues.send_to_dead_letter, STREAM, job_id, reason), until)
