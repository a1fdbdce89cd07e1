"""Job type `notification`: each recipient gets the caller's message once, despite crashes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from chalicelib.domain.errors import InvalidRequest, Throttled
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.notifications.delivery import Delivery, DeliveryState
from chalicelib.domain.notifications.recipients import RecipientAllowlist
from chalicelib.services.jobs.retry_job import retry_job
from chalicelib.services.notifications.settings import check_addresses
from tests.kit.deliveries import HOOK, deliver, payload, run_deliveries
from tests.kit.failing_store import refusing
from tests.kit.task_runs import parsed_result, slow_offload
from tests.kit.task_types import run_to_end
from tests.kit.world import World, kill

SLACK = "https://hooks.slack.com/services/T0/B0/secret"
RECIPIENTS = ["email:Ops@acme.com", "slack:alerts", f"webhook:{HOOK}"]


def with_allowlist(**changes: Any) -> World:
    """A world whose tenant has a recipient allowlist."""
    world = World(**changes)
    world.container.notification_settings.put_allowlist("acme", RecipientAllowlist(emails=("ops@acme.com",), slack={"alerts": SLACK}))
    return world


def submit_notification(world: World, to: Any = tuple(RECIPIENTS), attempts: int = 3, **more: Any) -> Job:
    given = {"to": list(to) if isinstance(to, tuple) else to, "subject": "All done", "message": "The nightly run is over.", **more}
    return world.submit(None, input=given, job_type="notification", config={"max_attempts": attempts})


def test_a_notification_job_completes_once_its_deliveries_are_enqueued() -> None:
    """The deliveries record what becomes of the messages."""
    world = with_allowlist()
    job = submit_notification(world, data={"rows": 3})

    world.deliver()

    deliveries = parsed_result(world, job)["deliveries"]
    assert [one["recipient"] for one in deliveries] == ["email:ops@acme.com", "slack:alerts", f"webhook:{HOOK}"]
    assert {one["status"] for one in deliveries} == {"pending"}
    assert (world.container.email.sent, world.container.webhook_client.requests) == ([], [])
    deliver(world)
    assert world.container.email.sent == [("ops@acme.com", "All done", "The nightly run is over.")]
    kept = world.container.deliveries.for_owner(job.id)
    assert {one.id for one in kept} == {one["delivery_id"] for one in deliveries}
    assert {one.state for one in kept} == {DeliveryState.DELIVERED}
    event = payload(world.container.webhook_client.requests[-1])
    assert event["type"] == "notification"
    assert event["data"] == {"job_id": job.id, "subject": "All done", "text": "The nightly run is over.", "data": {"rows": 3}}


def test_a_single_recipient_may_be_given_as_a_string() -> None:
    world = with_allowlist()
    job = submit_notification(world, "slack:alerts")

    world.deliver()

    assert [one["recipient"] for one in parsed_result(world, job)["deliveries"]] == ["slack:alerts"]


@pytest.mark.parametrize("seconds", [number / 4 + 0.1 for number in range(24)])
def test_each_recipient_gets_one_message_wherever_the_worker_is_killed(seconds: float) -> None:
    world = with_allowlist(offload=slow_offload)
    job = submit_notification(world)
    kill(world, seconds)
    deliver(world)

    run_to_end(world, [job])
    run_deliveries(world, 0.2)

    assert len(parsed_result(world, job)["deliveries"]) == 3
    assert (len(world.container.email.sent), len(world.container.webhook_client.requests)) == (1, 2)


def lose_response(world: World, number: int) -> None:
    """Let the store write the delivery with this number and then raise `Throttled`."""
    create, calls = world.container.deliveries.create, itertools.count(1)

    def once(delivery: Delivery) -> Delivery:
        made = create(delivery)
        if next(calls) == number:
            raise Throttled
        return made

    world.container.deliveries.create = once  # type: ignore[method-assign]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_retried_notification_job_sends_no_message_twice(number: int) -> None:
    """The second attempt finds the deliveries that the first one wrote."""
    world = with_allowlist()
    lose_response(world, number)
    job = submit_notification(world)

    run_to_end(world, [job])
    run_deliveries(world, 0.2)

    assert world.job(job).attempt == 2
    assert (len(world.container.email.sent), len(world.container.webhook_client.requests)) == (1, 2)


def test_a_manual_retry_sends_only_the_missing_notifications() -> None:
    """The message id is derived from the job, so sending again takes another job."""
    world = with_allowlist()
    lose_response(world, 2)
    job = submit_notification(world, attempts=1)
    run_to_end(world, [job])
    assert world.job(job).status is Status.FAILED

    memory = world.container
    retry_job(world.container, world.job(job))
    run_to_end(world, [job])
    run_deliveries(world, 0.2)

    assert (world.job(job).run, len(parsed_result(world, job)["deliveries"])) == (2, 3)
    assert (len(memory.email.sent), len(memory.webhook_client.requests)) == (1, 2)


def test_a_recipient_removed_from_the_allowlist_gets_no_notification() -> None:
    """The allowlist is read when a message is sent."""
    world = with_allowlist()
    submit_notification(world, "slack:alerts")
    world.deliver()
    world.container.notification_settings.put_allowlist("acme", RecipientAllowlist())

    deliver(world)

    (kept,) = world.container.deliveries.rows.values()
    assert (kept.state, world.container.webhook_client.requests) == (DeliveryState.FAILED, [])


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("email:boss@evil.example", "is not allowed; allowed are email:ops@acme.com, slack:alerts"),
        ("slack:other", "is not allowed"),
        ("webhook:http://a.example/", "must begin with https://"),
        ("webhook:https://169.254.169.254/latest", "must be a public address"),
        ("webhook:", "must be a URL"),
        ("https://a.example/", "must be email:<address>, slack:<name> or webhook:<URL>"),
        ("email:{{parents.a.output}}", "must be email:<address>, slack:<name> or webhook:<URL>"),
    ],
)
def test_forbidden_or_malformed_recipients_are_refused_with_their_path(text: str, part: str) -> None:
    """`notify` and `webhook_url` produce the same messages."""
    world = with_allowlist()

    with pytest.raises(InvalidRequest) as caught:
        check_addresses(world.container, "acme", [("input.to.0", "slack:alerts"), ("input.to.1", text)])

    (detail,) = caught.value.details
    assert detail.path == "input.to.1"
    assert part in detail.message, detail.message


def test_webhook_recipients_alone_do_not_read_the_allowlist() -> None:
    world = with_allowlist()

    with refusing(world.container.notification_settings, "allowlist", 9) as asked:
        check_addresses(world.container, "acme", [("input.to", f"webhook:{HOOK}")])

    assert asked == [0]
