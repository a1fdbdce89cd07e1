"""Tell watchers how a job ended, from the change stream: the worker that wrote the end may have died before it could tell [14]."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from chalicelib.domain.errors import HeadraceError
from chalicelib.domain.job import Job, Ms, Status
from chalicelib.domain.lanes import STREAM
from chalicelib.ports import Clock, Queues
from chalicelib.projections.patience import patiently
from chalicelib.usecases.engine import Log
from chalicelib.usecases.watch_job import Gallery, announce

PATIENCE_MS = 20_000  # of one batch together, a third of the function's time; afterwards each record has one try

Change = tuple[str, Job | None, Job | None]


class NotSetAside(HeadraceError):
    """What could not be announced could not be set aside either; the stream gives the records again."""


def announce_ends(gallery: Gallery, queues: Queues, log: Log, changes: Iterable[Change]) -> None:
    """For each change `(job id, before, after)` to another status, or to another time of a job that is held: tell it. One bad record never
    stops the others.

    Both images are None where the record could not be read: its id is set aside, for people. So is that of one that cannot be told.

    Raises:
        NotSetAside: a record can neither be told nor set aside. All others were told, and being told again does no harm.
    """
    until, lost = gallery.clock.now() + PATIENCE_MS, 0
    for change in changes:
        reason = _told(gallery, log, change, until)
        if reason is not None:
            lost += not _set_aside(gallery.clock, queues, log, change[0], reason, until)
    if lost:
        raise NotSetAside(f"{lost} records will come again.")


def _told(gallery: Gallery, log: Log, change: Change, until: Ms) -> str | None:
    """Why a change has to be set aside; None if it was told, or there is nothing to tell."""
    job_id, before, after = change
    if after is None:
        return "the change record could not be read" if before is None else None
    if before is not None and before.status is after.status and not _waits_anew(before, after):
        return None
    try:
        patiently(gallery.clock, partial(announce, gallery, after), until)
    except Exception as exc:  # noqa: BLE001 - a record that always fails would stop its shard for a day, and then be lost
        log("a change was not announced", job_id=job_id, error=exc)
        return f"not announced: {type(exc).__name__}"
    return None


def _waits_anew(before: Job, after: Job) -> bool:
    return after.status is Status.HELD and (before.until, before.reason) != (after.until, after.reason)


def _set_aside(clock: Clock, queues: Queues, log: Log, job_id: str, reason: str, until: Ms) -> bool:
    try:
        patiently(clock, partial(queues.set_aside, STREAM, job_id, reason), until)
    except Exception as exc:  # noqa: BLE001 - the others come first; then it is raised
        log("a record could not be set aside", job_id=job_id, error=exc)
        return False
    return True
