"""Batches through `app.py`: the routes, and the functions that release, run and count rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from chalicelib import bootstrap, job_types
from chalicelib.domain.batches.batch import WAVE_SIZE
from chalicelib.domain.batches.counters import counter_key
from chalicelib.domain.failures import RequestRefused
from chalicelib.domain.ids import job_id_of_row
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.units import dollars
from chalicelib.settings import Settings
from tests.kit import batches
from tests.kit.change_records import change
from tests.kit.http import CONTEXT, Api
from tests.kit.provider import Script
from tests.kit.records import new_id
from tests.kit.work import sweep, work


@pytest.fixture(autouse=True)
def _region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")


@pytest.fixture
def api() -> Iterator[Api]:
    made = Api(*(Script(deltas=["all ", "of it"]) for _ in range(2_000)))
    yield made
    bootstrap.override(None)


def test_a_batch_of_prompts_completes_with_all_outputs(api: Api) -> None:
    batch_id = batches.submit(api, 3, name="three")
    assert batches.get_batch(api, batch_id)["status"] == "queued"

    batches.settle(api)

    seen = batches.get_batch(api, batch_id)
    assert (seen["status"], seen["name"], seen["progress_percentage"]) == ("completed", "three", 100.0)
    assert seen["counts"] == {"total": 3, "waiting": 0, "queued": 0, "processing": 0, "completed": 3, "failed": 0, "cancelled": 0}
    assert seen["finished_at"] is not None
    rows = batches.export(api, batch_id).json["items"]
    assert [(row["row"], row["output"]) for row in rows] == [(0, "all of it"), (1, "all of it"), (2, "all of it")]
    assert [row["job_id"] for row in rows] == [job_id_of_row(batch_id, number) for number in range(3)]
    assert batch_id not in api.container.batches.open


def test_a_row_has_no_job_before_its_release(api: Api) -> None:
    batch_id = batches.submit(api, 2)

    assert api.call("GET", f"/jobs/{job_id_of_row(batch_id, 1)}").status == 404
    rows = batches.get_batch(api, batch_id, query="?detailed=true")["data"]
    assert [(row["row"], row["status"], row["job_id"]) for row in rows] == [
        (0, "waiting", job_id_of_row(batch_id, 0)),
        (1, "waiting", job_id_of_row(batch_id, 1)),
    ]
    batches.tasks(api)
    assert api.call("GET", f"/jobs/{job_id_of_row(batch_id, 1)}").json["batch_id"] == batch_id


def test_a_failed_row_is_counted_listed_and_retried(api: Api) -> None:
    api.container.provider.scripts[1] = Script(deltas=["no"], error=RequestRefused("No."))
    batch_id = batches.submit(api, 3)
    batches.settle(api)

    failed = batches.get_batch(api, batch_id)
    assert (failed["status"], failed["counts"]["completed"], failed["counts"]["failed"]) == ("completed_with_failures", 2, 1)
    assert len(failed["failed_job_ids"]) == 1
    again = api.call("POST", f"/batches/{batch_id}/retry-failed", {})
    assert (again.status, again.json["status"], again.json["run"]) == (202, "processing", 2)
    assert batch_id in api.container.batches.open
    batches.settle(api)

    seen = batches.get_batch(api, batch_id)
    assert (seen["status"], seen["counts"]["completed"], seen["failed_job_ids"]) == ("completed", 3, [])
    assert {job.run for job in api.container.jobs.records.values()} == {1, 2}
    assert seen["cost"] == dollars(sum(job.cost or 0 for job in api.container.jobs.records.values()))


def test_a_repeated_retry_of_failed_rows_starts_no_second_run(api: Api) -> None:
    api.container.provider.scripts[:2] = [Script(deltas=["no"], error=RequestRefused("No."))] * 2
    batch_id = batches.submit(api, 1)
    batches.settle(api)
    first = api.call("POST", f"/batches/{batch_id}/retry-failed", {}, idempotency_key="k")
    batches.settle(api)  # the second request fails, too

    again = api.call("POST", f"/batches/{batch_id}/retry-failed", {}, idempotency_key="k")

    assert (first.status, again.status, again.headers["idempotent-replayed"]) == (202, 202, "true")
    assert api.job(job_id_of_row(batch_id, 0)).run == 2
    assert batches.get_batch(api, batch_id)["status"] == "completed_with_failures"
    assert api.call("POST", f"/batches/{batch_id}/retry-failed", {"cancelled": True}, idempotency_key="k").status == 409


def test_a_cancelled_batch_releases_and_runs_no_more_rows(api: Api) -> None:
    batch_id = batches.submit(api, 60, batch_size=20, delay=600)
    batches.tasks(api)
    work(api, "low")  # ten of the twenty
    batches.count(api)

    reply = api.call("DELETE", f"/batches/{batch_id}")

    assert reply.json["status"] == "cancelled"
    batches.settle(api)
    seen = batches.get_batch(api, batch_id)
    assert seen["counts"] == {"total": 60, "waiting": 0, "queued": 0, "processing": 0, "completed": 10, "failed": 0, "cancelled": 50}
    assert (seen["progress_percentage"], seen["finished_at"] is None) == (100.0, False)
    assert len(api.container.jobs.records) == 20
    sweep(api, 700)
    batches.settle(api)
    assert len(api.container.jobs.records) == 20
    assert api.call("DELETE", f"/batches/{batch_id}").status == 200


def test_a_cancelled_batch_is_retried_only_with_cancelled_true(api: Api) -> None:
    batch_id = batches.submit(api, 30, batch_size=10, delay=60)
    batches.tasks(api)
    api.call("DELETE", f"/batches/{batch_id}")
    batches.settle(api)

    refused = api.call("POST", f"/batches/{batch_id}/retry-failed", {})
    assert (refused.status, refused.json["error"]["code"]) == (409, "batch_not_retryable")
    assert api.call("POST", f"/batches/{batch_id}/retry-failed", {"cancelled": True}).status == 202
    for _ in range(3):
        batches.settle(api)
        api.container.clock.advance(61)
    batches.settle(api)

    assert batches.get_batch(api, batch_id)["counts"]["completed"] == 30


def test_groups_of_rows_are_released_delay_seconds_apart(api: Api) -> None:
    batch_id = batches.submit(api, 25, batch_size=10, delay=120)
    released = []
    for _ in range(4):
        batches.settle(api)
        released.append(len(api.container.jobs.records))
        api.container.clock.advance(119)
        batches.settle(api)
        assert len(api.container.jobs.records) == released[-1]
        api.container.clock.advance(1)

    assert released == [10, 20, 25, 25]
    assert batches.get_batch(api, batch_id)["status"] == "completed"


def test_the_sweeper_recovers_a_message_lost_between_two_groups(api: Api) -> None:
    batch_id = batches.submit(api, 20, batch_size=10, delay=120)
    batches.settle(api)
    api.container.queues.messages["tasks"].clear()

    sweep(api, 60)
    assert not api.container.queues.depth("tasks")  # the next group is not due yet
    sweep(api, 61)
    batches.settle(api)

    assert batches.get_batch(api, batch_id)["counts"]["completed"] == 20


def test_parallel_limit_bounds_the_unfinished_rows(api: Api) -> None:
    batch_id = batches.submit(api, 23, parallel_limit=5)
    max_unfinished = 0
    for _ in range(20):
        batches.tasks(api)
        unfinished = [job for job in api.container.jobs.records.values() if not job.status.is_terminal]
        max_unfinished = max(max_unfinished, len(unfinished))
        work(api, "low")
        batches.count(api)
    batches.settle(api)

    assert max_unfinished == 5
    assert batches.get_batch(api, batch_id)["counts"]["completed"] == 23


def test_a_batch_fails_when_failures_exceed_the_tolerance(api: Api) -> None:
    api.container.provider.scripts[:3] = [Script(deltas=["no"], error=RequestRefused("No."))] * 3
    batch_id = batches.submit(api, 20, failure_tolerance=0.1)
    batches.tasks(api)
    work(api, "low")  # ten of them

    batches.count(api)
    batches.tasks(api)
    batches.settle(api)

    seen = batches.get_batch(api, batch_id)
    assert (seen["status"], seen["reason"]) == ("failed", "failure_tolerance")
    assert seen["counts"] | {"total": 20} == {
        "total": 20,
        "waiting": 0,
        "queued": 0,
        "processing": 0,
        "completed": 7,
        "failed": 3,
        "cancelled": 10,
    }
    assert seen["finished_at"] is not None
    assert len(seen["failed_job_ids"]) == 3


def test_a_retried_batch_resumes_its_remaining_rows(api: Api) -> None:
    api.container.provider.scripts[:3] = [Script(deltas=["no"], error=RequestRefused("No."))] * 3
    batch_id = batches.submit(api, 20, failure_tolerance=0.1, parallel_limit=5)
    batches.settle(api)
    assert batches.get_batch(api, batch_id)["counts"]["cancelled"] == 20 - 5

    api.call("POST", f"/batches/{batch_id}/retry-failed", {})
    batches.settle(api)

    seen = batches.get_batch(api, batch_id)
    assert (seen["status"], seen["counts"]["completed"]) == ("completed", 20)


def test_a_retry_of_a_single_row_reopens_its_batch(api: Api) -> None:
    api.container.provider.scripts[0] = Script(deltas=["no"], error=RequestRefused("No."))
    batch_id = batches.submit(api, 2)
    batches.settle(api)
    [failed] = batches.get_batch(api, batch_id)["failed_job_ids"]

    api.call("POST", f"/jobs/{failed}/retry", {})
    batches.count(api)
    batches.tasks(api)
    assert batches.get_batch(api, batch_id)["status"] == "processing"
    batches.settle(api, "low")

    assert batches.get_batch(api, batch_id)["status"] == "completed"


def test_a_repeated_idempotency_key_returns_the_same_batch(api: Api) -> None:
    body = {"items": ["one", "two"]}
    first = api.call("POST", "/batches", body, idempotency_key="k")

    again = api.call("POST", "/batches", body, idempotency_key="k")

    assert (again.json["batch_id"], again.headers["idempotent-replayed"]) == (first.json["batch_id"], "true")
    assert api.call("POST", "/batches", {"items": ["one"]}, idempotency_key="k").status == 409
    assert len(api.container.batches.rows) == 1


def test_all_invalid_rows_are_reported_and_no_batch_is_stored(api: Api) -> None:
    reply = api.call("POST", "/batches", {"items": ["fine", "", {"id": "a"}, {"id": "a", "content": "x"}]})

    assert reply.status == 400
    assert {detail["path"].split(".")[1] for detail in reply.json["error"]["details"]} == {"1", "2", "3"}
    assert api.container.batches.rows == {}


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"config": {"temperature": 9}}, "config.temperature"),
        ({"options": {"unknown": 1}}, "options.unknown"),
        ({"failure_tolerance": 2}, "failure_tolerance"),
        ({"parallel_limit": 0}, "parallel_limit"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_an_invalid_batch_option_is_named_in_the_error(api: Api, options: dict[str, Any], path: str) -> None:
    reply = api.call("POST", "/batches", {"items": ["one"], **options})

    assert reply.status == 400
    assert path in {detail["path"] for detail in reply.json["error"]["details"]}


def test_an_unknown_job_type_is_reported_as_not_found(api: Api) -> None:
    assert api.call("POST", "/batches", {"items": ["one"], "type": "none"}).json["error"]["code"] == "job_type_not_found"


def test_a_batch_can_be_submitted_as_csv_or_text(api: Api) -> None:
    csv = api.call("POST", "/batches?priority=high", raw="id,prompt,priority\na,One,\nb,Two,urgent\n", content_type="text/csv")
    text = api.call("POST", "/batches?prompt_template=Analyze: {{input}}", raw="one\ntwo\n", content_type="text/plain")
    batches.tasks(api)

    assert (csv.status, text.status) == (202, 202), csv.text + text.text
    lanes = [api.job(job_id_of_row(csv.json["batch_id"], number)).lane for number in range(2)]
    spec = api.container.job_specs.get(job_id_of_row(text.json["batch_id"], 1))
    assert (lanes, spec.prompt if spec else None) == (["high", "urgent"], "Analyze: two")
    assert [row["id"] for row in batches.get_batch(api, csv.json["batch_id"], query="?detailed=true")["data"]] == ["a", "b"]
    assert api.call("POST", "/batches", raw="<x/>", content_type="text/xml").status == 415


def test_a_dry_run_returns_an_estimate_and_creates_nothing(api: Api) -> None:
    answer = api.call("POST", "/batches", {"items": ["one", "two"], "dry_run": True, "prompt_template": "Say {{input}}."}).json

    assert (answer["count"], answer["estimated_from"]) == (2, None)
    assert [item["prompt"] for item in answer["items"]] == ["Say one.", "Say two."]
    one = api.call("POST", "/jobs/estimate", {"prompt": "Say one.", "priority": "low"}).json
    assert Decimal(answer["estimated_cost"]) == 2 * Decimal(one["estimated_cost"])
    assert (api.container.batches.rows, api.container.jobs.records) == ({}, {})


def test_a_large_dry_run_is_estimated_from_a_sample(api: Api) -> None:
    exact = api.call("POST", "/batches", {"items": ["the same words"] * 500, "dry_run": True}).json
    sampled = api.call("POST", "/batches", {"items": ["the same words"] * 5_000, "dry_run": True}).json

    assert (exact["estimated_from"], sampled["estimated_from"]) == (None, 500)
    assert Decimal(sampled["estimated_cost"]) == 10 * Decimal(exact["estimated_cost"])


def test_ten_thousand_rows_are_accepted_in_one_request(api: Api) -> None:
    batch_id = batches.submit(api, 10_000)

    assert api.container.batches.rows[batch_id].total == 10_000
    assert api.call("POST", "/batches", {"items": ["x"] * 10_001}).status == 400


def test_batches_of_other_users_and_tenants_are_not_found(api: Api) -> None:
    batch_id = batches.submit(api, 1)

    for token, status in (("user", 200), ("operator", 200), ("viewer", 200), ("colleague", 404), ("stranger", 404)):
        assert api.call("GET", f"/batches/{batch_id}", token=token).status == status, token
    for token in ("colleague", "stranger"):
        assert api.call("DELETE", f"/batches/{batch_id}", token=token).status == 404
        assert api.call("POST", f"/batches/{batch_id}/retry-failed", {}, token).status == 404
        assert api.call("GET", f"/batches/{batch_id}/export", token=token).status == 404
        assert api.call("GET", "/batches", token=token).json["data"] == []
    assert api.call("GET", f"/batches/{batch_id}/export", token="viewer").status == 403
    assert api.call("GET", "/batches/batch_none", token="operator").status == 404


def test_batches_are_listed_newest_first(api: Api) -> None:
    batch_ids = [batches.submit(api, 1) for _ in range(3)]

    first = api.call("GET", "/batches?limit=2").json
    rest = api.call("GET", f"/batches?limit=2&cursor={first['next_cursor']}").json

    assert [one["batch_id"] for one in first["data"] + rest["data"]] == batch_ids[::-1]
    assert rest["next_cursor"] is None


def test_a_batch_poll_returns_304_until_the_batch_changes(api: Api) -> None:
    batch_id = batches.submit(api, 1)
    first = api.call("GET", f"/batches/{batch_id}")

    same = api.call("GET", f"/batches/{batch_id}", if_none_match=first.headers["etag"])
    batches.settle(api)
    changed = api.call("GET", f"/batches/{batch_id}?wait=5", if_none_match=first.headers["etag"])

    assert (same.status, changed.status, changed.json["status"]) == (304, 200, "completed")


def test_a_replayed_change_stream_changes_no_counts(api: Api) -> None:
    api.container.provider.scripts[0] = Script(deltas=["no"], error=RequestRefused("No."))
    batch_id = batches.submit(api, 4)
    batches.settle(api)
    before = batches.get_batch(api, batch_id)

    for _ in range(3):
        batches.count(api)

    assert batches.get_batch(api, batch_id)["counts"] == before["counts"]
    assert batches.get_batch(api, batch_id)["cost"] == before["cost"]


def test_a_recount_repairs_wrong_counters(api: Api) -> None:
    batch_id = batches.submit(api, 4)
    batches.settle(api)
    before = batches.get_batch(api, batch_id)
    api.container.counters.counters[counter_key(batch_id)]["completed"] -= 2

    assert batches.get_batch(api, batch_id)["counts"]["completed"] == 2
    recounted = api.call("POST", f"/batches/{batch_id}/recount", {}, "operator")

    assert recounted.status == 200
    assert batches.get_batch(api, batch_id)["counts"] == before["counts"]
    assert api.call("POST", f"/batches/{batch_id}/recount", {}, "user").status == 403


def test_a_batch_completes_after_the_change_stream_lost_its_rows(api: Api) -> None:
    """The sweeper recounts the rows, so a dropped change record cannot block a batch."""
    batch_id = batches.submit(api, 3)
    batches.tasks(api)
    work(api, "low")

    sweep(api, 60)
    batches.tasks(api)
    assert batches.get_batch(api, batch_id)["finished_at"] is None
    sweep(api, 900)
    batches.tasks(api)

    assert batches.get_batch(api, batch_id)["status"] == "completed"


def test_a_row_with_an_invalid_request_fails_without_stopping_others(api: Api) -> None:
    batch_id = batches.submit(api, [{"content": "one"}, {"content": "two"}])
    rows = api.container.batch_rows.get_part("acme", batch_id, 0)
    assert rows is not None
    api.container.batch_rows.put_part("acme", batch_id, 0, [rows[0], replace(rows[1], prompt=" ")])

    batches.settle(api)

    seen = batches.get_batch(api, batch_id)
    assert (seen["counts"]["completed"], seen["counts"]["failed"], seen["status"]) == (1, 1, "completed_with_failures")
    [_, refused] = batches.export(api, batch_id).json["items"]
    assert (refused["status"], refused["error_code"]) == ("failed", "invalid_request")


def test_a_retry_does_not_run_a_row_with_an_invalid_request(api: Api) -> None:
    """The stored row is no valid request, so there is nothing to send to the provider."""
    batch_id = batches.submit(api, [{"content": "one"}, {"content": "two"}])
    rows = api.container.batch_rows.get_part("acme", batch_id, 0)
    assert rows is not None
    api.container.batch_rows.put_part("acme", batch_id, 0, [rows[0], replace(rows[1], prompt=None, input={"no": "prompt"})])
    batches.settle(api)
    requests = len(api.container.provider.requests)

    again = api.call("POST", f"/batches/{batch_id}/retry-failed", {})
    batches.settle(api)

    assert again.status == 202
    assert len(api.container.provider.requests) == requests
    assert batches.get_batch(api, batch_id)["status"] == "completed_with_failures"
    assert api.call("POST", f"/jobs/{job_id_of_row(batch_id, 1)}/retry", {}).status == 409
    assert api.call("GET", f"/jobs/{job_id_of_row(batch_id, 1)}?include=prompt").json["error"]["code"] == "invalid_request"


def test_a_row_with_an_internal_error_fails_without_stopping_others(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job of the row must fail; otherwise the batch would be tried for ever."""
    batch_id = batches.submit(api, 3)

    def fail_one_row(content: Any, _options: Any) -> str:
        if content == "Say 1.":
            raise KeyError("a bug")
        return str(content)

    monkeypatch.setitem(job_types._discovered(), "general", replace(job_types.get("general"), render=fail_one_row))
    batches.settle(api)

    seen = batches.get_batch(api, batch_id)
    assert (seen["status"], seen["counts"]["completed"], seen["counts"]["failed"]) == ("completed_with_failures", 2, 1)
    [_, broken, _] = batches.export(api, batch_id).json["items"]
    assert broken["error_code"] == "internal_error"


def test_a_batch_with_expired_rows_fails_with_reason_rows_gone(api: Api) -> None:
    batch_id = batches.submit(api, 2)
    api.container.batch_rows._kept.clear()

    batches.settle(api)
    sweep(api, 300)
    batches.settle(api)

    seen = batches.get_batch(api, batch_id)
    assert (seen["status"], seen["reason"], seen["counts"]["cancelled"]) == ("failed", "rows_gone", 2)


def test_jobs_of_a_batch_are_listed_in_descending_row_order(api: Api) -> None:
    batch_id, other = batches.submit(api, 130), batches.submit(api, 2)
    batches.settle(api)

    first = api.call("GET", f"/jobs?batch={batch_id}&limit=100").json
    rest = api.call("GET", f"/jobs?batch={batch_id}&limit=100&cursor={first['next_cursor']}").json

    ids = [job["job_id"] for job in first["data"] + rest["data"]]
    assert ids == [job_id_of_row(batch_id, number) for number in reversed(range(130))]
    assert rest["next_cursor"] is None
    assert api.call("GET", f"/jobs?batch={other}&status=completed").json["data"][0]["job_id"] == job_id_of_row(other, 1)
    assert api.call("GET", f"/jobs?batch={batch_id}", token="colleague").json["data"] == []
    assert api.call("GET", "/jobs?batch=nonsense").json["data"] == []


def test_a_large_export_is_stored_and_redirected(api: Api) -> None:
    batch_id = batches.submit(api, 501)
    batches.tasks(api)

    reply = batches.export(api, batch_id, "csv")

    assert (reply.status, reply.headers["location"]) == (307, reply.json["location"])
    [export] = api.container.batch_rows.exports.values()
    assert len(export.splitlines()) == 502


def test_an_export_too_large_once_encoded_is_redirected(api: Api) -> None:
    """A Chinese character takes six bytes in an encoded response, which may have 6 MB at most."""
    for script in range(50):
        api.container.provider.scripts[script] = Script(deltas=["答" * 20_000])
    batch_id = batches.submit(api, 50)
    batches.settle(api)

    reply = batches.export(api, batch_id)

    assert (reply.status, reply.headers["location"]) == (307, reply.json["location"])


def test_an_oversized_export_returns_413_and_suggests_an_export_job(api: Api) -> None:
    for script in range(3):
        api.container.provider.scripts[script] = Script(deltas=["x" * 9_000_000])
    batch_id = batches.submit(api, 3)
    batches.settle(api)

    reply = batches.export(api, batch_id)

    assert (reply.status, reply.json["error"]["code"]) == (413, "too_large")
    assert "type export" in reply.json["error"]["message"]


def test_an_invalid_task_message_goes_to_the_dead_letter_queue(api: Api) -> None:
    for body in ("garbage", "[]", '{"task": null}'):
        api.container.queues.put_raw("tasks", body)

    batches.tasks(api)

    assert [body for body, _ in api.container.queues.dead_lettered["tasks"]] == ["garbage", "[]", '{"task": null}']


def test_a_batch_releases_no_rows_into_a_full_lane(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    api.container.settings = Settings(max_lane_depth=60)
    batch_id = batches.submit(api, 150)
    batches.tasks(api)
    assert len(api.container.jobs.records) == WAVE_SIZE

    work(api, "low")
    for _ in range(20):
        api.container.clock.advance(31)
        batches.settle(api)

    assert batches.get_batch(api, batch_id)["status"] == "completed"


def queued_limit(api: Api, **queued: int) -> None:
    assert api.call("PUT", "/limits/tenants/acme", {"queued": queued}, "stage_admin").status == 200
    api.container.clock.advance(30)


def test_rows_wait_for_the_queued_jobs_limit_of_their_own_lane_and_none_fails(api: Api) -> None:
    """The rows of other lanes get their jobs; the wave is paused until the lane has room."""
    queued_limit(api, low=3)
    rows: list[Any] = [{"content": f"Low {number}."} for number in range(10)]
    rows += [{"content": f"High {number}.", "priority": "high"} for number in range(5)]
    batch_id = batches.submit(api, rows)
    batches.tasks(api)

    made = [job.lane for job in api.container.jobs.records.values()]
    assert sorted(made) == ["high"] * 5 + ["low"] * 3

    for _ in range(8):
        api.container.clock.advance(31)
        batches.settle(api, "low", "high")

    shown = batches.get_batch(api, batch_id)
    assert (shown["status"], shown["counts"]["completed"], shown["counts"]["failed"]) == ("completed", 15, 0)
    assert not +api.container.jobs.slots


def test_rows_ask_for_the_depth_of_their_own_lane(api: Api) -> None:
    """A batch of low rows, of which one is urgent: the lane `urgent` is full, so that row has to wait."""
    api.container.settings = Settings(max_lane_depth=2)
    for _ in range(2):
        api.submit(priority="urgent")
    batches.submit(api, [{"content": "a"}, {"content": "b", "priority": "urgent"}])
    batches.tasks(api)

    assert sorted(job.lane for job in api.container.jobs.records.values()) == ["low", "urgent", "urgent"]


def test_a_wave_that_waits_for_its_lane_is_not_released_after_the_batch_was_cancelled(api: Api) -> None:
    queued_limit(api, low=3)
    batch_id = batches.submit(api, 10)
    batches.tasks(api)
    assert api.call("DELETE", f"/batches/{batch_id}").status in (200, 202)

    for _ in range(4):
        api.container.clock.advance(31)
        batches.settle(api)

    assert {job.status for job in api.container.jobs.records.values()} <= {Status.CANCELLED, Status.COMPLETED}
    assert len(api.container.jobs.records) == 3


def test_a_full_lane_does_not_multiply_retry_messages(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweeper wakes the batch each minute and must not add a message each time."""
    api.container.settings = Settings(max_lane_depth=60)
    batches.submit(api, 150)
    batches.tasks(api)

    for _ in range(30):
        sweep(api, 31)
        sweep(api, 31)
        batches.tasks(api)

    assert len(api.container.queues.messages["tasks"]) <= 2


def test_a_bulk_operation_can_select_the_jobs_of_a_batch(api: Api) -> None:
    batch_id = batches.submit(api, 5)
    other = api.submit()
    batches.tasks(api)

    answer = api.call("POST", "/bulk", {"action": "set_priority", "priority": "high", "filter": {"batch": batch_id}}, "operator").json

    assert answer["done"] == 5
    assert api.job(other).lane == "normal"


def test_a_row_runs_after_its_dependencies_with_their_outputs(api: Api) -> None:
    items = [
        {"id": "last", "content": "Compare {{parents.first.output}} and {{parents.second.output}}.", "depends_on": ["first", "second"]},
        {"id": "first", "content": "One."},
        {"id": "second", "content": "Two."},
    ]
    batch_id = batches.submit(api, items)
    batches.tasks(api)
    assert api.job(job_id_of_row(batch_id, 0)).status.value == "waiting"

    for _ in range(3):
        batches.settle(api)
        api.module.on_job_change({"Records": [change(None, job) for job in api.container.jobs.records.values()]}, CONTEXT)
    batches.settle(api)

    seen = batches.get_batch(api, batch_id)
    assert (seen["status"], seen["counts"]["completed"]) == ("completed", 3)
    assert [row["id"] for row in batches.export(api, batch_id).json["items"]] == ["last", "first", "second"]
    assert "Compare all of it and all of it." in [request.prompt for request in api.container.provider.requests]


def test_a_row_may_depend_only_on_jobs_visible_to_its_user(api: Api) -> None:
    own, foreign = api.submit(), api.submit("stranger")

    assert batches.submit(api, [{"content": "After {{parents." + own + ".output}}", "depends_on": [own]}])
    refused = api.call("POST", "/batches", {"items": [{"content": "After", "depends_on": [foreign]}]})

    assert refused.status == 400


def test_the_number_of_jobs_a_batch_depends_on_is_limited(api: Api) -> None:
    """Each job is read at submission and each missing job is reported, so both are bounded."""

    def items_with_unknown_dependencies(rows: int) -> list[dict[str, Any]]:
        return [{"content": "After.", "depends_on": [new_id() for _ in range(100)]} for _ in range(rows)]

    unknown = api.call("POST", "/batches", {"items": items_with_unknown_dependencies(3)})
    many = api.call("POST", "/batches", {"items": items_with_unknown_dependencies(11)})

    assert (unknown.status, len(unknown.json["error"]["details"])) == (400, 100)
    assert many.status == 400
    assert [detail["path"] for detail in many.json["error"]["details"]] == ["items"]
    assert "1,000" in many.json["error"]["details"][0]["message"]


def test_equal_story_rows_are_not_deduplicated(api: Api) -> None:
    """A row without a job of its own would keep its batch from ending."""
    story = {"input": {"title": "A title", "content": "Once upon a time."}}
    first = batches.submit(api, [story, story], type="story_enhancement")
    batches.tasks(api)
    again = batches.submit(api, [story], type="story_enhancement")
    batches.tasks(api)

    assert [len([job for job in api.container.jobs.records.values() if job.batch_id == batch_id]) for batch_id in (first, again)] == [2, 1]
    assert all(row.released == row.total for row in api.container.batches.rows.values())


def test_a_batch_that_cannot_be_released_while_its_rows_are_stored_is_refused(api: Api) -> None:
    """Also as a dry run. The answer says how long it would take."""
    items = [f"row {number}" for number in range(1_500)]

    for dry_run in (False, True):
        reply = api.call("POST", "/batches", {"items": items, "batch_size": 1, "delay": 3_600, "dry_run": dry_run})
        [detail] = reply.json["error"]["details"]
        assert (reply.status, detail["path"]) == (400, "delay")
        assert "1,500 rows in groups of 1, with 3,600 s between two groups, are released over 62.5 days" in detail["message"]
    assert api.container.batches.rows == {}
    assert api.call("POST", "/batches", {"items": items, "batch_size": 2, "delay": 3_600}).status == 202
