"""The heads of jobs in DynamoDB."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress

from pynamodb.attributes import UnicodeAttribute
from pynamodb.expressions.condition import Condition

from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import ConditionFailed, IntAttribute, Item, TransactionConditionFailed, bound
from chalicelib.adapters.dynamodb.job_item import JobItem, due_key, item_of, job_of, job_of_raw
from chalicelib.adapters.dynamodb.job_queries import JobQueries
from chalicelib.domain.errors import DedupeConflict, IdempotencyKeyTaken, StaleVersion
from chalicelib.domain.jobs.index_keys import DUE_SHARDS
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.units import Ms
from chalicelib.ports import IdempotencyRecord, IdempotentResult, JobQuery

POINTER_TTL_SECONDS = 90 * 86_400  # seconds; the head that it names says whether it still counts, so this only cleans up


class PointerItem(Item):
    """In `live`: a caller's key (`idem#...`, `dedupe#...`) and the job that it stands for."""

    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    job = UnicodeAttribute()
    fingerprint = UnicodeAttribute(null=True, attr_name="fp")
    position = IntAttribute(null=True, attr_name="pos")
    generation = IntAttribute(null=True, attr_name="gen")
    expires_at = IntAttribute(null=True, attr_name="exp")
    ttl = IntAttribute()


class DynamoJobs:
    """Units: create 5 (+ 4 and doubled in a transaction), claim 1, finish 3, and 0.5-1 to read."""

    def __init__(self, stage: str) -> None:
        self._heads = bound(JobItem, stage, "jobs")
        self._pointers = bound(PointerItem, stage, "coordination")
        self._pages = JobQueries(self._heads)

    def create(self, job: Job, idempotency: IdempotencyRecord | None = None, replaces: str | None = None) -> None:
        head = item_of(self._heads, job)
        absent = self._heads.id.does_not_exist()
        if idempotency is None and job.dedupe_key is None:
            _put_once(head, absent)
            return
        writes: list[tuple[Item, Condition | None]] = [(head, absent)]
        errors: list[type[IdempotencyKeyTaken | DedupeConflict]] = []
        if idempotency is not None:
            writes.append(self._idempotency_row(idempotency, job.id, job.created_at))
            errors.append(IdempotencyKeyTaken)
        if job.dedupe_key is not None:
            writes.append(self._dedupe_row(job, job.dedupe_key, replaces))
            errors.append(DedupeConflict)
        try:
            dynamodb.transact_put(writes)
        except TransactionConditionFailed as refused:
            head_refused, *others = refused.items
            if head_refused is not None:
                return  # ids are used once: this creation had been done, and its answer lost
            raise next(error for error, there in zip(errors, others, strict=True) if there is not None) from refused

    def get(self, job_id: str) -> Job | None:
        item = dynamodb.get(self._heads, job_id)
        return job_of(item) if item else None

    def get_many(self, job_ids: Sequence[str], *, consistent: bool = False) -> list[Job]:
        items = dynamodb.batch_get(self._heads, ((job_id,) for job_id in job_ids), consistent=consistent)
        found = {item.id: job_of(item) for item in items}
        return [found[job_id] for job_id in job_ids if job_id in found]

    def replace(self, seen: Job, new: Job) -> None:
        try:
            dynamodb.update_changed(item_of(self._heads, seen), item_of(self._heads, new), self._heads.version == seen.version)
        except ConditionFailed as failed:
            current = job_of_raw(failed.item) if failed.item else None
            if current != new:
                raise StaleVersion(current) from failed

    def delete(self, seen: Job) -> None:
        try:
            dynamodb.delete(self._heads(seen.id), self._heads.version == seen.version)
        except ConditionFailed as failed:
            if failed.item:
                raise StaleVersion(job_of_raw(failed.item)) from failed

    def save_idempotency(self, idempotency: IdempotencyRecord, job_id: str, now: Ms) -> None:
        row, free = self._idempotency_row(idempotency, job_id, now)
        try:
            dynamodb.put(row, free)
        except ConditionFailed as failed:
            there = self._pointers.from_raw_data(failed.item) if failed.item else None
            if there is None or (_stands_for(there), there.expires_at) != (_stands_for(row), row.expires_at):
                raise IdempotencyKeyTaken from failed

    def get_idempotency(self, scope: str, key: str, now: Ms) -> IdempotentResult | None:
        row = dynamodb.get(self._pointers, _place("idem", scope, key), "idem")
        if row is None or row.expires_at is None or row.expires_at <= now:
            return None
        return _stands_for(row)

    def get_by_dedupe_key(self, tenant: str, user: str, dedupe_key: str) -> str | None:
        row = dynamodb.get(self._pointers, _dedupe_place(tenant, user, dedupe_key), "dedupe")
        return row.job if row else None

    def due(self, lane: str | None, until: Ms, limit: int) -> list[str]:
        index, soon = self._heads.due, self._heads.due_at <= until
        parts = [due_key(lane, shard) for shard in range(DUE_SHARDS)]
        found = [(item.due_at or 0, item.id) for part in parts for item in index.query(part, soon, limit=limit, page_size=limit)]
        return [job_id for _, job_id in sorted(found)]

    def postpone(self, job_id: str, until: Ms) -> None:
        """The version counts it, so that nobody who read the head before takes it for unchanged."""
        listed = self._heads.g_d.exists() & (self._heads.due_at < until)
        actions = [self._heads.due_at.set(until), self._heads.version.add(1)]
        with suppress(ConditionFailed):
            dynamodb.update(self._heads(job_id), actions, listed)

    def page(self, query: JobQuery) -> tuple[list[str], str | None]:
        return self._pages.page(query)

    def _idempotency_row(self, asked: IdempotencyRecord, job_id: str, now: Ms) -> tuple[PointerItem, Condition]:
        """The key is free where there is no row, or one that is over: TTL takes up to two days to remove it."""
        row = self._pointers(
            _place("idem", asked.scope, asked.key),
            "idem",
            job=job_id,
            fingerprint=asked.fingerprint,
            position=asked.position or None,
            generation=asked.generation or None,
            expires_at=asked.expires_at,
            ttl=asked.expires_at // 1000 + dynamodb.TTL_GRACE_SECONDS,
        )
        return row, self._pointers.pk.does_not_exist() | (self._pointers.expires_at <= now)

    def _dedupe_row(self, job: Job, dedupe_key: str, replaces: str | None) -> tuple[PointerItem, Condition]:
        place = _dedupe_place(job.tenant, job.user, dedupe_key)
        row = self._pointers(place, "dedupe", job=job.id, ttl=job.created_at // 1000 + POINTER_TTL_SECONDS)
        free = self._pointers.pk.does_not_exist()
        return row, free if replaces is None else free | (self._pointers.job == replaces)


def _put_once(head: JobItem, absent: Condition) -> None:
    try:
        dynamodb.put(head, absent)
    except ConditionFailed:
        return  # ids are used once: this creation had been done, and its answer lost


def _stands_for(row: PointerItem) -> IdempotentResult:
    return IdempotentResult(job_id=row.job, fingerprint=row.fingerprint or "", position=row.position or 0, generation=row.generation or 0)


def _dedupe_place(tenant: str, user: str, dedupe_key: str) -> str:
    return _place("dedupe", tenant, json.dumps([user, dedupe_key]))


def _place(kind: str, scope: str, key: str) -> str:
    """Callers choose their keys, so they are hashed: any length, any characters, spread over all partitions."""
    return f"{kind}#{scope}#{hashlib.sha256(key.encode()).hexdigest()[:32]}"
