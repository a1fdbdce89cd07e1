"""How every projection goes through a batch of changes: patient with stores, and one bad record never stops the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from chalicelib.domain.errors import HeadraceError, Unavailable
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.queues.lanes import STREAM
from chalicelib.domain.units import Ms
from chalicelib.ports import Clock
from chalicelib.services.context import QueueContext

RETRY_DELAYS = (0.2, 0.5, 1.0)  # seconds between tries while a store does not answer
TIME_BUDGET_MS = 20_000  # of one batch together, and of one projection of three; afterwards each record has one try

UNREADABLE = "the change record could not be read"
Change = tuple[str, Job | None, Job | None]
T = TypeVar("T")


class DeadLetterFailed(HeadraceError):
    """What could not be announced could not be set aside either; the stream gives the records again."""


def for_each_change(
    ctx: QueueContext,
    consumer: str,
    changes: Iterable[Change],
    handle: Callable[[Job | None, Job], None],
    *,
    dead_letter_unreadable: bool = False,
) -> None:
    """Call `handle(before, after)` for each change.

    A change that keeps failing goes to the dead-letter queue of the stream, so that one bad record does not block the
    shard. So does a record that could not be read (both images are None), if `dead_letter_unreadable`: of the consumers
    that see the same records, one does this.

    Raises:
        DeadLetterFailed: a record could be neither handled nor sent to the dead-letter queue. All others were handled,
            and handling them again does no harm.
    """
    until, lost = ctx.clock.now() + TIME_BUDGET_MS, 0
    for job_id, before, after in changes:
        if after is None:
            if before is None and dead_letter_unreadable:
                lost += not _send_to_dead_letter(ctx, job_id, UNREADABLE, until)
            continue
        try:
            call_with_retry(ctx.clock, partial(handle, before, after), until)
        except Exception as exc:  # noqa: BLE001 - a record that always fails would stop its shard for a day, and then be lost
            ctx.log("change_failed", consumer=consumer, job_id=job_id, error=exc)
            lost += not _send_to_dead_letter(ctx, job_id, f"{consumer}: {type(exc).__name__}", until)
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


def _send_to_dead_letter(ctx: QueueContext, job_id: str, reason: str, until: Ms) -> bool:
    try:
        call_with_retry(ctx.clock, partial(ctx.queues.send_to_dead_letter, STREAM, job_id, reason), until)
    except Exception as exc:  # noqa: BLE001 - the other records come first; then DeadLetterFailed is raised
        ctx.log("dead_letter_failed", job_id=job_id, error=exc)
        return False
    return True
