"""The store of counters and marks, on the twin and on moto."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.dynamodb.client import CONFLICT_TRIES
from chalicelib.adapters.dynamodb.counters import DynamoCounters
from chalicelib.adapters.stores import DynamoStores
from chalicelib.domain.batches.counters import counter_key
from chalicelib.domain.errors import StaleVersion, Throttled
from chalicelib.domain.ids import job_id_of_row
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.metrics.counters import CounterIncrement, CountMark
from chalicelib.ports import MarkUpdate
from chalicelib.ports.counters import VERSION, WRITERS
from chalicelib.services.metrics.count_jobs import count_jobs
from tests.contract.conftest import STAGE, LoseResponse
from tests.kit.batch_records import BATCH
from tests.kit.dynamodb import failing_requests
from tests.kit.failing_store import refusing
from tests.kit.jobs import job
from tests.kit.records import NOW, new_id
from tests.kit.world import World

TTL = NOW // 1000 + 86_400


def marked(job_id: str, version: int, seen: int = 0, **counted: Any) -> MarkUpdate:
    return MarkUpdate(CountMark(job_id=job_id, version=seen), CountMark(job_id=job_id, version=version, counted=counted), TTL)


def add(key: tuple[str, str], **amounts: int) -> CounterIncrement:
    return CounterIncrement(key=key, amounts=amounts, ttl=TTL)


@pytest.fixture
def key() -> tuple[str, str]:
    return f"C#{new_id()}", "counts"


def test_mark_and_counters_are_written_together(stores: Any, key: tuple[str, str]) -> None:
    job_id = new_id()

    stores.counters.increment([marked(job_id, 3, what={"as": "queued"})], [add(key, queued=1, cost=5)])

    assert stores.counters.marks([job_id, new_id()]) == {job_id: CountMark(job_id=job_id, version=3, counted={"what": {"as": "queued"}})}
    assert stores.counters.get([key, ("C#none", "counts")]) == {key: {"queued": 1, "cost": 5, VERSION: 1}}


def test_one_stale_mark_cancels_the_whole_increment(stores: Any, key: tuple[str, str]) -> None:
    counted, other = new_id(), new_id()
    stores.counters.increment([marked(counted, 3)], [add(key, n=1)])

    with pytest.raises(StaleVersion):
        stores.counters.increment([marked(other, 1), marked(counted, 4, seen=2)], [add(key, n=10)])
    with pytest.raises(StaleVersion):
        stores.counters.increment([marked(counted, 3)], [add(key, n=10)])

    assert stores.counters.marks([other]) == {}
    assert stores.counters.get([key])[key]["n"] == 1


def test_next_increment_continues_from_the_stored_mark(stores: Any, key: tuple[str, str]) -> None:
    job_id = new_id()
    stores.counters.increment([marked(job_id, 3)], [add(key, queued=1)])

    stores.counters.increment([marked(job_id, 7, seen=3)], [add(key, queued=-1, completed=1)])

    assert stores.counters.get([key])[key] == {"queued": 0, "completed": 1, VERSION: 2}
    assert stores.counters.marks([job_id], consistent=True)[job_id].version == 7


def test_lost_response_does_not_count_twice(stores: Any, key: tuple[str, str], lose_response: LoseResponse) -> None:
    """DynamoDB knows the repetition by its token; on the emulator the mark refuses it."""
    job_id = new_id()
    with lose_response("TransactWriteItems"), suppress(StaleVersion):
        stores.counters.increment([marked(job_id, 1)], [add(key, n=1)])

    assert stores.counters.get([key])[key]["n"] == 1
    assert stores.counters.marks([job_id])[job_id].version == 1


def test_counters_of_a_partition_are_returned_in_key_order(stores: Any, key: tuple[str, str]) -> None:
    pk = key[0]
    stores.counters.increment([], [add((pk, "failed#0001"), r260=1), add((pk, "counts"), n=1), add((pk, "failed#0000"), r3=1)])

    assert list(stores.counters.query(pk, 10)) == ["counts", "failed#0000", "failed#0001"]
    assert list(stores.counters.query(pk, 2)) == ["counts", "failed#0000"]
    assert stores.counters.query("C#none", 2) == {}


def test_counter_overwrite_requires_the_current_version(stores: Any, key: tuple[str, str]) -> None:
    stores.counters.increment([], [add(key, n=1, gone=4)])
    seen = stores.counters.get([key])[key][VERSION]
    stores.counters.increment([], [add(key, n=1)])

    assert not stores.counters.overwrite(key, seen, {"n": 7}, TTL)
    assert stores.counters.overwrite(key, seen + 1, {"n": 7}, TTL)
    assert stores.counters.get([key])[key] == {"n": 7, VERSION: seen + 2}
    stores.counters.increment([], [add(key, n=1)])
    assert stores.counters.get([key])[key]["n"] == 8


def test_counter_overwrite_creates_a_missing_counter_once(stores: Any, key: tuple[str, str]) -> None:
    assert stores.counters.overwrite(key, 0, {"n": 2}, TTL)
    assert not stores.counters.overwrite(key, 0, {"n": 3}, TTL)


def test_increment_takes_a_hundred_marks_and_counters(stores: Any, key: tuple[str, str]) -> None:
    ids = [new_id() for _ in range(99)]

    stores.counters.increment([marked(job_id, 1) for job_id in ids], [add(key, n=99)])

    assert len(stores.counters.marks(ids)) == 99


# ---- other writers of the same items; moto lets no two requests meet, so its answers are replaced

CANCELLED = "TransactionCanceledException"


def cancelled(*codes: str, times: int = 99) -> Any:
    """Cancel the next transactions for these reasons, as DynamoDB does, without an effect."""
    return failing_requests("TransactWriteItems", CANCELLED, 400, times, CancellationReasons=[{"Code": code} for code in codes])


def test_increment_that_meets_another_transaction_is_stale_and_counts_nothing(dynamo_stores: DynamoStores, key: tuple[str, str]) -> None:
    """It is not a throttle: a moment later, or on another part of the counter, it succeeds."""
    update, increment = marked(new_id(), 1), add(key, n=1)

    with cancelled("None", "TransactionConflict") as given, pytest.raises(StaleVersion):
        dynamo_stores.counters.increment([update], [increment])
    assert (len(given), dynamo_stores.counters.get([key])) == (1, {})

    dynamo_stores.counters.increment([update], [increment], writer=3)
    assert dynamo_stores.counters.get([key])[key]["n"] == 1


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (("None", "ThrottlingError"), Throttled),
        (("TransactionConflict", "ProvisionedThroughputExceeded"), Throttled),
        (("ConditionalCheckFailed", "TransactionConflict"), StaleVersion),
        (("ConditionalCheckFailed", "ThrottlingError"), StaleVersion),
    ],
)
def test_the_kind_of_a_cancelled_increment_follows_its_reasons(
    dynamo_stores: DynamoStores, key: tuple[str, str], codes: tuple[str, ...], expected: type[Exception]
) -> None:
    with cancelled(*codes), pytest.raises(expected) as raised:
        dynamo_stores.counters.increment([marked(new_id(), 1)], [add(key, n=1)])

    assert type(raised.value) is expected


def test_an_invalid_increment_is_not_taken_for_a_conflict(dynamo_stores: DynamoStores, key: tuple[str, str]) -> None:
    """It would be repeated for ever, and its shard would wait."""
    with cancelled("None", "ValidationError") as given, pytest.raises(Exception, match=CANCELLED):
        dynamo_stores.counters.increment([marked(new_id(), 1)], [add(key, n=1)])

    assert len(given) == 1


def test_overwrite_that_meets_a_transaction_is_repeated(dynamo_stores: DynamoStores, key: tuple[str, str]) -> None:
    pauses = list[float]()
    counters = DynamoCounters(STAGE, pauses.append)

    with cancelled("None", "TransactionConflict", times=2):
        assert counters.overwrite(key, 0, {"n": 2}, TTL)
    assert len(pauses) == 2

    with cancelled("None", "TransactionConflict") as given:
        assert not counters.overwrite(key, 1, {"n": 3}, TTL)
    assert len(given) == CONFLICT_TRIES
    assert counters.get([key])[key]["n"] == 2


def test_a_counter_is_the_sum_of_what_all_writers_added(stores: Any, key: tuple[str, str]) -> None:
    """Also for the query of a partition, and in the version, which grows with each change."""
    other = key[0], "other"
    for writer in range(WRITERS + 1):
        stores.counters.increment([], [add(key, n=1, late=writer), add(other, n=2)], writer)
    stores.counters.increment([], [add(key, n=-3)], 2)

    expected = {"n": WRITERS + 1 - 3, "late": sum(range(WRITERS + 1)), VERSION: WRITERS + 2}
    assert stores.counters.get([key]) == {key: expected}
    assert stores.counters.get([other, key])[key] == expected
    assert stores.counters.query(key[0], 50) == {"counts": expected, "other": {"n": 2 * (WRITERS + 1), VERSION: WRITERS + 1}}


def test_counter_overwrite_replaces_what_all_writers_added(stores: Any, key: tuple[str, str]) -> None:
    for writer in (0, 1, 5):
        stores.counters.increment([], [add(key, n=1)], writer)
    seen = stores.counters.get([key])[key][VERSION]
    stores.counters.increment([], [add(key, n=1)], 7)

    assert not stores.counters.overwrite(key, seen, {"n": 9}, TTL)
    assert stores.counters.overwrite(key, seen + 1, {"n": 9}, TTL)
    assert stores.counters.get([key])[key] == {"n": 9, VERSION: seen + 2}
    stores.counters.increment([], [add(key, n=1)], 7)
    assert stores.counters.get([key])[key] == {"n": 10, VERSION: seen + 3}


def test_a_query_shows_no_counter_of_which_it_read_only_some_parts(stores: Any, key: tuple[str, str]) -> None:
    pk = key[0]
    stores.counters.increment([], [add((pk, "a"), n=1), add((pk, "b"), n=1)])
    for writer in range(1, 4):
        stores.counters.increment([], [add((pk, "b"), n=1)], writer)

    for limit in range(2, 6):
        found = stores.counters.query(pk, limit)
        assert found["a"]["n"] == 1
        assert "b" not in found or found["b"]["n"] == 4


@pytest.mark.parametrize("met", range(WRITERS + 1))
def test_an_overwrite_in_the_middle_of_another_change_is_refused(dynamo_stores: DynamoStores, key: tuple[str, str], met: int) -> None:
    """Between its read of the parts and its write another writer adds to any part."""
    counters = dynamo_stores.counters
    for writer in (0, 4):
        counters.increment([], [add(key, n=1)], writer)
    version = counters.get([key])[key][VERSION]
    done = []

    def meet(**_: object) -> None:
        if not done:
            done.append(met)
            counters.increment([], [add(key, n=10)], met)

    events = aws.client("dynamodb").meta.events
    events.register_first("before-call.dynamodb.TransactWriteItems", meet)
    try:
        assert not counters.overwrite(key, version, {"n": 0}, TTL)
    finally:
        events.unregister("before-call.dynamodb.TransactWriteItems", meet)

    assert counters.get([key])[key]["n"] == 12


def test_jobs_are_counted_once_although_other_writers_come_first(stores: Any) -> None:
    """Several tries are lost, and the next ones are made on other parts of the counters."""
    world = World(counters=stores.counters)
    rows = [job(id=job_id_of_row(BATCH, row), batch_id=BATCH, status=Status.COMPLETED, finished_at=1) for row in range(60)]

    def conflict() -> Any:
        if isinstance(stores, DynamoStores):
            return cancelled("None", "TransactionConflict", times=3)
        return refusing(stores.counters, "increment", 3, _Stale)

    with conflict() as given:
        assert count_jobs(world.container, rows) == []

    assert len(given) > 0
    assert stores.counters.get([counter_key(BATCH)])[counter_key(BATCH)]["completed"] == 60


class _Stale(StaleVersion):
    def __init__(self) -> None:
        super().__init__(None)
