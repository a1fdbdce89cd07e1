"""Job records: compare-and-swap, and creation that happens once, on the twin and on moto."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from moto.dynamodb.models import DynamoDBBackend

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.stores import DynamoStores
from chalicelib.domain.errors import DedupeConflict, IdempotencyKeyTaken, StaleVersion
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.ports import IdempotencyRecord, IdempotentResult
from tests.contract.conftest import LoseResponse
from tests.kit.records import DAY, NOW, full_job, job, new_id

ODD = "\x00 emoji 👩‍👩‍👧 \u202eright to left עברית \U0010ffff combining é"


def idempotency(key: str, **changes: Any) -> IdempotencyRecord:
    return IdempotencyRecord(
        **({"scope": "acme#POST /jobs", "key": key, "fingerprint": "f1", "expires_at": NOW + DAY, "position": 7} | changes)
    )


def changed(seen: Job, **changes: Any) -> Job:
    return replace(seen, version=seen.version + 1, **changes)


@pytest.mark.parametrize("given", [job(), full_job(), job(tenant=ODD, user="", reason=ODD, tags=(ODD, "b", "a", "b"), length=0, cost=0)])
def test_job_record_round_trips(stores: Any, given: Job) -> None:
    """Every field keeps its characters, and zero stays different from None."""
    stores.jobs.create(given)

    assert stores.jobs.get(given.id) == given


def test_missing_job_is_none_or_left_out(stores: Any) -> None:
    there = job()
    stores.jobs.create(there)

    assert stores.jobs.get("job_none") is None
    assert stores.jobs.get_many(["job_none", there.id]) == [there]
    assert stores.jobs.get_many([]) == []


def test_get_many_keeps_the_requested_order(stores: Any) -> None:
    """More ids than one request takes, one of them twice."""
    jobs = [job() for _ in range(120)]
    for each in jobs:
        stores.jobs.create(each)
    wanted = [*reversed(jobs), jobs[3]]

    assert stores.jobs.get_many([each.id for each in wanted]) == wanted


def test_replace_is_refused_when_the_version_is_stale(stores: Any) -> None:
    """The loser is given the stored record, so it can decide again without a read."""
    first = job()
    stores.jobs.create(first)
    winner, loser = changed(first, owner="a"), changed(first, owner="b")
    stores.jobs.replace(first, winner)

    with pytest.raises(StaleVersion) as refused:
        stores.jobs.replace(first, loser)

    assert refused.value.current == winner
    assert stores.jobs.get(first.id) == winner


def test_replace_never_creates_a_job(stores: Any) -> None:
    """A worker may write late, after retention deleted the job."""
    gone = job()

    with pytest.raises(StaleVersion) as refused:
        stores.jobs.replace(gone, changed(gone))

    assert refused.value.current is None
    assert stores.jobs.get(gone.id) is None


def test_replace_succeeds_when_its_response_is_lost(stores: Any, lose_response: LoseResponse) -> None:
    """A retry by the SDK or by the caller recognises its own write."""
    first = full_job(status=Status.PROCESSING)
    stores.jobs.create(first)
    second = changed(first, owner="me", tags=("x",))

    with lose_response("UpdateItem"):
        stores.jobs.replace(first, second)
    stores.jobs.replace(first, second)

    assert stores.jobs.get(first.id) == second


def test_replace_removes_attributes_that_became_none(dynamo_stores: DynamoStores) -> None:
    """DynamoDB refuses a NULL as an index key."""
    first = job(status=Status.PROCESSING, started_at=NOW, reason="because")
    dynamo_stores.jobs.create(first)

    dynamo_stores.jobs.replace(first, changed(first, status=Status.COMPLETED, due_at=None, reason=None))

    raw = aws.client("dynamodb").get_item(TableName="headrace-dev-jobs", Key={"id": {"S": first.id}})["Item"]
    assert not {"due_at", "reason", "g_s", "g_sk", "g_d"} & set(raw)
    assert not [name for name, value in raw.items() if "NULL" in value]


def test_replace_keeps_unknown_attributes(dynamo_stores: DynamoStores) -> None:
    """During a deployment an older worker changes job records that a newer one wrote."""
    first = job()
    dynamo_stores.jobs.create(first)
    client, name, key = aws.client("dynamodb"), "headrace-dev-jobs", {"id": {"S": first.id}}
    client.update_item(TableName=name, Key=key, UpdateExpression="SET of_tomorrow = :x", ExpressionAttributeValues={":x": {"S": "y"}})

    dynamo_stores.jobs.replace(first, changed(first))

    assert client.get_item(TableName=name, Key=key)["Item"]["of_tomorrow"] == {"S": "y"}


def test_create_succeeds_when_its_response_is_lost(stores: Any, lose_response: LoseResponse) -> None:
    """A repeated create leaves a job alone that has changed meanwhile."""
    first = job()
    with lose_response("PutItem"):
        stores.jobs.create(first)
    stores.jobs.replace(first, changed(first))

    stores.jobs.create(first)

    assert stores.jobs.get(first.id) == changed(first)


def test_transactional_create_succeeds_when_its_response_is_lost(stores: Any, lose_response: LoseResponse) -> None:
    """All three rows show that this call created them."""
    first = job(dedupe_key=new_id())
    row = idempotency(new_id())
    with lose_response("TransactWriteItems"):
        stores.jobs.create(first, row)

    stores.jobs.create(first, row)

    assert stores.jobs.get(first.id) == first


def test_idempotency_key_creates_one_job(stores: Any) -> None:
    """A refused creation leaves no job record behind."""
    first, second, row = job(), job(), idempotency(ODD + new_id())
    stores.jobs.create(first, row)

    with pytest.raises(IdempotencyKeyTaken):
        stores.jobs.create(second, row)

    assert stores.jobs.get(second.id) is None
    assert stores.jobs.get_idempotency(row.scope, row.key, NOW) == IdempotentResult(job_id=first.id, fingerprint="f1", position=7)
    assert stores.jobs.get_idempotency("other#POST /jobs", row.key, NOW) is None


def test_expired_idempotency_key_can_be_reused(stores: Any) -> None:
    """The key expires at once, though the TTL may remove its row two days later."""
    row = idempotency(new_id())
    stores.jobs.create(job(), row)
    later = job(created_at=row.expires_at)

    assert stores.jobs.get_idempotency(row.scope, row.key, row.expires_at - 1) is not None
    assert stores.jobs.get_idempotency(row.scope, row.key, row.expires_at) is None
    stores.jobs.create(later, idempotency(row.key, expires_at=row.expires_at + DAY))
    assert stores.jobs.get_idempotency(row.scope, row.key, row.expires_at).job_id == later.id


def test_idempotency_key_is_taken_until_its_expiry(stores: Any) -> None:
    row = idempotency(new_id())
    stores.jobs.create(job(), row)

    with pytest.raises(IdempotencyKeyTaken):
        stores.jobs.create(job(created_at=row.expires_at - 1), row)


def test_idempotency_key_can_be_saved_for_an_existing_job(stores: Any, lose_response: LoseResponse) -> None:
    """The same request succeeds again; another request is refused and changes nothing."""
    first, row = job(), idempotency(ODD + new_id(), position=0, generation=4)
    stores.jobs.create(first)

    with lose_response("PutItem"):
        stores.jobs.save_idempotency(row, first.id, NOW)
    stores.jobs.save_idempotency(row, first.id, NOW)

    for other, of in ((replace(row, generation=5), first.id), (row, job().id), (replace(row, fingerprint="f2"), first.id)):
        with pytest.raises(IdempotencyKeyTaken):
            stores.jobs.save_idempotency(other, of, NOW)
    with pytest.raises(IdempotencyKeyTaken):
        stores.jobs.create(job(), row)
    assert stores.jobs.get_idempotency(row.scope, row.key, NOW) == IdempotentResult(job_id=first.id, fingerprint="f1", generation=4)
    stores.jobs.save_idempotency(replace(row, generation=5), first.id, row.expires_at)


def test_dedupe_keys_are_separate_for_each_user(stores: Any) -> None:
    key = new_id()
    anns, bobs = job(dedupe_key=key), job(dedupe_key=key, user="bob")

    for each in (anns, bobs):
        stores.jobs.create(each)

    assert [stores.jobs.get_by_dedupe_key("acme", user, key) for user in ("ann", "bob", "cid")] == [anns.id, bobs.id, None]


def test_dedupe_pointer_is_replaced_only_from_the_expected_job(stores: Any) -> None:
    """Of two callers that replace the same ended job, the second is refused."""
    key = ODD + new_id()
    ended, second, third = job(dedupe_key=key), job(dedupe_key=key), job(dedupe_key=key)
    stores.jobs.create(ended)
    with pytest.raises(DedupeConflict):
        stores.jobs.create(second)
    stores.jobs.create(second, replaces=ended.id)

    with pytest.raises(DedupeConflict):
        stores.jobs.create(third, replaces=ended.id)

    assert stores.jobs.get_by_dedupe_key("acme", second.user, key) == second.id
    assert stores.jobs.get(third.id) is None
    assert stores.jobs.get_by_dedupe_key("other", second.user, key) is None


def test_missing_dedupe_pointer_does_not_block_a_creation(stores: Any) -> None:
    """`replaces` names the job that the pointer had when it was read."""
    only = job(dedupe_key=new_id())

    stores.jobs.create(only, replaces="job_forgotten")

    assert stores.jobs.get_by_dedupe_key("acme", only.user, only.dedupe_key or "") == only.id


def test_idempotency_conflict_is_reported_before_a_dedupe_conflict(stores: Any) -> None:
    """A repeated request meets both of its own rows and must be answered as a repetition."""
    key, row = new_id(), idempotency(new_id())
    stores.jobs.create(job(dedupe_key=key), row)

    with pytest.raises(IdempotencyKeyTaken):
        stores.jobs.create(job(dedupe_key=key), row)


def test_one_of_many_concurrent_replaces_wins(stores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """DynamoDB's updates are atomic. Those of moto are not among threads, nor are its transactions."""
    lock, update = threading.Lock(), DynamoDBBackend.update_item

    def atomic(*args: Any, **named: Any) -> Any:
        with lock:
            return update(*args, **named)

    monkeypatch.setattr(DynamoDBBackend, "update_item", atomic)
    seen = job()
    stores.jobs.create(seen)

    def swap(owner: str) -> bool:
        try:
            stores.jobs.replace(seen, changed(seen, owner=owner))
        except StaleVersion:
            return False
        return True

    with ThreadPoolExecutor(12) as threads:
        won = list(threads.map(swap, [f"owner {number}" for number in range(12)]))

    assert won.count(True) == 1
    assert stores.jobs.get(seen.id).owner == f"owner {won.index(True)}"
