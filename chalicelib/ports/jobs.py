"""The heads of jobs, and what names them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from chalicelib.domain.jobs.job import Job
from chalicelib.domain.units import Ms


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyRecord:
    """A caller's Idempotency-Key: `scope` is tenant, user and route, `fingerprint` the hash of the request, kept until `expires_at`.

    `position` in the queue is the one part of the first answer to a submission that cannot be worked out again; 0 where an existing job
    was answered. `generation` is the job's as a request to change it saw it: once it has grown, that change needs no repetition.
    """

    scope: str
    key: str
    fingerprint: str
    expires_at: Ms
    position: int = 0
    generation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotentResult:
    """What an Idempotency-Key stands for: the job that was answered, and a fingerprint of the request."""

    job_id: str
    fingerprint: str
    position: int = 0
    generation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQuery:
    """A page of jobs, newest first. Exactly one of `tenant` with `state`, `user` or neither picks the index.

    `state`: one status. `before`: job id to go on below (exclusive). `since`, `until`: bounds of creation.
    """

    tenant: str
    user: str | None = None
    state: str | None = None
    before: str | None = None
    since: Ms | None = None
    until: Ms | None = None
    limit: int = 100


class Jobs(Protocol):
    """The heads of jobs: the truth."""

    def create(self, job: Job, idempotency: IdempotencyRecord | None = None, replaces: str | None = None) -> None:
        """Put a new job, with its idempotency row and its dedupe pointer (`job.dedupe_key`) in one transaction.

        `replaces` is the ended job that the dedupe pointer names so far. Repeating a creation whose answer was lost succeeds.

        Raises:
            AlreadyRemembered: the idempotency key is taken and has not expired.
            AlreadyPointed: another job has taken the dedupe pointer meanwhile.
        """

    def get(self, job_id: str) -> Job | None:
        """The head, read consistently."""

    def get_many(self, job_ids: Sequence[str], *, consistent: bool = False) -> list[Job]:
        """The heads that exist, in the order asked for. One request for each hundred; a consistent read costs double."""

    def replace(self, seen: Job, new: Job) -> None:
        """Swap `new` in for `seen`, if the version is still the one seen. A swap that had been done already succeeds.

        Raises:
            StaleVersion: it moved on; `current` is what is there.
        """

    def delete(self, seen: Job) -> None:
        """Remove a head, if the version is still the one seen. Removing what is gone succeeds.

        Raises:
            StaleVersion: it moved on.
        """

    def save_idempotency(self, idempotency: IdempotencyRecord, job_id: str, now: Ms) -> None:
        """Let an Idempotency-Key stand for a job that is there already. Repeating it succeeds.

        Raises:
            AlreadyRemembered: the key stands for something else, which has not expired.
        """

    def get_idempotency(self, scope: str, key: str, now: Ms) -> IdempotentResult | None:
        """What an Idempotency-Key stands for, None if nothing or expired."""

    def get_by_dedupe_key(self, tenant: str, user: str, dedupe_key: str) -> str | None:
        """The job that a user's dedupe key points at."""

    def due(self, lane: str | None, until: Ms, limit: int) -> list[str]:
        """Jobs that somebody must look at until then, the longest overdue first, at most `limit` of each part of the index: eight requests.

        Of a `lane` those that are queued or worked on; None: all that wait for a time, of all lanes.
        """

    def postpone(self, job_id: str, until: Ms) -> None:
        """Have a job looked at no earlier than `until`, whatever else its record says: for one that cannot be read."""

    def page(self, query: JobQuery) -> tuple[list[str], str | None]:
        """Ids of one page, and the id to go on `before`, None at the end. One request (one a hundred rows)."""
