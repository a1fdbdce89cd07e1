"""Job records, and the keys that stand for jobs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from chalicelib.domain.jobs.job import Job
from chalicelib.domain.units import Ms


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyRecord:
    """A caller's Idempotency-Key, as it is stored for a request that was accepted."""

    scope: str  # tenant, user and route
    key: str
    fingerprint: str  # the hash of the request
    expires_at: Ms
    position: int = 0  # in the queue, as the first response said; it cannot be computed again. 0: an existing job was returned
    generation: int = 0  # of the job when a change was requested: once it has grown, the change was made


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotentResult:
    """What is stored for an Idempotency-Key: job of the first response, hash of the request."""

    job_id: str
    fingerprint: str
    position: int = 0
    generation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQuery:
    """A page of a tenant's jobs, newest first. `user` or `state` picks the index."""

    tenant: str
    user: str | None = None
    state: str | None = None  # one status
    before: str | None = None  # the cursor of the page before (exclusive)
    since: Ms | None = None  # created at or after
    until: Ms | None = None  # created before
    limit: int = 100


class Jobs(Protocol):
    """Stores job records, idempotency records and dedupe keys.

    The job record decides: all other data about a job is derived from it or belongs to one of its
    attempts.
    """

    def create(
        self, job: Job, idempotency: IdempotencyRecord | None = None, replaces: str | None = None, limits: Mapping[str, int] | None = None
    ) -> None:
        """Put a new job record, with its idempotency record and its dedupe key in one transaction.

        Repeatable. `replaces` is the ended job that the dedupe key names so far. The places of the job
        are taken in the same write; `limits` says how many each of their keys has.

        Raises:
            SlotsFull: all places of a key are taken. Nothing was written.
            IdempotencyKeyTaken: the idempotency key is in use and has not expired.
            DedupeConflict: another job has taken the dedupe key meanwhile.
        """

    def get(self, job_id: str) -> Job | None:
        """Return the job record, read consistently.

        Raises:
            UnreadableRecord: another version of the code wrote it.
        """

    def get_many(self, job_ids: Sequence[str], *, consistent: bool = False) -> list[Job]:
        """Return the job records that exist, in the order asked for.

        One request for each hundred; a consistent read costs double.

        Raises:
            UnreadableRecord: some exist and cannot be read; it names them all. They must not be taken
                for deleted; `load_readable_jobs` reads the others.
        """

    def replace(self, seen: Job, new: Job, limits: Mapping[str, int] | None = None) -> None:
        """Swap `new` in for `seen` if the version is still that of `seen`.

        A repeated swap succeeds. The slots and places that only `new` has are taken in the same write,
        and those that only `seen` has are given back.

        Args:
            limits: how many slots each key has that `new` may take; one that is absent has no limit.

        Raises:
            StaleVersion: the version has changed; `current` is the stored record.
            SlotsFull: all slots of a key are taken. Nothing was written.
        """

    def slots_taken(self, keys: Collection[str]) -> dict[str, int]:
        """Return how many slots of each key are taken, not read consistently. One request for each hundred."""

    def delete(self, seen: Job) -> None:
        """Delete a job record if the version is still that of `seen`.

        Deleting an absent record succeeds.

        Raises:
            StaleVersion: the version has changed; `current` is the stored record.
        """

    def save_idempotency(self, idempotency: IdempotencyRecord, job_id: str, now: Ms) -> None:
        """Store an idempotency record for a job that exists already. Repeatable.

        Raises:
            IdempotencyKeyTaken: the key is in use for another request and has not expired.
        """

    def get_idempotency(self, scope: str, key: str, now: Ms) -> IdempotentResult | None:
        """Return what an Idempotency-Key stands for; None if it is unknown or expired."""

    def get_by_dedupe_key(self, tenant: str, user: str, dedupe_key: str) -> str | None:
        """Return the id of the job that a user's dedupe key names, whatever its status."""

    def set_end_due(self, job: Job, due_at: Ms | None) -> None:
        """Change the `due_at` of an ended job whose recipients or dependents are not served yet;
        None once they are.

        The version stays: readers and the change stream see no change of the job. Nothing happens
        if it was restarted, or has no `due_at` any more. Repeatable.
        """

    def due(self, partition: str | None, until: Ms, limit: int) -> list[str]:
        """Return ids of jobs with `due_at` up to `until`, oldest first, at most `limit` a shard.

        Eight requests.

        Args:
            partition: a queue, for its queued and processing jobs; `ENDED`, for ended jobs
                whose recipients or dependents are not served; None: jobs that wait for a time.
        """

    def postpone(self, job_id: str, until: Ms) -> None:
        """Raise `due_at` to `until` without reading the record: for one that cannot be read."""

    def page(self, query: JobQuery) -> tuple[list[str], str | None]:
        """Return the ids of one page, and the cursor to continue `before`; None at the end.

        One request (one for each hundred rows).
        """
