"""Slots of concurrency limits are taken and given back with the job's record, on the twin and on moto."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from moto.dynamodb.models import DynamoDBBackend

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.stores import DynamoStores
from chalicelib.domain.errors import IdempotencyKeyTaken, SlotsFull, StaleVersion
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.transitions import AttemptOutcome
from chalicelib.ports import IdempotencyRecord
from tests.contract.conftest import LoseResponse
from tests.kit.dynamodb import failing_requests
from tests.kit.records import DAY, NOW, job, new_id

DONE = AttemptOutcome(status=Status.COMPLETED, length=0)


def stored(stores: Any, **changes: Any) -> Job:
    given = job(**changes)
    stores.jobs.create(given)
    return given


def claimed(given: Job, *slots: str) -> Job:
    after = transitions.claim(given, given.generation, f"lease#{given.id}", NOW, slots=slots)
    assert after is not None
    return after


def ended(given: Job) -> Job:
    after = transitions.finish(given, given.generation, given.owner or "", DONE, NOW)
    assert after is not None
    return after


def scope() -> str:
    return f"t:tenant {new_id()}"


def test_claim_takes_its_slots_and_the_end_gives_them_back(stores: Any) -> None:
    tenant, user = f"{scope()}#0", f"{scope()}#3"
    waiting = stored(stores)
    running = claimed(waiting, tenant, user)

    stores.jobs.replace(waiting, running, {tenant: 5, user: 1})
    assert stores.jobs.get(waiting.id).slots == (tenant, user)
    assert stores.jobs.slots_taken([tenant, user, "t:nobody#0"]) == {tenant: 1, user: 1, "t:nobody#0": 0}

    stores.jobs.replace(running, ended(running))
    assert stores.jobs.get(waiting.id) == ended(running)
    assert stores.jobs.slots_taken([tenant, user]) == {tenant: 0, user: 0}


def test_claim_is_refused_and_takes_nothing_when_one_scope_is_full(stores: Any) -> None:
    """The other scope of the refused job keeps its slot."""
    tenant, user = f"a {scope()}#0", f"b {scope()}#0"
    first, second = stored(stores), stored(stores)
    stores.jobs.replace(first, claimed(first, user), {user: 1})

    with pytest.raises(SlotsFull) as refused:
        stores.jobs.replace(second, claimed(second, tenant, user), {tenant: 5, user: 1})

    assert refused.value.scope == user.removesuffix("#0")
    assert stores.jobs.get(second.id) == second
    assert stores.jobs.slots_taken([tenant, user]) == {tenant: 0, user: 1}


def test_stale_record_is_stale_though_the_slots_are_full_too(stores: Any) -> None:
    key = f"{scope()}#0"
    first, second = stored(stores), stored(stores)
    stores.jobs.replace(first, claimed(first, key), {key: 1})
    other = claimed(second)
    stores.jobs.replace(second, other)

    with pytest.raises(StaleVersion) as stale:
        stores.jobs.replace(second, transitions.claim(second, 1, "late#1", NOW, slots=(key,)), {key: 1})

    assert stale.value.current == other
    assert stores.jobs.slots_taken([key]) == {key: 1}


def test_claim_of_the_last_slot_succeeds_when_its_response_is_lost(stores: Any, lose_response: LoseResponse) -> None:
    """Neither the SDK nor the caller, who repeat it, take a second slot, or are told that none is left."""
    key = f"{scope()}#0"
    waiting = stored(stores)
    running = claimed(waiting, key)

    with lose_response("TransactWriteItems"):
        stores.jobs.replace(waiting, running, {key: 1})
    stores.jobs.replace(waiting, running, {key: 1})
    assert stores.jobs.slots_taken([key]) == {key: 1}

    with lose_response("TransactWriteItems"):
        stores.jobs.replace(running, ended(running))
    stores.jobs.replace(running, ended(running))
    assert stores.jobs.slots_taken([key]) == {key: 0}


def test_change_that_keeps_the_slots_is_a_plain_update(dynamo_stores: DynamoStores) -> None:
    """A hand-over of a durable response keeps them, and the next claim takes no more."""
    key, jobs = f"{scope()}#0", dynamo_stores.jobs
    waiting = stored(dynamo_stores)
    running = claimed(waiting, key)
    jobs.replace(waiting, running, {key: 1})

    with failing_requests("TransactWriteItems", "ValidationException", 400) as refused:
        durable = transitions.store_response_id(running, 1, running.owner or "", "resp_1", NOW)
        assert durable is not None
        jobs.replace(running, durable)
        handed_over = transitions.hand_over(durable, 1, running.owner or "", NOW)
        assert handed_over is not None
        jobs.replace(durable, handed_over)
        resumed = claimed(handed_over, "another#0")
        jobs.replace(handed_over, resumed, {"another#0": 1})

    assert resumed.slots == (key,)
    assert not refused
    assert jobs.slots_taken([key]) == {key: 1}


def test_record_without_slots_is_changed_by_a_plain_update(dynamo_stores: DynamoStores) -> None:
    """Who has no limit pays for none."""
    waiting = stored(dynamo_stores)

    with failing_requests("TransactWriteItems", "ValidationException", 400) as refused:
        dynamo_stores.jobs.replace(waiting, claimed(waiting), {})
        dynamo_stores.jobs.replace(claimed(waiting), ended(claimed(waiting)))

    assert not refused


def test_conflicting_claim_is_repeated(dynamo_stores: DynamoStores) -> None:
    key = f"{scope()}#0"
    waiting = stored(dynamo_stores)
    reasons = [{"Code": "None"}, {"Code": "TransactionConflict"}]

    with failing_requests("TransactWriteItems", "TransactionCanceledException", 400, 2, CancellationReasons=reasons) as given:
        dynamo_stores.jobs.replace(waiting, claimed(waiting, key), {key: 1})

    assert len(given) == 2 < dynamodb.CONFLICT_TRIES
    assert dynamo_stores.jobs.slots_taken([key]) == {key: 1}


def test_slot_item_has_a_ttl_far_behind_any_attempt(dynamo_stores: DynamoStores) -> None:
    key = f"{scope()}#0"
    waiting = stored(dynamo_stores)
    dynamo_stores.jobs.replace(waiting, claimed(waiting, key), {key: 1})

    found = aws.client("dynamodb").get_item(TableName="headrace-dev-coordination", Key={"pk": {"S": f"slots#{key}"}, "sk": {"S": "n"}})
    item = found["Item"]

    assert item["n"] == {"N": "1"}
    assert int(item["ttl"]["N"]) >= NOW // 1000 + 7 * 86_400


def test_concurrent_claims_take_as_many_slots_as_there_are(stores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty workers, three slots: three claims succeed, the others are told.

    DynamoDB's transactions are isolated. Those of moto are not among threads.
    """
    lock, transact = threading.Lock(), DynamoDBBackend.transact_write_items

    def isolated(*args: Any, **named: Any) -> Any:
        with lock:
            return transact(*args, **named)

    monkeypatch.setattr(DynamoDBBackend, "transact_write_items", isolated)
    key = f"{scope()}#0"
    waiting = [stored(stores) for _ in range(20)]

    def claim(given: Job) -> bool:
        try:
            stores.jobs.replace(given, claimed(given, key), {key: 3})
        except SlotsFull:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        admitted = list(pool.map(claim, waiting))

    assert sum(admitted) == 3
    assert stores.jobs.slots_taken([key]) == {key: 3}
    assert sum(stores.jobs.get(given.id).status is Status.PROCESSING for given in waiting) == 3


ENDS: list[Callable[[Job], Job | None]] = [
    ended,
    lambda seen: transitions.retry_later(seen, 1, seen.owner or "", DONE, NOW + 1_000, NOW),
    lambda seen: transitions.hold_after_attempt(seen, 1, seen.owner or "", DONE, "rate_limited", NOW + 1_000, NOW),
    lambda seen: transitions.reclaim(seen, transitions.lease_of(seen), 0, None, NOW),
]


@pytest.mark.parametrize("end", ENDS, ids=["finish", "retry_later", "hold_after_attempt", "reclaim"])
def test_slot_is_given_back_by_whatever_ends_the_attempt(stores: Any, end: Callable[[Job], Job | None]) -> None:
    key = f"{scope()}#0"
    waiting = stored(stores)
    running = claimed(waiting, key)
    stores.jobs.replace(waiting, running, {key: 1})
    after = end(running)
    assert after is not None

    stores.jobs.replace(running, after)

    assert stores.jobs.slots_taken([key]) == {key: 0}


# ---- places in the queue of a tenant


def place(lane: str = "low") -> str:
    return f"q:{lane}#tenant {new_id()}#0"


def test_creation_takes_the_places_of_a_job_and_its_end_gives_them_back(stores: Any) -> None:
    lane, total = place(), place("total")
    waiting = job(places=(lane, total))
    stores.jobs.create(waiting, limits={lane: 2, total: 9})
    assert stores.jobs.get(waiting.id) == waiting
    assert stores.jobs.slots_taken([lane, total]) == {lane: 1, total: 1}

    stores.jobs.replace(waiting, cancelled(waiting))
    assert stores.jobs.slots_taken([lane, total]) == {lane: 0, total: 0}


def cancelled(given: Job) -> Job:
    after = transitions.cancel(given, NOW)
    assert after is not None
    assert after.places == ()
    return after


def test_creation_is_refused_and_stores_nothing_when_a_queue_is_full(stores: Any) -> None:
    """Its Idempotency-Key stays unused, so the client may send the request again."""
    lane, total = place(), place("total")
    stores.jobs.create(job(places=(lane, total)), limits={lane: 1, total: 9})
    row = IdempotencyRecord(scope="acme#POST /jobs", key=new_id(), fingerprint="f", expires_at=NOW + DAY)
    refused_job = job(places=(lane, total))

    with pytest.raises(SlotsFull) as refused:
        stores.jobs.create(refused_job, row, limits={lane: 1, total: 9})

    assert refused.value.scope == lane.removesuffix("#0")
    assert stores.jobs.get(refused_job.id) is None
    assert stores.jobs.get_idempotency(row.scope, row.key, NOW) is None
    assert stores.jobs.slots_taken([lane, total]) == {lane: 1, total: 1}


def test_repeated_creation_takes_one_place(stores: Any, lose_response: LoseResponse) -> None:
    lane = place()
    waiting = job(places=(lane,))

    with lose_response("TransactWriteItems"):
        stores.jobs.create(waiting, limits={lane: 1})
    stores.jobs.create(waiting, limits={lane: 1})

    assert stores.jobs.slots_taken([lane]) == {lane: 1}


def test_key_that_is_in_use_comes_before_a_full_queue(stores: Any) -> None:
    """A repeated request gets its job, not 429."""
    lane = place()
    row = IdempotencyRecord(scope="acme#POST /jobs", key=new_id(), fingerprint="f", expires_at=NOW + DAY)
    stores.jobs.create(job(places=(lane,)), row, limits={lane: 1})

    with pytest.raises(IdempotencyKeyTaken):
        stores.jobs.create(job(places=(lane,)), row, limits={lane: 1})


def test_change_of_lane_moves_the_place(stores: Any) -> None:
    low, high, total = place(), place("high"), place("total")
    waiting = job(places=(total, low))
    stores.jobs.create(waiting, limits={low: 2, total: 9})
    moved = replace(waiting, version=2, lane="high", places=(total, high))

    stores.jobs.replace(waiting, moved, {high: 1})

    assert stores.jobs.slots_taken([low, high, total]) == {low: 0, high: 1, total: 1}
