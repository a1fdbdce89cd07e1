"""What batches need from outside, and the messages by which their work goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from chalicelib.domain.batches.batch import Batch
from chalicelib.domain.batches.counters import BatchCounts, counter_key
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.domain.metrics.throughput import Throughput
from chalicelib.domain.queues.lanes import TASKS
from chalicelib.ports import Batches, BatchRows, Clock, Counters, Dependencies, Jobs, JobSpecs, ParallelMap, Prices, Queues, Subscriptions
from chalicelib.services.jobs.bulk_operations import BulkContext
from chalicelib.services.log import Log
from chalicelib.services.streaming.subscriptions import StreamingContext

ADVANCE_BATCH = "advance_batch"  # the task of going on with a batch
MAX_DELAY_SECONDS = 900  # seconds, of a message


@dataclass(frozen=True, kw_only=True)
class BatchContext:
    """`desk` carries out bulk actions over the rows. `queue_limit`: messages that a lane may hold; nothing is released into a full one.

    `tell` whoever is to hear of the end of a batch; done again, it tells nobody anew.
    `gallery` is where those are who watch. `speed_of` a job type and a model is what was measured of them.
    """

    clock: Clock
    log: Log
    jobs: Jobs
    job_specs: JobSpecs
    dependencies: Dependencies
    queues: Queues
    subscriptions: Subscriptions
    prices: Prices
    job_type: Callable[[str], JobType]
    batches: Batches
    batch_rows: BatchRows
    counters: Counters
    bulk: BulkContext
    new_id: Callable[[], str]
    new_batch_id: Callable[[], str]
    parallel_map: ParallelMap
    queue_limit: int
    throughput_of: Callable[[str, str], Throughput]
    notify_completed: Callable[[Batch, BatchCounts], None]
    streaming: StreamingContext

    def counts(self, batch_id: str) -> BatchCounts:
        """What is counted of a batch so far."""
        where = counter_key(batch_id)
        return BatchCounts.of(self.counters.get([where]).get(where, {}))


def enqueue_advance(queues: Queues, batch: Batch, delay: int = 0) -> None:
    """Have somebody go on with a batch. Sent too often it does no harm; what is lost, the sweep sends.

    Raises:
        Unavailable: it may not have been sent.
    """
    body = json.dumps({"task": ADVANCE_BATCH, "tenant": batch.tenant, "batch_id": batch.id})
    queues.send_task(TASKS, body, batch.tenant, min(MAX_DELAY_SECONDS, max(0, delay)))
