"""The store of deliveries, on the twin and on moto."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.open_index import ORPHAN_GRACE_MS
from chalicelib.adapters.stores import DynamoStores
from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.notifications.delivery import Delivery, DeliveryState
from chalicelib.ports.notifications import DELIVERY_SHARDS
from tests.contract.conftest import LoseResponse
from tests.kit.records import NOW, delivery, new_id


def due(stores: Any, until: int, page_size: int = 100) -> list[Delivery]:
    """Walk through all shards, page by page."""
    found: list[Delivery] = []
    for shard in range(DELIVERY_SHARDS):
        after, first = None, True
        while first or after is not None:
            rows, after = stores.deliveries.due(shard, until, after, page_size)
            found, first = found + stores.deliveries.load_due(rows, until), False
    return found


def due_ids(stores: Any, until: int) -> set[str]:
    return {one.id for one in due(stores, until)}


def test_due_deliveries_are_paged_in_the_order_of_their_recheck_times(stores: Any) -> None:
    """Each shard on its own; rows name the tenant, so that a run can be fair without reading records."""
    made = [delivery(recheck_at=NOW - 9_000_000 + number * 7 % 40, tenant=f"tenant-{number % 3}") for number in range(40)]
    for one in made:
        stores.deliveries.create(one)

    for shard in range(DELIVERY_SHARDS):
        rows, after, seen = [], None, 0
        while True:
            page, after = stores.deliveries.due(shard, NOW - 8_000_000, after, 3)
            rows, seen = [*rows, *page], seen + 1
            if after is None:
                break
        assert [row.recheck_at for row in rows] == sorted(row.recheck_at for row in rows)
        assert seen >= len(rows) / 3
        assert {(row.delivery_id, row.tenant) for row in rows} <= {(one.id, one.tenant) for one in made}
    assert {one.id for one in due(stores, NOW - 8_000_000, 3)} == {one.id for one in made}


def test_delivery_round_trips(stores: Any) -> None:
    made = delivery()

    assert stores.deliveries.create(made) == made
    assert stores.deliveries.get(made.owner, made.id) == made
    assert stores.deliveries.get("job_other", made.id) is None
    assert stores.deliveries.get(made.owner, "dlv_other") is None


def test_creating_a_delivery_again_returns_the_stored_one(stores: Any, lose_response: LoseResponse) -> None:
    """The stored delivery is returned in its current state."""
    made = delivery()
    with lose_response("PutItem"):
        stores.deliveries.create(made)
    moved = replace(made, version=2, state=DeliveryState.DELIVERED, ended_at=NOW)
    stores.deliveries.replace(made, moved)

    assert stores.deliveries.create(replace(made, recheck_at=NOW + 1)) == moved
    assert stores.deliveries.get(made.owner, made.id) == moved
    assert made.id not in due_ids(stores, NOW + 10**9)


def test_deliveries_of_an_owner_are_listed_newest_first(stores: Any) -> None:
    owner = new_id()
    older, newer = delivery(owner=owner), delivery(owner=owner, address="https://hooks.example.com/y", created_at=NOW + 1)
    for one in (older, newer, delivery()):
        stores.deliveries.create(one)

    assert stores.deliveries.for_owner(owner) == [newer, older]


def test_second_delivery_update_from_one_version_is_refused(stores: Any, lose_response: LoseResponse) -> None:
    """The first update succeeds although its response is lost."""
    made = delivery()
    stores.deliveries.create(made)
    mine, others = replace(made, version=2, attempt_count=1), replace(made, version=2, attempt_count=2)

    with lose_response("UpdateItem"):
        stores.deliveries.replace(made, mine)
    with pytest.raises(StaleVersion) as refused:
        stores.deliveries.replace(made, others)

    assert refused.value.current == mine


def test_replace_does_not_create_a_delivery(stores: Any) -> None:
    made = delivery()

    with pytest.raises(StaleVersion):
        stores.deliveries.replace(made, replace(made, version=2))

    assert stores.deliveries.get(made.owner, made.id) is None


def test_delivery_is_due_from_its_recheck_time(stores: Any) -> None:
    made = delivery(recheck_at=NOW + 60_000)
    stores.deliveries.create(made)
    assert made.id not in due_ids(stores, NOW + 59_999)
    assert made.id in due_ids(stores, NOW + 60_000)

    later = replace(made, version=2, recheck_at=NOW + 90_000)
    stores.deliveries.replace(made, later)

    assert made.id not in due_ids(stores, NOW + 89_999)
    assert [one for one in due(stores, NOW + 90_000) if one.id == made.id] == [later]


def test_ended_delivery_is_not_due_until_restarted(stores: Any) -> None:
    made = delivery()
    ended = replace(made, version=2, state=DeliveryState.FAILED, ended_at=NOW)
    stores.deliveries.create(made)
    stores.deliveries.replace(made, ended)
    assert made.id not in due_ids(stores, NOW + 10**9)

    stores.deliveries.replace(ended, replace(ended, version=3, state=DeliveryState.PENDING, ended_at=None))

    assert made.id in due_ids(stores, NOW + 60_000)


def test_refused_delivery_update_keeps_the_due_time(stores: Any) -> None:
    """The losing writer has already put an index row for a time that was never stored."""
    made = delivery()
    stores.deliveries.create(made)
    stores.deliveries.replace(made, replace(made, version=2, attempt_count=1))

    with pytest.raises(StaleVersion):
        stores.deliveries.replace(made, replace(made, version=2, recheck_at=NOW + 30_000))

    assert made.id not in due_ids(stores, NOW + 30_000)
    assert made.id in due_ids(stores, NOW + 60_000)


def open_rows(stores: DynamoStores, made: Delivery) -> list[str]:
    opened = stores.deliveries._open
    return [row.sk for part in range(DELIVERY_SHARDS) for row in opened.query(1_000, shard=part) if made.id in row.sk]


def test_index_rows_without_an_open_delivery_are_removed(dynamo_stores: DynamoStores) -> None:
    """A process that died between two writes leaves such rows."""
    deliveries, never_created, ended = dynamo_stores.deliveries, delivery(), delivery(state=DeliveryState.DELIVERED)
    for one in (never_created, ended):
        dynamodb.put(deliveries._row(one))
    dynamodb.put(deliveries._records.item(ended))

    due(dynamo_stores, NOW + 60_000 + ORPHAN_GRACE_MS)
    assert open_rows(dynamo_stores, never_created)  # its record may be about to be written
    assert not open_rows(dynamo_stores, ended)
    due(dynamo_stores, NOW + 60_000 + ORPHAN_GRACE_MS + 1)
    assert not open_rows(dynamo_stores, never_created)


def test_delivery_stays_due_after_an_interrupted_update(dynamo_stores: DynamoStores) -> None:
    """An update puts the new index row before it stores the new recheck time."""
    deliveries, made = dynamo_stores.deliveries, delivery()
    deliveries.create(made)
    later = replace(made, version=2, recheck_at=NOW + 90_000)

    dynamodb.put(deliveries._row(later))
    assert made.id in due_ids(dynamo_stores, NOW + 60_000)
    dynamodb.put(deliveries._records.item(later))
    assert made.id not in due_ids(dynamo_stores, NOW + 60_000)
    assert made.id in due_ids(dynamo_stores, NOW + 90_000)


def test_updated_delivery_keeps_one_index_row(dynamo_stores: DynamoStores) -> None:
    deliveries, made = dynamo_stores.deliveries, delivery()
    deliveries.create(made)
    later = replace(made, version=2, recheck_at=NOW + 90_000)
    deliveries.replace(made, later)
    deliveries.replace(later, replace(later, version=3, attempt_count=1))

    assert len(open_rows(dynamo_stores, made)) == 1


def test_unreadable_delivery_stays_and_does_not_hide_others(dynamo_stores: DynamoStores) -> None:
    """During a deployment a newer version may write values that this version does not know."""
    stores = dynamo_stores
    unreadable, readable = delivery(), delivery()
    for made in (unreadable, readable):
        stores.deliveries.create(made)
    item = stores.deliveries._records.item(unreadable)
    item.data = item.data.replace('"pending"', '"postponed"')
    dynamodb.put(item)

    assert readable.id in due_ids(stores, NOW + 10 * ORPHAN_GRACE_MS)
    assert len(open_rows(stores, unreadable)) == 1
