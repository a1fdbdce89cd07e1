"""Lines of held jobs in memory."""

from __future__ import annotations

import threading
from dataclasses import replace

from chalicelib.adapters.memory.jobs import MemoryJobs
from chalicelib.domain.jobs.index_keys import place_in_line, tenant_shard, user_part
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.limits.held_job import HeldJob
from chalicelib.domain.queues.causes import bucket_of
from chalicelib.domain.units import Ms
from chalicelib.ports import Line, Shard


class MemoryLines:
    """The index is computed from the records of `MemoryJobs`.

    Tests may use `lines` and `lines_by_user`, the rows by cause and tenant, and `stale`, records that an earlier version
    left in the index, by their ids.
    """

    def __init__(self, jobs: MemoryJobs) -> None:
        self.lines: dict[tuple[str, str], Line] = {}
        self.lines_by_user: dict[tuple[str, str], Line] = {}
        self.stale: dict[str, Job] = {}
        self.shards: dict[int, Shard] = {}
        self._jobs = jobs
        self._lock = threading.Lock()

    def touch(self, cause: str, tenant: str, now: Ms, *, by_user: bool = False) -> bool:
        with self._lock:
            rows = self._rows(by_user)
            seen = rows.get((cause, tenant))
            line = seen or Line(cause=cause, tenant=tenant, touched_at=now, by_user=by_user)
            rows[cause, tenant] = replace(line, touched_at=now)
            return seen is None

    def rows(self, bucket: int) -> list[Line]:
        with self._lock:
            found = [line for rows in (self.lines, self.lines_by_user) for line in rows.values() if bucket_of(line.cause) == bucket]
        return sorted(found, key=lambda line: (line.by_user, line.cause, line.tenant))

    def held(self, cause: str, tenant: str, limit: int, after: str | None = None, *, by_user: bool = False) -> list[HeldJob]:
        records = {**self.stale, **{job.id: job for job in list(self._jobs.records.values()) if job.is_in_line}}
        shards = self._jobs.shards_of(tenant)
        jobs = [job for job in records.values() if (job.cause, job.tenant, job.line_by_user) == (cause, tenant, by_user)]
        jobs = [job for job in jobs if tenant_shard(job) < shards]
        found = sorted((place_in_line(job), job) for job in jobs if after is None or place_in_line(job) > after)
        return [_held_job_of(job, place) for place, job in found[:limit]]

    def count(
        self, cause: str, tenant: str, limit: int, *, before: str | None = None, lane: str | None = None, by_user: bool = False
    ) -> int:
        held = self.held(cause, tenant, len(self.stale) + len(self._jobs.records), by_user=by_user)
        if by_user and before is not None:
            first, last = user_part(before)
            return min(limit, sum(first <= job.place <= last for job in held))
        counted = [job for job in held if (before is None or job.place < before) and lane in (None, job.lane)]
        return min(limit, len(counted))

    def remove(self, line: Line) -> bool:
        with self._lock:
            rows = self._rows(line.by_user)
            stored = rows.get((line.cause, line.tenant))
            if stored is not None and stored.touched_at != line.touched_at:
                return False
            rows.pop((line.cause, line.tenant), None)
            return True

    def save_position(self, line: Line, position: float, turn: str | None = None) -> None:
        with self._lock:
            rows = self._rows(line.by_user)
            stored = rows.get((line.cause, line.tenant))
            if stored is not None:
                rows[line.cause, line.tenant] = replace(stored, position=position, turn=turn or None)

    def forget(self, job: Job) -> None:
        with self._lock:
            self.stale.pop(job.id, None)

    def shard(self, number: int) -> Shard | None:
        with self._lock:
            return self.shards.get(number)

    def acquire_shard(self, shard: Shard, now: Ms) -> bool:
        with self._lock:
            stored = self.shards.get(shard.number)
            if stored is not None and stored.owner != shard.owner and stored.until > now:
                return False
            self.shards[shard.number] = shard
            return True

    def release_shard(self, shard: Shard) -> None:
        with self._lock:
            stored = self.shards.get(shard.number)
            if stored is not None and stored.owner == shard.owner:
                del self.shards[shard.number]

    def _rows(self, by_user: bool) -> dict[tuple[str, str], Line]:
        return self.lines_by_user if by_user else self.lines


def _held_job_of(job: Job, place: str) -> HeldJob:
    return HeldJob(
        job_id=job.id,
        generation=job.generation,
        tenant=job.tenant,
        user=job.user,
        type=job.type,
        lane=job.lane,
        model=job.model,
        queued_at=job.queued_at,
        tokens=job.tokens,
        crashes=job.crashes,
        place=place,
        by_user=job.line_by_user,
    )
