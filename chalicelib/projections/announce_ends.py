"""Tell watchers how a job ended, from the change stream: the worker that wrote the end may have died before it could tell [14]."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from chalicelib.domain.job import Job, Status
from chalicelib.ports import Queues
from chalicelib.projections.each_change import Change, each_change
from chalicelib.usecases.engine import Log
from chalicelib.usecases.watch_job import Gallery, announce


def announce_ends(gallery: Gallery, queues: Queues, log: Log, changes: Iterable[Change]) -> None:
    """For each change to another status, or to another time of a job that is held: tell it. A record that cannot be read is set aside.

    Raises:
        NotSetAside: the stream must give the records again.
    """
    unreadable = "the change record could not be read"
    each_change(gallery.clock, queues, log, changes, partial(_tell, gallery), "not announced", unreadable)


def _tell(gallery: Gallery, before: Job | None, after: Job) -> None:
    if before is None or before.status is not after.status or _waits_anew(before, after):
        announce(gallery, after)


def _waits_anew(before: Job, after: Job) -> bool:
    return after.status is Status.HELD and (before.resume_at, before.reason) != (after.resume_at, after.reason)
