"""Throughput statistics, read from the counters of completed jobs, on the twin and on moto."""

from __future__ import annotations

from typing import Any

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.stores import DynamoStores
from chalicelib.domain.metrics.counters import CounterIncrement, CountMark
from chalicelib.domain.metrics.throughput import MIN_SAMPLES, UNMEASURED, count_job, counter_key
from tests.contract.conftest import STAGE
from tests.kit.records import NOW, WEEK, completed_job, new_id


def count(stores: Any, adds: list[CounterIncrement]) -> None:
    """Add to counters as the consumer does: each number of a counter is an attribute."""
    if not isinstance(stores, DynamoStores):
        stores.throughput.add(adds)
        return
    for add in adds:
        names = {f"#n{index}": name for index, name in enumerate(add.amounts)}
        values = {f":v{index}": {"N": str(amount)} for index, amount in enumerate(add.amounts.values())}
        pairs = ", ".join(f"#n{index} :v{index}" for index in range(len(add.amounts)))
        aws.client("dynamodb").update_item(
            TableName=f"headrace-{STAGE}-counters",
            Key={"pk": {"S": add.key[0]}, "sk": {"S": add.key[1]}},
            UpdateExpression=f"ADD {pairs} SET #ttl = :ttl",
            ExpressionAttributeNames={**names, "#ttl": "ttl"},
            ExpressionAttributeValues={**values, ":ttl": {"N": str(add.ttl)}},
        )


def test_throughput_covers_this_week_and_the_last(stores: Any) -> None:
    """Older weeks and other job types are left out."""
    model = new_id()
    assert stores.throughput.get("general", model, NOW) == UNMEASURED

    for at, output in ((NOW, 100), (NOW - WEEK, 900), (NOW - 2 * WEEK, 5)):
        for _ in range(MIN_SAMPLES):
            count(stores, count_job(CountMark(job_id="j"), completed_job(at=at, output=output, model=model))[0])
    found = stores.throughput.get("general", model, NOW)

    assert found.n == 2 * MIN_SAMPLES
    assert 90 < found.output_tokens.p10 < 110
    assert 810 < found.output_tokens.p90 < 990
    assert stores.throughput.get("other", model, NOW) == UNMEASURED


def test_throughput_ignores_other_attributes_of_a_counter(stores: Any) -> None:
    """A counter may have a TTL and a version besides its counts."""
    model = new_id()
    for _ in range(MIN_SAMPLES):
        count(stores, count_job(CountMark(job_id="j"), completed_job(model=model))[0])
    count(stores, [CounterIncrement(key=counter_key("general", model, NOW), amounts={"v": 7}, ttl=1)])

    assert stores.throughput.get("general", model, NOW).n == MIN_SAMPLES


def test_throughput_includes_what_every_writer_counted(dynamo_stores: DynamoStores) -> None:
    """A counter has parts where writers met."""
    model = new_id()
    for writer in range(MIN_SAMPLES):
        dynamo_stores.counters.increment([], count_job(CountMark(job_id="j"), completed_job(model=model))[0], writer)

    assert dynamo_stores.throughput.get("general", model, NOW).n == MIN_SAMPLES
