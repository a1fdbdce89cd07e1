"""Notifications of job ends: one message for each recipient, retried for a day, never lost."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.adapters.memory.notifications import ReceivedRequest
from chalicelib.consumers.change_loop import DeadLetterFailed
from chalicelib.domain.errors import DeliveryBusy, DeliveryError, DeliveryNotFound, Throttled
from chalicelib.domain.jobs.job import JobError, Status
from chalicelib.domain.notifications.delivery import RETRY_SCHEDULE, DeliveryState
from chalicelib.domain.notifications.recipients import Channel, Recipient, RecipientAllowlist
from chalicelib.ports import WebhookResponse
from chalicelib.services.notifications.outbox import enqueue_message
from chalicelib.services.notifications.settings import get_signing_secrets, redeliver, rotate_signing_secret
from tests.kit.deliveries import HOOK, deliver, ended, notify, only_delivery, payload, run_deliveries, sweep
from tests.kit.failing_store import refusing
from tests.kit.world import World

HOUR = 3_600_000
SLACK = "https://hooks.slack.com/services/T0/B0/secret"
ALLOWLIST = RecipientAllowlist(emails=("ops@acme.com",), slack={"alerts": SLACK})


def answering(*statuses: int, then: int = 204) -> Callable[[ReceivedRequest], WebhookResponse]:
    answers = itertools.chain(statuses, itertools.repeat(then))
    return lambda _request: WebhookResponse(next(answers))


def enqueue_end(world: World, **fields: Any) -> None:
    """End a job that has recipients, and process the change."""
    notify(world, ended(world, **fields))


def test_a_webhook_receives_the_end_of_a_job_without_its_text() -> None:
    """Ids, status, figures and links only; the text is fetched with an API key."""
    world = World()
    change = ended(world, prompt="A secret question.", tags=("nightly",))

    notify(world, change)
    assert deliver(world) == ["delivered"]

    (request,) = world.container.webhook_client.requests
    event = payload(request)
    assert request.url == HOOK
    assert event["type"] == "job.completed"
    assert event["id"] == request.headers["webhook-id"]
    assert event["data"]["job_id"] == change[0]  # type: ignore[index]
    assert event["data"]["cost"] == "0.001500"  # type: ignore[index]
    assert event["data"]["links"]["result"] == f"https://api.example/api/jobs/{change[0]}/result"  # type: ignore[index]
    assert b"secret question" not in request.body


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.INCOMPLETE, Status.FAILED, Status.CANCELLED, Status.EXPIRED])
def test_every_terminal_status_sends_its_webhook_event(status: Status) -> None:
    world = World()

    enqueue_end(world, status=status)
    deliver(world)

    assert payload(world.container.webhook_client.requests[0])["type"] == f"job.{status.value}"


def test_a_webhook_contains_the_error_code_but_not_its_message() -> None:
    """The message could quote the provider."""
    world = World()
    job_id, before, after = ended(world, Status.FAILED)
    assert after is not None
    error = JobError(code="timeout", error_class="timeout", retryable=True, message="private", suggestion="private", attempt=1)

    notify(world, (job_id, before, replace(after, error=error)))
    deliver(world)

    (request,) = world.container.webhook_client.requests
    assert payload(request)["data"]["error"] == {"code": "timeout", "class": "timeout", "retryable": True}  # type: ignore[index]
    assert b"private" not in request.body


def test_changes_other_than_a_job_end_create_no_delivery() -> None:
    """Neither does the end of a job without recipients."""
    world = World()
    job_id, before, after = ended(world)
    assert before is not None
    assert after is not None
    unnotified = world.submit("no recipients")

    notify(world, (job_id, None, before), (job_id, after, replace(after, version=4, ttl=1)))
    notify(world, (unnotified.id, unnotified, replace(unnotified, status=Status.COMPLETED)))

    assert world.container.deliveries.rows == {}
    assert not unnotified.notifies


def test_repeated_stream_records_send_one_webhook() -> None:
    """Repeated at once, after the delivery and two days later."""
    world = World()
    change = ended(world)

    notify(world, change, change)
    run_deliveries(world, 0.1)
    notify(world, change)
    world.clock.advance(2 * 86_400)
    notify(world, change)
    run_deliveries(world, 1)

    assert len(world.container.webhook_client.requests) == 1


def test_each_run_of_a_job_has_its_own_message() -> None:
    world = World()
    job_id, before, after = ended(world, Status.FAILED)
    assert before is not None
    assert after is not None

    notify(world, (job_id, before, after))
    notify(world, (job_id, replace(before, run=2), replace(after, run=2)))
    run_deliveries(world, 0.1)

    ids = {request.headers["webhook-id"] for request in world.container.webhook_client.requests}
    assert len(ids) == len(world.container.webhook_client.requests) == 2


def test_a_failing_delivery_is_abandoned_within_a_day() -> None:
    world = World()
    world.container.webhook_client.answer = answering(then=500)
    enqueue_end(world)

    run_deliveries(world, 25, step=20)

    delivery = only_delivery(world)
    created_at = delivery.created_at
    assert delivery.state is DeliveryState.FAILED
    assert len(delivery.attempts) == len(RETRY_SCHEDULE) + 1 == 9
    assert delivery.attempts[0].at - created_at < 30_000
    assert 18 * HOUR < delivery.attempts[-1].at - created_at < 24 * HOUR
    assert {one.error for one in delivery.attempts} == {"the receiver answered 500"}
    delays = [after.at - before.at for before, after in itertools.pairwise(delivery.attempts)]
    assert delays == sorted(delays)


def test_a_delivery_is_retried_until_accepted_by_the_receiver() -> None:
    """Every attempt has the same id and body, and a new timestamp."""
    world = World()
    world.container.webhook_client.answer = answering(503, 500, 302, 404)
    enqueue_end(world)

    run_deliveries(world, 3)

    requests = world.container.webhook_client.requests
    assert only_delivery(world).state is DeliveryState.DELIVERED
    assert [one.status for one in only_delivery(world).attempts] == [503, 500, 302, 404, 204]
    assert only_delivery(world).attempts[2].error == "redirects are not followed"
    assert len({(request.headers["webhook-id"], request.body) for request in requests}) == 1
    assert len({request.headers["webhook-timestamp"] for request in requests}) == len(requests)


def test_retry_after_of_a_receiver_is_honoured_within_bounds() -> None:
    """Only for 429 and 503, and for at most an hour."""
    world = World()
    answers = iter([WebhookResponse(429, 100.0), WebhookResponse(503, 10**9), WebhookResponse(500, 10**9), WebhookResponse(204)])
    world.container.webhook_client.answer = lambda _request: next(answers)
    enqueue_end(world)

    run_deliveries(world, 2)

    first, second, third, fourth = (one.at for one in only_delivery(world).attempts)
    assert 100_000 <= second - first < 110_000
    assert 3_600_000 <= third - second < 3_670_000
    assert fourth - third < 400_000


def test_retry_after_does_not_extend_the_delivery_window_of_a_day() -> None:
    world = World()
    world.container.webhook_client.answer = lambda _request: WebhookResponse(429, 10**9)
    enqueue_end(world)

    run_deliveries(world, 30, step=20)

    delivery = only_delivery(world)
    assert delivery.state is DeliveryState.FAILED
    assert len(delivery.attempts) < len(RETRY_SCHEDULE) + 1
    assert delivery.attempts[-1].at - delivery.created_at <= 24 * HOUR


def test_a_410_answer_ends_the_delivery_at_once() -> None:
    world = World()
    world.container.webhook_client.answer = answering(410, then=204)
    enqueue_end(world)

    run_deliveries(world, 1)

    assert only_delivery(world).state is DeliveryState.FAILED
    assert len(world.container.webhook_client.requests) == 1


def test_a_forbidden_address_fails_the_delivery_without_a_request() -> None:
    world = World()
    notify(world, ended(world))
    world.container.deliveries.rows.update(
        {key: replace(one, address="https://10.0.0.1/") for key, one in world.container.deliveries.rows.items()}
    )

    run_deliveries(world, 1)

    assert only_delivery(world).state is DeliveryState.FAILED
    assert [one.error for one in only_delivery(world).attempts] == ["the address must be a public address"]
    assert world.container.webhook_client.requests == []


def test_an_internal_error_during_a_delivery_is_retried() -> None:
    world = World()
    enqueue_end(world)

    with refusing(world.container.notification_settings, "signing_secrets", error=RuntimeError):
        deliver(world)
    run_deliveries(world, 0.1)

    assert [one.error for one in only_delivery(world).attempts] == ["internal error", None]


def test_a_crash_at_any_call_loses_no_message() -> None:
    """Before or after any call of a store, the queue or the receiver; the message id stays one."""
    calls = [
        ("deliveries", "create"),
        ("queues", "send_task"),
        ("deliveries", "get"),
        ("deliveries", "replace"),
        ("webhook_client", "post"),
    ]
    for (port, method), number, after in itertools.product(calls, (1, 2, 3), (False, True)):
        world, change = World(), None
        world.container.webhook_client.answer = answering(500)
        change = ended(world)
        real, count = getattr(getattr(world.container, port), method), itertools.count(1)

        def crash(*args: Any, real: Any = real, count: Any = count, number: int = number, after: bool = after, **named: Any) -> Any:
            if next(count) != number:
                return real(*args, **named)
            if after:
                real(*args, **named)
            raise SystemExit  # no `except Exception` catches it, so nothing after this call runs

        setattr(getattr(world.container, port), method, crash)
        for _ in range(400):
            try:
                if not world.container.deliveries.rows:
                    notify(world, change)  # the stream redelivers a batch whose function crashed
                deliver(world)
                sweep(world)
            except SystemExit:
                world.clock.advance(60)
            world.clock.advance(15)

        assert only_delivery(world).state is DeliveryState.DELIVERED, (port, method, number, after)
        assert len({request.headers["webhook-id"] for request in world.container.webhook_client.requests}) == 1


def test_a_message_received_by_two_dispatchers_is_sent_once() -> None:
    world = World()
    enqueue_end(world)
    (message,) = world.container.queues.receive("deliveries")
    world.container.webhook_client.answer = lambda _request: (_deliver_duplicate(world, message.body), WebhookResponse(204))[1]

    world.container.queues.put_raw("deliveries", message.body)
    deliver(world)

    assert len(world.container.webhook_client.requests) == 1
    assert only_delivery(world).state is DeliveryState.DELIVERED


def _deliver_duplicate(world: World, body: str) -> None:
    world.container.queues.put_raw("deliveries", body)
    assert deliver(world) == ["not_due"]


def test_a_slow_dispatcher_does_not_overwrite_its_successors_outcome() -> None:
    """Its lock had expired, and another dispatcher delivered the message."""
    world = World()
    enqueue_end(world)

    def answer_slowly(_request: ReceivedRequest) -> WebhookResponse:
        if len(world.container.webhook_client.requests) == 1:
            world.clock.advance(200)
            sweep(world)
            assert deliver(world) == ["delivered"]
        return WebhookResponse(500)

    world.container.webhook_client.answer = lambda request: (
        WebhookResponse(204) if len(world.container.webhook_client.requests) > 1 else answer_slowly(request)
    )
    deliver(world)

    assert only_delivery(world).state is DeliveryState.DELIVERED


@pytest.mark.parametrize("body", ["", "{}", "garbage", '{"owner": "x"}', '{"owner": 1, "delivery": 2}', "[" * 50_000, '["a"]'])
def test_malformed_delivery_messages_go_to_the_dead_letter_queue(body: str) -> None:
    world = World()
    world.container.queues.put_raw("deliveries", body)

    assert deliver(world) == ["dead_lettered"]
    assert [kept for kept, _ in world.container.queues.dead_lettered["deliveries"]] == [body]


def test_a_message_for_an_unknown_delivery_is_dropped() -> None:
    world = World()
    world.container.queues.put_raw("deliveries", '{"owner": "job_1", "delivery": "dlv_1"}')

    assert deliver(world) == ["not_due"]


def test_an_end_of_an_older_version_that_cannot_be_enqueued_is_redelivered() -> None:
    """It is not due, so no sweep would find it. The other change of the batch is processed."""
    world = World()
    lost, other = ended(world), ended(world)
    get = world.container.job_specs.get

    def get_others(job_id: str) -> Any:
        if job_id == lost[0]:
            raise Throttled
        return get(job_id)

    world.container.job_specs.get = get_others  # type: ignore[method-assign]
    with pytest.raises(DeadLetterFailed):
        notify(world, lost, other)
    assert only_delivery(world).owner == other[0]

    world.container.job_specs.get = get  # type: ignore[method-assign]
    notify(world, lost, other)
    assert {delivery.owner for delivery in world.container.deliveries.rows.values()} == {lost[0], other[0]}
    assert not world.container.queues.dead_lettered["stream"]


def test_a_notification_that_can_neither_be_stored_nor_dead_lettered_is_redelivered() -> None:
    world = World()
    change = ended(world)

    with (
        refusing(world.container.job_specs, "get", 10**6, ValueError),
        refusing(world.container.queues, "send_to_dead_letter", 10**6),
        pytest.raises(DeadLetterFailed),
    ):
        notify(world, change)
    notify(world, change)

    assert only_delivery(world).owner == change[0]


def test_a_deleted_job_creates_no_delivery() -> None:
    world = World()
    change = ended(world)
    world.container.job_specs.delete(change[0])

    notify(world, change)

    assert world.container.deliveries.rows == {}
    assert world.container.queues.dead_lettered["stream"] == []


def test_signing_secrets_are_created_at_first_use_and_kept_per_tenant() -> None:
    world = World()

    assert get_signing_secrets(world.container, "acme") == get_signing_secrets(world.container, "acme")
    assert get_signing_secrets(world.container, "acme").current.startswith("whsec_")
    assert get_signing_secrets(world.container, "other") != get_signing_secrets(world.container, "acme")
    assert get_signing_secrets(world.container, "acme").current not in repr(get_signing_secrets(world.container, "acme"))


def test_messages_are_signed_with_both_secrets_after_a_rotation() -> None:
    """For a day; then with the new one only."""
    world = World()
    first = get_signing_secrets(world.container, "acme").current

    second = rotate_signing_secret(world.container, "acme").current
    enqueue_end(world)
    deliver(world)
    world.clock.advance(86_400)
    enqueue_end(world)
    deliver(world)

    both, one = (request.headers["webhook-signature"].split(" ") for request in world.container.webhook_client.requests)
    assert first != second
    assert (len(both), len(one)) == (2, 1)


def test_email_and_slack_recipients_get_status_figures_and_a_link() -> None:
    """The prompt is not sent."""
    world = World()
    world.container.notification_settings.put_allowlist("acme", ALLOWLIST)
    enqueue_end(world, webhook_url=None, notify=("email:ops@acme.com", "slack:alerts"), prompt="A secret question.", status=Status.FAILED)

    assert sorted(deliver(world)) == ["delivered", "delivered"]

    ((to, subject, text),) = world.container.email.sent
    (request,) = world.container.webhook_client.requests
    assert (to, subject) == ("ops@acme.com", "Headrace: job failed (general)")
    assert "0.001500 USD" in text
    assert "/result" in text
    assert request.url == SLACK
    assert "job failed" in str(payload(request)["text"])
    assert "webhook-signature" not in request.headers
    assert "secret question" not in text + str(request.body)


def test_a_recipient_removed_from_the_allowlist_is_not_contacted() -> None:
    world = World()
    world.container.notification_settings.put_allowlist("acme", ALLOWLIST)
    enqueue_end(world, webhook_url=None, notify=("email:ops@acme.com", "slack:alerts"))

    world.container.notification_settings.put_allowlist("acme", RecipientAllowlist())
    run_deliveries(world, 1)

    assert world.container.email.sent == []
    assert world.container.webhook_client.requests == []
    assert {one.state for one in world.container.deliveries.rows.values()} == {DeliveryState.FAILED}


def test_a_recipient_just_added_to_the_allowlist_is_contacted() -> None:
    """The dispatcher caches the allowlist and reads it afresh before it refuses a recipient."""
    world = World()
    world.container.notification_settings.put_allowlist("acme", ALLOWLIST)
    enqueue_end(world, webhook_url=None, notify=("slack:alerts",))
    real = world.container.notification_settings.allowlist
    world.container.notification_settings.allowlist = lambda tenant, *, fresh=False: real(tenant) if fresh else RecipientAllowlist()  # type: ignore[method-assign]

    assert deliver(world) == ["delivered"]


def test_an_email_without_a_configured_sender_fails_with_a_reason() -> None:
    world = World()
    world.container.notification_settings.put_allowlist("acme", ALLOWLIST)
    enqueue_end(world, webhook_url=None, notify=("email:ops@acme.com",))
    world.container.email.sender = None

    run_deliveries(world, 1)

    assert [one.error for one in only_delivery(world).attempts] == ["e-mail is not configured for this stage"]


def test_a_failing_recipient_does_not_block_another() -> None:
    world = World()
    world.container.notification_settings.put_allowlist("acme", ALLOWLIST)

    def refuse(_request: ReceivedRequest) -> WebhookResponse:
        raise DeliveryError("no connection could be made")

    world.container.webhook_client.answer = refuse
    enqueue_end(world, notify=("email:ops@acme.com",))
    deliver(world)

    assert len(world.container.email.sent) == 1


def test_a_custom_message_is_sent_once_to_each_recipient() -> None:
    """Equal ids are one message; line breaks are removed from the subject."""
    world = World()
    world.container.notification_settings.put_allowlist("acme", ALLOWLIST)
    recipients = [Recipient(Channel.EMAIL, "ops@acme.com"), Recipient(Channel.SLACK, "alerts"), Recipient(Channel.WEBHOOK, HOOK)]

    for recipient in [*recipients, *recipients]:
        enqueue_message(world.container, "acme", "job_1", [recipient], "All\r\nBcc: done\x07", "a < b & c \ud800", "msg_1")
    deliver(world)
    run_deliveries(world, 0.5)

    assert world.container.email.sent == [("ops@acme.com", "All Bcc: done", "a < b & c \ufffd")]
    slack, hook = world.container.webhook_client.requests
    assert payload(slack) == {"text": "*All Bcc: done*\na &lt; b &amp; c \ufffd"}
    assert payload(hook)["type"] == "notification"
    assert payload(hook)["id"] == hook.headers["webhook-id"] == "msg_1"


def test_an_operator_can_redeliver_a_finished_delivery() -> None:
    """Whether it was delivered or failed; the message id stays the same."""
    world = World()
    world.container.webhook_client.answer = answering(410)
    enqueue_end(world)
    run_deliveries(world, 0.1)
    failed = only_delivery(world)

    redeliver(world.container, failed.owner, failed.id)
    assert deliver(world) == ["delivered"]
    redeliver(world.container, failed.owner, failed.id)
    run_deliveries(world, 0.1)

    assert [one.status for one in only_delivery(world).attempts] == [410, 204, 204]
    assert len({request.headers["webhook-id"] for request in world.container.webhook_client.requests}) == 1
    with pytest.raises(DeliveryNotFound):
        redeliver(world.container, failed.owner, "dlv_none")


def test_redelivery_is_refused_during_a_delivery_attempt() -> None:
    world = World()
    enqueue_end(world)

    def redeliver_too_early(_request: ReceivedRequest) -> WebhookResponse:
        with pytest.raises(DeliveryBusy):
            redeliver(world.container, only_delivery(world).owner, only_delivery(world).id)
        return WebhookResponse(204)

    world.container.webhook_client.answer = redeliver_too_early
    assert deliver(world) == ["delivered"]


def test_a_delivery_that_cannot_be_swept_does_not_block_the_others() -> None:
    world = World()
    enqueue_end(world)
    enqueue_end(world)
    for lane in world.container.queues.messages:
        world.container.queues.messages[lane] = []  # both messages are lost
    world.clock.advance(300)

    with refusing(world.container.deliveries, "replace"):
        assert sweep(world) == 1
    assert deliver(world) == ["delivered", "delivered"]


def test_the_sweeper_skips_a_delivery_that_is_being_attempted() -> None:
    """Otherwise the outcome of the attempt could not be recorded."""
    world = World()
    enqueue_end(world)
    world.clock.advance(70)
    world.container.webhook_client.answer = lambda _request: (sweep(world), WebhookResponse(204))[1]

    assert deliver(world) == ["delivered"]
