"""Invocations by queues and by the change stream, through `app.py`."""

from __future__ import annotations

from collections import Counter

import pytest

from chalicelib.consumers.release_dependents import PAGE_SIZE
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.jobs.transitions import AttemptOutcome, claim, finish
from tests.kit.batches import tasks
from tests.kit.change_records import change
from tests.kit.http import CONTEXT, Api
from tests.kit.sockets import Socket
from tests.kit.work import invoke, work


@pytest.mark.parametrize("lane", ["urgent", "high", "normal", "low"])
def test_each_lane_has_its_worker(api: Api, lane: str) -> None:
    job_id = api.submit(priority=lane)

    work(api, lane)

    assert api.container.jobs.records[job_id].status is Status.COMPLETED


@pytest.mark.parametrize("lane", ["urgent", "high", "normal", "low"])
def test_tasks_of_every_lane_run_in_the_worker_of_tasks(api: Api, lane: str) -> None:
    """Their priority is kept, and counts for lists and filters."""
    job_id = api.submit("operator", prompt=None, job_type="data_cleanup", input={"dry_run": True}, priority=lane)
    work(api, lane)
    before = api.job(job_id).status

    work(api, "work")

    assert (before, api.job(job_id).status, api.job(job_id).lane) == (Status.QUEUED, Status.COMPLETED, lane)
    listed = api.call("GET", f"/jobs?priority={lane}", token="operator").json["data"]
    assert [(row["job_id"], row["priority"], row["queue"]) for row in listed] == [(job_id, lane, f"data_cleanup:{lane}")]


@pytest.mark.parametrize("body", ["", "{}", "garbage", '{"job_id": "x"}', "\x00", "[" * 50_000])
def test_an_invalid_wake_up_goes_to_the_dead_letter_queue(api: Api, body: str) -> None:
    """The reason is stored with the message for the operator."""
    invoke(api, "high", [{"body": body, "receiptHandle": "r", "messageId": "m"}])

    [(kept, reason)] = api.container.queues.dead_lettered["high"]
    assert kept == body
    assert reason


def test_the_change_stream_announces_an_end_missed_by_the_worker(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker dies before broadcasting (protocol rule 14: write first, then read)."""
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    socket = Socket(api)
    socket.connect("user")
    job = api.container.jobs.records[api.submit()]
    socket.send({"action": "subscribe", "job_id": job.id})
    running = claim(job, 1, "owner", api.container.clock.now())
    assert running is not None
    ended = finish(running, 1, "owner", AttemptOutcome(status=Status.COMPLETED, length=0), api.container.clock.now())
    assert ended is not None

    api.module.on_job_change({"Records": [change(None, job), change(job, running), change(running, ended)]}, CONTEXT)

    assert [frame["event"] for frame in socket.frames] == ["connected", "job_completed"]
    assert socket.assembled.done


def test_an_unreadable_change_record_does_not_stop_the_others(api: Api) -> None:
    """Another version of the code wrote it, so it is no dead letter. Deletions by TTL are ignored."""
    readable, deleted = (api.submit() for _ in range(2))
    child, child_of_deleted = (api.submit(depends_on=[parent]) for parent in (readable, deleted))
    work(api)
    broken = change(None, api.job(readable))
    broken["dynamodb"]["NewImage"] = {"id": {"S": "job_broken"}, "status": {"S": "flying"}}
    broken["dynamodb"]["Keys"] = {"id": {"S": "job_broken"}}
    removed = {**change(None, api.job(deleted)), "eventName": "REMOVE"}

    api.module.on_job_change({"Records": [broken, removed, change(None, api.job(readable))]}, CONTEXT)

    assert not api.container.queues.dead_lettered["stream"]
    assert (api.job(child).status, api.job(child_of_deleted).status) == (Status.QUEUED, Status.WAITING)


@pytest.mark.parametrize(
    "body",
    [
        "garbage",
        "[" * 50_000,
        "[]",
        "{}",
        '{"task": ["advance_batch"]}',
        '{"task": "advance_batch"}',
        '{"task": "advance_batch", "tenant": "acme", "batch_id": 7}',
        '{"task": "release_dependents"}',
        '{"task": "release_dependents", "tenant": "acme", "job_id": "x", "after": null}',
    ],
)
def test_an_invalid_task_message_goes_to_the_dead_letter_queue(api: Api, body: str) -> None:
    api.module.run_tasks({"Records": [{"body": body, "receiptHandle": "r", "messageId": "m"}]}, CONTEXT)

    assert api.container.queues.dead_lettered["tasks"] == [(body, "the message names no task")]


def test_many_dependents_are_released_by_the_change_stream_and_by_tasks(api: Api) -> None:
    """The change stream releases the first page, and a task releases the rest."""
    parent = api.container.jobs.records[api.submit()]
    children = [api.submit(depends_on=[parent.id]) for _ in range(PAGE_SIZE + 20)]
    work(api, "normal")

    api.module.on_job_change({"Records": [change(parent, api.job(parent.id))]}, CONTEXT)
    assert Counter(api.job(child).status for child in children) == {Status.QUEUED: PAGE_SIZE, Status.WAITING: 20}
    tasks(api)

    assert Counter(api.job(child).status for child in children) == {Status.QUEUED: PAGE_SIZE + 20}
