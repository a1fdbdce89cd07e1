"""The four lanes: what each is for, and how wide it is. `infra/` and `app.py` read the same table.

The numbers and their reasons:

* `batch_size` only sets how a run *starts*. A full batch keeps its environment until its slowest job ends, so lanes where somebody
  waits start small and lanes where money matters start full.
* `window` delays every first token by its length; only `low` may wait to fill a batch.
* `max_concurrency` bounds the environments of a lane. Their sum (450) leaves room in a default account of 1,000 for the API and the
  projections. It is SQS's own limit, because reserved concurrency throttles and throttles burn receive counts.
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

WORKER_TIMEOUT = 900  # seconds; Lambda's longest
WORKER_MEMORY = 512  # MB; 29 % of a vCPU carries ten raw streams, and openai imports too slowly below it
VISIBILITY_TIMEOUT = WORKER_TIMEOUT + 60  # the claim prevents double work, visibility only an early wake-up
MAX_RECEIVE_COUNT = 5  # a dead letter is a hint, so generous
MESSAGE_RETENTION = 14 * 24 * 3600


def queue_name(stage: str, lane: str) -> str:
    """The SQS queue of a lane, `headrace-<stage>-<lane>`."""
    return f"headrace-{stage}-{lane}"


TASKS = "tasks"  # not a lane: what is to be done to many jobs, a piece a message: rows of a batch released, children of a parent let go
DELIVERIES = "deliveries"  # not a lane: messages to people and to other systems
DELIVERY_CONCURRENCY = 10  # environments at once, each with up to ten deliveries
TASK_QUEUES = (TASKS, DELIVERIES)
TASK_TIMEOUT = 120  # seconds of the functions behind them
STREAM = "stream"  # not a lane: its dead-letter queue keeps the change records that could not be read


def dead_letter_queue_name(stage: str, lane: str) -> str:
    return f"{queue_name(stage, lane)}-dead"
