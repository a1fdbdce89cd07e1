"""Job records: compare-and-swap, and creation that happens once, on the twin and on moto."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.stores import DynamoStores
from chalicelib.domain.errors import DedupeConflict, IdempotencyKeyTaken, StaleVersion
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.ports import IdempotencyRecord, IdempotentResult
from tests.contract.conftest import Lost
from tests.contract.given import DAY, NOW, full_job, job, new_id

ODD = "\x00 emoji 👩‍👩‍👧 \u202eright to left עברית \U0010ffff combining é"


def idempotency(key: str, **changes: Any) -> IdempotencyRecord:
    return IdempotencyRecord(
        **({"scope": "acme#POST /jobs", "key": key, "fingerprint": "f1", "expires_at": NOW + DAY, "position": 7} | changes)
    )


def changed(seen: Job, **changes: Any) -> Job:
    return replace(seen, version=seen.version + 1, **changes)


@pytest.mark.parametrize("given", [job(), full_job(), job(tenant=ODD, user="", reason=ODD, tags=(ODD, "b", "a", "b"), length=0, cost=0)])
def test_a_head_comes_back_as_it_was_put(stores: Any, given: Job) -> None:
    """Every field, whatever its characters, zero told apart from None."""
    stores.jobs.create(given)

    assert stores.jobs.get(given.id) == given


def test_a_job_that_is_not_there(stores: Any) -> None:
    """Absent jobs are None and are left out, not errors."""
    there = job()
    stores.jobs.create(there)

    assert stores.jobs.get("job_none") is None
    assert stores.jobs.get_many(["job_none", there.id]) == [there]
    assert stores.jobs.get_many([]) == []


def test_many_heads_keep_the_order_asked_for(stores: Any) -> None:
    """More than one request's worth of ids, one of them twice."""
    jobs = [job() for _ in range(120)]
    for each in jobs:
        stores.jobs.create(each)
    wanted = [*reversed(jobs), jobs[3]]

    assert stores.jobs.get_many([each.id for each in wanted]) == wanted


def test_a_swap_is_refused_when_the_version_moved_on(stores: Any) -> None:
    """The loser is told what is there, so it decides anew without another read."""
    first = job()
    stores.jobs.create(first)
    winner, loser = changed(first, owner="a"), changed(first, owner="b")
    stores.jobs.replace(first, winner)

    with pytest.raises(StaleVersion) as refused:
        stores.jobs.replace(first, loser)

    assert refused.value.current == winner
    assert stores.jobs.get(first.id) == winner


def test_a_swap_never_makes_a_job(stores: Any) -> None:
    """A late write after retention deleted the job leaves no ghost."""
    gone = job()

    with pytest.raises(StaleVersion) as refused:
        stores.jobs.replace(gone, changed(gone))

    assert refused.value.current is None
    assert stores.jobs.get(gone.id) is None


def test_a_swap_whose_answer_was_lost_succeeds(stores: Any, answer_lost: Lost) -> None:
    """The SDK repeats it and meets its own write; so does a caller who repeats it."""
    first = full_job(status=Status.PROCESSING)
    stores.jobs.create(first)
    second = changed(first, owner="me", tags=("x",))

    with answer_lost("UpdateItem"):
        stores.jobs.replace(first, second)
    stores.jobs.replace(first, second)

    assert stores.jobs.get(first.id) == second


def test_a_swap_removes_what_is_no_longer_said(dynamo_stores: DynamoStores) -> None:
    """An attribute that became None is gone, not a NULL: an index refuses a key that is one."""
    first = job(status=Status.PROCESSING, started_at=NOW, reason="because")
    dynamo_stores.jobs.create(first)

    dynamo_stores.jobs.replace(first, changed(first, status=Status.COMPLETED, due_at=None, reason=None))

    raw = aws.client("dynamodb").get_item(TableName="headrace-dev-jobs", Key={"id": {"S": first.id}})["Item"]
    assert not {"due_at", "reason", "g_s", "g_sk", "g_d"} & set(raw)
    assert not [name for name, value in raw.items() if "NULL" in value]


def test_a_swap_leaves_alone_what_this_version_does_not_know(dynamo_stores: DynamoStores) -> None:
    """During a deployment an older worker changes heads that a newer one wrote."""
    first = job()
    dynamo_stores.jobs.create(first)
    client, name, key = aws.client("dynamodb"), "headrace-dev-jobs", {"id": {"S": first.id}}
    client.update_item(TableName=name, Key=key, UpdateExpression="SET of_tomorrow = :x", ExpressionAttributeValues={":x": {"S": "y"}})

    dynamo_stores.jobs.replace(first, changed(first))

    assert client.get_item(TableName=name, Key=key)["Item"]["of_tomorrow"] == {"S": "y"}


def test_a_creation_whose_answer_was_lost_succeeds(stores: Any, answer_lost: Lost) -> None:
    """Plain creation: one put, repeated by the SDK and by the caller; a job that went on meanwhile is left alone."""
    first = job()
    with answer_lost("PutItem"):
        stores.jobs.create(first)
    stores.jobs.replace(first, changed(first))

    stores.jobs.create(first)

    assert stores.jobs.get(first.id) == changed(first)


def test_a_creation_in_a_transaction_whose_answer_was_lost_succeeds(stores: Any, answer_lost: Lost) -> None:
    """With idempotency row and dedupe pointer, too: all three rows say that it was this creation."""
    first = job(dedupe_key=new_id())
    row = idempotency(new_id())
    with answer_lost("TransactWriteItems"):
        stores.jobs.create(first, row)

    stores.jobs.create(first, row)

    assert stores.jobs.get(first.id) == first


def test_an_idempotency_key_stands_for_one_job(stores: Any) -> None:
    """The second creation is refused whole: no head of it is left behind."""
    first, second, row = job(), job(), idempotency(ODD + new_id())
    stores.jobs.create(first, row)

    with pytest.raises(IdempotencyKeyTaken):
        stores.jobs.create(second, row)

    assert stores.jobs.get(second.id) is None
    assert stores.jobs.get_idempotency(row.scope, row.key, NOW) == IdempotentResult(job_id=first.id, fingerprint="f1", position=7)
    assert stores.jobs.get_idempotency("other#POST /jobs", row.key, NOW) is None


def test_an_idempotency_key_can_be_used_again_when_it_has_expired(stores: Any) -> None:
    """At its expiry the row stops counting at once, though TTL may leave it there for two days."""
    row = idempotency(new_id())
    stores.jobs.create(job(), row)
    later = job(created_at=row.expires_at)

    assert stores.jobs.get_idempotency(row.scope, row.key, row.expires_at - 1) is not None
    assert stores.jobs.get_idempotency(row.scope, row.key, row.expires_at) is None
    stores.jobs.create(later, idempotency(row.key, expires_at=row.expires_at + DAY))
    assert stores.jobs.get_idempotency(row.scope, row.key, row.expires_at).job_id == later.id


def test_an_idempotency_key_counts_to_the_last_millisecond(stores: Any) -> None:
    """Just before its expiry it is still taken."""
    row = idempotency(new_id())
    stores.jobs.create(job(), row)

    with pytest.raises(IdempotencyKeyTaken):
        stores.jobs.create(job(created_at=row.expires_at - 1), row)


def test_a_key_can_stand_for_a_job_that_is_there_already(stores: Any, answer_lost: Lost) -> None:
    """As for a job that the request made: its repetition succeeds, another request is refused and changes nothing."""
    first, row = job(), idempotency(ODD + new_id(), position=0, generation=4)
    stores.jobs.create(first)

    with answer_lost("PutItem"):
        stores.jobs.save_idempotency(row, first.id, NOW)
    stores.jobs.save_idempotency(row, first.id, NOW)

    for other, of in ((replace(row, generation=5), first.id), (row, job().id), (replace(row, fingerprint="f2"), first.id)):
        with pytest.raises(IdempotencyKeyTaken):
            stores.jobs.save_idempotency(other, of, NOW)
    with pytest.raises(IdempotencyKeyTaken):
        stores.jobs.create(job(), row)
    assert stores.jobs.get_idempotency(row.scope, row.key, NOW) == IdempotentResult(job_id=first.id, fingerprint="f1", generation=4)
    stores.jobs.save_idempotency(replace(row, generation=5), first.id, row.expires_at)


def test_users_have_dedupe_keys_of_their_own(stores: Any) -> None:
    """The same key of another user of the tenant points at another job."""
    key = new_id()
    anns, bobs = job(dedupe_key=key), job(dedupe_key=key, user="bob")

    for each in (anns, bobs):
        stores.jobs.create(each)

    assert [stores.jobs.get_by_dedupe_key("acme", user, key) for user in ("ann", "bob", "cid")] == [anns.id, bobs.id, None]


def test_a_dedupe_pointer_is_taken_over_only_from_the_job_it_named(stores: Any) -> None:
    """Two who replace the same ended job at once: the second is refused, and finds the first's."""
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


def test_a_pointer_that_has_vanished_is_no_obstacle(stores: Any) -> None:
    """`replaces` names the job that the pointer had when it was read; nothing there now is as good."""
    only = job(dedupe_key=new_id())

    stores.jobs.create(only, replaces="job_forgotten")

    assert stores.jobs.get_by_dedupe_key("acme", only.user, only.dedupe_key or "") == only.id


def test_a_taken_idempotency_key_is_named_before_a_taken_pointer(stores: Any) -> None:
    """A repeated request meets both of its own rows; it must be answered as a repetition."""
    key, row = new_id(), idempotency(new_id())
    stores.jobs.create(job(dedupe_key=key), row)

    with pytest.raises(IdempotencyKeyTaken):
        stores.jobs.create(job(dedupe_key=key), row)


def test_of_many_swaps_at_the_same_moment_one_wins(stores: Any) -> None:
    """The stores are called from a pool of threads. (Creation in a transaction cannot be tried so: moto's are not atomic among threads.)"""
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
