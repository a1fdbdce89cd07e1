"""Wake a worker for a job: the message is only a call, the job record decides what happens."""

from __future__ import annotations

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.queue_routing import queue_of
from chalicelib.domain.jobs.transitions import message_delay
from chalicelib.domain.queues.wakeup import WakeUp
from chalicelib.domain.units import Ms
from chalicelib.ports import Queues
from chalicelib.services.context import QueueContext


def send_wake_up(queues: Queues, job: Job, now: Ms) -> int | None:
    """Send the job's wake-up message to its queue, delayed until it may start; send it after the
    write that it announces (protocol rule 9: no frame before the write).

    Returns: the delay in seconds; None if the start is further away than a message can be delayed.
    The record is due
        then, and the sweeper sends the message when the time is near.

    Raises:
        Unavailable: the message may not have been sent.
    """
    delay = message_delay(job, now)
    if delay is not None:
        queues.send(queue_of(job), WakeUp(job.id, job.generation), job.tenant, delay)
    return delay


def try_send_wake_up(ctx: QueueContext, job: Job) -> None:
    """Like `send_wake_up`, but only log a failed queue: the job is due, so the sweeper sends it."""
    try:
        send_wake_up(ctx.queues, job, ctx.clock.now())
    except Unavailable as exc:
        ctx.log("wake_up_not_sent", job_id=job.id, tenant=job.tenant, error=exc)
