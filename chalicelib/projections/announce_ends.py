"""Tell watchers how a job ended, from the change stream: the worker that wrote the end may have died before it could tell [14]."""

from __future__ import annotations

from collections.abc import Iterable

from chalicelib.domain.job import Job, Status
from chalicelib.domain.lanes import STREAM
from chalicelib.ports import Queues
from chalicelib.usecases.engine import Log
from chalicelib.usecases.watch_job import Gallery, announce


def announce_ends(gallery: Gallery, queues: Queues, log: Log, changes: Iterable[tuple[str, Job | None, Job | None]]) -> None:
    """For each change `(job id, before, after)` to another status, or to another time of a job that is held: tell it. One bad
    record never stops the others.

    Both images are None where the record could not be read: its id is set aside, for people.
    """
    for job_id, before, after in changes:
        if after is None and before is None:
            queues.set_aside(STREAM, job_id, "the change record could not be read")
        elif after is not None and (before is None or before.status is not after.status or _waits_anew(before, after)):
            try:
                announce(gallery, after)
            except Exception as exc:  # noqa: BLE001 - a record that always fails would stop its shard for a day, and then be lost
                log("a change was not announced", job_id=job_id, error=exc)
                queues.set_aside(STREAM, job_id, f"not announced: {type(exc).__name__}")


def _waits_anew(before: Job, after: Job) -> bool:
    return after.status is Status.HELD and (before.until, before.reason) != (after.until, after.reason)
