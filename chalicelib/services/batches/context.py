"""Define the context of the batch services, and enqueue the task that advances a batch."""

from __future__ import annotations

import json
from typing import Protocol

from chalicelib.domain.batches.batch import Batch
from chalicelib.domain.batches.counters import BatchCounts, counter_key
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.domain.metrics.throughput import Throughput
from chalicelib.domain.queues.lanes import TASKS
from chalicelib.ports import Batches, BatchRows, Counters, ParallelMap, Pauses, Prices, Queues
from chalicelib.services.jobs.bulk_operations import BulkContext
from chalicelib.services.jobs.submit_job import SubmitContext
from chalicelib.services.notifications.outbox import NotificationContext
from chalicelib.services.streaming.subscriptions import StreamingContext

ADVANCE_BATCH = "advance_batch"  # the `task` in a message that advances a batch
MAX_DELAY_SECONDS = 900  # SQS delays no message longer


class BatchContext(BulkContext, SubmitContext, StreamingContext, NotificationContext, Protocol):
    """What batches need. No row is released into a lane that holds `max_lane_depth` messages."""

    @property
    def prices(self) -> Prices: ...
    @property
    def batches(self) -> Batches: ...
    @property
    def batch_rows(self) -> BatchRows: ...
    @property
    def pauses(self) -> Pauses: ...
    @property
    def counters(self) -> Counters: ...
    @property
    def parallel_map(self) -> ParallelMap: ...
    def job_type(self, name: str) -> JobType: ...
    def throughput_of(self, job_type: str, model: str) -> Throughput: ...
    def new_batch_id(self) -> str: ...


def load_counts(ctx: BatchContext, batch_id: str) -> BatchCounts:
    """Return the current counters of a batch."""
    key = counter_key(batch_id)
    return BatchCounts.of(ctx.counters.get([key]).get(key, {}))


def enqueue_advance(queues: Queues, batch: Batch, delay: int = 0) -> None:
    """Enqueue a task that advances this batch, after `delay` seconds.

    Safe to repeat; if the message is lost, the sweeper sends another.

    Raises:
        Unavailable: the message may not have been sent.
    """
    message = json.dumps({"task": ADVANCE_BATCH, "tenant": batch.tenant, "batch_id": batch.id})
    queues.send_task(TASKS, message, batch.tenant, min(MAX_DELAY_SECONDS, max(0, delay)))
