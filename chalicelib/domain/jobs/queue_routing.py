"""Route wake-ups: which queue has the wake-up of a job, and which worker may run it.

A lane is a job's priority. The queue is that of its lane if the job asks a model, and `work` if its
type has a handler, so that such a job never shares an environment. Everything that sends wake-ups,
measures the depth before a job, or looks for due jobs follows this rule.
"""

from __future__ import annotations

from chalicelib.domain.jobs.job import Job
from chalicelib.domain.queues.lanes import READY, WORK


def queue_of(job: Job) -> str:
    """Return the name of the queue of a job's wake-ups, a key of `JOB_QUEUES`.

    The record alone decides. So it holds for records of every version, and no job type is loaded.
    """
    return queue_for(job.lane, is_task=job.is_task)


def queue_for(lane: str, *, is_task: bool) -> str:
    """Return the name of the queue for jobs of a lane, before there is a job record."""
    return WORK.name if is_task else lane


def may_run(queue: str, job: Job) -> bool:
    """Whether the worker of a queue may run a job.

    The worker of a lane runs the jobs of any lane, because a job may move while its wake-up waits;
    so does that of `ready`.
    It runs no task: the task would share the environment, and the function has no rights for it.
    The worker of `work` runs tasks only: it has no OpenAI key.
    """
    return job.is_task == (queue == WORK.name)


def release_queue(lane: str, *, is_task: bool, crashes: int) -> str:
    """Return the queue of the wake-up of a job that a scheduler releases.

    A job that has crashed goes back to its lane, whose worker runs it alone.
    """
    return queue_for(lane, is_task=is_task) if is_task or crashes else READY.name
