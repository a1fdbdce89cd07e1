"""What batches need from outside, and the messages by which their work goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from chalicelib.domain.batch import Batch
from chalicelib.domain.batch_counts import Counts, place
from chalicelib.domain.job_type import JobType
from chalicelib.domain.lanes import TASKS
from chalicelib.domain.speed import Speed
from chalicelib.ports import Batches, BatchRows, Bodies, Clock, Dependencies, Jobs, Ledger, Prices, Queues, Together, Watchers
from chalicelib.usecases.bulk import Desk
from chalicelib.usecases.engine import Log
from chalicelib.usecases.watch_job import Gallery

FEED = "feed"  # the task of going on with a batch
LONGEST_DELAY = 900  # seconds, of a message


@dataclass(frozen=True, kw_only=True)
class Clerk:
    """`desk` carries out bulk actions over the rows. `queue_limit`: messages that a lane may hold; nothing is released into a full one.

    `tell` whoever is to hear of the end of a batch; done again, it tells nobody anew.
    `gallery` is where those are who watch. `speed_of` a job type and a model is what was measured of them.
    """

    clock: Clock
    log: Log
    jobs: Jobs
    job_specs: Bodies
    dependencies: Dependencies
    queues: Queues
    subscriptions: Watchers
    prices: Prices
    job_type: Callable[[str], JobType]
    batches: Batches
    batch_rows: BatchRows
    counters: Ledger
    bulk: Desk
    new_id: Callable[[], str]
    new_batch_id: Callable[[], str]
    parallel_map: Together
    queue_limit: int
    throughput_of: Callable[[str, str], Speed]
    notify_completed: Callable[[Batch, Counts], None]
    streaming: Gallery

    def counts(self, batch_id: str) -> Counts:
        """What is counted of a batch so far."""
        where = place(batch_id)
        return Counts.of(self.counters.get([where]).get(where, {}))


def send_on(queues: Queues, batch: Batch, delay: int = 0) -> None:
    """Have somebody go on with a batch. Sent too often it does no harm; what is lost, the sweep sends.

    Raises:
        Unavailable: it may not have been sent.
    """
    body = json.dumps({"task": FEED, "tenant": batch.tenant, "batch_id": batch.id})
    queues.send_task(TASKS, body, batch.tenant, min(LONGEST_DELAY, max(0, delay)))
