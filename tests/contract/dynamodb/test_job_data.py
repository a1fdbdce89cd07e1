"""Specs and results of any size are read as they were put, on the twins and on moto."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.adapters.s3.blobs import folder_of, s3
from chalicelib.adapters.s3.files import PART_BYTES
from chalicelib.adapters.stores import DynamoStores
from chalicelib.domain.execution.result import Result
from chalicelib.domain.jobs.job import Usage
from chalicelib.domain.jobs.spec import JobSpec
from infra.naming import bucket_name
from infra.template import template
from tests.kit.records import NOW, incompressible_text, job_spec, new_id

ODD = "\x00 👩‍👩‍👧 \u202eעברית \U0010ffff \u2028"
TTL = NOW // 1000
SPECS = [
    job_spec("", metadata={"": ODD, "nested": {"list": [1, 2.5, None, True]}}),
    job_spec(ODD, input={"rows": [{"a": 1}]}, options={"tone": "dry"}),
    job_spec("x" * 1_000_000),
    job_spec(incompressible_text(1_000_000)),
]


@pytest.mark.parametrize("given", SPECS, ids=["empty", "odd", "1 MB that compresses", "1 MB that does not"])
def test_job_spec_round_trips(stores: Any, given: JobSpec) -> None:
    """A second put of the same spec changes nothing."""
    job_id = new_id()
    stores.job_specs.put(job_id, "acme", given, TTL)

    stores.job_specs.put(job_id, "acme", given, TTL)

    assert stores.job_specs.get(job_id) == given


def test_missing_job_spec_is_none(stores: Any) -> None:
    """Retention may have deleted it."""
    assert stores.job_specs.get(new_id()) is None


def result(**changes: Any) -> Result:
    return replace(Result(job_id=new_id(), attempt=1, text="text"), **changes)


FULL = {
    "status": "completed",
    "generation": 3,
    "finish_reason": "stop",
    "model": "gpt-4o-mini-2024-07-18",
    "usage": Usage(input=5, cached=1, output=9, reasoning=2, estimated=True),
    "cost": 0,
    "started_at": NOW,
    "first_token_at": NOW + 1,
    "finished_at": NOW + 2,
    "error_code": "output_invalid",
    "ttl": TTL,
}
RESULTS = {
    "empty": result(text=""),
    "without a model": result(text='{"a": 1}', parsed={"a": 1}, model="local", fallback=True, usage=Usage(), cost=0),
    "odd": result(text=ODD, **FULL),
    "parsed from its text": result(text='{"b": 1, "a": [1.0, true]}', parsed={"b": 1, "a": [1.0, True]}),
    "parsed to another value": result(text='{"n": 1}', parsed={"n": 1.0, "more": ODD}),
    "parsed from text that is not JSON": result(text="n = 1", parsed={"n": 1}),
    "parsed to nothing": result(text="null", parsed=None),
    "parsed to zero": result(text="0", parsed=0),
    "3 MB": result(text=incompressible_text(3_000_000), **FULL),
    "3 MB and parsed": result(text=incompressible_text(3_000_000), parsed={"all": incompressible_text(100_000)}),
}


@pytest.mark.parametrize("given", RESULTS.values(), ids=RESULTS)
def test_result_round_trips(stores: Any, given: Result) -> None:
    """The raw text is exact to the last character, and the parsed value keeps its types."""
    stores.results.put(given, "acme")

    stores.results.put(given, "acme")

    found = stores.results.get(given.job_id, given.attempt)
    assert found == given
    assert repr(found.parsed) == repr(given.parsed)


@pytest.mark.parametrize("text", ["short", "long " * 100_000])
def test_estimated_result_never_replaces_the_workers_result(stores: Any, text: str) -> None:
    """In either order, the row that the attempt's own worker wrote stays."""
    first, second = result(text=text), result(text=text)
    stores.results.put(first, "acme")
    stores.results.put_if_absent(replace(first, text="estimate", finish_reason="worker_lost"), "acme")
    stores.results.put_if_absent(replace(second, text="estimate", finish_reason="worker_lost"), "acme")
    assert stores.results.get(second.job_id, second.attempt).text == "estimate"
    stores.results.put(second, "acme")

    assert stores.results.get(first.job_id, first.attempt) == first
    assert stores.results.get(second.job_id, second.attempt) == second


@pytest.mark.parametrize("text", ["short", incompressible_text(1_000_000)], ids=["short", "1 MB"])
def test_result_of_the_later_claim_stays(stores: Any, text: str) -> None:
    """A worker that was taken for dead may write its result at any time."""
    early, late = result(text=text[::-1], generation=2), result(text=text, generation=3)
    late = replace(late, job_id=early.job_id)

    stores.results.put(early, "acme")
    stores.results.put(late, "acme")
    stores.results.put(early, "acme")

    assert stores.results.get(late.job_id, 1) == late


def test_exact_usage_replaces_an_estimate_of_a_later_claim(stores: Any) -> None:
    """A worker that was taken for dead has read the final event and writes it when it resumes."""
    lost = result(text="so", generation=5, finish_reason="worker_lost", usage=Usage(output=1, estimated=True))
    guess = replace(lost, generation=4, text="", finish_reason="failed")
    exact = replace(lost, generation=4, text="so much", finish_reason="stop", usage=Usage(output=2))
    stores.results.put_if_absent(lost, "acme")

    stores.results.put(guess, "acme")
    assert stores.results.get(lost.job_id, 1) == lost
    stores.results.put(exact, "acme")

    assert stores.results.get(lost.job_id, 1) == exact


def test_results_of_all_attempts_are_listed_without_their_texts(stores: Any) -> None:
    """They are ordered by attempt number, the oldest first."""
    job_id = new_id()
    for attempt in (10, 2, 1):
        stores.results.put(result(job_id=job_id, attempt=attempt, text="[1]", parsed=[1], **FULL), "acme")
    stores.results.put(result(), "acme")

    found = stores.results.attempts(job_id)

    assert found == [result(job_id=job_id, attempt=attempt, text="", **FULL) for attempt in (1, 2, 10)]
    assert stores.results.get(job_id, 3) is None
    assert stores.results.attempts(new_id()) == []
    assert stores.results.link(job_id, 1) is None
    assert stores.results.link(new_id(), 1) is None


def test_get_many_returns_small_and_large_results(stores: Any) -> None:
    """Missing results are left out."""
    small, large, none = new_id(), new_id(), new_id()
    texts = {small: "small", large: "".join(map(str, range(40_000)))}
    for job_id, text in texts.items():
        stores.results.put(Result(job_id=job_id, attempt=2, text=text), "acme")

    found = stores.results.get_many([(small, 2), (none, 1), (large, 2), (small, 1)])

    assert {result.job_id: result.text for result in found} == texts
    assert stores.results.get_many([]) == []


def age_days(key: str, tags: dict[str, str]) -> dict[str, int]:
    """The life-cycle rules of the bucket that an object falls under, with their days."""
    bucket = next(one["Properties"] for one in template("dev")["Resources"].values() if one["Type"] == "AWS::S3::Bucket")
    rules = [rule for rule in bucket["LifecycleConfiguration"]["Rules"] if "ExpirationInDays" in rule and key.startswith(rule["Prefix"])]
    return {
        rule["Id"]: rule["ExpirationInDays"]
        for rule in rules
        if all(tags.get(tag["Key"]) == tag["Value"] for tag in rule.get("TagFilters", []))
    }


def objects_of(job_id: str) -> dict[str, dict[str, int]]:
    """The objects of a job, and which rules remove them."""
    client, bucket = s3(), bucket_name("dev", "123456789012")
    found = {}
    for one in client.list_objects_v2(Bucket=bucket, Prefix=folder_of("acme", job_id))["Contents"]:
        tags = {tag["Key"]: tag["Value"] for tag in client.get_object_tagging(Bucket=bucket, Key=one["Key"])["TagSet"]}
        found[one["Key"].rsplit("/", 1)[-1]] = age_days(one["Key"], tags)
    return found


def test_results_and_files_are_removed_earlier_than_job_specs(dynamo_stores: DynamoStores) -> None:
    """A job may wait for two months; its results are kept for one from their end on."""
    job_id = new_id()
    dynamo_stores.job_specs.put(job_id, "acme", job_spec(incompressible_text(100_000)), TTL)
    dynamo_stores.results.put(result(job_id=job_id, text=incompressible_text(100_000), parsed={"a": incompressible_text(100)}), "acme")
    for name, size in (("small.csv", 10), ("large.csv", PART_BYTES + 1)):
        file = dynamo_stores.job_files.create("acme", job_id, name, "text/csv")
        file.write(b"x" * size)
        file.close()

    found = objects_of(job_id)

    assert found.pop("spec") == {"jobs": 95}
    assert set(found) >= {"small.csv", "large.csv", "result-1-0", "result-1-0-parsed"}
    assert all(rules == {"results": 35, "jobs": 95} for rules in found.values())


def test_a_job_spec_that_is_needed_longer_is_written_again(dynamo_stores: DynamoStores) -> None:
    """The bucket removes objects by their age, not by the job's expiry."""
    job_id, given, written = new_id(), job_spec(incompressible_text(100_000)), list[str]()
    dynamo_stores.job_specs.put(job_id, "acme", given, TTL)
    s3().meta.events.register("before-call.s3.PutObject", lambda params, **_: written.append(params["url_path"]), unique_id="written")
    try:
        dynamo_stores.job_specs.extend_ttl(job_id, TTL)
        no_longer = list(written)
        dynamo_stores.job_specs.extend_ttl(job_id, TTL + 1)
    finally:
        s3().meta.events.unregister("before-call.s3.PutObject", unique_id="written")

    assert no_longer == []
    assert [path.rsplit("/", 1)[-1] for path in written] == ["spec"]
    assert dynamo_stores.job_specs.get(job_id) == given
