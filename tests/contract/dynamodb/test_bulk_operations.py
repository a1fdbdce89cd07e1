"""The store of bulk operations, on the twin and on moto."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ulid import ULID

from chalicelib.adapters.dynamodb.open_index import ORPHAN_GRACE_MS
from chalicelib.adapters.stores import DynamoStores
from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.jobs.bulk_operation import BulkKey, BulkOperation
from tests.contract.conftest import LoseResponse
from tests.kit.records import NOW, bulk_operation


def unfinished_keys(stores: Any, page_size: int = 100) -> list[BulkKey]:
    """Walk through the index, page by page."""
    page, after = stores.bulk_operations.unfinished(None, page_size)
    found = list(page)
    while after is not None:
        page, after = stores.bulk_operations.unfinished(after, page_size)
        assert len(page) <= page_size
        found += page
    return found


def unfinished_ids(stores: Any, page_size: int = 100) -> list[str]:
    return [key.id for key in unfinished_keys(stores, page_size)]


def key_of(bulk: BulkOperation) -> BulkKey:
    return BulkKey(bulk.tenant, bulk.id, bulk.created_at)


def test_unfinished_bulk_operations_are_found_on_later_pages(stores: Any) -> None:
    """In the order of their creation."""
    made = [bulk_operation(id=f"bulk_{ULID.from_timestamp(3_000_000_000.0 + at)}") for at in range(9)]
    for one in made:
        stores.bulk_operations.create(one)

    found = unfinished_keys(stores, page_size=1)

    assert [one for one in found if one.id in {each.id for each in made}] == [key_of(one) for one in made]


def test_named_unfinished_bulk_operations_are_loaded_in_the_given_order(stores: Any) -> None:
    """Locked ones too; not those that have finished meanwhile, and not those that do not exist."""
    first, second, ended = bulk_operation(), bulk_operation(tenant="other", locked_until=NOW + 60_000), bulk_operation()
    for one in (first, second, ended):
        stores.bulk_operations.create(one)
    stores.bulk_operations.replace(ended, replace(ended, version=2, finished_at=NOW))
    keys = [key_of(second), key_of(ended), BulkKey("acme", "bulk_none", NOW), key_of(first)]

    assert stores.bulk_operations.load_unfinished(keys, NOW) == [second, first]


def test_bulk_operation_round_trips(stores: Any) -> None:
    made = bulk_operation()
    stores.bulk_operations.create(made)

    assert stores.bulk_operations.get("acme", made.id) == made
    assert stores.bulk_operations.get("other", made.id) is None
    assert stores.bulk_operations.get("acme", "bulk_none") is None


def test_creating_a_bulk_operation_again_changes_nothing(stores: Any, lose_response: LoseResponse) -> None:
    made = bulk_operation()
    with lose_response("PutItem"):
        stores.bulk_operations.create(made)
    moved = replace(made, version=2, done=1)
    stores.bulk_operations.replace(made, moved)

    stores.bulk_operations.create(made)

    assert stores.bulk_operations.get("acme", made.id) == moved


def test_second_bulk_update_from_one_version_is_refused(stores: Any, lose_response: LoseResponse) -> None:
    """The first update succeeds although its response is lost."""
    made = bulk_operation()
    stores.bulk_operations.create(made)
    mine, others = replace(made, version=2, done=1), replace(made, version=2, done=2)

    with lose_response("UpdateItem"):
        stores.bulk_operations.replace(made, mine)
    with pytest.raises(StaleVersion) as refused:
        stores.bulk_operations.replace(made, others)

    assert refused.value.current == mine


def test_replace_does_not_create_a_bulk_operation(stores: Any) -> None:
    made = bulk_operation()

    with pytest.raises(StaleVersion):
        stores.bulk_operations.replace(made, replace(made, version=2))

    assert stores.bulk_operations.get("acme", made.id) is None


def test_finished_bulk_operation_is_not_listed_as_unfinished(stores: Any) -> None:
    made = bulk_operation()
    stores.bulk_operations.create(made)

    stores.bulk_operations.replace(made, replace(made, version=2, finished_at=NOW))

    assert made.id not in unfinished_ids(stores)
    assert stores.bulk_operations.get("acme", made.id).finished_at == NOW


def test_index_rows_without_an_unfinished_bulk_operation_are_removed(dynamo_stores: DynamoStores) -> None:
    """A process that died between two writes leaves such rows."""
    bulks, never_created, ended = dynamo_stores.bulk_operations, bulk_operation(), bulk_operation(finished_at=NOW)
    for one in (never_created, ended):
        bulks._open.put(bulks._open.row(one.id, tenant=one.tenant, made_at=NOW, ttl=NOW // 1000))
    bulks._records.create(ended)
    keys = [key_of(never_created), key_of(ended)]

    def rows() -> set[str]:
        return {row.sk for row in bulks._open.query(1_000)}

    bulks.load_unfinished(keys, NOW + ORPHAN_GRACE_MS)
    assert never_created.id in rows()  # its record may be about to be written
    assert ended.id not in rows()
    bulks.load_unfinished(keys, NOW + ORPHAN_GRACE_MS + 1)
    assert never_created.id not in rows()


def test_operations_have_their_turns_in_the_order_of_their_creation(stores: Any) -> None:
    """Those of their tenant that have asked for one, and have not given it up."""
    tenant = f"tenant_{ULID()}"
    made = [bulk_operation(tenant=tenant) for _ in range(5)]
    for one in reversed(made):
        stores.bulk_operations.create(one)
        stores.bulk_operations.request_turn(key_of(one))
    stores.bulk_operations.request_turn(key_of(made[1]))
    stores.bulk_operations.request_turn(key_of(bulk_operation(tenant="other")))
    stores.bulk_operations.give_up_turn(key_of(made[0]))
    stores.bulk_operations.give_up_turn(key_of(made[0]))
    in_order = sorted((key_of(one) for one in made[1:]), key=lambda key: key.id)

    assert stores.bulk_operations.turns(tenant, 2) == in_order[:2]
    assert stores.bulk_operations.turns(tenant, None) == in_order
    assert stores.bulk_operations.turns(f"{tenant}_none", 2) == []


def test_an_operation_that_ends_gives_up_its_turn(stores: Any) -> None:
    made = bulk_operation(tenant=f"tenant_{ULID()}")
    stores.bulk_operations.create(made)
    stores.bulk_operations.request_turn(key_of(made))

    stores.bulk_operations.replace(made, replace(made, version=2))
    assert stores.bulk_operations.turns(made.tenant, 2) == [key_of(made)]
    stores.bulk_operations.replace(replace(made, version=2), replace(made, version=3, finished_at=NOW))
    assert stores.bulk_operations.turns(made.tenant, 2) == []
