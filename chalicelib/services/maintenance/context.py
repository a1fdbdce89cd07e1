"""What the sweeps need, the results they count, how they change a job record, and that one failure stops no other step."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol, TypeVar

from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.ports import Chunks, Connections, Leases, Prices, Results, Sockets, Subscriptions
from chalicelib.services.context import JobContext
from chalicelib.services.dependencies.release_dependents import DependencyContext
from chalicelib.services.scheduling.slot_lines import SlotLineContext
from chalicelib.services.update_job import update_job
from chalicelib.services.worker.log_events import log_job_failed

T = TypeVar("T")


class SweepContext(SlotLineContext, JobContext, DependencyContext, Protocol):
    """What the sweeper needs. `cancel_response` and `delete_response` are best effort."""

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
    def delete_response(self, response_id: str) -> None: ...


class SweepResult(StrEnum):
    """What a sweep did with a job, a lease or a WebSocket connection; its log line counts them."""

    NOTHING = "nothing"  # the record has changed since it was read
    NOT_DUE = "not_due"
    ALIVE = "alive"  # the job's worker still renews its lease
    RESENT = "resent"  # a lost wake-up
    RELEASED = "released"  # a job whose parents have ended
    CHECKED = "checked"  # nothing to do now; checked again later
    WAITING = "waiting"  # behind others in a deep queue
    EXPIRED = "expired"
    GIVEN_UP = "given_up"  # a job that was held until its retry time was over
    FINISHED = "finished"  # with the result that a dead worker had stored
    RECLAIMED = "reclaimed"  # queued again after its worker died
    HANDED_OVER = "handed_over"  # another worker resumes the response of the dead one
    ENDED = "ended"  # failed or cancelled after its worker died
    SLOT_RELEASED = "slot_released"  # a job was sent for a free slot that nobody had sent one for
    SCHEDULER_WOKEN = "scheduler_woken"  # a shard with lines that nobody served
    LEASE_ALIVE = "lease_alive"
    LEASE_KEPT = "lease_kept"  # one of its jobs could not be recovered; the next run tries again
    LEASE_REAPED = "lease_reaped"
    CONNECTION_EXPIRED = "connection_expired"
    CONNECTION_CLOSED = "connection_closed"
    CONNECTION_UNKNOWN = "connection_unknown"  # API Gateway did not answer whether it is open
    FAILED = "failed"  # an error; postponed
    DEFERRED = "deferred"  # no time left; the next run continues


def apply_transition(ctx: SweepContext, job: Job, step: Callable[[Job], Job | None], result: SweepResult) -> SweepResult:
    """Apply `step` to the job record; return `result`, or `NOTHING` if `step` no longer applies."""
    changed = update_job(ctx.jobs, job, step)
    if changed is None:
        return SweepResult.NOTHING
    log_job_failed(ctx.log, changed)
    return result


def guarded(ctx: SweepContext, work: Callable[[], T], fallback: T, **fields: str) -> T:
    """Call `work`; log any error with `fields` and return `fallback` instead."""
    try:
        return work()
    except Exception as exc:  # noqa: BLE001 - one bad record must not stop the sweep
        ctx.log("sweep_step_failed", error=exc, **fields)
        return fallback
