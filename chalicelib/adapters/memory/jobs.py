"""Job records in memory, with the conditions of the real store."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from chalicelib.domain.errors import DedupeConflict, IdempotencyKeyTaken, SlotsFull, StaleVersion
from chalicelib.domain.jobs.index_keys import DUE_SHARDS, LISTED_BY_END, due_partition, due_shard, sort_key, tenant_shard
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.transitions import counted_by, is_stored
from chalicelib.domain.limits.slots import scope_of
from chalicelib.domain.units import Ms
from chalicelib.ports import IdempotencyRecord, IdempotentResult, JobQuery


class MemoryJobs:
    """Tests may use `records`, the job records by id, and `slots`, how many of each key are taken.

    `shards_of` says how many shards of a tenant's lists are read; jobs in others are not found.
    """

    def __init__(self) -> None:
        self.records: dict[str, Job] = {}
        self.slots: Counter[str] = Counter()
        self.shards_of: Callable[[str], int] = lambda _tenant: 1
        self._idempotency: dict[tuple[str, str], tuple[IdempotentResult, Ms]] = {}
        self._dedupe_keys: dict[tuple[str, str, str], str] = {}
        self._lock = threading.RLock()

    def create(
        self, job: Job, idempotency: IdempotencyRecord | None = None, replaces: str | None = None, limits: Mapping[str, int] | None = None
    ) -> None:
        with self._lock:
            if job.id in self.records:
                return
            if idempotency and self.get_idempotency(idempotency.scope, idempotency.key, job.created_at):
                raise IdempotencyKeyTaken
            if job.dedupe_key and self.get_by_dedupe_key(job.tenant, job.user, job.dedupe_key) not in (None, replaces):
                raise DedupeConflict
            self._count(counted_by(job), set(), limits or {})
            self.records[job.id] = job
            if idempotency:
                self._idempotency[idempotency.scope, idempotency.key] = _row(idempotency, job.id)
            if job.dedupe_key:
                self._dedupe_keys[job.tenant, job.user, job.dedupe_key] = job.id

    def get(self, job_id: str) -> Job | None:
        with self._lock:
            return self.records.get(job_id)

    def get_many(self, job_ids: Sequence[str], *, consistent: bool = False) -> list[Job]:
        with self._lock:
            return [self.records[job_id] for job_id in job_ids if job_id in self.records]

    def replace(self, seen: Job, new: Job, limits: Mapping[str, int] | None = None) -> None:
        with self._lock:
            current = self.records.get(seen.id)
            if is_stored(current, new):
                return
            if current is None or current.version != seen.version:
                raise StaleVersion(current)
            self._count(counted_by(new), counted_by(seen), limits or {})
            self.records[seen.id] = new

    def slots_taken(self, keys: Collection[str]) -> dict[str, int]:
        with self._lock:
            return {key: self.slots[key] for key in keys}

    def _count(self, new: set[str], seen: set[str], limits: Mapping[str, int]) -> None:
        for key in sorted(new - seen):
            if key in limits and self.slots[key] >= limits[key]:
                raise SlotsFull(scope_of(key))
        self.slots.update(new - seen)
        self.slots.subtract(seen - new)

    def delete(self, seen: Job) -> None:
        with self._lock:
            current = self.records.get(seen.id)
            if current is None:
                return
            if current.version != seen.version:
                raise StaleVersion(current)
            del self.records[seen.id]

    def save_idempotency(self, idempotency: IdempotencyRecord, job_id: str, now: Ms) -> None:
        key, row = (idempotency.scope, idempotency.key), _row(idempotency, job_id)
        with self._lock:
            stored = self._idempotency.get(key)
            if stored is not None and now < stored[1] and stored != row:
                raise IdempotencyKeyTaken
            self._idempotency[key] = row

    def get_idempotency(self, scope: str, key: str, now: Ms) -> IdempotentResult | None:
        with self._lock:
            row = self._idempotency.get((scope, key))
        return row[0] if row and now < row[1] else None

    def get_by_dedupe_key(self, tenant: str, user: str, dedupe_key: str) -> str | None:
        with self._lock:
            return self._dedupe_keys.get((tenant, user, dedupe_key))

    def set_end_due(self, job: Job, due_at: Ms | None) -> None:
        with self._lock:
            stored = self.records.get(job.id)
            if stored is not None and stored.is_end_due and (stored.generation, stored.run) == (job.generation, job.run):
                self.records[job.id] = replace(stored, due_at=due_at)

    def due(self, partition: str | None, until: Ms, limit: int) -> list[str]:
        with self._lock:
            due = [(job.due_at, job.id) for job in self.records.values() if job.due_at is not None and due_partition(job) == partition]
        shards: list[list[tuple[Ms, str]]] = [[] for _ in range(DUE_SHARDS)]
        for at, job_id in sorted(due):
            if at <= until and len(shards[due_shard(job_id)]) < limit:
                shards[due_shard(job_id)].append((at, job_id))
        return [job_id for _, job_id in sorted(row for shard in shards for row in shard)]

    def postpone(self, job_id: str, until: Ms) -> None:
        with self._lock:
            job = self.records.get(job_id)
            if job is not None and job.due_at is not None and job.due_at < until:
                self.records[job_id] = replace(job, due_at=until, version=job.version + 1)

    def page(self, query: JobQuery) -> tuple[list[str], str | None]:
        shards = self.shards_of(query.tenant)
        with self._lock:
            matching = [job for job in self.records.values() if _matches(job, query) and tenant_shard(job) < shards]
        rows = sorted(((_sort_key(job, query), job.id) for job in matching), reverse=True)
        if query.before:
            rows = [row for row in rows if row[0] < query.before]
        page = rows[: query.limit]
        return [job_id for _, job_id in page], page[-1][0] if len(rows) > len(page) else None


def _row(record: IdempotencyRecord, job_id: str) -> tuple[IdempotentResult, Ms]:
    row = IdempotentResult(job_id=job_id, fingerprint=record.fingerprint, position=record.position, generation=record.generation)
    return row, record.expires_at


def _matches(job: Job, query: JobQuery) -> bool:
    return (
        job.tenant == query.tenant
        and (query.user is None or job.user == query.user)
        and (query.state is None or job.status == query.state)
        and (query.since is None or job.created_at >= query.since)
        and (query.until is None or job.created_at < query.until)
    )


def _sort_key(job: Job, query: JobQuery) -> str:
    return sort_key(job, by_end=query.user is None and query.state in LISTED_BY_END)
