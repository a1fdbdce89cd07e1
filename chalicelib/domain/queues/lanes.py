"""Define the four priority lanes and the other queues. `infra/` and `app.py` read the same table.

Why the lanes have these numbers:

* `batch_size` is how many jobs an invocation starts with. A full batch keeps its environment until
  its slowest job ends, so lanes for users who wait start small, and lanes where cost matters start
  full.
* `window` delays every first token by its length; only `low` may wait to fill a batch.
* `max_concurrency` bounds the environments of a lane. Their sum (450) leaves room in a default
  account of 1,000 for the API and the stream consumers. It is the limit of the SQS event source:
  reserved concurrency would throttle invocations, and each throttled message uses up a receive.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Lane:
    """One priority: a queue, its dead-letter queue and its worker function."""

    name: str
    batch_size: int  # messages an invocation starts with, 1-10
    window: int  # seconds that SQS may wait to fill a batch
    max_concurrency: int  # environments at once, 2-1000


URGENT = Lane("urgent", batch_size=2, window=0, max_concurrency=120)
HIGH = Lane("high", batch_size=5, window=0, max_concurrency=150)
NORMAL = Lane("normal", batch_size=10, window=0, max_concurrency=120)
LOW = Lane("low", batch_size=10, window=5, max_concurrency=60)

LANES: dict[str, Lane] = {lane.name: lane for lane in (URGENT, HIGH, NORMAL, LOW)}

WORKER_TIMEOUT = 900  # seconds; the maximum of Lambda
WORKER_MEMORY = 512  # MB; 29 % of a vCPU carry ten raw streams; with less, openai imports too slowly
VISIBILITY_TIMEOUT = WORKER_TIMEOUT + 60  # seconds; only against early redelivery
MAX_RECEIVE_COUNT = 5  # receives before a message becomes a dead letter
MESSAGE_RETENTION = 14 * 24 * 3600  # seconds


def queue_name(stage: str, lane: str) -> str:
    """Return the name of a lane's SQS queue, `headrace-<stage>-<lane>`."""
    return f"headrace-{stage}-{lane}"


# Queues that are not lanes:
TASKS = "tasks"  # task messages for many jobs: advance a batch, release the dependents of a parent
DELIVERIES = "deliveries"  # webhooks and other notifications
DELIVERY_CONCURRENCY = 10  # environments at once, each with up to ten deliveries
TASK_QUEUES = (TASKS, DELIVERIES)
TASK_TIMEOUT = 120  # seconds; of the functions behind them
STREAM = "stream"  # has only a dead-letter queue: the change records that could not be read


def dead_letter_queue_name(stage: str, lane: str) -> str:
    """Return the name of the dead-letter queue of a lane."""
    return f"{queue_name(stage, lane)}-dead"
