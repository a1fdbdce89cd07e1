"""Behaviour that only the real adapters have: sizes, units, clients, and outages of AWS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.jobs.item import item_of, job_of_raw
from chalicelib.adapters.s3.blobs import Blobs
from chalicelib.adapters.stores import DynamoStores
from chalicelib.domain.errors import StaleVersion, Throttled, Unavailable
from chalicelib.domain.execution.result import Result
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.transitions import AttemptOutcome, claim, finish, hold, retry_later
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker
from chalicelib.ports import IdempotencyRecord
from infra.naming import table_name
from infra.tables import TABLES
from tests.kit.dynamodb import counted_requests, failing_requests, item_size
from tests.kit.records import DAY, NOW, full_job, incompressible_text, job, job_spec, new_id

INDEXES = {
    "by_tenant": ("g_t", "id"),
    "by_user": ("g_u", "id"),
    "by_state": ("g_s", "g_sk"),
    "due": ("g_d", "due_at"),
    "by_line": ("g_l", "g_lk"),
}


def stored(stores: DynamoStores, table: str, **key: str) -> dict[str, Any]:
    answer = aws.client("dynamodb").get_item(
        TableName=table_name(stores.stage, table), Key={name: {"S": value} for name, value in key.items()}
    )
    item: dict[str, Any] = answer["Item"]
    return item


def units(before: Job | None, after: Job, stores: DynamoStores) -> int:
    """Write units of a plain put by DynamoDB's rules: the item's KBs, and each index entry added, removed or both."""
    old, new = (item_of(stores.jobs._jobs, record).serialize() if record else {} for record in (before, after))
    total = -(-max(item_size(new), item_size(old)) // 1024)
    for keys in INDEXES.values():
        was, now = ([side.get(name) for name in keys] if all(name in side for name in keys) else None for side in (old, new))
        total += 0 if was == now else (was is not None) + (now is not None)
    return total


def test_models_match_the_deployed_tables_and_indexes(dynamo_stores: DynamoStores) -> None:
    model = dynamo_stores.jobs._jobs
    jobs = next(table for table in TABLES if table.name == "jobs")

    assert model.Meta.table_name == table_name("dev", "jobs")
    declared = {
        name: {part["KeyType"]: part["AttributeName"] for part in index._get_schema()["key_schema"]}
        for name, index in model._indexes.items()
    }
    assert declared == {index.name: {"HASH": index.hash_key, "RANGE": index.range_key} for index in jobs.indexes}
    assert {index.name: (index.hash_key, index.range_key) for index in jobs.indexes} == INDEXES


def test_job_record_stays_within_its_size_budget(dynamo_stores: DynamoStores) -> None:
    """At most 900 bytes with an error, so that a state change costs one unit; else at most 500."""
    no_error = {"error": None, "invalid_answer": None}
    processing, failed = full_job(status=Status.PROCESSING, due_at=NOW, finished_at=None, ttl=None, **no_error), full_job()
    sizes = []
    for each in (job(), processing, full_job(status=Status.COMPLETED, **no_error), failed):
        dynamo_stores.jobs.create(each)
        sizes.append(item_size(stored(dynamo_stores, "jobs", id=each.id)))

    assert all(size <= 900 for size in sizes)
    assert max(sizes[:3]) <= 500


def test_write_units_of_job_transitions(dynamo_stores: DynamoStores) -> None:
    """A claim touches no index; creating adds four index entries, completing removes two."""
    queued = job()
    running = claim(queued, 1, "me#1", NOW + 1) or queued
    completed = finish(running, 1, "me#1", AttemptOutcome(status=Status.COMPLETED, length=5), NOW + 2) or queued
    waiting = retry_later(running, 1, "me#1", AttemptOutcome(status=Status.FAILED, length=0), NOW + 9_000, NOW + 2) or queued
    again = claim(waiting, 2, "me#2", NOW + 9_000) or queued
    held = hold(queued, 1, "circuit_open", NOW + 9_000, NOW + 1) or queued
    in_line = hold(queued, 1, "rate_limited", None, NOW + 1, "rate:gpt-4o-mini") or queued
    longer = hold(held, 2, "circuit_open", NOW + 19_000, NOW + 9_000) or queued

    assert units(None, queued, dynamo_stores) == 5
    assert units(queued, running, dynamo_stores) == 1
    assert units(running, completed, dynamo_stores) == 3
    assert units(running, waiting, dynamo_stores) == 5
    assert units(waiting, again, dynamo_stores) == 5
    assert units(queued, held, dynamo_stores) == 5
    assert units(queued, in_line, dynamo_stores) == 6
    assert units(in_line, claim(in_line, in_line.generation, "me#2", NOW + 9_000) or queued, dynamo_stores) == 6
    assert units(held, longer, dynamo_stores) == 3
    assert units(longer, claim(longer, 3, "me#2", NOW + 19_000) or queued, dynamo_stores) == 5


def test_each_operation_makes_one_request(dynamo_stores: DynamoStores) -> None:
    stores, given = dynamo_stores, job(dedupe_key=new_id())
    row = IdempotencyRecord(scope="s", key=new_id(), fingerprint="f", expires_at=NOW + DAY)
    with counted_requests() as requests:
        stores.jobs.create(job())
        stores.jobs.create(given, row)
        stores.jobs.replace(given, replace(given, version=2))
        stores.jobs.get_many([given.id] * 3)
        stores.chunks.read(given.id, 1)
        stores.chunks.last(given.id, 1)
        stores.subscriptions.controls([given.id, new_id()])
        stores.circuit_breakers.all()
        stores.circuit_breakers.get(given.id)
        stores.circuit_breakers.replace(CircuitBreaker(model=given.id), CircuitBreaker(model=given.id, version=1))

    assert requests == {"PutItem": 1, "GetItem": 1, "UpdateItem": 2, "TransactWriteItems": 1, "BatchGetItem": 2, "Query": 3}


def test_late_updates_create_only_items_with_a_ttl(dynamo_stores: DynamoStores) -> None:
    job_id = new_id()
    dynamo_stores.subscriptions.announce_reader(job_id, NOW)
    dynamo_stores.request_counters.increment(job_id, 1, NOW // 1000)

    assert "ttl" in stored(dynamo_stores, "job_data", id=job_id, sk="ctl")
    assert "ttl" in stored(dynamo_stores, "coordination", pk=f"rl#{job_id}", sk="1")


def test_large_texts_are_stored_in_s3(dynamo_stores: DynamoStores) -> None:
    """Above 16 KB compressed, the item holds only the key of the object."""
    job_id, text = new_id(), incompressible_text(3_000_000)
    dynamo_stores.job_specs.put(job_id, "acme", job_spec(text), NOW)
    dynamo_stores.results.put(Result(job_id=job_id, attempt=2, text=text, parsed={"a": text}), "acme")

    for sk in ("spec", "result#0002"):
        assert item_size(stored(dynamo_stores, "job_data", id=job_id, sk=sk)) < 500
    assert "/acme/" + job_id + "/result-2-0?X-Amz-Algorithm=AWS4" in dynamo_stores.results.link(job_id, 2)
    found = aws.client("s3").head_object(
        Bucket=dynamo_stores.blobs.bucket, Key=stored(dynamo_stores, "job_data", id=job_id, sk="result#0002")["s3"]["S"]
    )
    assert (found["ContentEncoding"], found["ContentType"]) == ("gzip", "text/plain; charset=utf-8")


def test_text_just_below_the_limit_is_stored_in_the_item(dynamo_stores: DynamoStores) -> None:
    job_id = new_id()
    dynamo_stores.job_specs.put(job_id, "acme", job_spec(incompressible_text(15_500)), NOW)

    assert 14_000 < item_size(stored(dynamo_stores, "job_data", id=job_id, sk="spec")) < 17_000


def test_result_without_its_s3_object_is_none(dynamo_stores: DynamoStores) -> None:
    """The bucket may expire an object before the table expires its row."""
    job_id = new_id()
    dynamo_stores.results.put(Result(job_id=job_id, attempt=1, text=incompressible_text(100_000)), "acme")
    key = stored(dynamo_stores, "job_data", id=job_id, sk="result#0001")["s3"]["S"]
    aws.client("s3").delete_object(Bucket=dynamo_stores.blobs.bucket, Key=key)

    assert dynamo_stores.results.get(job_id, 1) is None
    assert dynamo_stores.results.link(job_id, 9) is None


def test_release_does_not_free_a_slot_taken_by_another_holder(dynamo_stores: DynamoStores) -> None:
    """The slot had expired before the other holder acquired it."""
    name, other = new_id(), DynamoStores("dev")
    dynamo_stores.semaphores.acquire(name, range(1), NOW + 1000, NOW)
    other.semaphores.acquire(name, range(1), NOW + 9000, NOW + 1000)

    dynamo_stores.semaphores.release(name, 0)

    assert dynamo_stores.semaphores.acquire(name, range(1), NOW + 9000, NOW + 1001) is None


def test_all_stores_share_one_client(dynamo_stores: DynamoStores) -> None:
    """A client has its own connection pool and is slow to build."""
    dynamo_stores.jobs.get("x")
    dynamo_stores.tickets.get("x")

    connections = [store._items._get_connection().connection for store in (dynamo_stores.chunks, dynamo_stores.tickets)]

    assert {id(connection.client) for connection in connections} == {id(aws.client("dynamodb"))}


def test_endpoint_setting_applies_to_pynamodb_and_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    """`AWS_ENDPOINT_URL` is how everything runs on a laptop."""
    for name, value in (("AWS_ENDPOINT_URL", "http://127.0.0.1:4566"), ("AWS_DEFAULT_REGION", "us-east-1"), ("AWS_ACCESS_KEY_ID", "x")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    aws.reset_clients()
    try:
        connection = DynamoStores("local").chunks._items._get_connection().connection
        assert connection.client.meta.endpoint_url == "http://127.0.0.1:4566"
        assert Blobs("local", "000000000000").presign("a").startswith("http://127.0.0.1:4566/headrace-local-content-000000000000/a?")
    finally:
        aws.reset_clients()


CALLS: list[tuple[str, Callable[[DynamoStores], object]]] = [
    ("GetItem", lambda stores: stores.jobs.get("x")),
    ("PutItem", lambda stores: stores.jobs.create(job())),
    ("UpdateItem", lambda stores: stores.jobs.replace(given := job(), replace(given, version=2))),
    ("DeleteItem", lambda stores: stores.connections.close("x")),
    ("Query", lambda stores: stores.chunks.read("x", 1)),
    ("BatchGetItem", lambda stores: stores.jobs.get_many(["x"])),
]


@pytest.mark.parametrize(("operation", "call"), CALLS, ids=[name for name, _ in CALLS])
@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("ProvisionedThroughputExceededException", 400, Throttled),
        ("TransactionConflictException", 400, Throttled),
        ("InternalServerError", 500, Unavailable),
    ],
)
def test_aws_errors_are_throttled_or_unavailable(
    dynamo_stores: DynamoStores, operation: str, call: Callable[[DynamoStores], object], code: str, status: int, expected: type[Exception]
) -> None:
    """botocore's error is the cause."""
    with failing_requests(operation, code, status), pytest.raises(expected) as raised:
        call(dynamo_stores)

    assert type(raised.value) is expected
    assert aws.error_code(raised.value.__cause__) == code


@pytest.mark.parametrize(("operation", "call"), CALLS, ids=[name for name, _ in CALLS])
def test_access_denied_is_not_unavailable(dynamo_stores: DynamoStores, operation: str, call: Callable[[DynamoStores], object]) -> None:
    """A bug or a missing permission must not look like an outage."""
    with failing_requests(operation, "AccessDeniedException", 400), pytest.raises(Exception, match="AccessDenied") as raised:
        call(dynamo_stores)

    assert not isinstance(raised.value, Unavailable)


WRITES: list[tuple[str, Callable[[DynamoStores], object]]] = [
    ("PutItem", lambda stores: stores.results.put(Result(job_id=new_id(), attempt=1, text=""), "acme")),
    ("UpdateItem", lambda stores: stores.subscriptions.announce_reader(new_id(), NOW)),
    ("DeleteItem", lambda stores: stores.connections.close("x")),
]


@pytest.mark.parametrize(("operation", "call"), WRITES, ids=[name for name, _ in WRITES])
def test_plain_write_is_retried_after_a_transaction_conflict(
    dynamo_stores: DynamoStores, operation: str, call: Callable[[DynamoStores], object]
) -> None:
    """botocore does not retry a conflict, which had no effect and is over in a moment."""
    with failing_requests(operation, "TransactionConflictException", 400, 2) as given:
        call(dynamo_stores)
    assert len(given) == 2

    with failing_requests(operation, "ThrottlingException", 400) as given, pytest.raises(Throttled):
        call(dynamo_stores)
    assert len(given) == 1  # botocore has repeated it already


def test_replace_keeps_its_condition_after_a_transaction_conflict(dynamo_stores: DynamoStores) -> None:
    """The retry sees what the other transaction wrote."""
    given = job()
    dynamo_stores.jobs.create(given)
    dynamo_stores.jobs.replace(given, replace(given, version=2))

    with failing_requests("UpdateItem", "TransactionConflictException", 400, 1), pytest.raises(StaleVersion):
        dynamo_stores.jobs.replace(given, replace(given, version=2, cancel_requested=True))


def test_conflicting_transaction_is_retried(dynamo_stores: DynamoStores) -> None:
    """A conflict says nothing about the conditions of the transaction."""
    given, pauses = job(), list[float]()
    item = item_of(dynamo_stores.jobs._jobs, given)
    reasons = [{"Code": "TransactionConflict"}]

    with failing_requests("TransactWriteItems", "TransactionCanceledException", 400, 2, CancellationReasons=reasons):
        dynamodb.transact([(item, type(item).id.does_not_exist())], pause=pauses.append)

    assert dynamo_stores.jobs.get(given.id) == given
    assert len(pauses) == 2
    assert all(dynamodb.CONFLICT_BACKOFF < pause <= dynamodb.CONFLICT_BACKOFF * 4 for pause in pauses)


def test_retries_of_a_conflicting_transaction_are_limited(dynamo_stores: DynamoStores) -> None:
    pauses = list[float]()
    item = item_of(dynamo_stores.jobs._jobs, job())
    reasons = [{"Code": "TransactionConflict"}]

    with (
        failing_requests("TransactWriteItems", "TransactionCanceledException", 400, CancellationReasons=reasons) as given,
        pytest.raises(Throttled),
    ):
        dynamodb.transact([(item, None)], pause=pauses.append)

    assert len(given) == dynamodb.CONFLICT_TRIES
    assert sum(pauses) < 1


def test_throttled_transaction_is_retried_less_often_than_a_conflicting_one(dynamo_stores: DynamoStores) -> None:
    """As often as botocore retries any other throttled request: it does not look into transactions."""
    item, reasons = item_of(dynamo_stores.jobs._jobs, job()), [{"Code": "ThrottlingError"}]

    with (
        failing_requests("TransactWriteItems", "TransactionCanceledException", 400, CancellationReasons=reasons) as given,
        pytest.raises(Throttled) as raised,
    ):
        dynamodb.transact([(item, None)], pause=lambda _: None)

    assert len(given) == aws.ATTEMPTS < dynamodb.CONFLICT_TRIES
    assert not aws.is_conflict(raised.value.__cause__)


def test_unprocessed_keys_are_requested_again(dynamo_stores: DynamoStores) -> None:
    """`Throttled` is raised when keys stay unprocessed."""
    given, pauses = job(), list[float]()
    dynamo_stores.jobs.create(given)
    table, model = table_name("dev", "jobs"), dynamo_stores.jobs._jobs
    unprocessed = {"Responses": {}, "UnprocessedKeys": {table: {"Keys": [{"id": {"S": given.id}}]}}}

    with _answered_with(unprocessed, times=2):
        assert [item.id for item in dynamodb.batch_get(model, [(given.id,)], pause=pauses.append)] == [given.id]
    with _answered_with(unprocessed, times=99), pytest.raises(Throttled):
        dynamodb.batch_get(model, [(given.id,)], pause=pauses.append)
    assert len(pauses) == 2 + dynamodb.BATCH_TRIES - 1


def test_job_record_is_decoded_from_a_raw_item(dynamo_stores: DynamoStores) -> None:
    """Consumers of the change stream get such items."""
    given = full_job()
    dynamo_stores.jobs.create(given)

    assert job_of_raw(stored(dynamo_stores, "jobs", id=given.id)) == given


@contextmanager
def _answered_with(parsed: dict[str, Any], times: int) -> Iterator[None]:
    """Answer the next BatchGetItem requests with this response."""
    left = [times]

    def answer(**_: object) -> tuple[Any, dict[str, Any]] | None:
        left[0] -= 1
        return (type("Answer", (), {"status_code": 200, "headers": {}})(), parsed) if left[0] >= 0 else None

    events = aws.client("dynamodb").meta.events
    events.register_first("before-call.dynamodb.BatchGetItem", answer)
    try:
        yield
    finally:
        events.unregister("before-call.dynamodb.BatchGetItem", answer)
