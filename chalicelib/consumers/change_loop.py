"""Process a batch of the change stream: many jobs at once, the changes of one job in order.

A change that cannot be processed must not block its shard for a day, at the end of which the
stream drops it. What happens to it depends on the cause:

| cause | what happens |
|---|---|
| a store does not answer (`Unavailable`), or the time is over | the change is left, where the sweep finds it later |
| anything else, and a record that cannot be read | it goes to the stream's dead-letter queue by the job's id |
| neither is possible | `DeadLetterFailed`: the stream delivers the batch again |
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from functools import partial
from typing import Protocol

from chalicelib.domain.errors import HeadraceError, Unavailable
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.queues.lanes import STREAM
from chalicelib.domain.units import Ms
from chalicelib.ports import ParallelMap
from chalicelib.services.context import QueueContext
from chalicelib.services.retrying import call_with_retry

TIME_BUDGET_MS = 15_000  # per batch; a change is not started later, and a call that hangs then takes 15 s more

Change = tuple[str, Job | None, Job | None]
Handler = Callable[[Job | None, Job], None]


class ChangeContext(QueueContext, Protocol):
    """What processing a batch of changes needs."""

    @property
    def parallel_map(self) -> ParallelMap: ...


class DeadLetterFailed(HeadraceError):
    """Some changes were neither handled nor dead-lettered; the stream delivers the batch again."""


class _Outcome(StrEnum):
    DONE = "done"  # handled or dead-lettered
    LEFT = "left"  # to the sweep
    LOST = "lost"  # unless the stream delivers it again


def changes_by_job(changes: Iterable[Change]) -> list[list[Change]]:
    """Group the changes by job; those of a job stay in order."""
    groups: defaultdict[str, list[Change]] = defaultdict(list)
    for change in changes:
        groups[change[0]].append(change)
    return list(groups.values())


def for_each_change(
    ctx: ChangeContext,
    consumer: str,
    changes: Iterable[Change],
    handle: Handler,
    may_leave: Callable[[Job], bool] = lambda _after: True,
    *,
    log_unreadable: bool = False,
) -> None:
    """Call `handle(before, after)` for each change, for several jobs at once.

    Args:
        consumer: the name of the consumer, for the log and the reason of a dead letter.
        may_leave: whether the sweep does later what `handle` could not.
        log_unreadable: log changes whose new image cannot be read (`after` is None): another version
            of the code wrote it. Several consumers see the same changes, so only one of them sets
            this. No dead letter: whoever can read the record handles its next change, and the
            sweeper what is due.

    Raises:
        DeadLetterFailed: a change could be neither handled nor left nor dead-lettered. All others
            were; handling them again is safe.
    """
    until = ctx.clock.now() + TIME_BUDGET_MS

    def process(group: Sequence[Change]) -> list[_Outcome]:
        return [_process_one(ctx, consumer, change, handle, until, may_leave, log_unreadable) for change in group]

    outcomes = Counter(outcome for group in ctx.parallel_map(process, changes_by_job(changes)) for outcome in group)
    if outcomes[_Outcome.LEFT]:
        ctx.log("changes_left", consumer=consumer, changes=outcomes[_Outcome.LEFT])
    if outcomes[_Outcome.LOST]:
        raise DeadLetterFailed(f"{outcomes[_Outcome.LOST]} changes could not be handled; the stream delivers them again.")


def _process_one(
    ctx: ChangeContext, consumer: str, change: Change, handle: Handler, until: Ms, may_leave: Callable[[Job], bool], log_unreadable: bool
) -> _Outcome:
    job_id, before, after = change
    if after is None:
        if log_unreadable:
            ctx.log("change_unreadable", job_id=job_id)
        return _Outcome.DONE
    left = _Outcome.LEFT if may_leave(after) else _Outcome.LOST
    if ctx.clock.now() >= until:
        return left
    try:
        call_with_retry(ctx.clock, partial(handle, before, after), until)
    except Unavailable as exc:
        ctx.log("change_deferred", consumer=consumer, job_id=job_id, error=exc)
        return left
    except Exception as exc:  # noqa: BLE001 - a record that always fails would block its shard for a day and then be lost
        ctx.log("change_failed", consumer=consumer, job_id=job_id, error=exc)
        return _send_to_dead_letter(ctx, job_id, f"{consumer}: {type(exc).__name__}", until)
    return _Outcome.DONE


def _send_to_dead_letter(ctx: ChangeContext, job_id: str, reason: str, until: Ms) -> _Outcome:
    if ctx.clock.now() >= until:
        return _Outcome.LOST
    try:
        call_with_retry(ctx.clock, partial(ctx.queues.send_to_dead_letter, STREAM, job_id, reason), until)
    except Exception as exc:  # noqa: BLE001 - handle the other records first; the caller raises DeadLetterFailed at the end
        ctx.log("dead_letter_failed", job_id=job_id, error=exc)
        return _Outcome.LOST
    return _Outcome.DONE
