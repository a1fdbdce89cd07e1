"""The stores of WebSocket connections and tickets, on the twins and on moto."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.streaming.subscriptions import SUBSCRIPTIONS_PER_CONNECTION, Connection, Ticket, connection_shard, slots_of
from tests.contract.conftest import LoseResponse
from tests.kit.records import NOW, new_id

WINDOW = 7  # the number of a minute
CALLER = Caller(tenant="acme", user="ännä 👍", role=Role.OPERATOR, key_id="key_1", key_hash="h", all_tenants=True)
NARROW = replace(CALLER, role=Role.VIEWER, jobs=frozenset({"job_2", "job_1"}), read_only=True)


def opened(stores: Any, **changes: Any) -> Connection:
    connection = Connection(id=new_id(), endpoint="https://e.test/api", caller=CALLER, connected_at=NOW, expires_at=NOW + 9)
    connection = replace(connection, **changes)
    stores.connections.open(connection)
    return connection


def test_connection_round_trips(stores: Any) -> None:
    """The caller keeps all its restrictions."""
    for given in (opened(stores), opened(stores, caller=NARROW), opened(stores, caller=replace(NARROW, jobs=frozenset()))):
        assert stores.connections.get(given.id) == given
    assert stores.connections.get("unknown") is None


def test_subscribing_a_connection_is_idempotent(stores: Any, lose_response: LoseResponse) -> None:
    """Closing the connection returns its remaining subscriptions."""
    given = opened(stores)
    with lose_response("UpdateItem"):
        assert stores.connections.subscribe(given, "job_1", WINDOW, 1)
    assert stores.connections.subscribe(given, "job_1", WINDOW, 1)
    assert stores.connections.subscribe(given, "job_2", WINDOW, 1)
    stores.connections.unsubscribe(given.id, "job_1")

    closed = stores.connections.close(given.id)
    assert closed == replace(given, jobs=frozenset({"job_2"}), window=WINDOW, used=closed.used)
    assert stores.connections.get(given.id) is None
    assert stores.connections.close(given.id) is None


def test_subscriptions_per_connection_are_limited(stores: Any) -> None:
    """Subscribing to a job again is allowed, and unsubscribing makes room."""
    given = opened(stores)
    for number in range(SUBSCRIPTIONS_PER_CONNECTION):
        assert stores.connections.subscribe(given, f"job_{number}", WINDOW, 1)

    assert not stores.connections.subscribe(given, "job_more", WINDOW, 1)
    assert stores.connections.subscribe(given, "job_7", WINDOW, 1)
    stores.connections.unsubscribe(given.id, "job_7")
    assert stores.connections.subscribe(given, "job_more", WINDOW, 1)
    assert len(stores.connections.get(given.id).jobs) == SUBSCRIPTIONS_PER_CONNECTION


def test_subscribe_does_not_recreate_a_closed_connection(stores: Any) -> None:
    closed = opened(stores)
    stores.connections.close(closed.id)

    assert not stores.connections.subscribe(closed, "job_1", WINDOW, 1)
    assert stores.connections.charge(closed, WINDOW, 1) == 0
    stores.connections.unsubscribe(closed.id, "job_1")

    assert stores.connections.get(closed.id) is None


def test_connection_stays_when_its_last_subscription_is_removed(stores: Any) -> None:
    """DynamoDB has no empty sets."""
    given = opened(stores)
    stores.connections.subscribe(given, "job_1", WINDOW, 1)
    stores.connections.unsubscribe(given.id, "job_1")

    assert stores.connections.get(given.id) == replace(given, window=WINDOW, used=1)
    assert stores.connections.subscribe(given, "job_2", WINDOW, 1)


def test_connections_are_found_by_shard(stores: Any) -> None:
    """An open connection is in exactly one shard, a closed one in none."""
    given = {each.id: each for each in (opened(stores) for _ in range(30))}
    closed = given.popitem()[0]
    stores.connections.close(closed)
    stores.connections.subscribe(next(iter(given.values())), "job_1", WINDOW, 1)

    found = [one for part in range(8) for one in stores.connections.sample(part, 1_000)]

    ours = {one.id: one for one in found if one.id in given or one.id == closed}
    assert set(ours) == set(given)
    assert len(found) == len({one.id for one in found})
    assert {one_id: replace(one, jobs=frozenset(), window=0, used=0) for one_id, one in ours.items()} == given
    assert {one.id for one in stores.connections.sample(11, 1_000)} == {one.id for one in stores.connections.sample(3, 1_000)}


def test_units_of_a_connection_are_counted_by_minute(stores: Any) -> None:
    """Environments that read the row at different times count together; a new minute starts at zero."""
    given = opened(stores)

    assert stores.connections.charge(given, WINDOW, 20) == 20
    seen = stores.connections.get(given.id)
    assert (seen.window, seen.used, seen.used_in(WINDOW), seen.used_in(WINDOW + 1)) == (WINDOW, 20, 20, 0)
    assert stores.connections.charge(seen, WINDOW, 5) == 25
    assert stores.connections.charge(given, WINDOW, 1) == 26  # it had read the row before the first charge
    assert stores.connections.subscribe(seen, "job_1", WINDOW, 4)
    assert stores.connections.get(given.id).used == 30
    assert stores.connections.charge(seen, WINDOW + 1, 3) == 3
    assert stores.connections.charge(seen, WINDOW, 2) == 0  # late: it counts in the minute that the row has
    assert stores.connections.get(given.id) == replace(given, jobs=frozenset({"job_1"}), window=WINDOW + 1, used=5)


def test_closing_a_connection_frees_its_slot(stores: Any) -> None:
    """Once, and only its own: another connection may hold the slot by then."""
    caller = replace(CALLER, key_id=new_id())
    name, now = slots_of(caller), NOW
    given = opened(stores, caller=caller, slot=0)
    assert stores.semaphores.acquire(name, range(1), NOW + 1_000, now, given.id) == 0
    assert stores.semaphores.acquire(name, range(1), NOW + 1_000, now, "other") is None
    assert stores.connections.get(given.id) == given

    stores.connections.close(given.id)
    assert stores.semaphores.acquire(name, range(1), NOW + 1_000, now, "other") == 0
    stores.connections.close(given.id)
    stores.semaphores.release(name, 0, given.id)

    assert stores.semaphores.acquire(name, range(1), NOW + 1_000, now, "third") is None
    assert stores.semaphores.acquire(name, range(1), NOW + 2_000, NOW + 1_001, "third") == 0


def test_repeated_samples_reach_every_connection_of_a_shard(stores: Any) -> None:
    """A sample never exceeds its limit."""
    ids = [new_id() for _ in range(60)]
    part = connection_shard(ids[0])
    given = {opened(stores, id=one).id for one in ids if connection_shard(one) == part}
    seen: set[str] = set()
    for _ in range(2_000):
        some = stores.connections.sample(part, 3)
        assert len({one.id for one in some}) == len(some) <= 3
        seen |= {one.id for one in some}
        if given <= seen:
            break

    assert given <= seen


def test_a_ticket_is_used_by_one_connection(stores: Any, lose_response: LoseResponse) -> None:
    """Its connection may use it again; another connection and an unknown ticket are refused."""
    ticket = Ticket(hash=new_id(), caller=NARROW, created_at=NOW, expires_at=NOW + 60_000)
    stores.tickets.put(ticket)

    with lose_response("UpdateItem"):
        assert stores.tickets.use(ticket.hash, "c1")
    assert stores.tickets.use(ticket.hash, "c1")
    assert not stores.tickets.use(ticket.hash, "c2")
    assert not stores.tickets.use(new_id(), "c1")
    assert stores.tickets.get(ticket.hash) == ticket
    assert stores.tickets.get(new_id()) is None
