"""One wish for many jobs: what is to be done to which, and how far that has come.

It is worked through in hands of a few jobs. A hand is written down before it is played, with the generation and run that each job was
seen in, so that whoever takes over after a crash plays the same hand again: what had been done is recognised, and done no second time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from chalicelib.domain.jobs.job import TERMINAL, Status
from chalicelib.domain.units import Ms

MAX_PROBLEMS = 20  # that are kept by name
LOCK_MS = 30_000  # who works on it is left alone for so long after each hand


class BulkAction(StrEnum):
    RETRY = "retry"
    CANCEL = "cancel"
    DELETE = "delete"
    SET_PRIORITY = "set_priority"


_STARTED_LATER = (Status.WAITING, Status.QUEUED, Status.RETRYING, Status.HELD)

# Which jobs an action is for, where the filter names no status; and which it may name.
SCANNED_STATUSES: dict[BulkAction, tuple[Status, ...]] = {
    BulkAction.RETRY: (Status.FAILED,),
    BulkAction.CANCEL: (*_STARTED_LATER, Status.PROCESSING),
    BulkAction.DELETE: (Status.FAILED,),
    BulkAction.SET_PRIORITY: _STARTED_LATER,
}
ALLOWED: dict[BulkAction, frozenset[Status]] = {
    BulkAction.RETRY: TERMINAL - {Status.COMPLETED} | {Status.RETRYING},
    BulkAction.CANCEL: frozenset(Status) - TERMINAL,
    BulkAction.DELETE: TERMINAL,
    BulkAction.SET_PRIORITY: frozenset(Status) - TERMINAL,
}


@dataclass(frozen=True, slots=True)
class JobRef:
    """A job of a hand, and which one of its lives it was in when it was taken up."""

    job_id: str
    generation: int
    run: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkPage:
    """The next few jobs. `missing`: ids that name no job here. `place` and `cursor` are where to go on; `last`: nowhere."""

    jobs: tuple[JobRef, ...] = ()
    missing: tuple[str, ...] = ()
    position: int = 0
    cursor: str | None = None
    last: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkOperation:
    """`ids` names jobs, or `filters` finds them, or they are those of the first `rows` rows of a batch that are in one of `states`.
    `hand` is what is to be played next; while it is open, `worked_until` says that somebody is at it. `matched` counts the jobs that were
    taken up; each ends as `done`, `skipped` (not in a state for it) or `failed`. `not_found` counts the ids that name no job.
    """

    id: str
    tenant: str
    created_by: str
    action: BulkAction
    created_at: Ms
    updated_at: Ms
    lane: str | None = None
    ids: tuple[str, ...] = ()
    filters: Mapping[str, Any] = field(default_factory=dict)
    all_tenants: bool = False
    batch_id: str | None = None
    rows: int = 0
    states: tuple[Status, ...] = ()
    version: int = 1
    page: BulkPage = field(default_factory=BulkPage)
    locked_until: Ms = 0
    finished_at: Ms | None = None
    matched: int = 0
    done: int = 0
    skipped: int = 0
    failed: int = 0
    not_found: int = 0
    problems: tuple[tuple[str, str], ...] = ()

    @property
    def statuses(self) -> tuple[Status, ...]:
        """The lists that are walked, one after the other."""
        named = self.filters.get("status")
        return (Status(named),) if named else SCANNED_STATUSES[self.action]


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """What became of one job of a hand. `code` says why it was left as it is."""

    job_id: str
    outcome: str  # done, skipped or failed
    code: str = ""


def next_page(bulk: BulkOperation, played: Sequence[JobOutcome], hand: BulkPage, now: Ms) -> BulkOperation:
    """The bulk action after its hand was played, with the next one taken up; after the last, finished."""
    counts = {name: getattr(bulk, name) + sum(one.outcome == name for one in played) for name in ("done", "skipped", "failed")}
    left = [(one.job_id, one.code) for one in played if one.code] + [(job_id, "job_not_found") for job_id in hand.missing]
    over = hand.last and not hand.jobs
    return replace(
        bulk,
        version=bulk.version + 1,
        updated_at=now,
        locked_until=now + LOCK_MS,
        finished_at=now if over else None,
        page=replace(hand, missing=()),
        matched=bulk.matched + len(hand.jobs),
        not_found=bulk.not_found + len(hand.missing),
        problems=(*bulk.problems, *left)[:MAX_PROBLEMS],
        **counts,
    )
