"""A deployment through `app.py`: records and messages that another version of the code wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.consumers.release_dependents import RemainingDependents
from chalicelib.domain.errors import JobTypeNotFound
from chalicelib.domain.ids import job_id_of_row
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.queues.wakeup import WakeUp
from chalicelib.domain.units import DAY_MS
from chalicelib.entrypoints import triggers
from chalicelib.entrypoints.triggers import UnknownTask
from chalicelib.services.dependencies.release_dependents import resolve_dependencies
from chalicelib.services.notifications.outbox import DeliveryMessage
from tests.kit import batches
from tests.kit.change_records import change
from tests.kit.failing_store import refusing
from tests.kit.http import CONTEXT, Api
from tests.kit.records import delivery
from tests.kit.sockets import Socket
from tests.kit.unreadable import make_unreadable
from tests.kit.work import SCHEDULES, run_schedule, sweep, work


@pytest.fixture(autouse=True)
def _region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")


# ---- the API


@pytest.mark.parametrize("path", ["", "/status", "/progress", "/text", "/result", "/attempts", "/graph", "/deliveries"])
def test_a_read_of_an_unreadable_job_is_refused_with_a_code(api: Api, path: str) -> None:
    """The answer says what to do, and nothing of the record."""
    job_id = api.submit()
    make_unreadable(api.container.jobs, job_id)

    reply = api.call("GET", f"/jobs/{job_id}{path}", token="operator")

    assert (reply.status, reply.json["error"]["code"], reply.headers["retry-after"]) == (503, "record_unreadable", "60")
    assert "flying" not in reply.text


@pytest.mark.parametrize("path", ["cancel", "retry"])
def test_an_unreadable_job_is_not_changed(api: Api, path: str) -> None:
    job_id = api.submit()
    before = api.job(job_id)
    make_unreadable(api.container.jobs, job_id)

    assert api.call("POST", f"/jobs/{job_id}/{path}", {}, "operator").status == 503

    assert api.container.jobs.records[job_id] == before


def test_a_page_of_jobs_leaves_out_an_unreadable_one(api: Api) -> None:
    ids = [api.submit() for _ in range(3)]
    make_unreadable(api.container.jobs, ids[1])

    page = api.call("GET", "/jobs").json

    assert {job["job_id"] for job in page["data"]} == {ids[0], ids[2]}


def test_a_batch_shows_an_unreadable_row_as_such(api: Api) -> None:
    """It is neither deleted nor waiting."""
    batch_id = batches.submit(api, 3)
    batches.settle(api)
    make_unreadable(api.container.jobs, job_id_of_row(batch_id, 1))

    rows = batches.get_batch(api, batch_id, query="?detailed=true")["data"]

    assert [row["status"] for row in rows] == ["completed", "unreadable", "completed"]
    assert batches.export(api, batch_id).status == 200


def test_a_batch_is_recounted_without_its_unreadable_rows(api: Api) -> None:
    """They stay as they were counted."""
    batch_id = batches.submit(api, 3)
    batches.settle(api)
    make_unreadable(api.container.jobs, job_id_of_row(batch_id, 1))

    reply = api.call("POST", f"/batches/{batch_id}/recount", {}, "operator")

    assert (reply.status, reply.json["counts"]["completed"] if "counts" in reply.json else reply.json["completed"]) == (200, 3)


def test_a_graph_leaves_out_an_unreadable_job(api: Api) -> None:
    parent = api.submit()
    child = api.submit(depends_on=[parent])
    make_unreadable(api.container.jobs, parent)

    nodes = api.call("GET", f"/jobs/{child}/graph").json["nodes"]

    assert [node["job_id"] for node in nodes] == [child]


@pytest.mark.parametrize("by_id", [True, False])
def test_a_bulk_action_skips_an_unreadable_job(api: Api, *, by_id: bool) -> None:
    ids = [api.submit() for _ in range(3)]
    make_unreadable(api.container.jobs, ids[1])

    answer = api.call("POST", "/bulk", {"action": "cancel", **({"ids": ids} if by_id else {"all": True})}, "operator").json

    assert (answer["status"], answer["done"]) == ("completed", 2)
    if by_id:
        assert (answer["skipped"], answer["not_found"]) == (1, 0)
        assert [problem["code"] for problem in answer["problems"]] == ["record_unreadable"]
    assert [api.container.jobs.records[job_id].status.value for job_id in ids] == ["cancelled", "queued", "cancelled"]


def test_a_redrive_keeps_the_dead_letter_of_an_unreadable_job(api: Api) -> None:
    """The version that reads the record redrives it."""
    ids = [api.submit() for _ in range(2)]
    for job_id in ids:
        api.container.queues.give_up("normal", WakeUp(job_id, 1).to_json())
    make_unreadable(api.container.jobs, ids[0])

    answer = api.call("POST", "/failed-jobs/redrive", {}, "stage_admin").json

    assert (answer["redriven"], answer["dropped"], answer["kept"]) == (1, 0, 1)
    assert [json.loads(message.body)["job_id"] for message, _ in api.container.queues.dead["normal"]] == [ids[0]]


def test_a_subscription_to_an_unreadable_job_is_answered_with_an_error_frame(api: Api) -> None:
    job_id, socket = api.submit(), Socket(api)
    socket.connect("user")
    make_unreadable(api.container.jobs, job_id)

    frames = socket.send({"action": "subscribe", "job_id": job_id})

    assert [(frame["event"], frame["code"]) for frame in frames] == [("error", "record_unreadable")]


def test_a_job_with_an_unreadable_parent_waits_and_is_not_cancelled(api: Api) -> None:
    """An unreadable parent is no deleted one."""
    parent = api.submit()
    child = api.submit(depends_on=[parent])
    unreadable = make_unreadable(api.container.jobs, parent)

    api.container.clock.advance(200)
    sweep(api)
    assert api.job(child).status is Status.WAITING
    assert (api.job(child).due_at or 0) > api.container.clock.now()

    unreadable.clear()
    work(api)
    resolve_dependencies(api.container, api.job(child))
    assert api.job(child).status is Status.QUEUED


def test_a_cursor_of_a_version_with_more_fields_is_accepted(api: Api) -> None:
    import base64

    ids = [api.submit() for _ in range(3)]
    cursor = api.call("GET", "/jobs?limit=1").json["next_cursor"]
    stored = json.loads(base64.urlsafe_b64decode(cursor + "=="))
    newer = base64.urlsafe_b64encode(json.dumps([*stored, "of_tomorrow"]).encode()).decode().rstrip("=")

    page = api.call("GET", f"/jobs?limit=1&cursor={newer}").json

    assert [job["job_id"] for job in page["data"]] == [ids[1]]


# ---- messages


def run_tasks(api: Api, *bodies: str) -> None:
    api.module.run_tasks({"Records": [{"body": body, "receiptHandle": "r", "messageId": "m"} for body in bodies]}, CONTEXT)


def test_an_unknown_task_stays_in_the_queue_and_stops_no_other(api: Api) -> None:
    """A newer version has sent it; this one must not dead-letter what the newer one would do."""
    batch_id = batches.submit(api, 3)
    known = api.container.queues.receive("tasks")[0].body

    with pytest.raises(UnknownTask):
        run_tasks(api, '{"task": "of_tomorrow", "x": 1}', known)

    assert not api.container.queues.dead_lettered["tasks"]
    assert len([job for job in api.container.jobs.records.values() if job.batch_id == batch_id]) == 3


TASKS = {
    "advance_batch": {"tenant": "acme", "batch_id": "batch_1"},
    "advance_bulk_operation": {"tenant": "acme", "bulk_id": "bulk_1", "version": 1},
    "release_dependents": json.loads(RemainingDependents("acme", f"job_{1:026}").to_json()),
}


def test_every_task_has_an_example() -> None:
    assert set(TASKS) == set(triggers._TASKS)


@pytest.mark.parametrize("name", list(TASKS))
def test_an_extra_field_of_a_task_is_skipped(api: Api, name: str) -> None:
    run_tasks(api, json.dumps({**TASKS[name], "task": name, "of_tomorrow": {"a": 1}}))

    assert not api.container.queues.dead_lettered["tasks"]


def test_an_extra_field_of_a_wake_up_is_skipped(api: Api) -> None:
    job_id = api.submit()
    api.container.queues.messages["normal"].clear()
    api.container.queues.put_raw("normal", json.dumps({"job_id": job_id, "generation": 1, "of_tomorrow": 1}))

    work(api)

    assert api.job(job_id).status is Status.COMPLETED


def test_an_extra_field_of_a_delivery_message_is_skipped() -> None:
    message = DeliveryMessage("job_1", "dlv_1", due_at=1763800000000)

    assert DeliveryMessage.from_json(json.dumps({**json.loads(message.to_json()), "of_tomorrow": 1})) == message


def test_a_delivery_message_of_a_version_without_due_times_is_for_any_attempt() -> None:
    message = DeliveryMessage.from_json('{"owner": "job_1", "delivery": "dlv_1"}')

    assert [message.is_for(delivery(due_at=due_at)) for due_at in (1, 2)] == [True, True]


# ---- batches of a type that only a newer version knows


def unknown_type(_name: str) -> Any:
    raise JobTypeNotFound(_name)


def test_rows_of_a_type_of_tomorrow_are_released_by_the_version_that_knows_it(api: Api) -> None:
    batch_id = batches.submit(api, 3)
    known, vars(api.container)["job_type"] = api.container.job_type, unknown_type
    batches.tasks(api)
    assert not api.container.jobs.records

    vars(api.container)["job_type"] = known
    sweep(api, 700)
    batches.settle(api)

    assert batches.get_batch(api, batch_id)["status"] == "completed"


def test_rows_of_a_removed_type_fail_after_a_day(api: Api) -> None:
    """Otherwise their batch would never end."""
    batches.submit(api, 3)
    vars(api.container)["job_type"] = unknown_type
    api.container.clock.advance(DAY_MS / 1000 + 1)
    batches.tasks(api)

    assert {job.status for job in api.container.jobs.records.values()} == {Status.FAILED}


# ---- the change stream and the schedule


def test_an_end_is_handled_although_the_image_before_it_cannot_be_read(api: Api) -> None:
    parent = api.submit()
    child = api.submit(depends_on=[parent])
    before = api.job(parent)
    work(api)
    record = change(before, api.job(parent))
    record["dynamodb"]["OldImage"]["status"] = {"S": "flying"}

    api.module.on_job_change({"Records": [record]}, CONTEXT)

    assert api.job(child).status is Status.QUEUED


@pytest.mark.parametrize(
    ("port", "method"),
    [("batches", "stalled"), ("deliveries", "due"), ("bulk_operations", "unfinished"), ("leases", "all"), ("jobs", "due")],
)
def test_a_schedule_or_a_step_of_it_that_fails_stops_no_other(api: Api, port: str, method: str) -> None:
    """The error of a function is seen by its alarm."""
    job_id = api.submit(tags=["x"])
    api.container.queues.messages["normal"].clear()
    bulk = api.call("POST", "/bulk", {"action": "cancel", "ids": [job_id]}, "operator").json["bulk_id"]
    unfinished = replace(api.container.bulk_operations.rows[bulk], finished_at=None, locked_until=0, version=7)
    api.container.bulk_operations.rows[bulk] = unfinished

    failed = set[str]()
    api.container.clock.advance(120)
    api.container.queues.messages["tasks"].clear()
    with refusing(getattr(api.container, port), method, 10, ValueError):
        for schedule in SCHEDULES:
            try:
                run_schedule(api, schedule)
            except ValueError:
                failed.add(schedule)

    of_a_step = {"leases": set[str](), "jobs": {"sweep_job_ends"}}  # `sweep` has several steps, and logs which one failed
    assert failed == of_a_step.get(port, {f"sweep_{port}"})
    woken = any(bulk in message.body for message in api.container.queues.messages["tasks"])
    assert woken == (port != "bulk_operations")
