"""Define the queues: the four priority lanes, the queues of tasks and of released jobs, and those without jobs.

`infra/` and `app.py` read the same table. Why the lanes have these numbers:

* `batch_size` is how many jobs an invocation starts with. A full batch keeps its environment until
  its slowest job ends, so lanes for users who wait start small, and lanes where cost matters start
  full.
* `window` delays every first token by its length; only `low` may wait to fill a batch.
* `max_concurrency` bounds the environments of a queue. Their sum (450) leaves room in a default
  account of 1,000 for the API and the stream consumers. It is the limit of the SQS event source:
  reserved concurrency would throttle invocations, and each throttled message uses up a receive.

Why tasks (jobs whose type has a handler) have the queue `work`, whatever their lane: a lane's
environment has up to ten streams, often of several tenants, and a file that exhausts its memory
would end all of them; each would be run and paid again. So `work` has one job in an environment.
Its concurrency covers the limits of all types with a handler (19 jobs at once) and leaves six
environments for wake-ups that only hold their job. It is taken from `high`, which has the most
environments. Its memory is for the largest file that a task may read: 490 MB were measured for 49 MB
of JSON lines. A second of such an environment costs $0.0000133.
"""

from __future__ import annotations

from dataclasses import dataclass

WORKER_TIMEOUT = 900  # seconds; the maximum of Lambda
WORKER_MEMORY = 512  # MB; 29 % of a vCPU carry ten raw streams; with less, openai imports too slowly
WORK_MEMORY = 1_024  # MB


@dataclass(frozen=True)
class JobQueue:
    """A queue of wake-ups, with its dead-letter queue and its worker function."""

    name: str
    batch_size: int  # messages an invocation starts with, 1-10
    window: int  # seconds that SQS may wait to fill a batch
    max_concurrency: int  # environments at once, 2-1000
    memory: int = WORKER_MEMORY  # MB of an environment

    @property
    def function(self) -> str:
        """The name of its worker function in `app.py`."""
        return f"worker_{self.name}"


@dataclass(frozen=True)
class Lane(JobQueue):
    """One priority, and the queue of its jobs that ask a model."""


URGENT = Lane("urgent", batch_size=2, window=0, max_concurrency=110)
HIGH = Lane("high", batch_size=5, window=0, max_concurrency=100)
NORMAL = Lane("normal", batch_size=10, window=0, max_concurrency=95)
LOW = Lane("low", batch_size=10, window=5, max_concurrency=40)
WORK = JobQueue("work", batch_size=1, window=0, max_concurrency=25, memory=WORK_MEMORY)  # tasks of every lane

LANES: dict[str, Lane] = {lane.name: lane for lane in (URGENT, HIGH, NORMAL, LOW)}
# Jobs of every lane that a scheduler has released. Behind the backlog of a lane what was taken for them would lapse.
READY = JobQueue("ready", batch_size=5, window=0, max_concurrency=80)
HOME_QUEUES: dict[str, JobQueue] = {**LANES, WORK.name: WORK}  # every queue to which jobs belong
JOB_QUEUES: dict[str, JobQueue] = {**HOME_QUEUES, READY.name: READY}  # every queue of wake-ups

VISIBILITY_TIMEOUT = WORKER_TIMEOUT + 60  # seconds; only against early redelivery
MAX_RECEIVE_COUNT = 5  # receives before a message becomes a dead letter
MESSAGE_RETENTION = 14 * 24 * 3600  # seconds


def queue_name(stage: str, queue: str) -> str:
    """Return the name of an SQS queue, `headrace-<stage>-<queue>`."""
    return f"headrace-{stage}-{queue}"


# Queues without wake-ups:
TASKS = "tasks"  # task messages for many jobs: advance a batch, release the dependents of a parent
DELIVERIES = "deliveries"  # webhooks and other notifications
DELIVERY_CONCURRENCY = 10  # environments at once, each with up to ten deliveries
SCHEDULE = "schedule"  # that a shard of the scheduler has lines to serve
TASK_QUEUES = (TASKS, DELIVERIES, SCHEDULE)
TASK_TIMEOUT = 120  # seconds; of the functions behind them
STREAM = "stream"  # has only a dead-letter queue: the change records that could not be read


def dead_letter_queue_name(stage: str, queue: str) -> str:
    """Return the name of the dead-letter queue of a queue."""
    return f"{queue_name(stage, queue)}-dead"
