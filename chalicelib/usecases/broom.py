"""What the sweep needs from outside, and what all its parts do alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chalicelib.domain.job import Job
from chalicelib.domain.job_type import JobType
from chalicelib.ports import Bodies, Chunks, Clock, Connections, Dependencies, Jobs, Leases, Prices, Queues, Results, Sockets, Watchers
from chalicelib.usecases.advance import advance
from chalicelib.usecases.engine import Log
from chalicelib.usecases.facts import note_failure


@dataclass(frozen=True, kw_only=True)
class Broom:
    """`abandon` stops a response at the provider, if it can be reached."""

    clock: Clock
    log: Log
    jobs: Jobs
    job_specs: Bodies
    dependencies: Dependencies
    chunks: Chunks
    results: Results
    leases: Leases
    queues: Queues
    prices: Prices
    subscriptions: Watchers
    connections: Connections
    sockets: Sockets
    job_type: Callable[[str], JobType]
    cancel_response: Callable[[str], None]


def change(broom: Broom, job: Job, step: Callable[[Job], Job | None], name: str) -> str:
    """Take a step that the job still allows; the answer names what was done."""
    changed = advance(broom.jobs, job, step)
    if changed is None:
        return "nothing"
    note_failure(broom.log, changed)
    return name
