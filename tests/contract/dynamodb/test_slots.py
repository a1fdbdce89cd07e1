"""Slots of concurrency limits are taken and given back with the job's record, on the twin and on moto."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from moto.dynamodb.models import DynamoDBBackend

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.stores import DynamoStores
from chalicelib.domain.errors import SlotsFull, StaleVersion
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.transitions import AttemptOutcome
from tests.contract.conftest import LoseResponse
from tests.kit.dynamodb import failing_requests
from tests.kit.records import NOW, job, new_id

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
