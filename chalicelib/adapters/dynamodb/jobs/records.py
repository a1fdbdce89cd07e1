"""Job records, in the table `jobs`, and callers' keys and slots, in the table `coordination`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from pynamodb.attributes import UnicodeAttribute
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from chalicelib.adapters.decoding import decode_all
from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import ConditionFailed, IntAttribute, Item, Raw, TransactionConditionFailed, bound, decoded
from chalicelib.adapters.dynamodb.jobs.item import ENDED_KEY, JobItem, due_key, item_of, job_of, job_of_raw
from chalicelib.adapters.dynamodb.jobs.queries import JobQueries
from chalicelib.adapters.dynamodb.jobs.shards import ShardsOf
from chalicelib.domain.errors import DedupeConflict, IdempotencyKeyTaken, SlotsFull, StaleVersion
from chalicelib.domain.jobs.index_keys import DUE_SHARDS
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.transitions import counted_by, is_stored
from chalicelib.domain.limits.slots import scope_of
from chalicelib.domain.units import Ms
from chalicelib.ports import IdempotencyRecord, IdempotentResult, JobQuery

# Written with each change, because another version of the code may have stored another key, and the
# keys of `seen` are computed too. Writing an equal key costs no write of the index.
_COMPUTED_KEYS = ("g_d",)
SLOT_PREFIX, SLOTS = "slots#", "n"
SLOT_TTL_SECONDS = 400 * 86_400  # only cleans up: far longer than a job may be unfinished
DEDUPE_TTL_SECONDS = 90 * 86_400  # only cleans up: a dedupe key counts while the job that it names has not ended


class PointerItem(Item):
    """A caller's key, `idem#...` / `idem` or `dedupe#...` / `dedupe`, and its job."""

    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    job = UnicodeAttribute()
    fingerprint = UnicodeAttribute(null=True, attr_name="fp")
    position = IntAttribute(null=True, attr_name="pos")
    generation = IntAttribute(null=True, attr_name="gen")
    expires_at = IntAttribute(null=True, attr_name="exp")
    ttl = IntAttribute()


class SlotItem(Item):
    """How many slots of a concurrency limit, or places of a queued-jobs limit, are taken: `slots#<key>` / `n`."""

    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    taken = IntAttribute(attr_name="n")
    ttl = IntAttribute()


class DynamoJobs:
    """Units: create 5, claim 1, finish 3; 0.5-1 to read.

    A creation with a key is a transaction: 1 more, and 2 for each key. So is a claim, and the end of
    an attempt, of a job with slots, and the creation and the end of a job with places: 1 more, and 2
    for each slot or place. A page of a list is a request for each shard of its tenant.
    """

    def __init__(self, stage: str, shards_of: ShardsOf) -> None:
        self._jobs = bound(JobItem, stage, "jobs")
        self._pointers = bound(PointerItem, stage, "coordination")
        self._slots = bound(SlotItem, stage, "coordination")
        self._queries = JobQueries(self._jobs, shards_of)

    def create(
        self, job: Job, idempotency: IdempotencyRecord | None = None, replaces: str | None = None, limits: Mapping[str, int] | None = None
    ) -> None:
        item = item_of(self._jobs, job)
        absent = self._jobs.id.does_not_exist()
        places = sorted(job.places)
        if idempotency is None and job.dedupe_key is None and not places:
            _put_once(item, absent)
            return
        writes: list[tuple[Item, Condition | None]] = [(item, absent)]
        errors: list[type[IdempotencyKeyTaken | DedupeConflict]] = []
        if idempotency is not None:
            writes.append(self._idempotency_item(idempotency, job.id, job.created_at))
            errors.append(IdempotencyKeyTaken)
        if job.dedupe_key is not None:
            writes.append(self._dedupe_item(job, job.dedupe_key, replaces))
            errors.append(DedupeConflict)
        try:
            dynamodb.transact(writes, [self._slot_update(key, 1, (limits or {}).get(key), job.created_at) for key in places])
        except TransactionConditionFailed as refused:
            item_refused, *others = refused.items
            if item_refused is not None:
                return  # ids are used once: this call was made before, and its response lost
            for error, stored in zip(errors, others, strict=False):
                if stored is not None:
                    raise error from refused
            raise SlotsFull(_full_scope(places, others[len(errors) :])) from refused

    def get(self, job_id: str) -> Job | None:
        item = dynamodb.get(self._jobs, job_id)
        return job_of(item) if item else None

    def get_many(self, job_ids: Sequence[str], *, consistent: bool = False) -> list[Job]:
        items = dynamodb.batch_get(self._jobs, ((job_id,) for job_id in job_ids), consistent=consistent)
        found = {job.id: job for job in decode_all(items, job_of)}
        return [found[job_id] for job_id in job_ids if job_id in found]

    def replace(self, seen: Job, new: Job, limits: Mapping[str, int] | None = None) -> None:
        if seen.status.is_terminal:  # its `due_at` may have been removed since: write what `new` has, whatever was seen
            seen = dataclasses.replace(seen, due_at=None if new.due_at is not None else 0)
        unchanged = self._jobs.version == seen.version
        try:
            if counted_by(seen) != counted_by(new):
                self._replace_with_slots(seen, new, unchanged, limits or {})
            else:
                dynamodb.update_changed(item_of(self._jobs, seen), item_of(self._jobs, new), unchanged, _COMPUTED_KEYS)
        except ConditionFailed as failed:
            current = job_of_raw(failed.item) if failed.item else None
            if not is_stored(current, new):
                raise StaleVersion(current) from failed

    def slots_taken(self, keys: Collection[str]) -> dict[str, int]:
        items = dynamodb.batch_get(self._slots, ((_slot_key(key), SLOTS) for key in keys))
        found = dict(decode_all(items, _slots_of))
        return {key: found.get(key, 0) for key in keys}

    def _replace_with_slots(self, seen: Job, new: Job, unchanged: Condition, limits: Mapping[str, int]) -> None:
        """Write the record, and take and give back its slots.

        Raises:
            ConditionFailed: the record has changed, perhaps by this very write.
            SlotsFull: the record has not changed, and all slots of a scope are taken.
        """
        keys = sorted(counted_by(new) ^ counted_by(seen))
        actions = dynamodb.changes(item_of(self._jobs, seen), item_of(self._jobs, new), _COMPUTED_KEYS)
        updates: list[tuple[Item, Sequence[Action], Condition | None]] = [(self._jobs(seen.id), actions, unchanged)]
        updates += [self._slot_update(key, 1 if key in counted_by(new) else -1, limits.get(key), new.updated_at) for key in keys]
        try:
            dynamodb.transact([], updates)
        except TransactionConditionFailed as refused:
            record, *others = refused.items
            if record is not None:
                raise ConditionFailed(record or None) from refused
            raise SlotsFull(_full_scope(keys, others)) from refused

    def _slot_update(self, key: str, by: int, limit: int | None, now: Ms) -> tuple[Item, Sequence[Action], Condition | None]:
        """A slot that is given back has no condition: nothing may keep a job from its end."""
        items = self._slots
        actions = [items.taken.add(by), items.ttl.set(now // 1000 + SLOT_TTL_SECONDS)]
        room = items.taken.does_not_exist() | (items.taken < limit) if by > 0 and limit is not None else None
        return items(_slot_key(key), SLOTS), actions, room

    def set_end_due(self, job: Job, due_at: Ms | None) -> None:
        items = self._jobs
        same_end = (items.generation == job.generation) & (items.run == job.run) & items.g_d.startswith(ENDED_KEY)
        actions = [items.due_at.remove(), items.g_d.remove()] if due_at is None else [items.due_at.set(due_at)]
        with suppress(ConditionFailed):
            dynamodb.update(items(job.id), actions, same_end)

    def delete(self, seen: Job) -> None:
        try:
            dynamodb.delete(self._jobs(seen.id), self._jobs.version == seen.version)
        except ConditionFailed as failed:
            if failed.item:
                raise StaleVersion(job_of_raw(failed.item)) from failed

    def save_idempotency(self, idempotency: IdempotencyRecord, job_id: str, now: Ms) -> None:
        item, unused = self._idempotency_item(idempotency, job_id, now)
        try:
            dynamodb.put(item, unused)
        except ConditionFailed as failed:
            stored = self._pointers.from_raw_data(failed.item) if failed.item else None
            if stored is None or (_idempotent_result(stored), stored.expires_at) != (_idempotent_result(item), item.expires_at):
                raise IdempotencyKeyTaken from failed

    def get_idempotency(self, scope: str, key: str, now: Ms) -> IdempotentResult | None:
        item = dynamodb.get(self._pointers, _pointer_key("idem", scope, key), "idem")
        result = _idempotent_result(item) if item else None
        if item is None or item.expires_at is None or item.expires_at <= now:
            return None
        return result

    def get_by_dedupe_key(self, tenant: str, user: str, dedupe_key: str) -> str | None:
        item = dynamodb.get(self._pointers, _dedupe_pointer_key(tenant, user, dedupe_key), "dedupe")
        return _idempotent_result(item).job_id if item else None

    def due(self, partition: str | None, until: Ms, limit: int) -> list[str]:
        index, up_to = self._jobs.due, self._jobs.due_at <= until
        shards = [due_key(partition, shard) for shard in range(DUE_SHARDS)]
        found = [(item.due_at or 0, item.id) for shard in shards for item in index.query(shard, up_to, limit=limit, page_size=limit)]
        return [job_id for _, job_id in sorted(found)]

    def postpone(self, job_id: str, until: Ms) -> None:
        """Raise the version, too: earlier readers must not take the record for unchanged.

        The condition keeps this from creating an item (protocol rule 25: no unconditional update of
        a record).
        """
        indexed = self._jobs.g_d.exists() & (self._jobs.due_at < until)
        actions = [self._jobs.due_at.set(until), self._jobs.version.add(1)]
        with suppress(ConditionFailed):
            dynamodb.update(self._jobs(job_id), actions, indexed)

    def page(self, query: JobQuery) -> tuple[list[str], str | None]:
        return self._queries.page(query)

    def _idempotency_item(self, record: IdempotencyRecord, job_id: str, now: Ms) -> tuple[PointerItem, Condition]:
        """Return the item, and the condition that no unexpired one is there.

        TTL takes up to two days to remove an expired one.
        """
        item = self._pointers(
            _pointer_key("idem", record.scope, record.key),
            "idem",
            job=job_id,
            fingerprint=record.fingerprint,
            position=record.position or None,
            generation=record.generation or None,
            expires_at=record.expires_at,
            ttl=record.expires_at // 1000 + dynamodb.TTL_GRACE_SECONDS,
        )
        return item, self._pointers.pk.does_not_exist() | (self._pointers.expires_at <= now)

    def _dedupe_item(self, job: Job, dedupe_key: str, replaces: str | None) -> tuple[PointerItem, Condition]:
        """Return the item, and the condition that there is none, or the one of the replaced job."""
        key = _dedupe_pointer_key(job.tenant, job.user, dedupe_key)
        item = self._pointers(key, "dedupe", job=job.id, ttl=job.created_at // 1000 + DEDUPE_TTL_SECONDS)
        absent = self._pointers.pk.does_not_exist()
        return item, absent if replaces is None else absent | (self._pointers.job == replaces)


def _full_scope(keys: Sequence[str], refusals: Sequence[Raw | None]) -> str:
    return scope_of(next(key for key, stored in zip(keys, refusals, strict=True) if stored is not None))


def _put_once(item: JobItem, absent: Condition) -> None:
    try:
        dynamodb.put(item, absent)
    except ConditionFailed:
        return  # ids are used once: this call was made before, and its response lost


@decoded
def _slots_of(item: SlotItem) -> tuple[str, int]:
    return item.pk.removeprefix(SLOT_PREFIX), item.taken


@decoded
def _idempotent_result(item: PointerItem) -> IdempotentResult:
    return IdempotentResult(
        job_id=item.job, fingerprint=item.fingerprint or "", position=item.position or 0, generation=item.generation or 0
    )


def _dedupe_pointer_key(tenant: str, user: str, dedupe_key: str) -> str:
    return _pointer_key("dedupe", tenant, json.dumps([user, dedupe_key]))


def _slot_key(key: str) -> str:
    return SLOT_PREFIX + key


def _pointer_key(kind: str, scope: str, key: str) -> str:
    """Return a partition key with a hash of the caller's key.

    Callers choose any length and characters, and a hash spreads keys over all partitions.
    """
    return f"{kind}#{scope}#{hashlib.sha256(key.encode()).hexdigest()[:32]}"
