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
from infra.keys import LONGEST_NAME
from infra.naming import table_name
from tests.contract.given import NOW, full_job, new_id
from tests.contract.test_dynamodb_client import counted_calls, item_size

LARGEST_ITEM = 400 * 1024
WIDE = "\U0001f600"  # four bytes
NAME = "\U0001f600" * LONGEST_NAME
TTL = NOW // 1000
TEXTS = {  # texts that do not compress: four bytes a code point; control characters, which are six in JSON
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
def test_the_largest_body(stores: Any, kind: str) -> None:
    """A prompt of 1 MB that does not compress, with the largest of everything beside it."""
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


def test_the_largest_head(stores: Any) -> None:
    """Every name as long as it may be, ten long tags, the longest error."""
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
def test_the_largest_result(stores: Any, kind: str) -> None:
    """A hundred thousand tokens of a few characters each, with another document parsed from it."""
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


def test_a_hundred_attempts(stores: Any) -> None:
    """Their texts are in the rows as long as they are small, and a page of a query is charged for them: more than one."""
    job_id = new_id()
    for number in range(1, 101):
        stores.results.put(Result(job_id=job_id, attempt=number, text=TEXTS["noise"](5_000)), "acme")

    assert [result.attempt for result in stores.results.attempts(job_id)] == list(range(1, 101))


@pytest.mark.parametrize("kind", TEXTS)
def test_the_largest_chunks_make_a_log_of_several_pages(stores: Any, kind: str) -> None:
    """Read whole, from any offset, and from its end."""
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


def test_such_a_log_needs_more_than_one_page(dynamo_stores: DynamoStores) -> None:
    """Or the test above shows nothing."""
    job_id, text = new_id(), TEXTS["wide"](MAX_CHUNK_POINTS)
    for number in range(6):
        dynamo_stores.chunks.append(Chunk(job_id=job_id, attempt=1, start=number * MAX_CHUNK_POINTS, text=text, at=NOW))

    with counted_calls() as calls:
        dynamo_stores.chunks.read(job_id, 1)
    assert calls["Query"] > 1

    with counted_calls() as calls:
        dynamo_stores.chunks.last(job_id, 1)
    assert calls["Query"] == 1


def test_a_crowd_watches_one_job(stores: Any) -> None:
    """Four hundred rows with long endpoints are more than a page."""
    job_id = new_id()
    for number in range(400):
        watcher = Subscription(
            job_id=job_id,
            connection_id=f"c{number:03}" + "x" * 128,
            endpoint="https://" + "e" * 3_000,
            key_hash="f" * 64,
            attempt=1,
            offset=0,
            subscription_id=new_id(),
            expires_at=NOW + 9,
        )
        stores.subscriptions.add(watcher)

    assert len({watcher.connection_id for watcher in stores.subscriptions.for_job(job_id)}) == 400


def test_the_largest_connection_and_ticket(stores: Any) -> None:
    """As many subscriptions as there may be, and a ticket's hundred jobs."""
    narrow = replace(CALLER, jobs=frozenset(f"{number:03}" + "j" * 61 for number in range(100)), read_only=True)
    given = Connection(id=new_id(), endpoint="https://" + "e" * 1_000, caller=narrow, connected_at=NOW, expires_at=NOW + 9)
    stores.connections.open(given)
    watched = frozenset(new_id() for _ in range(SUBSCRIPTIONS_PER_CONNECTION))
    for job_id in watched:
        assert stores.connections.subscribe(given.id, job_id)
    ticket = Ticket(hash=new_id(), caller=narrow, created_at=NOW, expires_at=NOW + 9)
    stores.tickets.put(ticket)

    assert stores.connections.get(given.id) == replace(given, jobs=watched)
    assert stores.tickets.get(ticket.hash) == ticket


def test_as_many_leases_as_an_account_is_wide(stores: Any) -> None:
    """Five hundred workers with ten jobs each: the account's width."""
    leases = [
        Lease(
            id=new_id(),
            lane="urgent",
            expires_at=NOW,
            started_at=NOW,
            watermark=NOW,
            jobs=tuple(new_id() for _ in range(10)),
            environment="2026/01/01/[$LATEST]" + "e" * 2_000,
        )
        for _ in range(500)
    ]
    for lease in leases:
        stores.leases.open(lease)

    found = {lease.id: lease for lease in stores.leases.all()}

    assert all(found[lease.id] == lease for lease in leases)


def test_heads_are_read_together_however_many(stores: Any) -> None:
    """A hundred a request."""
    heads = [full_job(tags=tuple(WIDE * 64 for _ in range(10))) for _ in range(250)]
    for head in heads:
        stores.jobs.create(head)

    assert stores.jobs.get_many([head.id for head in heads]) == heads
