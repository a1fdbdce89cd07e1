"""What comes from queues and streams rather than from people."""

from __future__ import annotations

from typing import Any

from chalicelib import wiring
from chalicelib.domain.deadline import Deadline
from chalicelib.domain.lanes import Lane
from chalicelib.observability import record
from chalicelib.ports import Received
from chalicelib.projections.announce_ends import announce_ends
from chalicelib.projections.let_go import let_children_go
from chalicelib.usecases.bulk import go_on_with_unfinished
from chalicelib.usecases.run_batch import run_batch
from chalicelib.usecases.sweep import sweep

SWEEP_ALL_MS = 48_000  # of the function's 55 s, both parts together


def run_lane(lane: Lane, event: Any) -> None:
    """Run the jobs that a batch of an SQS queue wakes. An exception gives back the messages that were not acknowledged."""
    records = event.to_dict()["Records"]
    messages = [Received(body=one["body"], receipt=one["receiptHandle"], id=one.get("messageId", "")) for one in records]
    context, now = event.context, wiring.adapters().clock.now()
    deadline = Deadline(began=now, at=now + context.get_remaining_time_in_millis())
    environment = getattr(context, "log_stream_name", "") or ""
    wiring.worker_loop().run(run_batch(wiring.engine(), lane.name, messages, environment, deadline))


def sweep_all() -> None:
    """Bring right whatever nobody is working on any more; in the time that is left, go on with what many jobs are to have done to them."""
    ends = wiring.adapters().clock.now() + SWEEP_ALL_MS
    sweep(wiring.broom())
    go_on_with_unfinished(wiring.desk(), ends)


def announce_changes(event: Any) -> None:
    """Tell watchers what the change stream of the jobs table says, and let go what waited for it. Neither stops the other."""
    have = wiring.adapters()
    changes = list(have.changes(event.to_dict()["Records"]))
    try:
        announce_ends(wiring.gallery(), have.queues, record, changes)
    finally:
        let_children_go(wiring.doorkeeper(), changes)
