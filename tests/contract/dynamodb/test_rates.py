"""The store of rates, on the twin and on moto."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.memory.rates import MemoryRates
from chalicelib.adapters.stores import DynamoStores
from chalicelib.domain.errors import StaleVersion, Unavailable
from chalicelib.domain.limits.rate_limit import LimitSource, RateLimit, configure
from chalicelib.domain.limits.sliding_window import Frame, minute_of, used
from tests.contract.conftest import LoseResponse
from tests.kit.records import NOW, new_id

MINUTE = minute_of(NOW)[0]
START = MINUTE * 60_000


def limit(**fields: Any) -> RateLimit:
    return RateLimit(**{"model": new_id(), "account": "a", "requests": 500, "seen_at": NOW, "version": 1, **fields})


def saved(stores: Any, **fields: Any) -> RateLimit:
    made = limit(**fields)
    stores.rates.save_limit(replace(made, version=0), made)
    return made


def test_what_is_taken_is_in_the_answer(stores: Any) -> None:
    model = new_id()
    stores.rates.take("a", model, 700, 2, START + 7_000)
    frames = stores.rates.take("a", model, 50, 1, START + 7_999)

    assert frames == (Frame(MINUTE).added(7, 3, 750),)
    assert stores.rates.frames("a", model, START + 8_000) == frames
    assert used(frames, START + 8_000) == (3, 750)


def test_tasks_without_tokens_count_as_requests(stores: Any) -> None:
    model = new_id()
    assert stores.rates.take("a", model, 0, 1, START)[-1].requests[0] == 1
    assert stores.rates.take("a", model, 0, 0, START)[-1].requests[0] == 1


def test_what_is_given_back_leaves_its_second(stores: Any) -> None:
    model = new_id()
    stores.rates.take("a", model, 700, 2, START + 7_000)
    stores.rates.give_back("a", model, 350, 1, START + 7_000)

    assert used(stores.rates.frames("a", model, START + 9_000), START + 9_000) == (1, 350)


def test_a_give_back_without_its_take_makes_no_room(stores: Any) -> None:
    model = new_id()
    stores.rates.give_back("a", model, 350, 1, START + 7_000)

    assert used(stores.rates.take("a", model, 10, 1, START + 9_000), START + 9_000) == (1, 10)


@pytest.mark.parametrize("name", ["gpt-4o-mini", "ft:gpt-4o-mini-2024-07-18:acme::9x/y", "o1 (preview) \u00e4#rate#"])
def test_models_accounts_and_windows_are_counted_apart(stores: Any, name: str) -> None:
    model = name + new_id()
    stores.rates.take("a", model, 1, 1, START)
    stores.rates.take("b", model, 1, 1, START)
    stores.rates.take("a", model, 1, 1, START, window=1)
    stores.rates.take("a", model + "x", 1, 1, START)

    assert used(stores.rates.frames("a", model, START), START) == (1, 1)
    assert used(stores.rates.frames("a", model, START, window=1), START) == (1, 1)


def test_the_first_second_of_a_minute_sees_the_minutes_before(stores: Any) -> None:
    model = new_id()
    stores.rates.take("a", model, 10, 1, START - 61_000)
    stores.rates.take("a", model, 20, 1, START - 1)

    frames = stores.rates.take("a", model, 30, 1, START)

    assert [frame.minute for frame in frames] == [MINUTE - 2, MINUTE - 1, MINUTE]
    assert used(frames, START) == (2, 50)


def test_the_last_seconds_of_a_minute_see_the_next(stores: Any) -> None:
    """Somebody's clock is ahead."""
    model = new_id()
    stores.rates.take("a", model, 10, 1, START + 60_000)

    frames = stores.rates.take("a", model, 20, 1, START + 59_500)

    assert [frame.minute for frame in frames] == [MINUTE + 1, MINUTE]
    assert used(frames, START + 59_500) == (2, 30)


def test_what_late_clocks_count_in_the_minute_before_is_seen(stores: Any) -> None:
    """The frame of an earlier minute is kept only when nobody counts in it any more."""
    model = new_id()
    assert used(stores.rates.take("a", model, 1, 1, START + 500), START + 500) == (1, 1)
    stores.rates.take("a", model, 1, 1, START - 100)

    assert used(stores.rates.take("a", model, 1, 1, START + 900), START + 900) == (3, 3)


def test_the_minute_before_is_read_once(dynamo_stores: DynamoStores) -> None:
    model, read = new_id(), []
    dynamo_stores.rates.take("a", model, 1, 1, START - 5_000)
    events = aws.client("dynamodb").meta.events

    def note(**_: object) -> None:
        read.append(1)

    events.register("before-call.dynamodb.Query", note)
    try:
        answers = [dynamo_stores.rates.take("a", model, 1, 1, START + 4_000 + number) for number in range(5)]
    finally:
        events.unregister("before-call.dynamodb.Query", note)

    assert [used(frames, START + 4_000)[0] for frames in answers] == [2, 3, 4, 5, 6]
    assert len(read) == 1


def test_asks_at_once_see_each_other() -> None:
    """On the twin; an ADD of DynamoDB is atomic, moto's is not."""
    rates, model = MemoryRates(), new_id()
    with ThreadPoolExecutor(8) as threads:
        sums = list(threads.map(lambda _: used(rates.take("a", model, 1, 1, START + 10_000), START + 10_000)[0], range(40)))

    assert sorted(sums) == list(range(1, 41))


def test_a_take_whose_answer_is_lost_counts_twice(stores: Any, lose_response: LoseResponse) -> None:
    model = new_id()
    with lose_response("UpdateItem"):
        frames = stores.rates.take("a", model, 10, 1, START)

    assert used(frames, START) == ((2, 20) if isinstance(stores, DynamoStores) else (1, 10))


def test_a_give_back_is_never_repeated(dynamo_stores: DynamoStores) -> None:
    """Taken off twice it would make room that there is not."""
    model, sent = new_id(), []
    dynamo_stores.rates.take("a", model, 10, 2, START)
    events = aws.client("dynamodb", attempts=1).meta.events

    def fail(request: Any, **_: object) -> None:
        sent.append(request.url)
        raise ConnectionError

    events.register("before-send.dynamodb.UpdateItem", fail)
    try:
        with pytest.raises((Unavailable, ConnectionError)):
            dynamo_stores.rates.give_back("a", model, 10, 1, START)
    finally:
        events.unregister("before-send.dynamodb.UpdateItem", fail)

    assert len(sent) == 1


def test_a_full_frame_is_one_unit(dynamo_stores: DynamoStores) -> None:
    """At 10,000 requests and 20 million tokens a minute."""
    from bench.units import item_bytes

    model = new_id()
    for second in range(60):
        dynamo_stores.rates.take("a" * 12, model, 333_333, 167, START + 1_000 * second)

    key = {"pk": {"S": f"rate#{'a' * 12}#{model}#0"}, "sk": {"S": str(MINUTE)}}
    assert item_bytes(aws.client("dynamodb").get_item(TableName="headrace-dev-coordination", Key=key)["Item"]) <= 1_024


def test_limits_round_trip(stores: Any) -> None:
    made = saved(
        stores,
        tokens=30_000,
        source=LimitSource.MESSAGE,
        remaining=0.15,
        blocked_until=NOW + 5,
        factor=1 / 3,
        refused_at=NOW,
        refusals=2,
        configured_tokens=9,
        windows=2,
        counts_used=True,
    )

    assert stores.rates.limit("a", made.model) == made
    assert made in stores.rates.limits()
    assert stores.rates.limit("b", made.model) is None


def test_limits_of_two_writers_do_not_overwrite_each_other(stores: Any) -> None:
    seen = saved(stores)
    one, two = configure(seen, 10, None), configure(seen, 20, None)
    stores.rates.save_limit(seen, one)

    with pytest.raises(StaleVersion) as refused:
        stores.rates.save_limit(seen, two)

    assert refused.value.current == one
    assert stores.rates.limit("a", seen.model) == one


def test_the_first_writer_of_a_limit_wins(stores: Any) -> None:
    made = saved(stores)

    with pytest.raises(StaleVersion) as refused:
        stores.rates.save_limit(replace(made, version=0), replace(made, requests=7))

    assert refused.value.current == made


def test_saving_succeeds_when_its_response_is_lost(stores: Any, lose_response: LoseResponse) -> None:
    made = limit()
    with lose_response("PutItem"):
        stores.rates.save_limit(replace(made, version=0), made)
    changed = configure(made, 10, None)
    with lose_response("UpdateItem"):
        stores.rates.save_limit(made, changed)
    stores.rates.save_limit(made, changed)

    assert stores.rates.limit("a", made.model) == changed


def test_saving_does_not_recreate_an_expired_limit(stores: Any) -> None:
    gone = limit(version=7)

    with pytest.raises(StaleVersion) as refused:
        stores.rates.save_limit(gone, configure(gone, 10, None))

    assert refused.value.current is None
