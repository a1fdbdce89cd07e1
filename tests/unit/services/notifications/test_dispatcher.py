"""Word of an end: once to each recipient, tried for a day, never lost whoever dies, and never the same message under two ids."""

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
from chalicelib.services.notifications.dispatcher import requeue_stalled
from chalicelib.services.notifications.outbox import enqueue_message
from chalicelib.services.notifications.settings import get_signing_secrets, redeliver, rotate_signing_secret
from tests.kit.deliveries import HOOK, deliver, ended, live, only, payload, sweep, tell
from tests.kit.failing_store import refusing
from tests.kit.world import World

HOUR = 3_600_000
SLACK = "https://hooks.slack.com/services/T0/B0/secret"
BOOK = RecipientAllowlist(emails=("ops@acme.com",), slack={"alerts": SLACK})


def answering(*statuses: int, then: int = 204) -> Callable[[ReceivedRequest], WebhookResponse]:
    answers = itertools.chain(statuses, itertools.repeat(then))
    return lambda _letter: WebhookResponse(next(answers))


def told(world: World, **fields: Any) -> None:
    tell(world, ended(world, **fields))


def test_a_webhook_is_told_of_the_end_and_of_no_text() -> None:
    """Ids, status, figures and links: what was asked and what was answered is to be fetched with a key."""
    world = World()
    change = ended(world, prompt="A secret question.", tags=("nightly",))

    tell(world, change)
    assert deliver(world) == ["delivered"]

    (letter,) = world.memory.webhook_client.letters
    said = payload(letter)
    assert letter.url == HOOK
    assert said["type"] == "job.completed"
    assert said["id"] == letter.headers["webhook-id"]
    assert said["data"]["job_id"] == change[0]  # type: ignore[index]
    assert said["data"]["cost"] == "0.001500"  # type: ignore[index]
    assert said["data"]["links"]["result"] == f"https://api.example.com/api/jobs/{change[0]}/result"  # type: ignore[index]
    assert b"secret question" not in letter.body


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.INCOMPLETE, Status.FAILED, Status.CANCELLED, Status.EXPIRED])
def test_every_end_is_told(status: Status) -> None:
    world = World()

    told(world, status=status)
    deliver(world)

    assert payload(world.memory.webhook_client.letters[0])["type"] == f"job.{status.value}"


def test_the_message_of_an_error_is_not_sent() -> None:
    """Its code says what happened; a message could quote what a provider said."""
    world = World()
    job_id, before, after = ended(world, Status.FAILED)
    assert after is not None
    error = JobError(code="timeout", error_class="timeout", retryable=True, message="private", suggestion="private", attempt=1)

    tell(world, (job_id, before, replace(after, error=error)))
    deliver(world)

    (letter,) = world.memory.webhook_client.letters
    assert payload(letter)["data"]["error"] == {"code": "timeout", "class": "timeout", "retryable": True}  # type: ignore[index]
    assert b"private" not in letter.body


def test_nothing_is_said_of_what_is_no_end() -> None:
    """A claim, a change after the end, a job that names nobody."""
    world = World()
    job_id, before, after = ended(world)
    assert before is not None
    assert after is not None
    silent = world.submit("tell nobody")

    tell(world, (job_id, None, before), (job_id, after, replace(after, version=4, ttl=1)))
    tell(world, (silent.id, silent, replace(silent, status=Status.COMPLETED)))

    assert world.memory.deliveries.rows == {}
    assert not silent.notifies


def test_a_stream_that_repeats_itself_sends_nothing_new() -> None:
    """Right away, after the delivery, and days later."""
    world = World()
    change = ended(world)

    tell(world, change, change)
    live(world, 0.1)
    tell(world, change)
    world.clock.advance(2 * 86_400)
    tell(world, change)
    live(world, 1)

    assert len(world.memory.webhook_client.letters) == 1


def test_another_run_is_another_message() -> None:
    world = World()
    job_id, before, after = ended(world, Status.FAILED)
    assert before is not None
    assert after is not None

    tell(world, (job_id, before, after))
    tell(world, (job_id, replace(before, run=2), replace(after, run=2)))
    live(world, 0.1)

    ids = {letter.headers["webhook-id"] for letter in world.memory.webhook_client.letters}
    assert len(ids) == len(world.memory.webhook_client.letters) == 2


def test_a_receiver_that_never_answers_well_is_tried_for_a_day_and_no_longer() -> None:
    world = World()
    world.memory.webhook_client.answer = answering(then=500)
    told(world)

    live(world, 25, step=20)

    delivery = only(world)
    began = delivery.created_at
    assert delivery.state is DeliveryState.FAILED
    assert len(delivery.attempts) == len(RETRY_SCHEDULE) + 1 == 9
    assert delivery.attempts[0].at - began < 30_000
    assert 18 * HOUR < delivery.attempts[-1].at - began < 24 * HOUR
    assert {one.error for one in delivery.attempts} == {"the receiver answered 500"}
    pauses = [after.at - before.at for before, after in itertools.pairwise(delivery.attempts)]
    assert pauses == sorted(pauses)


def test_a_receiver_that_comes_back_hears_of_it() -> None:
    """With the same id and the same body, signed anew."""
    world = World()
    world.memory.webhook_client.answer = answering(503, 500, 302, 404)
    told(world)

    live(world, 3)

    letters = world.memory.webhook_client.letters
    assert only(world).state is DeliveryState.DELIVERED
    assert [one.status for one in only(world).attempts] == [503, 500, 302, 404, 204]
    assert only(world).attempts[2].error == "redirects are not followed"
    assert len({(letter.headers["webhook-id"], letter.body) for letter in letters}) == 1
    assert len({letter.headers["webhook-timestamp"] for letter in letters}) == len(letters)


def test_a_receiver_may_say_when_to_come_again_within_bounds() -> None:
    world = World()
    answers = iter([WebhookResponse(429, 100.0), WebhookResponse(503, 10**9), WebhookResponse(500, 10**9), WebhookResponse(204)])
    world.memory.webhook_client.answer = lambda _letter: next(answers)
    told(world)

    live(world, 2)

    first, second, third, fourth = (one.at for one in only(world).attempts)
    assert 100_000 <= second - first < 110_000
    assert 3_600_000 <= third - second < 3_670_000
    assert fourth - third < 400_000


def test_a_receiver_that_puts_us_off_each_time_does_not_stretch_the_day() -> None:
    """An hour each: what would come after the day does not come."""
    world = World()
    world.memory.webhook_client.answer = lambda _letter: WebhookResponse(429, 10**9)
    told(world)

    live(world, 30, step=20)

    delivery = only(world)
    assert delivery.state is DeliveryState.FAILED
    assert len(delivery.attempts) < len(RETRY_SCHEDULE) + 1
    assert delivery.attempts[-1].at - delivery.created_at <= 24 * HOUR


def test_who_is_gone_is_left_alone() -> None:
    world = World()
    world.memory.webhook_client.answer = answering(410, then=204)
    told(world)

    live(world, 1)

    assert only(world).state is DeliveryState.FAILED
    assert len(world.memory.webhook_client.letters) == 1


def test_an_address_that_must_not_be_reached_is_not_tried_again() -> None:
    world = World()
    tell(world, ended(world))
    world.memory.deliveries.rows = {place: replace(one, address="https://10.0.0.1/") for place, one in world.memory.deliveries.rows.items()}

    live(world, 1)

    assert only(world).state is DeliveryState.FAILED
    assert [one.error for one in only(world).attempts] == ["the address must be a public address"]
    assert world.memory.webhook_client.letters == []


def test_a_fault_of_ours_is_tried_again() -> None:
    world = World()
    told(world)

    with refusing(world.memory.notification_settings, "signing_secrets", error=RuntimeError):
        deliver(world)
    live(world, 0.1)

    assert [one.error for one in only(world).attempts] == ["something went wrong on our side", None]


def test_who_dies_at_any_point_loses_no_message() -> None:
    """Between any two calls of a store, a queue or the receiver: each is told at least once, under one id."""
    places = [
        ("deliveries", "create"),
        ("queues", "send_task"),
        ("deliveries", "get"),
        ("deliveries", "replace"),
        ("webhook_client", "post"),
    ]
    for (port, method), number, after in itertools.product(places, (1, 2, 3), (False, True)):
        world, change = World(), None
        world.memory.webhook_client.answer = answering(500)
        change = ended(world)
        real, count = getattr(getattr(world.memory, port), method), itertools.count(1)

        def die(*args: Any, real: Any = real, count: Any = count, number: int = number, after: bool = after, **named: Any) -> Any:
            if next(count) != number:
                return real(*args, **named)
            if after:
                real(*args, **named)
            raise SystemExit  # no `except Exception` sees it: whatever would come next does not happen

        setattr(getattr(world.memory, port), method, die)
        for _ in range(400):
            try:
                if not world.memory.deliveries.rows:
                    tell(world, change)  # the stream gives a batch again whose function died
                deliver(world)
                sweep(world)
            except SystemExit:
                world.clock.advance(60)
            world.clock.advance(15)

        assert only(world).state is DeliveryState.DELIVERED, (port, method, number, after)
        assert len({letter.headers["webhook-id"] for letter in world.memory.webhook_client.letters}) == 1


def test_two_who_have_the_same_message_send_it_once() -> None:
    world = World()
    told(world)
    (message,) = world.memory.queues.receive("deliveries")
    world.memory.webhook_client.answer = lambda _letter: (_again(world, message.body), WebhookResponse(204))[1]

    world.memory.queues.put_raw("deliveries", message.body)
    deliver(world)

    assert len(world.memory.webhook_client.letters) == 1
    assert only(world).state is DeliveryState.DELIVERED


def _again(world: World, body: str) -> None:
    world.memory.queues.put_raw("deliveries", body)
    assert deliver(world) == ["not now"]


def test_what_was_taken_over_is_not_written_by_who_was_slow() -> None:
    """Whoever slept through its time finds that another has told it."""
    world = World()
    told(world)

    def sleepy(_letter: ReceivedRequest) -> WebhookResponse:
        if len(world.memory.webhook_client.letters) == 1:
            world.clock.advance(200)
            sweep(world)
            assert deliver(world) == ["delivered"]
        return WebhookResponse(500)

    world.memory.webhook_client.answer = lambda letter: (
        WebhookResponse(204) if len(world.memory.webhook_client.letters) > 1 else sleepy(letter)
    )
    deliver(world)

    assert only(world).state is DeliveryState.DELIVERED


@pytest.mark.parametrize("body", ["", "{}", "garbage", '{"owner": "x"}', '{"owner": 1, "delivery": 2}', "[" * 50_000, '["a"]'])
def test_garbage_in_the_queue_is_set_aside(body: str) -> None:
    world = World()
    world.memory.queues.put_raw("deliveries", body)

    assert deliver(world) == ["set aside"]
    assert [kept for kept, _ in world.memory.queues.aside["deliveries"]] == [body]


def test_a_message_about_nothing_is_dropped() -> None:
    world = World()
    world.memory.queues.put_raw("deliveries", '{"owner": "job_1", "delivery": "dlv_1"}')

    assert deliver(world) == ["not now"]


def test_a_change_that_cannot_be_told_is_set_aside_and_stops_no_other() -> None:
    world = World()
    lost, other = ended(world), ended(world)
    get = world.memory.job_specs.get

    def get_others(job_id: str) -> Any:
        if job_id == lost[0]:
            raise Throttled
        return get(job_id)

    world.memory.job_specs.get = get_others  # type: ignore[method-assign]
    tell(world, lost, other)

    assert [body for body, _ in world.memory.queues.aside["stream"]] == [lost[0]]
    assert only(world).owner == other[0]


def test_what_can_neither_be_told_nor_set_aside_comes_again() -> None:
    world = World()
    change = ended(world)

    with (
        refusing(world.memory.job_specs, "get", 10**6),
        refusing(world.memory.queues, "send_to_dead_letter", 10**6),
        pytest.raises(DeadLetterFailed),
    ):
        tell(world, change)
    tell(world, change)

    assert only(world).owner == change[0]


def test_a_deleted_job_tells_nobody() -> None:
    world = World()
    change = ended(world)
    world.memory.job_specs.delete(change[0])

    tell(world, change)

    assert world.memory.deliveries.rows == {}
    assert world.memory.queues.aside["stream"] == []


def test_a_secret_is_made_at_the_first_need_and_stays() -> None:
    world = World()

    assert get_signing_secrets(world.office, "acme") == get_signing_secrets(world.office, "acme")
    assert get_signing_secrets(world.office, "acme").current.startswith("whsec_")
    assert get_signing_secrets(world.office, "other") != get_signing_secrets(world.office, "acme")
    assert get_signing_secrets(world.office, "acme").current not in repr(get_signing_secrets(world.office, "acme"))


def test_while_a_secret_is_rotated_messages_are_signed_with_both() -> None:
    """For a day; then with the new one alone."""
    world = World()
    first = get_signing_secrets(world.office, "acme").current

    second = rotate_signing_secret(world.office, "acme").current
    told(world)
    deliver(world)
    world.clock.advance(86_400)
    told(world)
    deliver(world)

    both, one = (letter.headers["webhook-signature"].split(" ") for letter in world.memory.webhook_client.letters)
    assert first != second
    assert (len(both), len(one)) == (2, 1)


def test_people_are_told_where_the_tenant_allows_it() -> None:
    """Status, figures and a link; no prompt, no answer."""
    world = World()
    world.memory.notification_settings.put_allowlist("acme", BOOK)
    told(world, webhook_url=None, notify=("email:ops@acme.com", "slack:alerts"), prompt="A secret question.", status=Status.FAILED)

    assert sorted(deliver(world)) == ["delivered", "delivered"]

    ((to, subject, text),) = world.memory.email.sent
    (letter,) = world.memory.webhook_client.letters
    assert (to, subject) == ("ops@acme.com", "Headrace: job failed (general)")
    assert "0.001500 USD" in text
    assert "/result" in text
    assert letter.url == SLACK
    assert "job failed" in str(payload(letter)["text"])
    assert "webhook-signature" not in letter.headers
    assert "secret question" not in text + str(letter.body)


def test_an_address_that_was_taken_out_is_written_to_no_more() -> None:
    world = World()
    world.memory.notification_settings.put_allowlist("acme", BOOK)
    told(world, webhook_url=None, notify=("email:ops@acme.com", "slack:alerts"))

    world.memory.notification_settings.put_allowlist("acme", RecipientAllowlist())
    live(world, 1)

    assert world.memory.email.sent == []
    assert world.memory.webhook_client.letters == []
    assert {one.state for one in world.memory.deliveries.rows.values()} == {DeliveryState.FAILED}


def test_an_address_that_was_added_a_moment_ago_is_written_to() -> None:
    """Whoever delivers has read the address book before that, and keeps it for a minute."""
    world = World()
    world.memory.notification_settings.put_allowlist("acme", BOOK)
    told(world, webhook_url=None, notify=("slack:alerts",))
    real = world.memory.notification_settings.allowlist
    world.memory.notification_settings.allowlist = lambda tenant, *, fresh=False: real(tenant) if fresh else RecipientAllowlist()  # type: ignore[method-assign]

    assert deliver(world) == ["delivered"]


def test_without_a_sender_no_mail_goes_out_and_the_log_says_why() -> None:
    world = World()
    world.memory.notification_settings.put_allowlist("acme", BOOK)
    told(world, webhook_url=None, notify=("email:ops@acme.com",))
    world.memory.email.sender = None

    live(world, 1)

    assert [one.error for one in only(world).attempts] == ["e-mail is not configured for this stage"]


def test_one_recipient_that_fails_does_not_stop_another() -> None:
    world = World()
    world.memory.notification_settings.put_allowlist("acme", BOOK)

    def refuse(_letter: ReceivedRequest) -> WebhookResponse:
        raise DeliveryError("no connection could be made")

    world.memory.webhook_client.answer = refuse
    told(world, notify=("email:ops@acme.com",))
    deliver(world)

    assert len(world.memory.email.sent) == 1


def test_somebody_may_be_written_to_in_ones_own_words_once() -> None:
    """The same id is the same message; what would break a subject is taken out of it."""
    world = World()
    world.memory.notification_settings.put_allowlist("acme", BOOK)
    recipients = [Recipient(Channel.EMAIL, "ops@acme.com"), Recipient(Channel.SLACK, "alerts"), Recipient(Channel.WEBHOOK, HOOK)]

    for recipient in [*recipients, *recipients]:
        enqueue_message(world.office, "acme", "job_1", [recipient], "All\r\nBcc: done\x07", "a < b & c \ud800", "msg_1")
    deliver(world)
    live(world, 0.5)

    assert world.memory.email.sent == [("ops@acme.com", "All Bcc: done", "a < b & c \ufffd")]
    slack, hook = world.memory.webhook_client.letters
    assert payload(slack) == {"text": "*All Bcc: done*\na &lt; b &amp; c \ufffd"}
    assert payload(hook)["type"] == "notification"
    assert payload(hook)["id"] == hook.headers["webhook-id"] == "msg_1"


def test_an_operator_may_have_it_delivered_again() -> None:
    """However it ended, for another day."""
    world = World()
    world.memory.webhook_client.answer = answering(410)
    told(world)
    live(world, 0.1)
    failed = only(world)

    redeliver(world.office, failed.owner, failed.id)
    assert deliver(world) == ["delivered"]
    redeliver(world.office, failed.owner, failed.id)
    live(world, 0.1)

    assert [one.status for one in only(world).attempts] == [410, 204, 204]
    assert len({letter.headers["webhook-id"] for letter in world.memory.webhook_client.letters}) == 1
    with pytest.raises(DeliveryNotFound):
        redeliver(world.office, failed.owner, "dlv_none")


def test_what_is_being_tried_is_not_begun_again() -> None:
    world = World()
    told(world)

    def impatient(_letter: ReceivedRequest) -> WebhookResponse:
        with pytest.raises(DeliveryBusy):
            redeliver(world.office, only(world).owner, only(world).id)
        return WebhookResponse(204)

    world.memory.webhook_client.answer = impatient
    assert deliver(world) == ["delivered"]


def test_a_delivery_that_cannot_be_swept_does_not_stop_the_others() -> None:
    world = World()
    told(world)
    told(world)
    for lane in world.memory.queues.messages:
        world.memory.queues.messages[lane] = []  # both messages are lost
    world.clock.advance(300)

    with refusing(world.memory.deliveries, "replace"):
        assert sweep(world) == 1
    assert deliver(world) == ["delivered", "delivered"]


def test_a_sweep_leaves_alone_what_is_being_tried() -> None:
    """Otherwise it would move the delivery on, and what came of the attempt could not be written."""
    world = World()
    told(world)
    world.clock.advance(70)
    world.memory.webhook_client.answer = lambda _letter: (sweep(world), WebhookResponse(204))[1]

    assert deliver(world) == ["delivered"]


def test_a_sweep_ends_in_good_time() -> None:
    world = World()
    told(world)
    world.clock.advance(300)

    assert requeue_stalled(world.office, world.clock.now()) == {"left": 1}


def test_what_is_due_in_hours_is_sent_for_by_the_sweep_about_then() -> None:
    """Beyond a queue's fifteen minutes: neither early nor more than a minute late."""
    world = World()
    world.memory.webhook_client.answer = answering(*([500] * 4))
    told(world)

    live(world, 3)

    *_, fourth, fifth = (one.at for one in only(world).attempts)
    assert 0 <= (fifth - fourth) - round(RETRY_SCHEDULE[3] * 0.9 * 1000) < 65_000
