"""The stores of batches and their rows, on the twins and on moto."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ulid import ULID

from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.open_index import ORPHAN_GRACE_MS
from chalicelib.adapters.stores import DynamoStores
from chalicelib.domain.batches.batch import BatchStatus
from chalicelib.domain.batches.row import Row
from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.ids import batch_id
from tests.contract.conftest import LoseResponse
from tests.kit.records import NOW, batch


def stalled_ids(stores: Any, now: int, page_size: int = 100) -> set[str]:
    """Walk through the index, page by page."""
    page, after = stores.batches.stalled(now, None, page_size)
    found = {one.id for one in page}
    while after is not None:
        page, after = stores.batches.stalled(now, after, page_size)
        found |= {one.id for one in page}
    return found


def test_batch_round_trips(stores: Any) -> None:
    made = batch(status=BatchStatus.FAILED, reason="failure_tolerance", notify_targets=("email:ops@acme.com", "webhook:https://a.example/"))
    stores.batches.create(made)

    assert stores.batches.get("acme", made.id) == made
    assert stores.batches.get("other", made.id) is None
    assert stores.batches.get("acme", "batch_none") is None


def test_creating_a_batch_again_changes_nothing(stores: Any, lose_response: LoseResponse) -> None:
    made = batch()
    with lose_response("PutItem"):
        stores.batches.create(made)
    moved = replace(made, version=2, released=3)
    stores.batches.replace(made, moved)

    stores.batches.create(made)

    assert stores.batches.get("acme", made.id) == moved


def test_second_batch_update_from_one_version_is_refused(stores: Any, lose_response: LoseResponse) -> None:
    """The first update succeeds although its response is lost."""
    made = batch()
    stores.batches.create(made)
    mine, others = replace(made, version=2, wave_end=1), replace(made, version=2, wave_end=2)

    with lose_response("UpdateItem"):
        stores.batches.replace(made, mine)
    with pytest.raises(StaleVersion) as refused:
        stores.batches.replace(made, others)

    assert refused.value.current == mine


def test_replace_does_not_create_a_batch(stores: Any) -> None:
    made = batch()

    with pytest.raises(StaleVersion):
        stores.batches.replace(made, replace(made, version=2))

    assert stores.batches.get("acme", made.id) is None


def test_batch_is_stalled_once_its_lock_expires(stores: Any) -> None:
    made = batch()
    stores.batches.create(made)

    assert made.id not in stalled_ids(stores, NOW)
    assert made.id in stalled_ids(stores, NOW + 5)


def test_closed_batch_is_not_stalled_until_its_next_run(stores: Any) -> None:
    """A late close of the earlier run has no effect."""
    made = batch()
    stores.batches.create(made)
    stores.batches.mark_closed(made)
    assert made.id not in stalled_ids(stores, NOW + 5)

    again = replace(made, version=2, run=2)
    stores.batches.replace(made, again)
    stores.batches.mark_closed(made)  # the close of the earlier run arrives late

    assert made.id in stalled_ids(stores, NOW + 5)
    stores.batches.mark_closed(again)
    stores.batches.mark_closed(again)
    assert made.id not in stalled_ids(stores, NOW + 5)


def test_batches_of_a_tenant_are_listed_newest_first(stores: Any) -> None:
    ids = [batch_id(str(ULID.from_timestamp(NOW / 1000 + at))) for at in range(3)]
    for one in ids:
        stores.batches.create(batch(id=one, tenant="lister"))

    first, following = stores.batches.page("lister", None, 2)
    rest, end = stores.batches.page("lister", following, 2)

    assert [one.id for one in first + rest] == ids[::-1]
    assert end is None


def test_every_open_batch_is_found_on_some_page(stores: Any) -> None:
    """Also beyond pages that hold only locked batches."""
    made = [batch(locked_until=0 if at % 3 == 2 else NOW + 99) for at in range(9)]
    for one in made:
        stores.batches.create(one)

    found = stalled_ids(stores, NOW, page_size=1)

    assert found & {one.id for one in made} == {one.id for one in made if not one.locked_until}


def test_index_row_without_a_batch_is_removed(dynamo_stores: DynamoStores) -> None:
    """The process that created it died between its two writes."""
    batches, never_created = dynamo_stores.batches, batch()
    batches._open.put(batches._open.row(never_created.id, tenant="acme", made_at=NOW, run=1, ttl=NOW // 1000))

    def rows() -> set[str]:
        return {row.sk for row in batches._open.query(1_000)}

    batches.stalled(NOW + ORPHAN_GRACE_MS, None, 1_000)
    assert never_created.id in rows()  # its record may be about to be written
    batches.stalled(NOW + ORPHAN_GRACE_MS + 1, None, 1_000)
    assert never_created.id not in rows()


def test_batch_rows_and_options_round_trip(stores: Any) -> None:
    made = batch()
    rows = [
        Row(number=1, id="a", prompt="Zwei\u2028Zeilen\nund mehr", metadata={"x": [1, {"y": None}]}),
        Row(number=0, input={"text": "é"}, priority="high", depends_on=("a",)),
        Row(number=2, input={}),  # a row that consists of defaults only
    ]
    stores.batch_rows.put_part("acme", made.id, 0, rows)
    stores.batch_rows.put_options("acme", made.id, {"config": {"model": "gpt-4o"}, "options": {}})

    assert stores.batch_rows.get_part("acme", made.id, 0) == rows
    assert stores.batch_rows.get_part("acme", made.id, 1) is None
    assert stores.batch_rows.get_part("other", made.id, 0) is None
    assert stores.batch_rows.get_options("acme", made.id) == {"config": {"model": "gpt-4o"}, "options": {}}
    assert stores.batch_rows.get_options("acme", batch().id) is None


def test_put_export_returns_a_link_that_names_the_batch(stores: Any) -> None:
    made = batch()

    assert made.id in stores.batch_rows.put_export("acme", made.id, "export-1.csv", "a,b\r\n", "text/csv")


def test_unreadable_batch_does_not_hide_others(dynamo_stores: DynamoStores) -> None:
    broken, whole = batch(locked_until=0), batch(locked_until=0)
    for one in (broken, whole):
        dynamo_stores.batches.create(one)
    item = dynamodb.get(dynamo_stores.batches._records.items, "B#acme", broken.id)
    assert item is not None
    item.data = "{"
    dynamodb.put(item)

    seen = stalled_ids(dynamo_stores, NOW)

    assert whole.id in seen
    assert broken.id not in seen
    dynamodb.delete(item)
