"""What the sweep needs from outside, and what all its parts do alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.ports import Chunks, Connections, Leases, Prices, Results, Sockets, Subscriptions
from chalicelib.services.context import JobContext
from chalicelib.services.dependencies.release_dependents import DependencyContext
from chalicelib.services.update_job import update_job
from chalicelib.services.worker.log_events import log_job_failed


class SweepContext(JobContext, DependencyContext, Protocol):
    """What the sweeper needs. `cancel_response` stops a background response at the provider, if the provider can be reached."""

    @property
    def chunks(self) -> Chunks: ...
    @property
    def results(self) -> Results: ...
    @property
    def leases(self) -> Leases: ...
    @property
    def prices(self) -> Prices: ...
    @property
    def subscriptions(self) -> Subscriptions: ...
    @property
    def connections(self) -> Connections: ...
    @property
    def sockets(self) -> Sockets: ...
    def job_type(self, name: str) -> JobType: ...
    def cancel_response(self, response_id: str) -> None: ...


def apply_transition(ctx: SweepContext, job: Job, step: Callable[[Job], Job | None], name: str) -> str:
    """Take a step that the job still allows; the answer names what was done."""
    changed = update_job(ctx.jobs, job, step)
    if changed is None:
        return "nothing"
    log_job_failed(ctx.log, changed)
    return name
