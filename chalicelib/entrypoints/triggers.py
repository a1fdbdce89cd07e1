"""Handlers of queue messages, of the change stream and of the schedules."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from chalicelib.bootstrap import Container, container
from chalicelib.consumers.count_jobs import count_job_changes
from chalicelib.consumers.job_changes import process_job_changes
from chalicelib.consumers.overdue_ends import serve_overdue_ends
from chalicelib.consumers.release_dependents import RELEASE_DEPENDENTS, RemainingDependents, release_remaining
from chalicelib.domain import json_limits
from chalicelib.domain.errors import HeadraceError, Unavailable
from chalicelib.domain.execution.deadline import Deadline
from chalicelib.domain.queues.lanes import SCHEDULE, TASKS, JobQueue
from chalicelib.domain.units import Ms
from chalicelib.entrypoints.batch_response import BatchResponse, Record, all_processed, deliver_again, handle_each
from chalicelib.ports import QueueMessage
from chalicelib.services.batches.advance_batch import advance_batch
from chalicelib.services.batches.context import ADVANCE_BATCH
from chalicelib.services.batches.wake_batches import wake_stalled_batches
from chalicelib.services.jobs.advance_bulk import advance_bulk
from chalicelib.services.jobs.bulk_turns import ADVANCE_BULK
from chalicelib.services.jobs.wake_bulk_operations import wake_stalled_bulk_operations
from chalicelib.services.maintenance.sweep_lines import sweep_lines
from chalicelib.services.maintenance.sweeper import sweep
from chalicelib.services.notifications.dispatcher import handle_delivery_message
from chalicelib.services.notifications.requeue_deliveries import requeue_stalled
from chalicelib.services.scheduling.scheduler import serve_shard
from chalicelib.services.scheduling.visits import ShardMessage
from chalicelib.services.worker.process_messages import PartialBatchFailure, process_messages

TASK_MARGIN_MS = 30_000  # kept free at the end of a task's function, to finish what has been started
SCHEDULER_MARGIN_MS = 15_000  # the same of the scheduler
SCHEDULE_MARGIN_MS = 15_000  # the same of a scheduled function: a call to a store that hangs takes up to 13 s


def handle_lane_messages(queue: JobQueue, event: Any) -> BatchResponse:
    """Run the jobs that a batch of wake-ups names. SQS redelivers those that were not processed."""
    records = event.to_dict()["Records"]
    messages = [QueueMessage(body=each["body"], receipt=each["receiptHandle"], id=each.get("messageId", "")) for each in records]
    ctx, context = container(), event.context
    now = ctx.clock.now()
    deadline = Deadline(started_at=now, ends_at=now + context.get_remaining_time_in_millis())
    environment = getattr(context, "log_stream_name", "") or ""
    try:
        ctx.worker_loop.run(process_messages(ctx, queue.name, messages, environment, deadline))
    except PartialBatchFailure as exc:
        return deliver_again(ctx, exc.messages, exc)
    except Unavailable as exc:  # a store does not answer; a job that ran meanwhile is dropped by its record when it comes again
        return deliver_again(ctx, [message.id for message in messages], exc)
    return all_processed()


def handle_sweep() -> None:
    """Recover jobs, leases and connections that their workers have left behind."""
    sweep(container())


def handle_line_schedule(event: Any) -> None:
    """Look after the lines of held jobs."""
    ctx = container()
    sweep_lines(ctx, _deadline(ctx, event, SCHEDULE_MARGIN_MS))


def handle_schedule_messages(event: Any) -> BatchResponse:
    """Serve the shard of the scheduler that a message names, while jobs wait."""
    ctx = container()
    return handle_each(ctx, event.to_dict()["Records"], partial(_serve_shard, ctx, _deadline(ctx, event, SCHEDULER_MARGIN_MS)))


def _serve_shard(ctx: Container, until: Ms, record: Record) -> None:
    message = ShardMessage.from_json(record["body"])
    if message is None:
        ctx.queues.send_to_dead_letter(SCHEDULE, record["body"], "the message names no shard")
    else:
        ctx.worker_loop.run(serve_shard(ctx, message, until))


def handle_delivery_schedule(event: Any) -> None:
    """Send the messages of overdue deliveries."""
    ctx = container()
    results = requeue_stalled(ctx, _deadline(ctx, event, SCHEDULE_MARGIN_MS))
    if results:
        ctx.log("deliveries_requeued", **{result.value: count for result, count in results.items()})


def handle_job_end_schedule(event: Any) -> None:
    """Serve the ends of jobs that the change stream has left."""
    ctx = container()
    results = serve_overdue_ends(ctx, _deadline(ctx, event, SCHEDULE_MARGIN_MS))
    if results:
        ctx.log("overdue_ends_served", **{result.value: count for result, count in results.items()})


def handle_batch_schedule(event: Any) -> None:
    """Wake the batches that nobody advances."""
    ctx = container()
    wake_stalled_batches(ctx, _deadline(ctx, event, SCHEDULE_MARGIN_MS))


def handle_bulk_schedule(event: Any) -> None:
    """Wake the bulk operations that nobody advances."""
    ctx = container()
    wake_stalled_bulk_operations(ctx, _deadline(ctx, event, SCHEDULE_MARGIN_MS))


def _deadline(ctx: Container, event: Any, margin: Ms) -> Ms:
    """When the function must start nothing new: `margin` before its timeout, or half of a short one."""
    remaining: Ms = event.context.get_remaining_time_in_millis()
    return ctx.clock.now() + max(remaining // 2, remaining - margin)


def handle_delivery_messages(event: Any) -> BatchResponse:
    """Attempt the deliveries that a batch of messages names, in parallel."""
    records, ctx = event.to_dict()["Records"], container()
    with ThreadPoolExecutor(max_workers=len(records)) as threads:
        return handle_each(ctx, records, partial(_handle_delivery, ctx), threads.map)


def _handle_delivery(ctx: Container, record: Record) -> None:
    receives = int(record.get("attributes", {}).get("ApproximateReceiveCount", 1))
    handle_delivery_message(ctx, record["body"], receives)


def handle_task_messages(event: Any) -> BatchResponse:
    """Run the tasks of the `tasks` queue. SQS redelivers those that fail, which is safe.

    A task that another version of the code knows fails here, and stays in the queue for a function
    of that version.
    """
    ctx = container()
    return handle_each(ctx, event.to_dict()["Records"], partial(_run_task, ctx, _deadline(ctx, event, TASK_MARGIN_MS)))


def _run_task(ctx: Container, until: Ms, record: Record) -> None:
    body = record["body"]
    try:
        task = _parse_task(ctx, body)
    except UnknownTask as exc:
        ctx.log("task_unknown", task=exc.name)
        raise
    if task is None:
        ctx.queues.send_to_dead_letter(TASKS, body, "the message names no task")
    else:
        task(until)


class UnknownTask(HeadraceError):
    """This version of the code does not know the task that a message names."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name[:80]


def _parse_task(ctx: Container, body: str) -> Callable[[Ms], object] | None:
    """The task that a message names, to be called with its deadline; None if it names none.

    Raises:
        UnknownTask: it names one that is not known here.
    """
    try:
        message: Any = json_limits.loads(body)
    except ValueError:
        return None
    name = message.get("task") if isinstance(message, dict) else None
    if not isinstance(name, str):
        return None
    if name not in _TASKS:
        raise UnknownTask(name)
    return _TASKS[name](ctx, message)


def _advance_batch_task(ctx: Container, message: dict[str, Any]) -> Callable[[Ms], object] | None:
    tenant, batch_id = message.get("tenant"), message.get("batch_id")
    if not isinstance(tenant, str) or not isinstance(batch_id, str):
        return None
    return partial(advance_batch, ctx, tenant, batch_id)


def _advance_bulk_task(ctx: Container, message: dict[str, Any]) -> Callable[[Ms], object] | None:
    tenant, bulk_id, version = message.get("tenant"), message.get("bulk_id"), message.get("version")
    if not isinstance(tenant, str) or not isinstance(bulk_id, str) or isinstance(version, bool) or not isinstance(version, int):
        return None
    return partial(advance_bulk, ctx, tenant, bulk_id, version)


def _release_dependents_task(ctx: Container, message: dict[str, Any]) -> Callable[[Ms], object] | None:
    rest = RemainingDependents.from_message(message)
    return partial(release_remaining, ctx, rest) if rest is not None else None


_TASKS: dict[str, Callable[[Container, dict[str, Any]], Callable[[Ms], object] | None]] = {
    ADVANCE_BATCH: _advance_batch_task,
    ADVANCE_BULK: _advance_bulk_task,
    RELEASE_DEPENDENTS: _release_dependents_task,
}


def handle_job_changes(event: Any) -> None:
    """Notify, release and broadcast what a batch of the change stream says."""
    ctx = container()
    process_job_changes(ctx, list(ctx.changes(event.to_dict()["Records"])))


def handle_count_changes(event: Any) -> None:
    """Update counters and batches from a batch of the change stream."""
    ctx = container()
    count_job_changes(ctx, ctx.changes(event.to_dict()["Records"]))
