"""What comes from queues and streams rather than from people."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from chalicelib.bootstrap import Container, container
from chalicelib.consumers.broadcast_job_end import broadcast_job_ends
from chalicelib.consumers.change_loop import DeadLetterFailed
from chalicelib.consumers.count_jobs import count_job_changes
from chalicelib.consumers.notify_job_end import notify_job_ends
from chalicelib.consumers.release_dependents import RELEASE_DEPENDENTS, RemainingDependents, release_dependents, release_remaining
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.execution.deadline import Deadline
from chalicelib.domain.queues.lanes import TASKS, Lane
from chalicelib.domain.units import Ms
from chalicelib.ports import QueueMessage
from chalicelib.services.batches.advance_batch import advance_batch, wake_stalled_batches
from chalicelib.services.batches.context import ADVANCE_BATCH
from chalicelib.services.jobs.bulk_operations import resume_unfinished
from chalicelib.services.maintenance.sweeper import sweep
from chalicelib.services.notifications.dispatcher import handle_delivery_message, requeue_stalled
from chalicelib.services.worker.process_messages import process_messages

SWEEP_BUDGET_MS = 48_000  # of the function's 55 s, all parts together
TASK_MARGIN_MS = 30_000  # of a task's function, for what it has begun when its time is over
DELIVERY_BUDGET_MS = 5_000  # of them for deliveries that were forgotten
STORE_HANG_MS = 15_000  # what a store that hangs may take beyond that: with less left they are the next sweep's


def handle_lane_messages(lane: Lane, event: Any) -> None:
    """Run the jobs that a batch of an SQS queue wakes. An exception gives back the messages that were not acknowledged."""
    records = event.to_dict()["Records"]
    messages = [QueueMessage(body=one["body"], receipt=one["receiptHandle"], id=one.get("messageId", "")) for one in records]
    ctx, context = container(), event.context
    now = ctx.clock.now()
    deadline = Deadline(started_at=now, ends_at=now + context.get_remaining_time_in_millis())
    environment = getattr(context, "log_stream_name", "") or ""
    ctx.worker_loop.run(process_messages(ctx, lane.name, messages, environment, deadline))


def handle_schedule() -> None:
    """Bring right whatever nobody is working on any more; in the time that is left, go on with what many jobs are to have done to them."""
    ctx = container()
    ends = ctx.clock.now() + SWEEP_BUDGET_MS
    sweep(ctx)
    wake_stalled_batches(ctx)
    _requeue_stalled_deliveries(ctx, ends)
    resume_unfinished(ctx, ends)


def handle_delivery_messages(event: Any) -> None:
    """Try the deliveries that a batch of messages names, all at once: each is bounded in time, and none waits for a slow one."""
    bodies, ctx = [one["body"] for one in event.to_dict()["Records"]], container()
    with ThreadPoolExecutor(max_workers=len(bodies)) as threads:
        list(threads.map(lambda body: handle_delivery_message(ctx, body), bodies))


def handle_task_messages(event: Any) -> None:
    """Do what the messages of the queue `tasks` ask for. An exception gives the messages back; doing it twice does no harm."""
    ctx, remaining = container(), event.context.get_remaining_time_in_millis()
    until = ctx.clock.now() + max(remaining // 2, remaining - TASK_MARGIN_MS)
    for one in event.to_dict()["Records"]:
        work = _parse_task(ctx, one["body"])
        if work is None:
            ctx.queues.send_to_dead_letter(TASKS, one["body"], "it names no task")
        else:
            work(until)


def _parse_task(ctx: Container, body: str) -> Callable[[Ms], object] | None:
    """What a message of ours asks for; None for anything else."""
    try:
        asked: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    task = asked.get("task") if isinstance(asked, dict) else None
    return _TASKS[task](ctx, asked) if isinstance(task, str) and task in _TASKS else None


def _advance_batch_task(ctx: Container, asked: dict[str, Any]) -> Callable[[Ms], object] | None:
    tenant, batch_id = asked.get("tenant"), asked.get("batch_id")
    if not isinstance(tenant, str) or not isinstance(batch_id, str):
        return None
    return partial(advance_batch, ctx, tenant, batch_id)


def _release_dependents_task(ctx: Container, asked: dict[str, Any]) -> Callable[[Ms], object] | None:
    rest = RemainingDependents.from_message(asked)
    return partial(release_remaining, ctx, rest) if rest is not None else None


_TASKS: dict[str, Callable[[Container, dict[str, Any]], Callable[[Ms], object] | None]] = {
    ADVANCE_BATCH: _advance_batch_task,
    RELEASE_DEPENDENTS: _release_dependents_task,
}


def handle_job_changes(event: Any) -> None:
    """Hand a batch of the change stream to each consumer. A consumer that fails does not stop the others."""
    ctx = container()
    changes = list(ctx.changes(event.to_dict()["Records"]))
    consumers: tuple[Callable[[], None], ...] = (
        partial(broadcast_job_ends, ctx, changes),
        partial(release_dependents, ctx, changes),
        partial(notify_job_ends, ctx, changes),
    )
    failed = [exc for exc in map(_failure, consumers) if exc is not None]
    if failed:
        raise failed[0]


def _failure(consumer: Callable[[], None]) -> DeadLetterFailed | None:
    try:
        consumer()
    except DeadLetterFailed as exc:
        return exc
    return None


def _requeue_stalled_deliveries(ctx: Container, ends: Ms) -> None:
    now = ctx.clock.now()
    if now + STORE_HANG_MS > ends:
        return
    try:
        done = requeue_stalled(ctx, now + DELIVERY_BUDGET_MS)
    except Unavailable as exc:  # the next sweep tries again; bulk operations do not wait for it
        ctx.log("delivery_sweep_failed", error=exc)
    else:
        if done:
            ctx.log("deliveries_requeued", **{result.value: count for result, count in done.items()})


def handle_count_changes(event: Any) -> None:
    """Count what the change stream of the jobs table says."""
    ctx = container()
    count_job_changes(ctx, ctx.changes(event.to_dict()["Records"]))
