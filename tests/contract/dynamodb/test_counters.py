"""The store of counters and marks, on the twin and on moto."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.metrics.counters import CounterIncrement, CountMark
from chalicelib.ports import MarkUpdate
from chalicelib.ports.counters import VERSION
from tests.contract.conftest import LoseResponse
from tests.kit.records import NOW, new_id

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
