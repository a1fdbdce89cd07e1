"""Deleting and editing a job in the stores, on the twins and on moto."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.jobs.item import item_of
from chalicelib.adapters.stores import DynamoStores
from chalicelib.domain.errors import StaleVersion, Throttled
from chalicelib.domain.execution.result import Result
from chalicelib.domain.execution.transcript import Chunk
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.streaming.subscriptions import Subscription
from infra.naming import bucket_name
from tests.contract.conftest import ACCOUNT, STAGE, LoseResponse
from tests.kit.records import NOW, full_job, incompressible_text, job, job_spec, new_id

TTL = NOW // 1000 + 600
SPEC = job_spec(metadata={"n": 0})


def store_everything(stores: Any, job_id: str, text: str = "Hello.", prompt: str = "Say hello.") -> None:
    """Store everything that a job has beside its record: sixty chunks, two results, a spec, a subscription, controls."""
    stores.job_specs.put(job_id, "acme", replace(SPEC, prompt=prompt), TTL)
    for start in range(60):
        stores.chunks.append(Chunk(job_id=job_id, attempt=1, start=start, text="x", at=NOW, ttl=TTL))
    for attempt in (1, 2):
        stores.results.put(Result(job_id=job_id, attempt=attempt, text=text, parsed={"said": text}, ttl=TTL), "acme")
    stores.subscriptions.add(
        Subscription(
            job_id=job_id,
            connection_id="c1",
            endpoint="https://ws",
            key_hash="h",
            attempt=1,
            offset=0,
            subscription_id="1",
            expires_at=NOW + 60_000,
        )
    )


def stored_data(stores: Any, job_id: str) -> list[object]:
    found = [
        stores.job_specs.get(job_id),
        stores.chunks.read(job_id, 1),
        stores.results.attempts(job_id),
        stores.subscriptions.for_job(job_id),
    ]
    return [one for one in [*found, stores.subscriptions.controls([job_id])] if one]


def objects() -> list[str]:
    listed = aws.client("s3").list_objects_v2(Bucket=bucket_name(STAGE, ACCOUNT)).get("Contents", [])
    return [found["Key"] for found in listed]


# ---- job records


def test_delete_requires_the_current_job_version(stores: Any) -> None:
    """A repeated delete of the same version succeeds."""
    seen = full_job()
    stores.jobs.create(seen)
    later = replace(seen, version=seen.version + 1, cost=1)
    stores.jobs.replace(seen, later)

    with pytest.raises(StaleVersion) as refused:
        stores.jobs.delete(seen)
    assert refused.value.current == later
    stores.jobs.delete(later)
    stores.jobs.delete(later)

    assert stores.jobs.get(seen.id) is None


def test_delete_succeeds_when_its_response_is_lost(stores: Any, lose_response: LoseResponse) -> None:
    seen = full_job()
    stores.jobs.create(seen)

    with lose_response("DeleteItem"):
        stores.jobs.delete(seen)

    assert stores.jobs.get(seen.id) is None


def test_late_replace_does_not_recreate_a_deleted_job(stores: Any) -> None:
    """Protocol rule 25: no unconditional update of a record."""
    seen = full_job(status=Status.PROCESSING, finished_at=None, ttl=None, due_at=NOW)
    stores.jobs.create(seen)
    stores.jobs.delete(seen)

    for change in ({"status": Status.COMPLETED}, {"cancel_requested": True}, {"due_at": NOW + 1}):
        with pytest.raises(StaleVersion) as refused:
            stores.jobs.replace(seen, replace(seen, version=seen.version + 1, **change))
        assert refused.value.current is None

    assert stores.jobs.get(seen.id) is None
    assert seen.id not in stores.jobs.due(None, NOW + 10, 100)


# ---- job data


def test_delete_all_removes_the_data_of_one_job_only(stores: Any) -> None:
    gone, stays = new_id(), new_id()
    for job_id in (gone, stays):
        store_everything(stores, job_id)

    stores.job_data.delete_all(gone, "acme")
    stores.job_data.delete_all(gone, "acme")

    assert stored_data(stores, gone) == []
    assert len(stored_data(stores, stays)) == 5


def test_delete_all_removes_large_texts(stores: Any) -> None:
    gone, stays, text = new_id(), new_id(), incompressible_text(60_000)
    for job_id in (gone, stays):
        store_everything(stores, job_id, text=text, prompt=text)

    stores.job_data.delete_all(gone, "acme")

    assert stored_data(stores, gone) == []
    assert stores.results.get(stays, 2).text == text
    assert stores.job_specs.get(stays).prompt == text


def test_delete_all_removes_objects_without_a_row(dynamo_stores: DynamoStores) -> None:
    """A worker died after it put the object and before it wrote the row."""
    job_id = new_id()
    store_everything(dynamo_stores, job_id, text=incompressible_text(60_000))
    for attempt in (1, 2):
        dynamodb.delete(dynamo_stores.results._items(job_id, f"result#{attempt:04}"))
    assert any(job_id in key for key in objects())

    dynamo_stores.job_data.delete_all(job_id, "acme")

    assert not any(job_id in key for key in objects())


def test_batch_delete_retries_unprocessed_items(dynamo_stores: DynamoStores) -> None:
    items = [item_of(dynamo_stores.jobs._jobs, job()) for _ in range(30)]
    for item in items:
        dynamodb.put(item)
    pauses: list[float] = []

    def leave_out_two(parsed: Any, **_: Any) -> None:
        if len(pauses) < 2:
            [(table, _requests)] = sent[-1].items()
            parsed["UnprocessedItems"] = {table: _requests[:2]}

    sent: list[Any] = []
    events = aws.client("dynamodb").meta.events
    record_request = lambda params, **_: sent.append(params["RequestItems"])  # noqa: E731
    events.register("provide-client-params.dynamodb.BatchWriteItem", record_request)
    events.register("after-call.dynamodb.BatchWriteItem", leave_out_two)
    try:
        dynamodb.batch_delete(items, pauses.append)
    finally:
        events.unregister("provide-client-params.dynamodb.BatchWriteItem", record_request)
        events.unregister("after-call.dynamodb.BatchWriteItem", leave_out_two)

    assert len(pauses) == 2
    assert [dynamo_stores.jobs.get(item.id) for item in items] == [None] * 30


def test_batch_delete_raises_throttled_when_items_stay_unprocessed(dynamo_stores: DynamoStores) -> None:
    item = item_of(dynamo_stores.jobs._jobs, job())

    def leave_out_all(parsed: Any, **_: Any) -> None:
        key = {"DeleteRequest": {"Key": {"id": {"S": item.id}}}}
        parsed["UnprocessedItems"] = {dynamodb.table_name(STAGE, "jobs"): [key]}

    events = aws.client("dynamodb").meta.events
    events.register("after-call.dynamodb.BatchWriteItem", leave_out_all)
    try:
        with pytest.raises(Throttled):
            dynamodb.batch_delete([item], lambda _: None)
    finally:
        events.unregister("after-call.dynamodb.BatchWriteItem", leave_out_all)


# ---- specs


def test_job_spec_replace_keeps_the_highest_version(stores: Any) -> None:
    job_id = new_id()
    stores.job_specs.put(job_id, "acme", SPEC, TTL)

    stores.job_specs.replace(job_id, "acme", replace(SPEC, metadata={"n": 2}), 2)
    assert stores.job_specs.get(job_id).metadata == {"n": 2}
    stores.job_specs.replace(job_id, "acme", replace(SPEC, metadata={"n": 1}), 1)

    assert stores.job_specs.get(job_id).metadata == {"n": 2}


def test_job_spec_replace_survives_a_lost_response_and_refuses_a_rival(stores: Any, lose_response: LoseResponse) -> None:
    """The rival writes another spec at the same version."""
    job_id = new_id()
    stores.job_specs.put(job_id, "acme", SPEC, TTL)

    with lose_response("UpdateItem"):
        stores.job_specs.replace(job_id, "acme", replace(SPEC, metadata={"n": 2}), 2)
    with pytest.raises(StaleVersion):
        stores.job_specs.replace(job_id, "acme", replace(SPEC, metadata={"n": 3}), 2)

    assert stores.job_specs.get(job_id).metadata == {"n": 2}


def test_large_job_spec_is_replaced(stores: Any) -> None:
    """A rival at the same version is refused here, too."""
    job_id, large = new_id(), replace(SPEC, prompt=incompressible_text(60_000))
    stores.job_specs.put(job_id, "acme", large, TTL)

    stores.job_specs.replace(job_id, "acme", replace(large, metadata={"n": 2}), 2)
    with pytest.raises(StaleVersion):
        stores.job_specs.replace(job_id, "acme", replace(large, metadata={"n": 3}), 2)

    assert stores.job_specs.get(job_id) == replace(large, metadata={"n": 2})


def test_replace_and_extend_ttl_do_not_create_a_job_spec(stores: Any) -> None:
    """A late call must not recreate a deleted job spec."""
    job_id = new_id()

    stores.job_specs.replace(job_id, "acme", SPEC, 2)

    assert not stores.job_specs.extend_ttl(job_id, TTL)
    assert stores.job_specs.get(job_id) is None


def test_job_spec_ttl_is_extended_but_never_shortened(dynamo_stores: DynamoStores) -> None:
    job_id = new_id()
    dynamo_stores.job_specs.put(job_id, "acme", SPEC, TTL)

    for until in (TTL + 50, TTL + 9):
        assert dynamo_stores.job_specs.extend_ttl(job_id, until)
    dynamo_stores.job_specs.replace(job_id, "acme", SPEC, 2)

    item = dynamodb.get(dynamo_stores.job_specs._items, job_id, "spec")
    assert item is not None
    assert item.ttl == TTL + 50
