"""WebSocket connections and tickets, in the table `coordination`.

Connections are `C#<0-7>` / `<hash>#<connection id>`. The sweeper looks for closed ones in one of
these partitions, from a random position on. The hash spreads ids that were made at the same moment,
which begin alike. Tickets are `tk#<hash of the secret>` / `tk`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict
from zlib import crc32

from pynamodb.attributes import UnicodeAttribute, UnicodeSetAttribute
from pynamodb.expressions.condition import Condition, size
from pynamodb.expressions.update import Action

from chalicelib.adapters.decoding import checked, decode_readable
from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import TTL_GRACE_SECONDS, ConditionFailed, IntAttribute, Item, bound, decoded
from chalicelib.adapters.dynamodb.json_record import known_fields
from chalicelib.adapters.dynamodb.semaphores import DynamoSemaphores
from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.errors import Throttled
from chalicelib.domain.streaming.subscriptions import (
    CONNECTION_SHARDS,
    SUBSCRIPTIONS_PER_CONNECTION,
    Connection,
    Ticket,
    connection_shard,
    slots_of,
)

SPEND_TRIES = 4  # in the first moment of a minute several environments may write


class ConnectionItem(Item):
    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    endpoint = UnicodeAttribute()
    caller = UnicodeAttribute()  # JSON
    connected_at = IntAttribute(attr_name="at")
    expires_at = IntAttribute(attr_name="exp")
    jobs = UnicodeSetAttribute(null=True)
    slot = IntAttribute(null=True)  # of its API key
    window = IntAttribute(null=True, attr_name="w")
    used = IntAttribute(null=True, attr_name="u")
    ttl = IntAttribute()


class TicketItem(Item):
    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    caller = UnicodeAttribute()  # JSON
    created_at = IntAttribute(attr_name="at")
    expires_at = IntAttribute(attr_name="exp")
    used_by = UnicodeAttribute(null=True)
    ttl = IntAttribute()


class DynamoConnections:
    """Units: 1 for each call, 1 more for each KB of subscriptions; to close one that has a slot 1 more."""

    def __init__(self, stage: str) -> None:
        self._items = bound(ConnectionItem, stage, "coordination")
        self._slots = DynamoSemaphores(stage)

    def open(self, connection: Connection) -> None:
        item = self._item(connection.id)
        item.slot = connection.slot
        item.endpoint = connection.endpoint
        item.caller = caller_json(connection.caller)
        item.connected_at, item.expires_at = connection.connected_at, connection.expires_at
        item.jobs = set(connection.jobs) or None
        item.ttl = connection.expires_at // 1000 + TTL_GRACE_SECONDS
        dynamodb.put(item)

    def get(self, connection_id: str) -> Connection | None:
        item = dynamodb.get(self._items, *connection_key(connection_id))
        return _connection_of(item) if item else None

    def charge(self, connection: Connection, window: int, units: int) -> int:
        stored = self._spend(connection, window, units)
        return stored.used_in(window) if stored else 0

    def subscribe(self, connection: Connection, job_id: str, window: int, units: int) -> bool:
        jobs = self._items.jobs
        has_room = size(jobs) < SUBSCRIPTIONS_PER_CONNECTION  # type: ignore[no-untyped-call]
        allowed = jobs.does_not_exist() | has_room | jobs.contains(job_id)
        return self._spend(connection, window, units, [jobs.add({job_id})], allowed) is not None

    def _spend(
        self, seen: Connection, window: int, units: int, actions: Sequence[Action] = (), allowed: Condition | None = None
    ) -> Connection | None:
        """Add units to those of this minute, in the same write as `actions`.

        The first write of a minute sets the number, on the condition that the row still has the
        minute in which it was seen.

        Returns: the connection as it is now; None if it is unknown or `allowed` does not hold.
        """
        items, expected = self._items, seen.window
        for _ in range(SPEND_TRIES):
            is_present = items.window == expected if expected else items.pk.exists() & items.window.does_not_exist()
            spent = [items.used.add(units)] if expected >= window else [items.used.set(units), items.window.set(window)]
            condition = is_present if allowed is None else is_present & allowed
            try:
                stored = dynamodb.update(self._item(seen.id), [*spent, *actions], condition, returns="ALL_NEW")
            except ConditionFailed as failed:
                current = _connection_of(items.from_raw_data(failed.item)) if failed.item else None
                if current is None or current.window == expected:
                    return None
                expected = current.window
            else:
                return _connection_of(items.from_raw_data(stored))
        raise Throttled

    def unsubscribe(self, connection_id: str, job_id: str) -> None:
        try:
            dynamodb.update(self._item(connection_id), [self._items.jobs.delete({job_id})], self._items.pk.exists())
        except ConditionFailed:
            return  # the connection is closed

    def close(self, connection_id: str) -> Connection | None:
        """Return None for a connection that cannot be read: its subscriptions expire by themselves."""
        deleted = dynamodb.delete(self._item(connection_id))
        if not deleted:
            return None
        connection = next(decode_readable([self._items.from_raw_data(deleted)], _connection_of), None)
        if connection is not None and connection.slot is not None:
            self._slots.release(slots_of(connection.caller), connection.slot, connection.id)
        return connection

    def sample(self, part: int, limit: int) -> list[Connection]:
        """Query from a random position to the end of the partition, and then from its beginning."""
        partition, start = f"C#{part % CONNECTION_SHARDS}", f"{random.getrandbits(32):08x}"
        found = list(self._items.query(partition, self._items.sk >= start, limit=limit, page_size=limit))
        if len(found) < limit:
            missing = limit - len(found)
            found += self._items.query(partition, self._items.sk < start, limit=missing, page_size=missing)
        return list(decode_readable(found, _connection_of))

    def _item(self, connection_id: str) -> ConnectionItem:
        return self._items(*connection_key(connection_id))


class DynamoTickets:
    """Units: 1 for each call."""

    def __init__(self, stage: str) -> None:
        self._items = bound(TicketItem, stage, "coordination")

    def put(self, ticket: Ticket) -> None:
        item = self._item(ticket.hash)
        item.caller = caller_json(ticket.caller)
        item.created_at, item.expires_at = ticket.created_at, ticket.expires_at
        item.ttl = ticket.expires_at // 1000 + TTL_GRACE_SECONDS
        dynamodb.put(item)

    def get(self, ticket_hash: str) -> Ticket | None:
        item = dynamodb.get(self._items, f"tk#{ticket_hash}", "tk")
        if item is None:
            return None
        return _ticket_of(item)

    def use(self, ticket_hash: str, connection_id: str) -> bool:
        """The same connection may use it again: the first response may have been lost."""
        used_by = self._items.used_by
        unused = used_by.does_not_exist() | (used_by == connection_id)
        try:
            dynamodb.update(self._item(ticket_hash), [used_by.set(connection_id)], self._items.pk.exists() & unused)
        except ConditionFailed:
            return False
        return True

    def _item(self, ticket_hash: str) -> TicketItem:
        return self._items(f"tk#{ticket_hash}", "tk")


def connection_key(connection_id: str) -> tuple[str, str]:
    """Return the partition key and sort key of a connection."""
    return f"C#{connection_shard(connection_id)}", f"{crc32(connection_id.encode()):08x}#{connection_id}"


def caller_json(caller: Caller) -> str:
    values = asdict(caller)
    values["jobs"] = sorted(caller.jobs) if caller.jobs is not None else None
    return json.dumps(values, separators=(",", ":"))


def caller_of(text: str) -> Caller:
    values = known_fields(Caller, json.loads(text))
    jobs = values.get("jobs")
    return checked(Caller(**{**values, "role": Role(values["role"]), "jobs": None if jobs is None else frozenset(jobs)}))


@decoded
def _ticket_of(item: TicketItem) -> Ticket:
    return Ticket(hash=item.pk.partition("#")[2], caller=caller_of(item.caller), created_at=item.created_at, expires_at=item.expires_at)


@decoded
def _connection_of(item: ConnectionItem) -> Connection:
    return Connection(
        id=item.sk.partition("#")[2],
        endpoint=item.endpoint,
        caller=caller_of(item.caller),
        connected_at=item.connected_at,
        expires_at=item.expires_at,
        jobs=frozenset(item.jobs or ()),
        window=item.window or 0,
        used=item.used or 0,
        slot=item.slot,
    )
