"""Process the change stream: retry while a store is down, dead-letter what keeps failing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from chalicelib.domain.errors import HeadraceError
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.queues.lanes import STREAM
from chalicelib.domain.units import Ms
from chalicelib.services.context import QueueContext
from chalicelib.services.retrying import call_with_retry

TIME_BUDGET_MS = 20_000  # per batch and consumer; three consumers run in turn. After it each record gets one try

Change = tuple[str, Job | None, Job | None]
T = TypeVar("T")


class DeadLetterFailed(HeadraceError):
    """Some changes were neither handled nor dead-lettered; the stream delivers the batch again."""


def for_each_change(
    ctx: QueueContext,
    consumer: str,
    changes: Iterable[Change],
    handle: Callable[[Job | None, Job], None],
    *,
    log_unreadable: bool = False,
) -> None:
    """Call `handle(before, after)` for each change.

    A change that keeps failing goes to the stream's dead-letter queue, so that one bad record does
    not block the shard.

    Args:
        consumer: the name of the consumer, for the log and the reason of a dead letter.
        log_unreadable: log changes whose new image cannot be read (`after` is None): another version
            of the code wrote it. Several consumers see the same changes, so only one of them sets
            this. No dead letter: whoever can read the record handles its next change, and the
            sweeper what is due.

    Raises:
        DeadLetterFailed: a record could be neither handled nor dead-lettered. All others were
            handled; handling them again is safe.
    """
    until, lost = ctx.clock.now() + TIME_BUDGET_MS, 0
    for job_id, before, after in changes:
        if after is None:
            if log_unreadable:
                ctx.log("change_unreadable", job_id=job_id)
            continue
        try:
            call_with_retry(ctx.clock, partial(handle, before, after), until)
        except Exception as exc:  # noqa: BLE001 - a record that always fails would block its shard for a day and then be lost
            ctx.log("change_failed", consumer=consumer, job_id=job_id, error=exc)
            lost += not _send_to_dead_letter(ctx, job_id, f"{consumer}: {type(exc).__name__}", until)
    if lost:
        raise DeadLetterFailed(f"{lost} records could not be dead-lettered; the stream delivers them again.")


def _send_to_dead_letter(ctx: QueueContext, job_id: str, reason: str, until: Ms) -> bool:
    try:
        call_with_retry(ctx.clock, partial(ctx.queues.send_to_dead_letter, STREAM, job_id, reason), until)
    except Exception as exc:  # noqa: BLE001 - handle the other records first; the caller raises DeadLetterFailed at the end
        ctx.log("dead_letter_failed", job_id=job_id, error=exc)
        return False
    return True
