"""The store of bulk operations, on the twin and on moto."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ulid import ULID

from chalicelib.adapters.dynamodb.open_index import ORPHAN_GRACE_MS
from chalicelib.adapters.stores import DynamoStores
from chalicelib.domain.errors import StaleVersion
from tests.contract.conftest import LoseResponse
from tests.kit.records import NOW, bulk_operation


def unfinished_ids(stores: Any, now: int, page_size: int = 100) -> list[str]:
    """Walk through the index, page by page."""
    page, after = stores.bulk_operations.unfinished(now, None, page_size)
    found = list(page)
    while after is not None:
        page, after = stores.bulk_operations.unfinished(now, after, page_size)
        found += page
    return [one.id for one in found]


def test_unfinished_bulk_operations_are_found_on_later_pages(stores: Any) -> None:
    """In the order of their creation, also when a page has only locked ones."""
    made = [
        bulk_operation(id=f"bulk_{ULID.from_timestamp(3_000_000_000.0 + at)}", locked_until=NOW if at % 4 else NOW + 99) for at in range(9)
    ]
    for one in made:
        stores.bulk_operations.create(one)

    found = unfinished_ids(stores, NOW, page_size=1)

    assert [one for one in found if one in {each.id for each in made}] == [one.id for one in made if one.locked_until == NOW]


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


def test_unfinished_bulk_operations_are_found_once_unlocked(stores: Any) -> None:
    made, other = (
        bulk_operation(),
        bulk_operation(id=f"bulk_{ULID.from_timestamp(4_000_000_000.0)}", tenant="other", locked_until=NOW + 60_000),
    )
    for one in (made, other):
        stores.bulk_operations.create(one)

    assert made.id not in unfinished_ids(stores, NOW)
    assert made.id in unfinished_ids(stores, NOW + 5)
    assert other.id not in unfinished_ids(stores, NOW + 5)
    assert [one for one in unfinished_ids(stores, NOW + 60_000) if one in (made.id, other.id)] == [made.id, other.id]


def test_finished_bulk_operation_is_not_listed_as_unfinished(stores: Any) -> None:
    made = bulk_operation()
    stores.bulk_operations.create(made)

    stores.bulk_operations.replace(made, replace(made, version=2, finished_at=NOW))

    assert made.id not in unfinished_ids(stores, NOW + 10**9)
    assert stores.bulk_operations.get("acme", made.id).finished_at == NOW


def test_index_rows_without_an_unfinished_bulk_operation_are_removed(dynamo_stores: DynamoStores) -> None:
    """A process that died between two writes leaves such rows."""
    bulks, never_created, ended = dynamo_stores.bulk_operations, bulk_operation(), bulk_operation(finished_at=NOW)
    for one in (never_created, ended):
        bulks._open.put(bulks._open.row(one.id, tenant=one.tenant, made_at=NOW, ttl=NOW // 1000))
    bulks._records.create(ended)

    def rows() -> set[str]:
        return {row.sk for row in bulks._open.query(1_000)}

    bulks.unfinished(NOW + ORPHAN_GRACE_MS, None, 100)
    assert never_created.id in rows()  # its record may be about to be written
    assert ended.id not in rows()
    bulks.unfinished(NOW + ORPHAN_GRACE_MS + 1, None, 100)
    assert never_created.id not in rows()
