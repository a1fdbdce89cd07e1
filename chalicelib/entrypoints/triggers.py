"""Handlers of queue messages, of the change stream and of the schedule."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from chalicelib.bootstrap import Container, container
from chalicelib.consumers.count_jobs import count_job_changes
from chalicelib.consumers.job_changes import process_job_changes
from chalicelib.consumers.release_dependents import RELEASE_DEPENDENTS, RemainingDependents, release_remaining
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

SWEEP_BUDGET_MS = 48_000  # of the function's 55 s, for all steps together
TASK_MARGIN_MS = 30_000  # kept free at the end of a task's function, to finish what has been started
DELIVERY_BUDGET_MS = 5_000  # of the sweep's budget, for stalled deliveries
STORE_HANG_MS = 15_000  # a hanging store may exceed the delivery budget by this; with less time left the step is skipped


def handle_lane_messages(lane: Lane, event: Any) -> None:
    """Run the jobs that a batch of wake-ups names.

    If this raises, SQS redelivers the messages that were not acknowledged.
    """
    records = event.to_dict()["Records"]
    messages = [QueueMessage(body=each["body"], receipt=each["receiptHandle"], id=each.get("messageId", "")) for each in records]
    ctx, context = container(), event.context
    now = ctx.clock.now()
    deadline = Deadline(started_at=now, ends_at=now + context.get_remaining_time_in_millis())
    environment = getattr(context, "log_stream_name", "") or ""
    ctx.worker_loop.run(process_messages(ctx, lane.name, messages, environment, deadline))


def handle_schedule() -> None:
    """Run one sweep: recover jobs, wake batches, requeue deliveries, resume bulk operations."""
    ctx = container()
    ends = ctx.clock.now() + SWEEP_BUDGET_MS
    sweep(ctx)
    wake_stalled_batches(ctx)
    _requeue_stalled_deliveries(ctx, ends)
    resume_unfinished(ctx, ends)


def handle_delivery_messages(event: Any) -> None:
    """Attempt the deliveries that a batch of messages names, in parallel."""
    bodies, ctx = [each["body"] for each in event.to_dict()["Records"]], container()
    with ThreadPoolExecutor(max_workers=len(bodies)) as threads:
        list(threads.map(lambda body: handle_delivery_message(ctx, body), bodies))


def handle_task_messages(event: Any) -> None:
    """Run the tasks of the `tasks` queue. If this raises, SQS redelivers them, which is safe."""
    ctx, remaining = container(), event.context.get_remaining_time_in_millis()
    until = ctx.clock.now() + max(remaining // 2, remaining - TASK_MARGIN_MS)
    for each in event.to_dict()["Records"]:
        task = _parse_task(ctx, each["body"])
        if task is None:
            ctx.queues.send_to_dead_letter(TASKS, each["body"], "the message names no task")
        else:
            task(until)


def _parse_task(ctx: Container, body: str) -> Callable[[Ms], object] | None:
    """The task that a message names, to be called with its deadline; None if it names none."""
    try:
        message: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    name = message.get("task") if isinstance(message, dict) else None
    return _TASKS[name](ctx, message) if isinstance(name, str) and name in _TASKS else None


def _advance_batch_task(ctx: Container, message: dict[str, Any]) -> Callable[[Ms], object] | None:
    tenant, batch_id = message.get("tenant"), message.get("batch_id")
    if not isinstance(tenant, str) or not isinstance(batch_id, str):
        return None
    return partial(advance_batch, ctx, tenant, batch_id)


def _release_dependents_task(ctx: Container, message: dict[str, Any]) -> Callable[[Ms], object] | None:
    rest = RemainingDependents.from_message(message)
    return partial(release_remaining, ctx, rest) if rest is not None else None


_TASKS: dict[str, Callable[[Container, dict[str, Any]], Callable[[Ms], object] | None]] = {
    ADVANCE_BATCH: _advance_batch_task,
    RELEASE_DEPENDENTS: _release_dependents_task,
}


def handle_job_changes(event: Any) -> None:
    """Notify, release and broadcast what a batch of the change stream says."""
    ctx = container()
    process_job_changes(ctx, list(ctx.changes(event.to_dict()["Records"])))


def _requeue_stalled_deliveries(ctx: Container, ends: Ms) -> None:
    now = ctx.clock.now()
    if now + STORE_HANG_MS > ends:
        return
    try:
        results = requeue_stalled(ctx, now + DELIVERY_BUDGET_MS)
    except Unavailable as exc:  # the next sweep tries again; bulk operations do not wait for it
        ctx.log("delivery_sweep_failed", error=exc)
    else:
        if results:
            ctx.log("deliveries_requeued", **{result.value: count for result, count in results.items()})


def handle_count_changes(event: Any) -> None:
    """Update counters and batches from a batch of the change stream."""
    ctx = container()
    count_job_changes(ctx, ctx.changes(event.to_dict()["Records"]))
