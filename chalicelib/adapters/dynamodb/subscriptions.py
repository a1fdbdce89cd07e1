"""Subscriptions, in the table `job_data`: the items `sub#<connection>` of a job, and `ctl`.

The worker of the job reads `ctl` each second. Nothing in `ctl` is counted or appended, so that a
repeated request changes nothing: `subscribers_version` is set to a value that was never used
before. Every write sets a TTL, so a late one leaves no item for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from pynamodb.attributes import UnicodeAttribute
from pynamodb.expressions.update import Action
from ulid import ULID

from chalicelib.adapters.decoding import decode_readable
from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import TTL_GRACE_SECONDS, ConditionFailed, IntAttribute, Item, bound, decoded
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
    at = IntAttribute(null=True)
    ttl = IntAttribute()


class JobControlItem(Item):
    id = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    subscribers_version = UnicodeAttribute(null=True, attr_name="subs_v")
    cancel = IntAttribute(null=True)
    read_until = IntAttribute(null=True, attr_name="r")
    ttl = IntAttribute()


class DynamoSubscriptions:
    """Units: add and remove 2 each, count 0.5 for each 4 KB, the others 1; reading the controls of n
    jobs 0.5 n, or n if consistent.
    """

    def __init__(self, stage: str) -> None:
        self._subscriptions = bound(SubscriptionItem, stage, "job_data")
        self._controls = bound(JobControlItem, stage, "job_data")

    def add(self, subscription: Subscription, repeat_after: Ms = 0) -> bool:
        item = self._subscriptions(
            subscription.job_id,
            PREFIX + subscription.connection_id,
            endpoint=subscription.endpoint,
            key_hash=subscription.key_hash,
            attempt=subscription.attempt,
            offset=subscription.offset,
            subscription_id=subscription.subscription_id,
            expires_at=subscription.expires_at,
            at=subscription.at,
            ttl=subscription.expires_at // 1000 + TTL_GRACE_SECONDS,
        )
        rows = self._subscriptions
        is_new = rows.id.does_not_exist() | rows.at.does_not_exist() | (rows.at <= subscription.at - repeat_after)
        is_elsewhere = (rows.attempt != subscription.attempt) | (rows.offset != subscription.offset)
        try:
            dynamodb.put(item, is_new | is_elsewhere if repeat_after else None)
        except ConditionFailed as failed:  # its own write, if the response of the first request was lost
            if not failed.item or rows.from_raw_data(failed.item).subscription_id != subscription.subscription_id:
                return False
        self._update_control(subscription.job_id, item.ttl, _change_version(self._controls))
        return True

    def count(self, job_id: str, limit: int) -> int:
        return dynamodb.count(self._subscriptions, job_id, self._subscriptions.sk.startswith(PREFIX), limit)

    def remove(self, job_id: str, connection_id: str) -> None:
        """Without a `ctl` item there was never a subscriber, so there is no version to change."""
        dynamodb.delete(self._subscriptions(job_id, PREFIX + connection_id))
        with suppress(ConditionFailed):
            dynamodb.update(self._controls(job_id, CONTROL), [_change_version(self._controls)], self._controls.id.exists())

    def remove_closed(self, job_id: str, connection_id: str) -> None:
        dynamodb.delete(self._subscriptions(job_id, PREFIX + connection_id))

    def for_job(self, job_id: str) -> list[Subscription]:
        items = self._subscriptions.query(job_id, self._subscriptions.sk.startswith(PREFIX), consistent_read=True)
        return list(decode_readable(items, _subscription_of))

    def request_cancel(self, job_id: str, generation: int, ttl: int) -> None:
        self._update_control(job_id, ttl, self._controls.cancel.set(generation))

    def announce_reader(self, job_id: str, until: Ms) -> None:
        self._update_control(job_id, (until + CONNECTION_TTL_MS) // 1000 + TTL_GRACE_SECONDS, self._controls.read_until.set(until))

    def controls(self, job_ids: Sequence[str], *, consistent: bool = False) -> dict[str, JobControl]:
        items = dynamodb.batch_get(self._controls, ((job_id, CONTROL) for job_id in job_ids), consistent=consistent)
        return dict(decode_readable(items, _control_of))

    def _update_control(self, job_id: str, ttl: int, action: Action) -> None:
        """Update one attribute and the TTL.

        Every caller's TTL is beyond what the others need: a worker reads it for 15 minutes at most,
        and the change stream for as long as a connection is open.
        """
        dynamodb.update(self._controls(job_id, CONTROL), [action, self._controls.ttl.set(ttl)])


def _change_version(controls: type[JobControlItem]) -> Action:
    return controls.subscribers_version.set(str(ULID()))


@decoded
def _control_of(item: JobControlItem) -> tuple[str, JobControl]:
    control = JobControl(subscribers_version=item.subscribers_version or "", cancel=item.cancel or 0, read_until=item.read_until or 0)
    return item.id, control


@decoded
def _subscription_of(item: SubscriptionItem) -> Subscription:
    return Subscription(
        job_id=item.id,
        connection_id=item.sk.removeprefix(PREFIX),
        endpoint=item.endpoint,
        key_hash=item.key_hash,
        attempt=item.attempt,
        offset=item.offset,
        subscription_id=item.subscription_id,
        expires_at=item.expires_at,
        at=item.at or 0,
    )
