"""What comes from queues and streams rather than from people."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from chalicelib import bootstrap
from chalicelib.consumers.broadcast_job_end import broadcast_job_ends
from chalicelib.consumers.change_loop import DeadLetterFailed
from chalicelib.consumers.count_jobs import count_job_changes
from chalicelib.consumers.notify_job_end import notify_job_ends
from chalicelib.consumers.release_dependents import RELEASE_DEPENDENTS, RemainingDependents, release_dependents, release_remaining
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.execution.deadline import Deadline
from chalicelib.domain.queues.lanes import TASKS, Lane
from chalicelib.domain.units import Ms
from chalicelib.observability import record
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
    context, now = event.context, bootstrap.container().clock.now()
    deadline = Deadline(started_at=now, ends_at=now + context.get_remaining_time_in_millis())
    environment = getattr(context, "log_stream_name", "") or ""
    bootstrap.worker_loop().run(process_messages(bootstrap.worker_context(), lane.name, messages, environment, deadline))


def handle_schedule() -> None:
    """Bring right whatever nobody is working on any more; in the time that is left, go on with what many jobs are to have done to them."""
    ends = bootstrap.container().clock.now() + SWEEP_BUDGET_MS
    sweep(bootstrap.sweep_context())
    wake_stalled_batches(bootstrap.batch_context())
    _send_forgotten(ends)
    resume_unfinished(bootstrap.bulk_context(), ends)


def handle_delivery_messages(event: Any) -> None:
    """Try the deliveries that a batch of messages names, all at once: each is bounded in time, and none waits for a slow one."""
    bodies, office = [one["body"] for one in event.to_dict()["Records"]], bootstrap.notification_context()
    with ThreadPoolExecutor(max_workers=len(bodies)) as threads:
        list(threads.map(lambda body: handle_delivery_message(office, body), bodies))


def handle_task_messages(event: Any) -> None:
    """Do what the messages of the queue `tasks` ask for. An exception gives the messages back; doing it twice does no harm."""
    have, remaining = bootstrap.container(), event.context.get_remaining_time_in_millis()
    until = have.clock.now() + max(remaining // 2, remaining - TASK_MARGIN_MS)
    for one in event.to_dict()["Records"]:
        work = _parse_task(one["body"])
        if work is None:
            have.queues.send_to_dead_letter(TASKS, one["body"], "it names no task")
        else:
            work(until)


def _parse_task(body: str) -> Callable[[Ms], object] | None:
    """What a message of ours asks for; None for anything else."""
    try:
        asked: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    task = asked.get("task") if isinstance(asked, dict) else None
    return _TASKS[task](asked) if isinstance(task, str) and task in _TASKS else None


def _advance_batch_task(asked: dict[str, Any]) -> Callable[[Ms], object] | None:
    tenant, batch_id = asked.get("tenant"), asked.get("batch_id")
    if not isinstance(tenant, str) or not isinstance(batch_id, str):
        return None
    return partial(advance_batch, bootstrap.batch_context(), tenant, batch_id)


def _release_dependents_task(asked: dict[str, Any]) -> Callable[[Ms], object] | None:
    rest = RemainingDependents.from_message(asked)
    return partial(release_remaining, bootstrap.dependency_context(), rest) if rest is not None else None


_TASKS: dict[str, Callable[[dict[str, Any]], Callable[[Ms], object] | None]] = {
    ADVANCE_BATCH: _advance_batch_task,
    RELEASE_DEPENDENTS: _release_dependents_task,
}


def handle_job_changes(event: Any) -> None:
    """What follows from the change stream of the jobs table. One projection that fails does not stop the others."""
    have = bootstrap.container()
    changes = list(have.changes(event.to_dict()["Records"]))
    projections: tuple[Callable[[], None], ...] = (
        lambda: broadcast_job_ends(bootstrap.streaming_context(), have.queues, record, changes),
        lambda: release_dependents(bootstrap.dependency_context(), changes),
        lambda: notify_job_ends(bootstrap.notification_context(), have.job_specs, have.endpoints.get("api_url"), changes),
    )
    failed = [exc for exc in map(_failure, projections) if exc is not None]
    if failed:
        raise failed[0]


def _failure(projection: Callable[[], None]) -> DeadLetterFailed | None:
    try:
        projection()
    except DeadLetterFailed as exc:
        return exc
    return None


def _send_forgotten(ends: Ms) -> None:
    now = bootstrap.container().clock.now()
    if now + STORE_HANG_MS > ends:
        return
    try:
        done = requeue_stalled(bootstrap.notification_context(), now + DELIVERY_BUDGET_MS)
    except Unavailable as exc:  # the next sweep looks again; bulk actions do not wait for it
        record("deliveries could not be swept", error=exc)
    else:
        if done:
            record("deliveries were swept", **done)


def handle_count_changes(event: Any) -> None:
    """Count what the change stream of the jobs table says."""
    count_job_changes(bootstrap.batch_context(), bootstrap.container().changes(event.to_dict()["Records"]))
