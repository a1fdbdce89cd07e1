"""Versioned JSON records: unknown fields are skipped, and an unreadable record hides no other."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.json_record import RecordItem
from chalicelib.adapters.dynamodb.open_index import ORPHAN_GRACE_MS
from chalicelib.adapters.stores import DynamoStores
from chalicelib.domain.errors import UnreadableRecord
from tests.kit.records import NOW, batch, bulk_operation, delivery


def _records(stores: DynamoStores, kind: str) -> Any:
    return getattr(stores, kind)._records


@pytest.mark.parametrize(("kind", "given"), [("batches", batch()), ("bulk_operations", bulk_operation()), ("deliveries", delivery())])
def test_fields_of_a_newer_version_are_skipped(dynamo_stores: DynamoStores, kind: str, given: Any) -> None:
    records = _records(dynamo_stores, kind)
    item: RecordItem = records.item(given)
    stored = json.loads(item.data)
    for nested in (stored, *stored.get("actions", ()), *stored.get("attempts", ()), *stored.get("page", {}).get("jobs", ())):
        nested["of_tomorrow"] = {"a": 1}
    item.data = json.dumps(stored)
    dynamodb.put(item)

    found = records.get((item.pk, item.sk))
    assert replace(found, unknown_fields={}) == given


@pytest.mark.parametrize("data", ["{", "[]", "{}", '"text"'])
def test_an_unreadable_record_raises_when_it_is_read_alone(dynamo_stores: DynamoStores, data: str) -> None:
    records = _records(dynamo_stores, "batches")
    item: RecordItem = records.item(batch())
    item.data = data
    dynamodb.put(item)

    with pytest.raises(UnreadableRecord):
        records.get((item.pk, item.sk))
    assert records.get_many([(item.pk, item.sk)]) == {(item.pk, item.sk): None}


def test_an_unreadable_bulk_operation_hides_no_other(dynamo_stores: DynamoStores) -> None:
    stores = dynamo_stores
    broken, whole = bulk_operation(locked_until=0), bulk_operation(locked_until=0)
    for one in (broken, whole):
        stores.bulk_operations.create(one)
    item: RecordItem = _records(stores, "bulk_operations").item(broken)
    item.data = "{"
    dynamodb.put(item)

    keys, _ = stores.bulk_operations.unfinished(None, 1_000)
    found = {one.id for one in stores.bulk_operations.load_unfinished(keys, NOW + ORPHAN_GRACE_MS + 1)}

    assert (whole.id in found, broken.id in found) == (True, False)
    assert broken.id in {row.sk for row in stores.bulk_operations._open.query(1_000)}
