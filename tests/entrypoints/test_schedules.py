"""The scheduled functions of `app.py`: each has its own work and time, and none waits for another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.jobs.job import Status
from chalicelib.domain.queues.lanes import SCHEDULE
from tests.kit.http import Api, unreachable
from tests.kit.triggers import deliver, publish_change
from tests.kit.work import SCHEDULES, run_schedule, sweep, work


def lost_wake_up(api: Api) -> Any:
    """A queued job whose wake-up was lost; the result of its recovery."""
    api.submit()
    api.container.queues.messages["normal"].clear()
    return lambda: len(api.container.queues.messages["normal"])


def lost_delivery(api: Api) -> Any:
    job_id = api.submit(webhook_url="https://hooks.example.com/x")
    job = api.job(job_id)
    api.container.jobs.records[job_id] = replace(job, status=Status.COMPLETED, finished_at=api.container.clock.now(), due_at=None)
    publish_change(api, job_id)
    api.container.queues.messages["deliveries"].clear()
    return lambda: sum(job_id in message.body for message in api.container.queues.messages["deliveries"])


def lost_end(api: Api) -> Any:
    """The end of a job that the change stream did not deliver."""
    job_id = api.submit(webhook_url="https://hooks.example.com/x")
    job, now = api.job(job_id), api.container.clock.now()
    api.container.jobs.records[job_id] = replace(job, status=Status.COMPLETED, finished_at=now, due_at=now)
    return lambda: sum(delivery.owner == job_id for delivery in api.container.deliveries.rows.values())


def lost_batch_task(api: Api) -> Any:
    assert api.call("POST", "/batches", {"items": ["a", "b"]}).status == 202
    api.container.queues.messages["tasks"].clear()
    return lambda: sum("advance_batch" in message.body for message in api.container.queues.messages["tasks"])


def lost_bulk_task(api: Api) -> Any:
    job_id = api.submit()
    real, api.container.jobs.replace = api.container.jobs.replace, unreachable(api.container.jobs.replace)  # type: ignore[method-assign]
    assert api.call("POST", "/bulk", {"action": "cancel", "ids": [job_id]}, "operator").status == 202
    api.container.jobs.replace = real  # type: ignore[method-assign]
    api.container.queues.messages["tasks"].clear()
    return lambda: sum("advance_bulk_operation" in message.body for message in api.container.queues.messages["tasks"])


def lost_visit(api: Api) -> Any:
    """A job that is held in a line, and the scheduler was not woken."""
    assert api.call("POST", "/pauses", {"scope": {"type": "export"}, "reason": "x"}, "operator").status == 201
    api.submit(job_type="export", prompt=None, input={"filter": {"status": "completed"}})
    work(api, "work")
    api.container.queues.messages[SCHEDULE].clear()
    return lambda: len(api.container.queues.messages[SCHEDULE])


WORK = {
    "sweep": lost_wake_up,
    "sweep_lines": lost_visit,
    "sweep_deliveries": lost_delivery,
    "sweep_job_ends": lost_end,
    "sweep_batches": lost_batch_task,
    "sweep_bulk_operations": lost_bulk_task,
}


def test_every_scheduled_function_has_lost_work_here() -> None:
    assert set(WORK) == set(SCHEDULES)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_scheduled_function_does_its_work_and_no_other(api: Api, name: str) -> None:
    """Whatever happens in the others."""
    recovered = {schedule: prepare(api) for schedule, prepare in WORK.items() if schedule != "sweep_batches"}
    api.container.clock.advance(200)
    recovered["sweep_batches"] = lost_batch_task(api)
    api.container.queues.messages["normal"].clear()
    before = {schedule: count() for schedule, count in recovered.items()}

    run_schedule(api, name)

    changed = {schedule for schedule, count in recovered.items() if count() != before[schedule]}
    assert changed == {name}


def test_late_retries_do_not_wait_for_a_long_sweep(api: Api) -> None:
    """The sweep of jobs uses up all of its time; the others are functions of their own."""
    recovered = [prepare(api) for prepare in (lost_delivery, lost_end, lost_batch_task, lost_bulk_task)]
    real = api.container.leases.all

    def slow() -> Any:
        api.container.clock.advance(54)
        return real()

    api.container.leases.all = slow  # type: ignore[method-assign]
    for _ in range(4):  # a batch that is idle for some minutes is not woken in each of them
        sweep(api, after=60)

    assert all(count() for count in recovered)


def test_a_delivery_message_that_sqs_hands_out_again_is_not_sent_on(api: Api) -> None:
    """Its first receiver may have sent it on before it died."""
    lost_delivery(api)
    api.container.clock.advance(200)
    run_schedule(api, "sweep_deliveries")
    [delivery] = api.container.deliveries.rows.values()
    later = replace(delivery, version=delivery.version + 1, due_at=delivery.due_at + 3_600_000)
    api.container.deliveries.rows[delivery.owner, delivery.id] = later
    [message] = api.container.queues.messages["deliveries"]
    body = message.body.replace(str(delivery.due_at), str(later.due_at))

    for receives, sent in (("2", 0), ("1", 1)):
        api.container.queues.messages["deliveries"].clear()
        record = {"body": body, "receiptHandle": "r", "messageId": "m", "attributes": {"ApproximateReceiveCount": receives}}
        api.module.deliver({"Records": [record]}, None)
        assert len(api.container.queues.messages["deliveries"]) == sent

    deliver(api)
    assert api.container.webhook_client.requests == []
