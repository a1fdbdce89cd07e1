"""How every projection goes through a batch of changes: patient with stores, and one bad record never stops the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from chalicelib.domain.errors import HeadraceError, Unavailable
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.queues.lanes import STREAM
from chalicelib.domain.units import Ms
from chalicelib.ports import Clock, Queues
from chalicelib.services.log import Log

RETRY_DELAYS = (0.2, 0.5, 1.0)  # seconds between tries while a store does not answer
TIME_BUDGET_MS = 20_000  # of one batch together, and of one projection of three; afterwards each record has one try

Change = tuple[str, Job | None, Job | None]
T = TypeVar("T")


class DeadLetterFailed(HeadraceError):
    """What could not be announced could not be set aside either; the stream gives the records again."""


def for_each_change(
    clock: Clock,
    queues: Queues,
    log: Log,
    changes: Iterable[Change],
    do: Callable[[Job | None, Job], None],
    undone: str,
    unreadable: str | None = None,
) -> None:
    """Do it for each change `(job id, before, after)`. One for which it fails is set aside by its id, for people, as `undone`; so is one
    that could not be read (both images are None), where a reason for that is given: one projection of a batch does.

    Raises:
        NotSetAside: a record can neither be dealt with nor set aside. All others were dealt with, and doing it again does no harm.
    """
    until, lost = clock.now() + TIME_BUDGET_MS, 0
    for job_id, before, after in changes:
        if after is None:
            if before is None and unreadable is not None:
                lost += not _send_to_dead_letter(clock, queues, log, job_id, unreadable, until)
            continue
        try:
            call_with_retry(clock, partial(do, before, after), until)
        except Exception as exc:  # noqa: BLE001 - a record that always fails would stop its shard for a day, and then be lost
            log(f"a change was {undone}", job_id=job_id, error=exc)
            lost += not _send_to_dead_letter(clock, queues, log, job_id, f"{undone}: {type(exc).__name__}", until)
    if lost:
        raise DeadLetterFailed(f"{lost} records will come again.")


def call_with_retry(clock: Clock, call: Callable[[], T], until: Ms) -> T:
    """Call again where a store did not answer: one throttle must not cost somebody what they wait for."""
    for pause in RETRY_DELAYS:
        try:
            return call()
        except Unavailable:
            if clock.now() + round(pause * 1000) > until:
                raise
            clock.sleep(pause)
    return call()


def _send_to_dead_letter(clock: Clock, queues: Queues, log: Log, job_id: str, reason: str, until: Ms) -> bool:
    try:
        call_with_retry(clock, partial(queues.send_to_dead_letter, STREAM, job_id, reason), until)
    except Exception as exc:  # noqa: BLE001 - the others come first; then it is raised
        log("a record could not be set aside", job_id=job_id, error=exc)
        return False
    return True
