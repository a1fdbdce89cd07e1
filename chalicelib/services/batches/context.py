"""What batches need from outside, and the messages by which their work goes on."""

from __future__ import annotations

import json
from typing import Protocol

from chalicelib.domain.batches.batch import Batch
from chalicelib.domain.batches.counters import BatchCounts, counter_key
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.domain.metrics.throughput import Throughput
from chalicelib.domain.queues.lanes import TASKS
from chalicelib.ports import Batches, BatchRows, Counters, ParallelMap, Prices, Queues
from chalicelib.services.jobs.bulk_operations import BulkContext
from chalicelib.services.jobs.submit_job import SubmitContext
from chalicelib.services.notifications.outbox import NotificationContext
from chalicelib.services.streaming.subscriptions import StreamingContext

ADVANCE_BATCH = "advance_batch"  # the task of going on with a batch
MAX_DELAY_SECONDS = 900  # seconds, of a message


class BatchContext(BulkContext, SubmitContext, StreamingContext, NotificationContext, Protocol):
    """What batches need. Nothing is released into a lane that holds `max_lane_depth` messages."""

    @property
    def prices(self) -> Prices: ...
    @property
    def batches(self) -> Batches: ...
    @property
    def batch_rows(self) -> BatchRows: ...
    @property
    def counters(self) -> Counters: ...
    @property
    def parallel_map(self) -> ParallelMap: ...
    def job_type(self, name: str) -> JobType: ...
    def throughput_of(self, job_type: str, model: str) -> Throughput: ...
    def new_batch_id(self) -> str: ...


def load_counts(ctx: BatchContext, batch_id: str) -> BatchCounts:
    """The counters of a batch as they stand."""
    key = counter_key(batch_id)
    return BatchCounts.of(ctx.counters.get([key]).get(key, {}))


def enqueue_advance(queues: Queues, batch: Batch, delay: int = 0) -> None:
    """Have somebody go on with a batch. Sent too often it does no harm; what is lost, the sweep sends.

    Raises:
        Unavailable: it may not have been sent.
    """
    body = json.dumps({"task": ADVANCE_BATCH, "tenant": batch.tenant, "batch_id": batch.id})
    queues.send_task(TASKS, body, batch.tenant, min(MAX_DELAY_SECONDS, max(0, delay)))
