"""Two versions of the code side by side: every stored type, as a newer or older version writes it.

Each case writes two records. One of them is changed in the table, in every attribute and in every
field of its JSON. Reading it returns a record or raises `UnreadableRecord`, never anything else,
and reading both always returns the other. The cases are complete by construction: a test fails
where a class of items, a store, an index or a task has none.
"""

from __future__ import annotations

import copy
import importlib
import itertools
import json
import pkgutil
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pytest
from moto.dynamodb.models import dynamodb_backends
from ulid import ULID

import chalicelib.adapters
from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.compression import pack, pack_json, unpack
from chalicelib.adapters.dynamodb.client import Item
from chalicelib.adapters.dynamodb.json_record import JsonRecords
from chalicelib.adapters.dynamodb.open_index import OpenIndex
from chalicelib.adapters.s3.blobs import folder_of
from chalicelib.adapters.stores import DynamoStores
from chalicelib.domain.auth.identity import Caller, Key, Role
from chalicelib.domain.batches.row import Row
from chalicelib.domain.errors import UnreadableRecord
from chalicelib.domain.execution.response_cache import CachedResponse, CacheLookup
from chalicelib.domain.execution.result import Result
from chalicelib.domain.execution.transcript import Chunk
from chalicelib.domain.jobs.bulk_operation import BulkKey
from chalicelib.domain.jobs.job import Status, Usage
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker, CircuitState
from chalicelib.domain.limits.pauses import Bucket, TenantPauses
from chalicelib.domain.limits.rate_limit import LimitSource, RateLimit
from chalicelib.domain.limits.tenant_limits import TenantLimits
from chalicelib.domain.metrics.counters import CounterIncrement, CountMark
from chalicelib.domain.metrics.throughput import counter_keys
from chalicelib.domain.queues.causes import bucket_of, cause_mark
from chalicelib.domain.streaming.subscriptions import Connection, Subscription, Ticket
from chalicelib.ports import IdempotencyRecord, Lease, MarkUpdate, Shard
from chalicelib.ports.notifications import DELIVERY_SHARDS
from chalicelib.services.load_jobs import load_readable_jobs
from infra.naming import bucket_name
from tests.contract.conftest import ACCOUNT, STAGE
from tests.kit.records import (
    NOW,
    batch,
    bulk_operation,
    completed_job,
    delivery,
    full_job,
    incompressible_text,
    job_spec,
    new_id,
    pauses_of,
)

BUCKET = bucket_name(STAGE, ACCOUNT)
ALL = 1_000  # records of a page
LATER = NOW + 10**12  # beyond every lock and expiry
CAUSE, IN_LINE = "rate:gpt-4o-mini", f"lines-{new_id()}"  # a line, and its tenant
CALLER = Caller(tenant="acme", user="ann", role=Role.USER, key_id="k", key_hash="h", jobs=frozenset({"job_1"}))
Raw = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A stored type. `write` stores a record under a new name and returns the key of its item."""

    name: str
    table: str
    write: Callable[[DynamoStores], Raw]
    read: Callable[[DynamoStores, Raw], Any]
    read_many: Callable[[DynamoStores, list[Raw]], list[Any]] | None = None  # without unreadable ones
    swap: Callable[[DynamoStores, Any], object] | None = None  # write the record that `read` returned
    stores: tuple[str, ...] = ()  # the properties of `DynamoStores` that it stands for
    items: tuple[str, ...] = ()  # the classes of items
    enums: tuple[str, ...] = ()  # attributes, or `attribute.field`, of which an unknown value is unreadable
    names: tuple[str, ...] = ()  # attributes whose JSON object has names of the caller or of the counts
    skipped: tuple[str, ...] = ()  # attributes that stay: moto cannot compare values of two types in a condition
    lenient: bool = False  # each attribute is optional: nothing makes it unreadable


def key_of(**parts: str) -> Raw:
    return {name: {"S": part} for name, part in parts.items()}


def _no_log(_fact: str, **_fields: Any) -> None:
    """The skipped records are asserted by what is returned."""


# ---- one function for each type: it writes a record and returns its key


def write_job(stores: DynamoStores) -> Raw:
    made = full_job(slots=("t:acme#0", "u:acme#ann#0"))
    stores.jobs.create(made)
    return key_of(id=made.id)


def write_idempotency(stores: DynamoStores) -> Raw:
    record = IdempotencyRecord(scope="s", key=new_id(), fingerprint="f", expires_at=LATER, position=2, generation=3)
    stores.jobs.save_idempotency(record, new_id(), NOW)
    return {**key_of(pk=_pointer_key("idem", "s", record.key), sk="idem"), "key": record.key}


def write_dedupe(stores: DynamoStores) -> Raw:
    made = full_job(dedupe_key=new_id())
    stores.jobs.create(made)
    return {**key_of(pk=_pointer_key("dedupe", "acme", json.dumps(["ann", made.dedupe_key])), sk="dedupe"), "key": made.dedupe_key}


def _pointer_key(kind: str, scope: str, key: str) -> str:
    from chalicelib.adapters.dynamodb.jobs.records import _pointer_key as made

    return made(kind, scope, key)


def write_spec(stores: DynamoStores) -> Raw:
    job_id = new_id()
    stores.job_specs.put(job_id, "acme", job_spec(metadata={"a": 1}), NOW)
    return key_of(id=job_id, sk="spec")


def write_chunk(stores: DynamoStores) -> Raw:
    job_id = new_id()
    stores.chunks.append(Chunk(job_id=job_id, attempt=1, start=0, text="text", at=NOW, sequence=4, sequence_offset=2, ttl=NOW))
    return key_of(id=job_id, sk="c#0001#0000000004")


def write_result(stores: DynamoStores) -> Raw:
    job_id = new_id()
    result = Result(job_id=job_id, attempt=1, text='{"a":1}', parsed={"a": 1}, usage=Usage(input=1), looked_up=CacheLookup(), ttl=NOW)
    stores.results.put(result, "acme")
    return key_of(id=job_id, sk="result#0001")


def write_dependencies(stores: DynamoStores) -> Raw:
    child = new_id()
    stores.dependencies.put(child, {"a": new_id()}, run_anyway=True, ttl=NOW)
    return key_of(id=child, sk="parents")


def write_open_parents(stores: DynamoStores) -> Raw:
    return {**write_dependencies(stores), "sk": {"S": "wait"}}


PARENT = new_id()


def write_edge(stores: DynamoStores) -> Raw:
    child = new_id()
    stores.dependencies.link(child, {"a": PARENT}, run_anyway=True, ttl=NOW)
    return key_of(id=PARENT, sk=f"child#{child}")


def read_edge(stores: DynamoStores, key: Raw) -> Any:
    return [edge for edge in stores.dependencies.children(PARENT, limit=1_000) if edge.child == key["sk"]["S"].removeprefix("child#")]


def write_subscription(stores: DynamoStores) -> Raw:
    connection = new_id()
    stores.subscriptions.add(
        Subscription(
            job_id=PARENT,
            connection_id=connection,
            endpoint="https://e",
            key_hash="h",
            attempt=1,
            offset=2,
            subscription_id=new_id(),
            expires_at=NOW,
        )
    )
    return key_of(id=PARENT, sk=f"sub#{connection}")


def write_controls(stores: DynamoStores) -> Raw:
    job_id = new_id()
    stores.subscriptions.announce_reader(job_id, NOW)
    stores.subscriptions.request_cancel(job_id, 2, NOW)
    return key_of(id=job_id, sk="ctl")


def write_connection(stores: DynamoStores) -> Raw:
    from chalicelib.adapters.dynamodb.connections import connection_key

    connection = Connection(id=new_id(), endpoint="https://e", caller=CALLER, connected_at=NOW, expires_at=NOW, jobs=frozenset({PARENT}))
    stores.connections.open(connection)
    pk, sk = connection_key(connection.id)
    return key_of(pk=pk, sk=sk)


def write_ticket(stores: DynamoStores) -> Raw:
    hashed = new_id()
    stores.tickets.put(Ticket(hash=hashed, caller=CALLER, created_at=NOW, expires_at=NOW))
    stores.tickets.use(hashed, "c")
    return key_of(pk=f"tk#{hashed}", sk="tk")


def write_lease(stores: DynamoStores) -> Raw:
    from chalicelib.adapters.dynamodb.leases import _partition

    lease = Lease(
        id=new_id(), lane="low", started_at=NOW, expires_at=NOW, jobs=("job_1",), environment="e", watermark=NOW, watermarks={"acme": NOW}
    )
    stores.leases.open(lease)
    return key_of(pk=_partition(lease.id), sk=lease.id)


def write_circuit(stores: DynamoStores) -> Raw:
    circuit = CircuitBreaker(model=new_id(), state=CircuitState.OPEN, failures=5, until=NOW, opened_at=NOW, reason="r", version=1)
    stores.circuit_breakers.replace(replace(circuit, version=0), circuit)
    return key_of(pk="circuits", sk=f"circuit#{circuit.model}")


def write_pauses(stores: DynamoStores) -> Raw:
    record = pauses_of(new_id())
    board = stores.pauses.board()
    stores.pauses.replace_tenant(TenantPauses(tenant=record.tenant), record, board, replace(board, version=board.version + 1))
    return key_of(pk="pauses", sk=record.tenant)


def write_board(stores: DynamoStores) -> Raw:
    if not (board := stores.pauses.board()).pauses:
        new = replace(board, pauses=pauses_of(None).pauses, buckets={"3": Bucket(2, NOW)}, version=board.version + 1)
        stores.pauses.replace_board(board, new)
    return key_of(pk="circuits", sk="pauses")


def write_tenant_limits(stores: DynamoStores) -> Raw:
    limits = TenantLimits(tenant=new_id(), version=1, weight=2.0, concurrency=3, queued={"low": 4}, updated_by="root")
    stores.tenant_limits.replace(TenantLimits(tenant=limits.tenant), limits)
    return key_of(pk="tenant-limits", sk=limits.tenant)


def write_tenant_names(stores: DynamoStores) -> Raw:
    write_tenant_limits(stores)
    return key_of(pk="limited-tenants", sk="names")


def write_slots_taken(stores: DynamoStores) -> Raw:
    waiting, key = full_job(), f"t:{new_id()}#0"
    stores.jobs.create(waiting)
    stores.jobs.replace(waiting, replace(waiting, version=waiting.version + 1, slots=(key,)), {key: 1})
    return {**key_of(pk=f"slots#{key}", sk="n"), "key": key}


def write_rate_limit(stores: DynamoStores) -> Raw:
    limit = RateLimit(model=new_id(), account="a", requests=500, source=LimitSource.HEADER, seen_at=NOW, factor=0.45, version=1)
    stores.rates.save_limit(replace(limit, version=0), limit)
    return key_of(pk="rates", sk=f"a#{limit.model}")


def write_frame(stores: DynamoStores) -> Raw:
    model = new_id()
    stores.rates.take("a", model, 100, 1, NOW)
    return key_of(pk=f"rate#a#{model}#0", sk=str(NOW // 60_000))


SHARDS = itertools.count(100)  # beyond those that are served


def write_line(stores: DynamoStores) -> Raw:
    tenant = new_id()
    stores.lines.touch(CAUSE, tenant, NOW)
    [line] = [row for row in stores.lines.rows(bucket_of(CAUSE)) if row.tenant == tenant]
    stores.lines.save_position(line, 2.5)
    return key_of(pk=f"lines#{bucket_of(CAUSE)}", sk=f"{cause_mark(CAUSE)}#{tenant}")


def lines(stores: DynamoStores, keys: list[Raw]) -> list[Any]:
    tenants = [sort_key(key).partition("#")[2] for key in keys]
    return among(stores.lines.rows(bucket_of(CAUSE)), tenants, lambda one: one.tenant)


def write_held(stores: DynamoStores) -> Raw:
    made = full_job(status=Status.HELD, cause=CAUSE, tenant=IN_LINE, finished_at=None, due_at=NOW)
    stores.jobs.create(made)
    return key_of(id=made.id)


def held_jobs(stores: DynamoStores, keys: list[Raw]) -> list[Any]:
    return among(stores.lines.held(CAUSE, IN_LINE, ALL), [by_id(key) for key in keys], lambda one: one.job_id)


def write_shard(stores: DynamoStores) -> Raw:
    shard = Shard(number=next(SHARDS), owner="o", until=0, asleep_until=LATER, since=NOW)
    assert stores.lines.acquire_shard(shard, NOW)
    return key_of(pk="scheduler", sk=str(shard.number))


def write_batch(stores: DynamoStores) -> Raw:
    made = batch(locked_until=0)
    stores.batches.create(made)
    return key_of(pk="B#acme", sk=made.id)


def write_bulk(stores: DynamoStores) -> Raw:
    made = bulk_operation(locked_until=0)
    stores.bulk_operations.create(made)
    return key_of(pk="bulk#acme", sk=made.id)


def write_delivery(stores: DynamoStores) -> Raw:
    made = delivery()
    stores.deliveries.create(made)
    return key_of(pk=f"dlv#{made.owner}", sk=made.id)


def read_delivery(stores: DynamoStores, key: Raw) -> Any:
    owner = key["pk"]["S"].removeprefix("dlv#")
    return stores.deliveries.get(owner, sort_key(key)), stores.deliveries.for_owner(owner)


def write_mark(stores: DynamoStores) -> Raw:
    job_id = new_id()
    mark = CountMark(job_id=job_id, version=3, counted={"batch": {"as": "queued"}})
    increment = CounterIncrement(key=(f"BC#{job_id}", "counts"), amounts={"known": 1, "cost": -3}, ttl=NOW)
    stores.counters.increment([MarkUpdate(CountMark(job_id=job_id), mark, NOW)], [increment])
    return key_of(pk=f"m#{job_id}", sk="m")


def write_counter(stores: DynamoStores) -> Raw:
    return key_of(pk=f"BC#{write_mark(stores)['pk']['S'][2:]}", sk="counts")


def write_speed(stores: DynamoStores) -> Raw:
    job = completed_job(type=new_id(), at=NOW)
    pk, sk = counter_keys(job.type, "m", NOW)[0]
    increment = CounterIncrement(key=(pk, sk), amounts={"n": 40, "tokens": 7_000, "ms": 60_000, "first": 1_000}, ttl=NOW)
    stores.counters.increment([MarkUpdate(CountMark(job_id=job.id), CountMark(job_id=job.id, version=1), NOW)], [increment])
    return {**key_of(pk=pk, sk=sk), "type": job.type}


def write_cached(stores: DynamoStores) -> Raw:
    name = new_id()
    stores.cache.put("acme", name, CachedResponse(job_id="job_1", attempt=1, stored_at=NOW, expires_at=NOW))
    return key_of(pk=f"cache#acme#{name}", sk="ref")


def write_api_key(stores: DynamoStores) -> Raw:
    name = new_id()
    stores.api_keys.put_key(Key(id=name, hash=name, tenant="acme", user="ann", role=Role.USER, created_at=NOW, expires_at=LATER, name="n"))
    return key_of(pk="tenant#acme", sk=f"key#{name}")


def write_endpoints(stores: DynamoStores) -> Raw:
    stores.api_keys.put_endpoints("wss://w", "https://a")
    return key_of(pk="stage", sk="endpoints")


def write_slot(stores: DynamoStores) -> Raw:
    name = new_id()
    stores.semaphores.acquire(name, [0], LATER, NOW)
    return key_of(pk=f"slot#{name}", sk="0")


def write_secret_version(stores: DynamoStores) -> Raw:
    name = new_id()
    stores.secret_versions.put(name, "v1")
    return key_of(pk=f"secret#{name}", sk="version")


def write_requests(stores: DynamoStores) -> Raw:
    name = new_id()
    stores.request_counters.increment(name, 1, NOW)
    return key_of(pk=f"rl#{name}", sk="1")


def write_open_batch(stores: DynamoStores) -> Raw:
    return key_of(pk="batches-open", sk=write_batch(stores)["sk"]["S"])


def write_open_bulk(stores: DynamoStores) -> Raw:
    return key_of(pk="bulks-open", sk=write_bulk(stores)["sk"]["S"])


def write_turn(stores: DynamoStores) -> Raw:
    made = bulk_operation()
    stores.bulk_operations.request_turn(BulkKey(made.tenant, made.id, made.created_at))
    return key_of(pk=f"bulk-turns#{made.tenant}", sk=made.id)


def write_open_delivery(stores: DynamoStores) -> Raw:
    made = delivery()
    stores.deliveries.create(made)
    row = stores.deliveries._row(made)
    return key_of(pk=row.pk, sk=row.sk)


def sort_key(key: Raw) -> str:
    return str(key["sk"]["S"])


def among(found: list[Any], ids: list[str], name: Callable[[Any], str]) -> list[Any]:
    """Return the found records that a test asked for, by the test's own ids."""
    return [one for one in found if name(one) in ids]


def stalled(stores: DynamoStores, keys: list[Raw]) -> list[Any]:
    found, following = stores.batches.stalled(NOW, None, ALL)
    assert following is None
    return among(found, [sort_key(key) for key in keys], lambda one: one.id)


def unfinished(stores: DynamoStores, keys: list[Raw]) -> list[Any]:
    listed, following = stores.bulk_operations.unfinished(None, ALL)
    assert following is None
    found = [one for one in stores.bulk_operations.load_unfinished(listed, NOW + 1) if one.locked_until <= NOW + 1]
    return among(found, [sort_key(key) for key in keys], lambda one: one.id)


def turns(stores: DynamoStores, keys: list[Raw]) -> list[Any]:
    return among(stores.bulk_operations.turns("acme", None), [sort_key(key) for key in keys], lambda one: one.id)


def due(stores: DynamoStores, ids: list[str]) -> list[Any]:
    rows = [row for shard in range(DELIVERY_SHARDS) for row in stores.deliveries.due(shard, NOW + 60_001, None, ALL)[0]]
    return stores.deliveries.load_due(among(rows, ids, lambda one: one.delivery_id), NOW)


def by_id(key: Raw) -> str:
    return str(key["id"]["S"])


CASES = [
    Case(
        name="job",
        table="jobs",
        write=write_job,
        read=lambda stores, key: stores.jobs.get(by_id(key)),
        read_many=lambda stores, keys: load_readable_jobs(stores.jobs, _no_log, [by_id(key) for key in keys]).jobs,
        swap=lambda stores, seen: stores.jobs.replace(seen, replace(seen, version=seen.version + 1, length=7)),
        stores=("jobs",),
        items=("JobItem",),
        enums=("status",),
    ),
    Case(
        name="idempotency key",
        table="coordination",
        write=write_idempotency,
        read=lambda stores, key: stores.jobs.get_idempotency("s", key["key"], NOW),
        items=("PointerItem",),
    ),
    Case(
        name="dedupe key",
        table="coordination",
        write=write_dedupe,
        read=lambda stores, key: stores.jobs.get_by_dedupe_key("acme", "ann", key["key"]),
        items=("PointerItem",),
    ),
    Case(
        name="job spec",
        table="job_data",
        write=write_spec,
        read=lambda stores, key: stores.job_specs.get(by_id(key)),
        stores=("job_specs",),
        items=("JobSpecItem",),
    ),
    Case(
        name="chunk",
        table="job_data",
        write=write_chunk,
        read=lambda stores, key: (stores.chunks.read(by_id(key), 1), stores.chunks.last(by_id(key), 1)),
        stores=("chunks",),
        items=("ChunkItem",),
    ),
    Case(
        name="result",
        table="job_data",
        write=write_result,
        read=lambda stores, key: stores.results.get(by_id(key), 1),
        read_many=lambda stores, keys: stores.results.get_many([(by_id(key), 1) for key in keys]),
        stores=("results",),
        items=("ResultItem",),
        names=("text",),
    ),
    Case(
        name="listed result",
        table="job_data",
        names=("text",),
        write=write_result,
        read=lambda stores, key: stores.results.attempts(by_id(key)),
    ),
    Case(
        name="parents of a job",
        table="job_data",
        write=write_dependencies,
        read=lambda stores, key: stores.dependencies.get(by_id(key)),
        read_many=lambda stores, keys: list(stores.dependencies.parents_of([by_id(key) for key in keys]).items()),
        stores=("dependencies",),
        items=("DependencyItem",),
        names=("parents",),
    ),
    Case(
        name="open parents of a job",
        table="job_data",
        names=("parents",),
        write=write_open_parents,
        read=lambda stores, key: stores.dependencies.get(by_id(key)),
    ),
    Case(
        name="edge",
        table="job_data",
        write=write_edge,
        read=read_edge,
        read_many=lambda stores, keys: [edge for key in keys for edge in read_edge(stores, key)],
    ),
    Case(
        name="data of a deleted job",
        table="job_data",
        write=write_dependencies,
        read=lambda stores, key: stores.job_data.delete_all(by_id(key), "acme"),
        stores=("job_data",),
        items=("JobDataItem",),
        names=("parents",),
        lenient=True,
    ),
    Case(
        name="subscription",
        table="job_data",
        write=write_subscription,
        read=lambda stores, key: among(stores.subscriptions.for_job(PARENT), [sort_key(key)], lambda one: f"sub#{one.connection_id}"),
        read_many=lambda stores, keys: among(
            stores.subscriptions.for_job(PARENT), [sort_key(key) for key in keys], lambda one: f"sub#{one.connection_id}"
        ),
        stores=("subscriptions",),
        items=("SubscriptionItem",),
    ),
    Case(
        name="controls",
        table="job_data",
        write=write_controls,
        read=lambda stores, key: stores.subscriptions.controls([by_id(key)]),
        read_many=lambda stores, keys: list(stores.subscriptions.controls([by_id(key) for key in keys]).items()),
        items=("JobControlItem",),
    ),
    Case(
        name="connection",
        table="coordination",
        write=write_connection,
        read=lambda stores, key: stores.connections.get(sort_key(key).partition("#")[2]),
        read_many=lambda stores, keys: among(
            [one for part in range(8) for one in stores.connections.sample(part, 1_000)],
            [sort_key(key).partition("#")[2] for key in keys],
            lambda one: one.id,
        ),
        stores=("connections",),
        items=("ConnectionItem",),
        enums=("caller.role",),
    ),
    Case(
        name="closed connection",
        table="coordination",
        write=write_connection,
        read=lambda stores, key: stores.connections.close(sort_key(key).partition("#")[2]),
        lenient=True,
    ),
    Case(
        name="ticket",
        table="coordination",
        write=write_ticket,
        read=lambda stores, key: stores.tickets.get(key["pk"]["S"][3:]),
        stores=("tickets",),
        items=("TicketItem",),
        enums=("caller.role",),
    ),
    Case(
        name="lease",
        table="coordination",
        write=write_lease,
        read=lambda stores, key: stores.leases.get(sort_key(key)),
        read_many=lambda stores, keys: among(stores.leases.all(), [sort_key(key) for key in keys], lambda one: one.id),
        stores=("leases",),
        items=("LeaseItem",),
    ),
    Case(
        name="circuit breaker",
        table="coordination",
        write=write_circuit,
        read=lambda stores, key: stores.circuit_breakers.get(sort_key(key)[8:]),
        read_many=lambda stores, keys: among(stores.circuit_breakers.all(), [sort_key(key)[8:] for key in keys], lambda one: one.model),
        swap=lambda stores, seen: stores.circuit_breakers.replace(seen, replace(seen, version=seen.version + 1, failures=6)),
        stores=("circuit_breakers",),
        items=("CircuitBreakerItem",),
        enums=("st",),
    ),
    Case(
        name="pauses of a tenant",
        table="coordination",
        write=write_pauses,
        read=lambda stores, key: stores.pauses.of_tenant(sort_key(key)),
        read_many=lambda stores, keys: among(stores.pauses.page(None, ALL)[0], [sort_key(key) for key in keys], lambda one: one.tenant),
        swap=lambda stores, seen: stores.pauses.replace_tenant(
            seen, replace(seen, version=seen.version + 1), board := stores.pauses.board(), replace(board, version=board.version + 1)
        ),
        stores=("pauses",),
        items=("PartitionItem",),
    ),
    Case(
        name="board of the pauses",
        table="coordination",
        write=write_board,
        read=lambda stores, _: (stores.pauses.board(), stores.circuit_breakers.all_with_board()[1])[0],
        swap=lambda stores, seen: stores.pauses.replace_board(seen, replace(seen, version=seen.version + 1)),
    ),
    Case(
        name="limits of a tenant",
        table="coordination",
        write=write_tenant_limits,
        read=lambda stores, key: stores.tenant_limits.get(sort_key(key)),
        read_many=lambda stores, keys: among(stores.tenant_limits.all(), [sort_key(key) for key in keys], lambda one: one.tenant),
        swap=lambda stores, seen: stores.tenant_limits.replace(seen, replace(seen, version=seen.version + 1, weight=3.0)),
        stores=("tenant_limits",),
    ),
    Case(
        name="names of tenants with limits",
        table="coordination",
        write=write_tenant_names,
        read=lambda stores, _key: stores.tenant_limits.tenants(),
        items=("TenantNamesItem",),
    ),
    Case(
        name="slots that are taken",
        table="coordination",
        write=write_slots_taken,
        read=lambda stores, key: stores.jobs.slots_taken([key["key"]]),
        items=("SlotItem",),
    ),
    Case(
        name="rate limit",
        table="coordination",
        write=write_rate_limit,
        read=lambda stores, key: stores.rates.limit("a", sort_key(key)[2:]),
        read_many=lambda stores, keys: among(stores.rates.limits(), [sort_key(key)[2:] for key in keys], lambda one: one.model),
        swap=lambda stores, seen: stores.rates.save_limit(seen, replace(seen, version=seen.version + 1, requests=250)),
        stores=("rates",),
        enums=("data.source",),
    ),
    Case(
        name="frame of a rate",
        table="coordination",
        write=write_frame,
        read=lambda stores, key: stores.rates.frames("a", key["pk"]["S"].split("#")[2], NOW),
        lenient=True,
    ),
    Case(
        name="line",
        table="coordination",
        write=write_line,
        read=lambda stores, key: lines(stores, [key]),
        read_many=lines,
        stores=("lines",),
        items=("LineItem",),
    ),
    Case(
        name="job in a line",
        table="jobs",
        write=write_held,
        read=lambda stores, key: held_jobs(stores, [key]),
        read_many=held_jobs,
    ),
    Case(
        name="shard of the scheduler",
        table="coordination",
        write=write_shard,
        read=lambda stores, key: stores.lines.shard(int(sort_key(key))),
        items=("ShardItem",),
    ),
    Case(
        name="batch",
        table="counters",
        write=write_batch,
        read=lambda stores, key: stores.batches.get("acme", sort_key(key)),
        read_many=lambda stores, keys: among(
            stores.batches.page("acme", None, 1_000)[0], [sort_key(key) for key in keys], lambda one: one.id
        ),
        swap=lambda stores, seen: stores.batches.replace(seen, replace(seen, version=seen.version + 1, released=3)),
        stores=("batches",),
        items=("RecordItem",),
        enums=("data.status",),
    ),
    Case(
        name="stalled batch",
        table="counters",
        write=write_batch,
        read=lambda stores, key: stalled(stores, [key]),
        read_many=stalled,
    ),
    Case(
        name="bulk operation",
        table="coordination",
        write=write_bulk,
        read=lambda stores, key: stores.bulk_operations.get("acme", sort_key(key)),
        read_many=unfinished,
        swap=lambda stores, seen: stores.bulk_operations.replace(seen, replace(seen, version=seen.version + 1, done=3)),
        stores=("bulk_operations",),
        enums=("data.action",),
    ),
    Case(
        name="delivery",
        table="counters",
        write=write_delivery,
        read=lambda stores, key: (
            stores.deliveries.get(key["pk"]["S"][4:], sort_key(key)),
            stores.deliveries.for_owner(key["pk"]["S"][4:]),
        ),
        read_many=lambda stores, keys: due(stores, [sort_key(key) for key in keys]),
        swap=lambda stores, seen: stores.deliveries.replace(seen[0], replace(seen[0], version=2, attempt_count=9)),
        stores=("deliveries",),
        enums=("data.state", "data.channel"),
    ),
    Case(
        name="count mark",
        table="counters",
        write=write_mark,
        read=lambda stores, key: stores.counters.marks([key["pk"]["S"][2:]]),
        read_many=lambda stores, keys: list(stores.counters.marks([key["pk"]["S"][2:] for key in keys]).values()),
        stores=("counters",),
        names=("data",),
    ),
    Case(
        name="counter",
        table="counters",
        write=write_counter,
        read=lambda stores, key: stores.counters.query(key["pk"]["S"], 10),
        read_many=lambda stores, keys: list(stores.counters.get([(key["pk"]["S"], sort_key(key)) for key in keys]).items()),
        lenient=True,
    ),
    Case(
        name="throughput",
        table="counters",
        write=write_speed,
        read=lambda stores, key: stores.throughput.get(key["type"], "m", NOW),
        stores=("throughput",),
        items=("CounterItem",),
        lenient=True,
    ),
    Case(
        name="cached response",
        table="coordination",
        write=write_cached,
        read=lambda stores, key: stores.cache.get("acme", key["pk"]["S"].rpartition("#")[2]),
        stores=("cache",),
        items=("CacheItem",),
    ),
    Case(
        name="API key in a list",
        table="accounts",
        write=write_api_key,
        read=lambda stores, key: among(stores.api_keys.keys("acme"), [sort_key(key)], lambda one: f"key#{one.id}"),
        read_many=lambda stores, keys: among(stores.api_keys.keys("acme"), [sort_key(key) for key in keys], lambda one: f"key#{one.id}"),
        stores=("api_keys",),
        items=("KeyItem",),
    ),
    Case(
        name="API key",
        table="accounts",
        write=lambda stores: key_of(pk=f"key#{sort_key(write_api_key(stores))[4:]}", sk="key"),
        read=lambda stores, key: stores.api_keys.key(key["pk"]["S"][4:]),
        read_many=lambda stores, keys: stores.api_keys.many([key["pk"]["S"][4:] for key in keys]),
        enums=("role",),
    ),
    Case(
        name="endpoints",
        table="accounts",
        write=write_endpoints,
        read=lambda stores, _key: stores.api_keys.endpoints(),
        items=("EndpointsItem",),
        lenient=True,
    ),
    Case(
        name="slot",
        table="coordination",
        write=write_slot,
        read=lambda stores, key: stores.semaphores.acquire(key["pk"]["S"][5:], [0], LATER, NOW),
        stores=("semaphores",),
        items=("SemaphoreItem",),
        skipped=("until",),
        lenient=True,
    ),
    Case(
        name="secret version",
        table="counters",
        write=write_secret_version,
        read=lambda stores, key: stores.secret_versions.get(key["pk"]["S"][7:], consistent=True),
        stores=("secret_versions",),
        items=("SecretVersionItem",),
    ),
    Case(
        name="request counter",
        table="coordination",
        write=write_requests,
        read=lambda _stores, _key: None,  # only ever added to: no reader decodes it
        stores=("request_counters",),
        items=("RequestCounterItem",),
        lenient=True,
    ),
    Case(
        name="index of open batches",
        table="counters",
        write=write_open_batch,
        read=lambda stores, key: stalled(stores, [key]),
        read_many=stalled,
        items=("OpenItem",),
    ),
    Case(
        name="index of open bulk operations",
        table="coordination",
        write=write_open_bulk,
        read=lambda stores, key: unfinished(stores, [key]),
        read_many=unfinished,
    ),
    Case(
        name="turns of bulk operations",
        table="coordination",
        write=write_turn,
        read=lambda stores, key: turns(stores, [key]),
        read_many=turns,
    ),
    Case(
        name="index of open deliveries",
        table="counters",
        write=write_open_delivery,
        read=lambda stores, key: due(stores, [sort_key(key).rpartition("#")[2]]),
        read_many=lambda stores, keys: due(stores, [sort_key(key).rpartition("#")[2] for key in keys]),
    ),
]
# Stores whose content is bytes that nothing decodes.
OPAQUE = {"blobs", "uploads", "job_files"}
ELSEWHERE = {"batch_rows"}  # objects, in a test below
WITHOUT_ENUMS = {"pauses", "tenant_limits"}  # stores of JSON records in which no field has one of several names
INDEXES = {"batches", "bulk_operations", "deliveries"}  # stores with an `OpenIndex`, each with a case above


def stored_classes() -> set[str]:
    """Every class of items that a module of the adapters declares."""
    for module in pkgutil.walk_packages(chalicelib.adapters.__path__, "chalicelib.adapters."):
        importlib.import_module(module.name)
    found, left = set(), list(Item.__subclasses__())
    while left:
        kind = left.pop()
        left += kind.__subclasses__()
        found.add(kind.__name__)
    return found


def test_every_class_of_items_and_every_store_has_a_case(dynamo_stores: DynamoStores) -> None:
    stores = {name for name, member in vars(DynamoStores).items() if isinstance(member, cached_property)}
    assert {name for case in CASES for name in case.items} == stored_classes()
    assert {name for case in CASES for name in case.stores} | OPAQUE | ELSEWHERE == stores
    members = {name: vars(getattr(dynamo_stores, name)).values() for name in stores}
    assert {name for name, parts in members.items() if any(isinstance(part, OpenIndex) for part in parts)} == INDEXES
    records = {name for name, parts in members.items() if any(isinstance(part, JsonRecords) for part in parts)}
    with_enums = {name for case in CASES if any(enum.startswith("data.") for enum in case.enums) for name in case.stores}
    assert records == with_enums | WITHOUT_ENUMS


# ---- how other versions write


def get_item(case: Case, key: Raw) -> Raw:
    name = f"headrace-dev-{case.table}"
    item: Raw = aws.client("dynamodb").get_item(TableName=name, Key=_table_key(key), ConsistentRead=True).get("Item", {})
    return item


def put_item(case: Case, item: Raw) -> None:
    """Put it into moto itself: there are thousands, and a request takes longer than all else here."""
    table = dynamodb_backends[ACCOUNT]["us-east-1"].get_table(f"headrace-dev-{case.table}")
    table.put_item({name: {kind: _as_sent(part) for kind, part in value.items()} for name, value in item.items()})


def _as_sent(value: Any) -> Any:
    return b64encode(value).decode() if isinstance(value, bytes) else value


def _table_key(key: Raw) -> Raw:
    return {name: part for name, part in key.items() if isinstance(part, dict)}


def opened(value: Raw) -> tuple[Any, Callable[[Any], Raw]] | None:
    """Return the JSON of an attribute and how to store it again; None for other attributes."""
    if "B" in value:
        return json.loads(text) if (text := unpack(value["B"])) and text[0] in "[{" else None, lambda data: {"B": pack_json(data)}
    try:
        data = json.loads(value.get("S", ""))
    except ValueError:
        return None
    return (data, lambda new: {"S": json.dumps(new)}) if isinstance(data, dict | list) else None


def with_extra(case: Case, item: Raw) -> Raw:
    """Return the item as a newer version writes it: another attribute, and fields in JSON objects of its own."""
    changed = {**copy.deepcopy(item), "of_tomorrow": {"S": "y"}}
    for name, value in item.items():
        found = opened(value)
        if found is not None and isinstance(found[0], dict) and name not in case.names:
            changed[name] = found[1]({**found[0], "of_tomorrow": {"a": 1}})
    return changed


def variations(case: Case, item: Raw, key: Raw) -> Iterator[Raw]:
    """Yield the item with each attribute missing, unknown, or of another type; and each field of its JSON."""
    for name, value in item.items():
        if name in key or name in case.skipped:
            continue
        yield {other: kept for other, kept in item.items() if other != name}
        for replaced in ({"S": "of_tomorrow"}, {"S": "{"}, {"N": "1.5"}, {"M": {"a": {"S": "b"}}}, {"B": b"\x00"}, {"B": pack("{")}):
            if not _is_key_of_index(name, replaced):
                yield {**item, name: replaced}
        found = opened(value)
        if found is None:
            continue
        data, packed = found
        for field in data if isinstance(data, dict) else range(len(data)):
            for new in ("of_tomorrow", {"a": 1}, [[]], None):
                yield {**item, name: packed(_changed(data, field, new))}
            if isinstance(data, dict):
                yield {**item, name: packed({other: kept for other, kept in data.items() if other != field})}


def _is_key_of_index(name: str, value: Raw) -> bool:
    """DynamoDB refuses another type for the key of an index."""
    return (name.startswith("g_") and "S" not in value) or (name == "due_at" and "N" not in value)


def _changed(data: Any, field: Any, new: Any) -> Any:
    changed = copy.deepcopy(data)
    changed[field] = new
    return changed


def plain(value: Any) -> Any:
    """Return what was read without the fields of a newer version, which this one only keeps."""
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    return replace(value, unknown_fields={}) if hasattr(value, "unknown_fields") else value


@pytest.fixture(params=CASES, ids=[case.name for case in CASES])
def case(request: pytest.FixtureRequest) -> Case:
    given: Case = request.param
    return given


def test_an_extra_field_is_read_as_if_it_were_not_there(dynamo_stores: DynamoStores, case: Case) -> None:
    key = case.write(dynamo_stores)
    item = get_item(case, key)
    assert item, "the case names another key than it has written"
    before = case.read(dynamo_stores, key)
    put_item(case, with_extra(case, item))

    assert plain(case.read(dynamo_stores, key)) == plain(before)


@pytest.mark.parametrize("case", [case for case in CASES if case.swap], ids=lambda case: case.name)
def test_an_unknown_attribute_or_field_survives_a_swap(dynamo_stores: DynamoStores, case: Case) -> None:
    """An older worker leaves a newer one's attributes alone."""
    assert case.swap is not None
    key = case.write(dynamo_stores)
    before = get_item(case, key)
    put_item(case, with_extra(case, before))

    case.swap(dynamo_stores, case.read(dynamo_stores, key))

    after = get_item(case, key)
    assert after["v"] != before["v"]
    assert after["of_tomorrow"] == {"S": "y"}
    if "data" in after:
        assert json.loads(after["data"]["S"])["of_tomorrow"] == {"a": 1}


def test_whatever_is_stored_is_read_or_refused_by_name_and_hides_no_other(dynamo_stores: DynamoStores, case: Case) -> None:
    key, other = case.write(dynamo_stores), case.write(dynamo_stores)
    item = get_item(case, key)
    neighbour = case.read_many(dynamo_stores, [other]) if case.read_many else []
    refused = 0
    for variation in variations(case, item, key):
        put_item(case, variation)
        try:
            case.read(dynamo_stores, key)
        except UnreadableRecord:
            refused += 1
        if case.read_many:
            put_item(case, variation)  # reading may have changed it
            assert neighbour[0] in case.read_many(dynamo_stores, [key, other]), variation

    assert not (case.lenient and refused)


@pytest.mark.parametrize(
    ("case", "path"), [(case, path) for case in CASES for path in case.enums], ids=lambda value: getattr(value, "name", value)
)
def test_an_unknown_status_is_unreadable_and_left_out_of_lists(dynamo_stores: DynamoStores, case: Case, path: str) -> None:
    key, other = case.write(dynamo_stores), case.write(dynamo_stores)
    item, (name, _, field) = get_item(case, key), path.partition(".")
    text = json.dumps({**json.loads(item[name]["S"]), field: "of_tomorrow"}) if field else "of_tomorrow"
    neighbour = case.read_many(dynamo_stores, [other]) if case.read_many else []
    put_item(case, {**item, name: {"S": text}})

    with pytest.raises(UnreadableRecord):
        case.read(dynamo_stores, key)
    if case.read_many:
        assert case.read_many(dynamo_stores, [key, other]) == neighbour


# ---- objects


def object_keys(prefix: str) -> list[str]:
    listed = aws.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    return [one["Key"] for one in listed]


CORRUPT = (b"", b"text", pack("{"), pack('"text"'), pack("[]"), pack("{}"), zlib.compress(b"{}", 6, 31)[:-3])


def write_large_spec(stores: DynamoStores) -> tuple[str, Callable[[], object]]:
    job_id = new_id()
    stores.job_specs.put(job_id, "acme", job_spec(incompressible_text(40_000)), NOW)
    return object_keys(folder_of("acme", job_id))[0], lambda: stores.job_specs.get(job_id)


def write_large_parsed(stores: DynamoStores) -> tuple[str, Callable[[], object]]:
    job_id = new_id()
    text = incompressible_text(40_000)
    stores.results.put(Result(job_id=job_id, attempt=1, text=text, parsed={"other": text}), "acme")
    parsed = next(key for key in object_keys(folder_of("acme", job_id)) if key.endswith("-parsed"))
    return parsed, lambda: stores.results.get(job_id, 1)


def _batch_object(batch_id: str, name: str) -> str:
    return next(key for key in object_keys("batches/") if key.endswith(f"{batch_id}/{name}"))


def write_part(stores: DynamoStores) -> tuple[str, Callable[[], object]]:
    batch_id = str(ULID())
    stores.batch_rows.put_part("acme", batch_id, 0, [Row(number=0, prompt="p")])
    return _batch_object(batch_id, "part-0000"), lambda: stores.batch_rows.get_part("acme", batch_id, 0)


def write_options(stores: DynamoStores) -> tuple[str, Callable[[], object]]:
    batch_id = str(ULID())
    stores.batch_rows.put_options("acme", batch_id, {"options": {}, "config": {}, "rows": {}})
    return _batch_object(batch_id, "options"), lambda: stores.batch_rows.get_options("acme", batch_id)


@pytest.mark.parametrize("write", [write_large_spec, write_large_parsed, write_part, write_options])
def test_an_object_is_read_or_refused_by_name(
    dynamo_stores: DynamoStores, write: Callable[[DynamoStores], tuple[str, Callable[[], object]]]
) -> None:
    key, read = write(dynamo_stores)
    client = aws.client("s3")
    whole = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    refused = 0
    for data in CORRUPT:
        client.put_object(Bucket=BUCKET, Key=key, Body=data)
        try:
            read()
        except UnreadableRecord:
            refused += 1
    assert refused >= 3

    client.put_object(Bucket=BUCKET, Key=key, Body=pack_json({**json.loads(unpack(whole)), "of_tomorrow": {"a": 1}}))
    assert read() is not None


def test_an_edit_of_the_metadata_keeps_the_fields_of_a_newer_spec(dynamo_stores: DynamoStores) -> None:
    """The prompt of a newer version may be in a field that this one does not know."""
    stores, key = dynamo_stores, write_spec(dynamo_stores)
    case = next(one for one in CASES if one.name == "job spec")
    item = get_item(case, key)
    data = json.loads(unpack(item["data"]["B"]))
    data["of_tomorrow"] = data["config"]["of_tomorrow"] = {"a": 1}
    put_item(case, {**item, "data": {"B": pack_json(data)}})
    spec = stores.job_specs.get(by_id(key))
    assert spec is not None

    stores.job_specs.replace(by_id(key), "acme", replace(spec, metadata={"b": 2}), 5)

    after = json.loads(unpack(get_item(case, key)["data"]["B"]))
    assert (after["of_tomorrow"], after["config"]["of_tomorrow"], after["metadata"]) == ({"a": 1}, {"a": 1}, {"b": 2})
