"""Define a bulk operation: one action on many jobs, and its progress.

It is processed in pages of a few jobs. A page is stored before it is processed, with the generation
and the run of each job, so that after a crash the same page is processed again: an action that was
already applied is recognised by them and not applied twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple

from chalicelib.domain.errors import UnreadableRecord
from chalicelib.domain.jobs.job import TERMINAL, Status
from chalicelib.domain.units import Ms

MAX_PROBLEMS = 20  # skipped, failed or missing jobs that are listed by id
LOCK_MS = 30_000  # after each page no other caller resumes the operation for this long


class BulkAction(StrEnum):
    """What a bulk operation does to each job."""

    RETRY = "retry"
    CANCEL = "cancel"
    DELETE = "delete"
    SET_PRIORITY = "set_priority"
    PAUSE = "pause"
    RESUME = "resume"


_NOT_STARTED = (Status.WAITING, Status.QUEUED, Status.RETRYING, Status.HELD)

# The statuses that an action scans where the filters name none.
SCANNED_STATUSES: dict[BulkAction, tuple[Status, ...]] = {
    BulkAction.RETRY: (Status.FAILED,),
    BulkAction.CANCEL: (*_NOT_STARTED, Status.PROCESSING),
    BulkAction.DELETE: (Status.FAILED,),
    BulkAction.SET_PRIORITY: _NOT_STARTED,
    BulkAction.PAUSE: _NOT_STARTED,
    BulkAction.RESUME: (Status.HELD, Status.WAITING),  # a paused job that waits is not held yet
}
# The statuses that the filters of an action may name.
ALLOWED: dict[BulkAction, frozenset[Status]] = {
    BulkAction.RETRY: TERMINAL - {Status.COMPLETED} | {Status.RETRYING},
    BulkAction.CANCEL: frozenset(Status) - TERMINAL,
    BulkAction.DELETE: TERMINAL,
    BulkAction.SET_PRIORITY: frozenset(Status) - TERMINAL,
    BulkAction.PAUSE: frozenset(_NOT_STARTED),
    BulkAction.RESUME: frozenset(_NOT_STARTED),
}


@dataclass(frozen=True, slots=True)
class JobRef:
    """A job of a page, as it was when the page was read."""

    job_id: str
    generation: int
    run: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkPage:
    """The next few jobs, and where the page after them starts."""

    jobs: tuple[JobRef, ...] = ()
    missing: tuple[str, ...] = ()  # requested ids that name no job of the tenant
    unreadable: tuple[str, ...] = ()  # jobs whose records another version of the code wrote
    position: int = 0  # next index into `ids`, next row, or index of the scanned status
    cursor: str | None = None  # where the scan of that status continues; None: at its start
    last: bool = False  # no page follows


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkOperation:
    """A bulk operation and how far it has got.

    Its jobs are named by `ids`, found by `filters`, or those of the rows of a batch.
    """

    id: str  # `bulk_<ULID>`
    tenant: str  # tenant whose jobs are changed
    created_by: str  # user who requested it
    action: BulkAction
    created_at: Ms
    updated_at: Ms
    lane: str | None = None  # new lane, for `set_priority`; otherwise None
    reason: str | None = None  # why, for `pause`
    until: Ms | None = None  # when it ends, for `pause`; None: when the jobs are resumed
    ids: tuple[str, ...] = ()  # named by the caller; empty: `filters` or `batch_id` selects
    filters: Mapping[str, Any] = field(default_factory=dict)  # as in `GET /jobs`, without tenant
    all_tenants: bool = False  # the caller's key covers all tenants, so `ids` may be of any tenant
    batch_id: str | None = None  # batch whose rows are selected; None: not an action of a batch
    rows: int = 0  # rows of that batch, from the first
    states: tuple[Status, ...] = ()  # only rows whose jobs have one of these statuses
    version: int = 1  # grows with each write: the token of the compare-and-swap
    page: BulkPage = field(default_factory=BulkPage)  # the page to process next
    locked_until: Ms = 0  # until then the sweeper leaves it to the caller that processes it
    finished_at: Ms | None = None  # None while pages are left
    matched: int = 0  # jobs selected so far
    done: int = 0  # jobs that the action was applied to
    skipped: int = 0  # jobs whose state does not allow the action, or that cannot be read
    failed: int = 0  # jobs for which it failed with an internal error
    not_found: int = 0  # `ids` that name no job
    problems: tuple[tuple[str, str], ...] = ()  # (job id, code) of the first that are not `done`
    # Fields that only a newer version of the code knows: they are stored again unchanged.
    unknown_fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def statuses(self) -> tuple[Status, ...]:
        """The statuses to scan, one after the other."""
        status = self.filters.get("status")
        return (Status(status),) if status else SCANNED_STATUSES[self.action]


class BulkKey(NamedTuple):
    """Names an unfinished operation: what its row of the index says."""

    tenant: str
    id: str
    created_at: Ms


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """The result of the action for one job of a page."""

    job_id: str
    outcome: str  # `done`, `skipped` or `failed`
    code: str = ""  # why the job was not changed; empty if `done`


def next_page(bulk: BulkOperation, outcomes: Sequence[JobOutcome], page: BulkPage, now: Ms) -> BulkOperation:
    """Record the outcomes of the current page and make `page` the next one; finish after the last."""
    counts = {name: getattr(bulk, name) + sum(one.outcome == name for one in outcomes) for name in ("done", "skipped", "failed")}
    problems = [(one.job_id, one.code) for one in outcomes if one.code] + [(job_id, "job_not_found") for job_id in page.missing]
    problems += [(job_id, UnreadableRecord.code) for job_id in page.unreadable]
    counts["skipped"] += len(page.unreadable)
    finished = page.last and not page.jobs
    return replace(
        bulk,
        version=bulk.version + 1,
        updated_at=now,
        locked_until=now + LOCK_MS,
        finished_at=now if finished else None,
        page=replace(page, missing=(), unreadable=()),
        matched=bulk.matched + len(page.jobs) + len(page.unreadable),
        not_found=bulk.not_found + len(page.missing),
        problems=(*bulk.problems, *problems)[:MAX_PROBLEMS],
        **counts,
    )


def postpone(bulk: BulkOperation, until: Ms, now: Ms) -> BulkOperation:
    """Leave the operation alone until `until`: a page of it failed, and will most likely fail again."""
    return replace(bulk, version=bulk.version + 1, updated_at=now, locked_until=until)
