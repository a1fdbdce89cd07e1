"""The largest items: none comes near DynamoDB's 400 KB, and results beyond a query page (1 MB) are read to the end."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.stores import DynamoStores
from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.execution.progress import MAX_MILESTONES
from chalicelib.domain.execution.result import Result
from chalicelib.domain.execution.transcript import Chunk, join_chunks
from chalicelib.domain.jobs.job import JobError, Status, Usage
from chalicelib.domain.jobs.spec import JobConfig, JobSpec
from chalicelib.domain.streaming.subscriptions import SUBSCRIPTIONS_PER_CONNECTION, Connection, Subscription, Ticket
from chalicelib.domain.text import MAX_CHUNK_POINTS
from chalicelib.entrypoints.http.requests.jobs import MAX_KEY_LENGTH, MAX_METADATA_BYTES
from chalicelib.ports import IdempotencyRecord, Lease
from chalicelib.services.jobs.plan_job import MAX_PROMPT_BYTES
from chalicelib.services.worker.evaluate_attempt import MAX_MESSAGE_LENGTH
from infra.keys import MAX_NAME_LENGTH
from infra.naming import table_name
from tests.kit.dynamodb import counted_requests, item_size
from tests.kit.records import NOW, full_job, new_id

LARGEST_ITEM = 400 * 1024
WIDE = "\U0001f600"  # four bytes
NAME = "\U0001f600" * MAX_NAME_LENGTH
TTL = NOW // 1000
TEXTS = {  # texts that do not compress: of four bytes a code point, of control characters (six bytes in JSON), of any
    "wide": lambda size: "".join(map(chr, random.Random(1).choices(range(0x10000, 0x110000), k=size))),
    "escaped": lambda size: "".join(map(chr, random.Random(2).choices(range(0x20), k=size))),
    "noise": lambda size: "".join(map(chr, random.Random(3).choices(range(0x20, 0xD7FF), k=size))),
}
CALLER = Caller(tenant=NAME, user=NAME, role=Role.OPERATOR, key_id=f"key_{new_id()}", key_hash="f" * 64)


@pytest.fixture(autouse=True, scope="module")
def _every_item_is_small(dynamo_stores: DynamoStores) -> Iterator[None]:
    """After all tests: every item in every table is far below the limit."""
    yield
    for table in ("jobs", "job_data", "coordination"):
        for page in aws.client("dynamodb").get_paginator("scan").paginate(TableName=table_name(dynamo_stores.stage, table)):
            sizes = {str(item.get("sk", item.get("id"))): item_size(_measurable(item)) for item in page["Items"]}
            assert not {name: size for name, size in sizes.items() if size > LARGEST_ITEM * 0.9}


def _measurable(item: dict[str, Any]) -> dict[str, Any]:
    """Replace sets by one text of the same size."""
    return {name: {"S": "".join(value["SS"])} if "SS" in value else value for name, value in item.items()}


@pytest.mark.parametrize("kind", TEXTS)
def test_largest_job_spec_round_trips(stores: Any, kind: str) -> None:
    """A prompt of 1 MB that does not compress, with the other fields at their limits."""
    text = TEXTS[kind]
    prompt = text(MAX_PROMPT_BYTES // 4)
    metadata = {"m": text(MAX_METADATA_BYTES // 12)}
    given = JobSpec(
        prompt=prompt,
        config=JobConfig(model="m" * 128, max_tokens=100_000, system_prompt=text(100_000)),
        metadata=metadata,
        input={"rows": prompt},
    )
    job_id = new_id()

    stores.job_specs.put(job_id, NAME, given, TTL)

    assert stores.job_specs.get(job_id) == given


def test_largest_job_record_round_trips(stores: Any) -> None:
    """Names, tags and the error are as long as they may be."""
    error = JobError(
        code="c" * 64,
        error_class="c" * 64,
        retryable=False,
        message=WIDE * MAX_MESSAGE_LENGTH,
        suggestion=WIDE * 300,
        attempt=9_999,
        provider_request_id="r" * 10_000,
    )
    names = {"tenant": NAME, "user": NAME, "model": WIDE * 128, "batch_id": new_id(), "response_id": "r" * 100}
    tags = tuple(f"{at}{WIDE * 63}" for at in range(10))
    given = full_job(error=error, tags=tags, dedupe_key=WIDE * MAX_KEY_LENGTH, **names)
    asked = IdempotencyRecord(scope=f"{NAME}#{NAME}#POST /jobs", key=WIDE * MAX_KEY_LENGTH, fingerprint="f" * 64, expires_at=NOW + 9)

    stores.jobs.create(given, asked)
    stores.jobs.replace(given, replace(given, version=10, status=Status.CANCELLED))

    assert stores.jobs.get(given.id) == replace(given, version=10, status=Status.CANCELLED)
    assert stores.jobs.get_by_dedupe_key(NAME, NAME, WIDE * MAX_KEY_LENGTH) == given.id


@pytest.mark.parametrize("kind", TEXTS)
def test_largest_result_round_trips(stores: Any, kind: str) -> None:
    """The parsed document is as long as the text, and an estimate does not replace it."""
    text = TEXTS[kind](500_000)
    given = Result(
        job_id=new_id(),
        attempt=1,
        text=text,
        parsed={"text": text},
        status="failed",
        finish_reason="failed",
        model="m" * 128,
        usage=Usage(input=10**6, cached=10**6, output=10**5, reasoning=10**5, estimated=True),
        cost=10**12,
        error_code="c" * 64,
        ttl=TTL,
    )

    stores.results.put(given, "acme")
    stores.results.put_if_absent(replace(given, text="", parsed=None), "acme")

    assert stores.results.get(given.job_id, 1) == given


def test_results_of_a_hundred_attempts_are_listed(stores: Any) -> None:
    """Small texts are stored in the rows, so the list takes more than one query page."""
    job_id = new_id()
    for number in range(1, 101):
        stores.results.put(Result(job_id=job_id, attempt=number, text=TEXTS["noise"](5_000)), "acme")

    assert [result.attempt for result in stores.results.attempts(job_id)] == list(range(1, 101))


@pytest.mark.parametrize("kind", TEXTS)
def test_log_of_largest_chunks_is_read_whole(stores: Any, kind: str) -> None:
    """It is read from its beginning, from an offset and from its end."""
    job_id, text = new_id(), TEXTS[kind](MAX_CHUNK_POINTS)
    milestone = {"kind": "milestone", "name": WIDE * 256, "description": WIDE * 512, "achieved_at": "2026-01-01T00:00:00.000Z"}
    events = (milestone,) * MAX_MILESTONES
    progress = {"milestones": list(events), "stages": [{"name": "generation"}] * 20}
    count = 12
    for number in range(count):
        begin = number * MAX_CHUNK_POINTS
        chunk = Chunk(job_id=job_id, attempt=1, start=begin, text=text, at=NOW, progress=progress, events=events, ttl=TTL)
        stores.chunks.append(chunk)

    assert join_chunks(stores.chunks.read(job_id, 1), 0) == text * count
    assert join_chunks(stores.chunks.read(job_id, 1, 100_001), 100_001) == (text * count)[100_001:]
    last = stores.chunks.last(job_id, 1)
    assert (last.end, last.text) == (count * MAX_CHUNK_POINTS, text)


def test_log_of_largest_chunks_takes_more_than_one_query_page(dynamo_stores: DynamoStores) -> None:
    """Otherwise the test above would prove nothing."""
    job_id, text = new_id(), TEXTS["wide"](MAX_CHUNK_POINTS)
    for number in range(6):
        dynamo_stores.chunks.append(Chunk(job_id=job_id, attempt=1, start=number * MAX_CHUNK_POINTS, text=text, at=NOW))

    with counted_requests() as requests:
        dynamo_stores.chunks.read(job_id, 1)
    assert requests["Query"] > 1

    with counted_requests() as requests:
        dynamo_stores.chunks.last(job_id, 1)
    assert requests["Query"] == 1


def test_four_hundred_subscriptions_of_one_job_are_read(stores: Any) -> None:
    """Rows with long endpoints take more than one query page."""
    job_id = new_id()
    for number in range(400):
        subscription = Subscription(
            job_id=job_id,
            connection_id=f"c{number:03}" + "x" * 128,
            endpoint="https://" + "e" * 3_000,
            key_hash="f" * 64,
            attempt=1,
            offset=0,
            subscription_id=new_id(),
            expires_at=NOW + 9,
        )
        stores.subscriptions.add(subscription)

    assert len({subscription.connection_id for subscription in stores.subscriptions.for_job(job_id)}) == 400


def test_largest_connection_and_ticket_round_trip(stores: Any) -> None:
    """The maximum of subscriptions, and a ticket for a hundred jobs."""
    narrow = replace(CALLER, jobs=frozenset(f"{number:03}" + "j" * 61 for number in range(100)), read_only=True)
    given = Connection(id=new_id(), endpoint="https://" + "e" * 1_000, caller=narrow, connected_at=NOW, expires_at=NOW + 9)
    stores.connections.open(given)
    subscribed = frozenset(new_id() for _ in range(SUBSCRIPTIONS_PER_CONNECTION))
    for job_id in subscribed:
        assert stores.connections.subscribe(given, job_id, 1, 1)
    ticket = Ticket(hash=new_id(), caller=narrow, created_at=NOW, expires_at=NOW + 9)
    stores.tickets.put(ticket)

    assert stores.connections.get(given.id) == replace(given, jobs=subscribed, window=1, used=SUBSCRIPTIONS_PER_CONNECTION)
    assert stores.tickets.get(ticket.hash) == ticket


def test_leases_of_five_hundred_workers_are_read(stores: Any) -> None:
    """Each worker has ten jobs, of ten tenants."""
    leases = [
        Lease(
            id=new_id(),
            lane="urgent",
            expires_at=NOW,
            started_at=NOW,
            watermark=NOW,
            watermarks={f"{number:064d}": NOW for number in range(10)},
            jobs=tuple(new_id() for _ in range(10)),
            environment="2026/01/01/[$LATEST]" + "e" * 2_000,
        )
        for _ in range(500)
    ]
    for lease in leases:
        stores.leases.open(lease)

    found = {lease.id: lease for lease in stores.leases.all()}

    assert all(found[lease.id] == lease for lease in leases)


def test_get_many_reads_more_than_a_hundred_job_records(stores: Any) -> None:
    """One request takes a hundred."""
    jobs = [full_job(tags=tuple(WIDE * 64 for _ in range(10))) for _ in range(250)]
    for each in jobs:
        stores.jobs.create(each)

    assert stores.jobs.get_many([each.id for each in jobs]) == jobs
