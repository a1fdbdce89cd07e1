"""Two versions of the code during a deployment: each reads what the other has written."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.compression import pack_json, unpack_json
from chalicelib.adapters.stores import DynamoStores
from chalicelib.domain.execution.result import Result
from chalicelib.domain.execution.transcript import Chunk
from chalicelib.domain.jobs.job import JobError, Status, Usage
from chalicelib.domain.jobs.spec import JobConfig, JobSpec
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker, TenantCircuit
from chalicelib.ports import Lease
from tests.kit.records import NOW, job, new_id

TOMORROW = {"of_tomorrow": {"S": "y"}}
ERROR = JobError(code="timeout", error_class="timeout", retryable=True, message="m", suggestion="s", attempt=1)


def _rewrite(table: str, key: dict[str, Any], change: Any) -> None:
    """Replace an item by what another version would have written."""
    client, name = aws.client("dynamodb"), f"headrace-dev-{table}"
    item = client.get_item(TableName=name, Key=key)["Item"]
    change(item)
    client.put_item(TableName=name, Item=item)


def _data_key(job_id: str, sk: str) -> dict[str, Any]:
    return {"id": {"S": job_id}, "sk": {"S": sk}}


def test_job_record_of_a_newer_version_is_read(dynamo_stores: DynamoStores) -> None:
    """It has attributes and nested fields that this version does not know."""
    given = replace(job(), status=Status.RETRYING, error=ERROR, usage=Usage(input=1, output=2))
    dynamo_stores.jobs.create(given)

    def newer(item: dict[str, Any]) -> None:
        item.update(TOMORROW)
        for name in ("err", "usage"):
            item[name] = {"S": json.dumps({**json.loads(item[name]["S"]), "of_tomorrow": [1]})}

    _rewrite("jobs", {"id": {"S": given.id}}, newer)

    assert dynamo_stores.jobs.get(given.id) == given


def test_job_record_of_an_older_version_is_read(dynamo_stores: DynamoStores) -> None:
    """Missing attributes take their defaults."""
    given = job()
    dynamo_stores.jobs.create(given)
    always = {
        "id",
        "t",
        "user",
        "key",
        "type",
        "lane",
        "model",
        "status",
        "created",
        "queued",
        "exp",
        "gen",
        "run",
        "v",
        "max",
        "g_t",
        "g_u",
    }

    def older(item: dict[str, Any]) -> None:
        for name in set(item) - always:
            del item[name]

    _rewrite("jobs", {"id": {"S": given.id}}, older)

    found = dynamo_stores.jobs.get(given.id)
    assert found is not None
    assert (found.id, found.attempt, found.response_id, found.is_resumable) == (given.id, 0, None, False)


def test_job_spec_of_another_version_is_read(dynamo_stores: DynamoStores) -> None:
    """It has fields that this version does not know, and lacks others."""
    job_id, given = new_id(), JobSpec(prompt="p", config=JobConfig(model="m", max_tokens=100))
    dynamo_stores.job_specs.put(job_id, "acme", given, NOW)

    def other(item: dict[str, Any]) -> None:
        data = unpack_json(item["data"]["B"])
        del data["options"], data["config"]["timeout"]
        data["of_tomorrow"] = data["config"]["of_tomorrow"] = {"a": 1}
        item["data"] = {"B": pack_json(data)}

    _rewrite("job_data", _data_key(job_id, "spec"), other)

    assert dynamo_stores.job_specs.get(job_id) == given


def test_circuit_breaker_of_another_version_is_read(dynamo_stores: DynamoStores) -> None:
    """An older version knows no tenants; a newer one may tell more about each."""
    own = TenantCircuit(tenant="t1", opened_at=NOW, until=NOW + 5, reason="stream_cut")
    given = CircuitBreaker(model=new_id(), failures=4, failed=("t1/j1",), last_failure_at=NOW, mark="m", own=(own,), version=1)
    dynamo_stores.circuit_breakers.replace(CircuitBreaker(model=given.model), given)
    key = {"pk": {"S": "circuits"}, "sk": {"S": f"circuit#{given.model}"}}

    def newer(item: dict[str, Any]) -> None:
        item.update(TOMORROW)
        item["own"] = {"S": json.dumps([{**one, "of_tomorrow": 1} for one in json.loads(item["own"]["S"])])}

    _rewrite("coordination", key, newer)
    assert dynamo_stores.circuit_breakers.get(given.model) == given
    _rewrite("coordination", key, lambda item: [item.pop(name) for name in ("own", "jobs")])

    assert dynamo_stores.circuit_breakers.get(given.model) == replace(given, own=(), failed=())


def test_chunks_and_results_of_another_version_are_read(dynamo_stores: DynamoStores) -> None:
    """They have an attribute that this version does not know, and lack `gen`."""
    job_id = new_id()
    chunk = Chunk(job_id=job_id, attempt=1, start=0, text="text", at=NOW)
    result = Result(job_id=job_id, attempt=1, text="text")
    lease = Lease(id=new_id(), lane="low", started_at=NOW, expires_at=NOW, jobs=(job_id,))
    dynamo_stores.chunks.append(chunk)
    dynamo_stores.results.put(result, "acme")
    dynamo_stores.leases.open(lease)

    for sk in ("c#0001#0000000004", "result#0001"):
        _rewrite("job_data", _data_key(job_id, sk), lambda item: (item.update(TOMORROW), item.pop("gen", None)))

    assert dynamo_stores.chunks.read(job_id, 1) == [chunk]
    assert dynamo_stores.results.get(job_id, 1) == result
    assert dynamo_stores.leases.get(lease.id) == lease
