"""Lines of held jobs: rows in the table `coordination`, jobs in the index `by_line` of the table `jobs`.

| item | key |
|---|---|
| a line | `lines#<bucket>` / `<mark of the cause>#<tenant>` |
| a line by user | `lines#<bucket>` / `u#<mark of the cause>#<tenant>` |
| a shard of the scheduler | `scheduler` / `<number>` |
"""

from __future__ import annotations

from contextlib import suppress

from pynamodb.attributes import BooleanAttribute, NumberAttribute, UnicodeAttribute

from chalicelib.adapters.decoding import decode_readable
from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import ConditionFailed, IntAttribute, Item, bound, decoded
from chalicelib.adapters.dynamodb.jobs.item import JobItem
from chalicelib.adapters.dynamodb.jobs.shards import ShardsOf, query_shards
from chalicelib.domain.jobs.index_keys import LINE_RANKS, is_by_user, line_key, shard_keys, user_part
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.limits.held_job import HeldJob
from chalicelib.domain.queues.causes import bucket_of, cause_mark
from chalicelib.domain.units import DAY_MS, Ms
from chalicelib.ports import Line, Shard

ROW_TTL_MS = 40 * DAY_MS  # only cleans up: longer than a job is held without being held anew
SHARDS = "scheduler"


class LineItem(Item):
    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    cause = UnicodeAttribute()
    tenant = UnicodeAttribute(attr_name="t")
    touched_at = IntAttribute(attr_name="at")
    position = NumberAttribute(null=True, attr_name="pos")
    by_user = BooleanAttribute(null=True)
    turn = UnicodeAttribute(null=True)
    ttl = IntAttribute()


class ShardItem(Item):
    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    owner = UnicodeAttribute()
    until = IntAttribute(attr_name="exp")
    asleep_until = IntAttribute(null=True, attr_name="asleep")
    since = IntAttribute(null=True)
    ttl = IntAttribute()


class DynamoLines:
    """Units: 1 to write a row or a shard, 1 for each 4 KB of rows (some forty), 0.5 for each 4 KB of
    held jobs (some fifteen), counted or read, in each shard of their tenant.
    """

    def __init__(self, stage: str, shards_of: ShardsOf) -> None:
        self._shards_of = shards_of
        self._rows = bound(LineItem, stage, "coordination")
        self._shards = bound(ShardItem, stage, "coordination")
        self._jobs = bound(JobItem, stage, "jobs")

    def touch(self, cause: str, tenant: str, now: Ms, *, by_user: bool = False) -> bool:
        rows = self._rows
        values = [rows.cause.set(cause), rows.tenant.set(tenant), rows.touched_at.set(now), rows.ttl.set((now + ROW_TTL_MS) // 1000)]
        if by_user:
            values.append(rows.by_user.set(True))
        return not dynamodb.update(self._row(cause, tenant, by_user), values, returns="UPDATED_OLD")

    def rows(self, bucket: int) -> list[Line]:
        return list(decode_readable(self._rows.query(f"lines#{bucket}", consistent_read=True), _line_of))

    def held(self, cause: str, tenant: str, limit: int, after: str | None = None, *, by_user: bool = False) -> list[HeldJob]:
        beyond = self._jobs.g_lk > after if after is not None else None
        found = query_shards(self._jobs.by_line, self._keys(tenant, cause, by_user), beyond, limit, _place)
        return list(decode_readable(found, _held_job_of))

    def count(
        self, cause: str, tenant: str, limit: int, *, before: str | None = None, lane: str | None = None, by_user: bool = False
    ) -> int:
        key = self._jobs.g_lk
        earlier = None if before is None else key.between(*user_part(before)) if by_user else key < before
        place = earlier if before is not None else key.startswith(f"{LINE_RANKS[lane]}#") if lane is not None else None
        found = 0
        for shard in self._keys(tenant, cause, by_user):
            if found < limit:
                found += dynamodb.count(self._jobs, shard, place, limit - found, index="by_line")
        return found

    def remove(self, line: Line) -> bool:
        try:
            dynamodb.delete(self._row(line.cause, line.tenant, line.by_user), self._rows.touched_at == line.touched_at)
        except ConditionFailed as failed:
            return failed.item is None
        return True

    def save_position(self, line: Line, position: float, turn: str | None = None) -> None:
        values = [self._rows.position.set(position)]
        if turn != line.turn:
            values.append(self._rows.turn.set(turn) if turn else self._rows.turn.remove())
        with suppress(ConditionFailed):
            dynamodb.update(self._row(line.cause, line.tenant, line.by_user), values, self._rows.pk.exists())

    def forget(self, job: Job) -> None:
        with suppress(ConditionFailed):
            dynamodb.update(self._jobs(job.id), [self._jobs.g_l.remove(), self._jobs.g_lk.remove()], self._jobs.version == job.version)

    def shard(self, number: int) -> Shard | None:
        item = dynamodb.get(self._shards, SHARDS, str(number))
        return _shard_of(item) if item else None

    def acquire_shard(self, shard: Shard, now: Ms) -> bool:
        item = self._shards(
            SHARDS,
            str(shard.number),
            owner=shard.owner,
            until=shard.until,
            asleep_until=shard.asleep_until or None,
            since=shard.since or None,
            ttl=(now + DAY_MS) // 1000,
        )
        free = self._shards.pk.does_not_exist() | (self._shards.owner == shard.owner) | (self._shards.until <= now)
        try:
            dynamodb.put(item, free)
        except ConditionFailed:
            return False
        return True

    def release_shard(self, shard: Shard) -> None:
        with suppress(ConditionFailed):
            dynamodb.delete(self._shards(SHARDS, str(shard.number)), self._shards.owner == shard.owner)

    def _keys(self, tenant: str, cause: str, by_user: bool) -> list[str]:
        return shard_keys(line_key(tenant, cause, by_user=by_user), self._shards_of(tenant))

    def _row(self, cause: str, tenant: str, by_user: bool) -> LineItem:
        return self._rows(f"lines#{bucket_of(cause)}", ("u#" if by_user else "") + f"{cause_mark(cause)}#{tenant}")


@decoded
def _line_of(item: LineItem) -> Line:
    position = float(item.position) if item.position is not None else None
    return Line(
        cause=item.cause,
        tenant=item.tenant,
        touched_at=item.touched_at,
        position=position,
        by_user=bool(item.by_user),
        turn=item.turn,
    )


@decoded
def _shard_of(item: ShardItem) -> Shard:
    return Shard(number=int(item.sk), owner=item.owner, until=item.until, asleep_until=item.asleep_until or 0, since=item.since or 0)


def _place(item: JobItem) -> str:
    return item.g_lk or ""


def _held_job_of(item: JobItem) -> HeldJob:
    return HeldJob(
        job_id=item.id,
        generation=item.generation,
        tenant=item.tenant,
        user=item.user,
        type=item.type,
        lane=item.lane,
        model=item.model,
        queued_at=item.queued_at,
        tokens=item.tokens or 0,
        crashes=item.crashes or 0,
        place=_place(item),
        by_user=is_by_user(_place(item)),
    )
