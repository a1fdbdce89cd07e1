"""Who watches a job: the items `sub#<connection>` of its page, and `ctl`, which its worker reads once a second.

Nothing on `ctl` is counted or appended, so that a repeated request changes nothing: the bell is set to a value that was never used, not
added to. Every write gives the row an end, so that one that comes late leaves no ghost.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from pynamodb.attributes import UnicodeAttribute
from pynamodb.expressions.update import Action
from ulid import ULID

from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import TTL_GRACE_SECONDS, ConditionFailed, IntAttribute, Item, bound
from chalicelib.domain.streaming.subscriptions import CONNECTION_TTL_MS, JobControl, Subscription
from chalicelib.domain.units import Ms

PREFIX = "sub#"
CONTROL = "ctl"


class SubscriptionItem(Item):
    id = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    endpoint = UnicodeAttribute()
    key_hash = UnicodeAttribute(attr_name="key")
    attempt = IntAttribute()
    offset = IntAttribute(attr_name="o")
    subscription_id = UnicodeAttribute(attr_name="sub")
    expires_at = IntAttribute(attr_name="exp")
    ttl = IntAttribute()


class JobControlItem(Item):
    id = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    subscribers_version = UnicodeAttribute(null=True, attr_name="subs_v")
    cancel = IntAttribute(null=True)
    read_until = IntAttribute(null=True, attr_name="r")
    ttl = IntAttribute()


class DynamoSubscriptions:
    """Units: add and remove 2 each, the others 1; reading the controls of n jobs 0.5 n."""

    def __init__(self, stage: str) -> None:
        self._watchers = bound(SubscriptionItem, stage, "job_data")
        self._controls = bound(JobControlItem, stage, "job_data")

    def add(self, watcher: Subscription) -> None:
        item = self._watchers(
            watcher.job_id,
            PREFIX + watcher.connection_id,
            endpoint=watcher.endpoint,
            key_hash=watcher.key_hash,
            attempt=watcher.attempt,
            offset=watcher.offset,
            subscription_id=watcher.subscription_id,
            expires_at=watcher.expires_at,
            ttl=watcher.expires_at // 1000 + TTL_GRACE_SECONDS,
        )
        dynamodb.put(item)
        self._set(watcher.job_id, item.ttl, _ring(self._controls))

    def remove(self, job_id: str, connection_id: str) -> None:
        """The bell rings if there is one: where there is none, nobody ever watched."""
        dynamodb.delete(self._watchers(job_id, PREFIX + connection_id))
        with suppress(ConditionFailed):
            dynamodb.update(self._controls(job_id, CONTROL), [_ring(self._controls)], self._controls.id.exists())

    def for_job(self, job_id: str) -> list[Subscription]:
        rows = self._watchers.query(job_id, self._watchers.sk.startswith(PREFIX), consistent_read=True)
        return [_watcher_of(item) for item in rows]

    def request_cancel(self, job_id: str, generation: int, ttl: int) -> None:
        self._set(job_id, ttl, self._controls.cancel.set(generation))

    def announce_reader(self, job_id: str, until: Ms) -> None:
        self._set(job_id, (until + CONNECTION_TTL_MS) // 1000 + TTL_GRACE_SECONDS, self._controls.read_until.set(until))

    def controls(self, job_ids: Sequence[str]) -> dict[str, JobControl]:
        rows = dynamodb.batch_get(self._controls, ((job_id, CONTROL) for job_id in job_ids))
        return {
            row.id: JobControl(subscribers_version=row.subscribers_version or "", cancel=row.cancel or 0, read_until=row.read_until or 0)
            for row in rows
        }

    def _set(self, job_id: str, ttl: int, action: Action) -> None:
        """Each sets the row's end anew, always beyond what the others need: a worker looks at it for a quarter of an hour at most."""
        dynamodb.update(self._controls(job_id, CONTROL), [action, self._controls.ttl.set(ttl)])


def _ring(controls: type[JobControlItem]) -> Action:
    return controls.subscribers_version.set(str(ULID()))


def _watcher_of(item: SubscriptionItem) -> Subscription:
    return Subscription(
        job_id=item.id,
        connection_id=item.sk.removeprefix(PREFIX),
        endpoint=item.endpoint,
        key_hash=item.key_hash,
        attempt=item.attempt,
        offset=item.offset,
        subscription_id=item.subscription_id,
        expires_at=item.expires_at,
    )
