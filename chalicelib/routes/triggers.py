"""What comes from queues and streams rather than from people."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from chalicelib import wiring
from chalicelib.domain.deadline import Deadline
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.job import Ms
from chalicelib.domain.lanes import TASKS, Lane
from chalicelib.observability import record
from chalicelib.ports import Received
from chalicelib.projections.announce_ends import announce_ends
from chalicelib.projections.count_changes import count_changes
from chalicelib.projections.each_change import NotSetAside
from chalicelib.projections.let_go import LET_GO, Rest, go_on, let_children_go
from chalicelib.projections.send_word import send_word
from chalicelib.usecases.bulk import go_on_with_unfinished
from chalicelib.usecases.clerk import FEED
from chalicelib.usecases.deliver import deliver_message, send_forgotten
from chalicelib.usecases.run_batch import run_batch
from chalicelib.usecases.sweep import sweep
from chalicelib.usecases.tend_batch import tend, wake_left

SWEEP_ALL_MS = 48_000  # of the function's 55 s, all parts together
TASK_MARGIN_MS = 30_000  # of a task's function, for what it has begun when its time is over
SEND_MS = 5_000  # of them for deliveries that were forgotten
HANG_MS = 15_000  # what a store that hangs may take beyond that: with less left they are the next sweep's


def run_lane(lane: Lane, event: Any) -> None:
    """Run the jobs that a batch of an SQS queue wakes. An exception gives back the messages that were not acknowledged."""
    records = event.to_dict()["Records"]
    messages = [Received(body=one["body"], receipt=one["receiptHandle"], id=one.get("messageId", "")) for one in records]
    context, now = event.context, wiring.adapters().clock.now()
    deadline = Deadline(started_at=now, ends_at=now + context.get_remaining_time_in_millis())
    environment = getattr(context, "log_stream_name", "") or ""
    wiring.worker_loop().run(run_batch(wiring.engine(), lane.name, messages, environment, deadline))


def sweep_all() -> None:
    """Bring right whatever nobody is working on any more; in the time that is left, go on with what many jobs are to have done to them."""
    ends = wiring.adapters().clock.now() + SWEEP_ALL_MS
    sweep(wiring.broom())
    wake_left(wiring.clerk())
    _send_forgotten(ends)
    go_on_with_unfinished(wiring.desk(), ends)


def deliver_all(event: Any) -> None:
    """Try the deliveries that a batch of messages names, all at once: each is bounded in time, and none waits for a slow one."""
    bodies, office = [one["body"] for one in event.to_dict()["Records"]], wiring.post_office()
    with ThreadPoolExecutor(max_workers=len(bodies)) as threads:
        list(threads.map(lambda body: deliver_message(office, body), bodies))


def run_tasks(event: Any) -> None:
    """Do what the messages of the queue `tasks` ask for. An exception gives the messages back; doing it twice does no harm."""
    have, remaining = wiring.adapters(), event.context.get_remaining_time_in_millis()
    until = have.clock.now() + max(remaining // 2, remaining - TASK_MARGIN_MS)
    for one in event.to_dict()["Records"]:
        work = _asked(one["body"])
        if work is None:
            have.queues.send_to_dead_letter(TASKS, one["body"], "it names no task")
        else:
            work(until)


def _asked(body: str) -> Callable[[Ms], object] | None:
    """What a message of ours asks for; None for anything else."""
    try:
        asked: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    task = asked.get("task") if isinstance(asked, dict) else None
    return _TASKS[task](asked) if isinstance(task, str) and task in _TASKS else None


def _feed(asked: dict[str, Any]) -> Callable[[Ms], object] | None:
    tenant, batch_id = asked.get("tenant"), asked.get("batch_id")
    if not isinstance(tenant, str) or not isinstance(batch_id, str):
        return None
    return partial(tend, wiring.clerk(), tenant, batch_id)


def _let_go(asked: dict[str, Any]) -> Callable[[Ms], object] | None:
    rest = Rest.from_message(asked)
    return partial(go_on, wiring.doorkeeper(), rest) if rest is not None else None


_TASKS: dict[str, Callable[[dict[str, Any]], Callable[[Ms], object] | None]] = {FEED: _feed, LET_GO: _let_go}


def announce_changes(event: Any) -> None:
    """What follows from the change stream of the jobs table. One projection that fails does not stop the others."""
    have = wiring.adapters()
    changes = list(have.changes(event.to_dict()["Records"]))
    projections: tuple[Callable[[], None], ...] = (
        lambda: announce_ends(wiring.gallery(), have.queues, record, changes),
        lambda: let_children_go(wiring.doorkeeper(), changes),
        lambda: send_word(wiring.post_office(), have.job_specs, have.endpoints.get("api_url"), changes),
    )
    failed = [exc for exc in map(_failure, projections) if exc is not None]
    if failed:
        raise failed[0]


def _failure(projection: Callable[[], None]) -> NotSetAside | None:
    try:
        projection()
    except NotSetAside as exc:
        return exc
    return None


def _send_forgotten(ends: Ms) -> None:
    now = wiring.adapters().clock.now()
    if now + HANG_MS > ends:
        return
    try:
        done = send_forgotten(wiring.post_office(), now + SEND_MS)
    except Unavailable as exc:  # the next sweep looks again; bulk actions do not wait for it
        record("deliveries could not be swept", error=exc)
    else:
        if done:
            record("deliveries were swept", **done)


def count_all(event: Any) -> None:
    """Count what the change stream of the jobs table says."""
    count_changes(wiring.clerk(), wiring.adapters().changes(event.to_dict()["Records"]))
