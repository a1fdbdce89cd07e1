"""What the sweep needs from outside, and what all its parts do alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.ports import (
    Chunks,
    Clock,
    Connections,
    Dependencies,
    Jobs,
    JobSpecs,
    Leases,
    Prices,
    Queues,
    Results,
    Sockets,
    Subscriptions,
)
from chalicelib.services.log import Log
from chalicelib.services.update_job import update_job
from chalicelib.services.worker.log_events import log_job_failed


@dataclass(frozen=True, kw_only=True)
class SweepContext:
    """`abandon` stops a response at the provider, if it can be reached."""

    clock: Clock
    log: Log
    jobs: Jobs
    job_specs: JobSpecs
    dependencies: Dependencies
    chunks: Chunks
    results: Results
    leases: Leases
    queues: Queues
    prices: Prices
    subscriptions: Subscriptions
    connections: Connections
    sockets: Sockets
    job_type: Callable[[str], JobType]
    cancel_response: Callable[[str], None]


def apply_transition(ctx: SweepContext, job: Job, step: Callable[[Job], Job | None], name: str) -> str:
    """Take a step that the job still allows; the answer names what was done."""
    changed = update_job(ctx.jobs, job, step)
    if changed is None:
        return "nothing"
    log_job_failed(ctx.log, changed)
    return name
