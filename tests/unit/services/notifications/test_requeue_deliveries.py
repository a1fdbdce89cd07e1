"""Late retries: messages that are sent on until a delivery is due, and the sweep of overdue deliveries."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from chalicelib.adapters.memory.notifications import ReceivedRequest
from chalicelib.adapters.runtime.threads import MAX_WORKERS
from chalicelib.domain.errors import DeliveryError, Throttled
from chalicelib.domain.notifications.delivery import MAX_DELAY_SECONDS, RETRY_SCHEDULE, Delivery, DeliveryState
from chalicelib.domain.notifications.recipients import Channel, Recipient
from chalicelib.ports import WebhookResponse
from chalicelib.services.notifications.dispatcher import DeliveryResult, handle_delivery_message
from chalicelib.services.notifications.outbox import enqueue_message
from chalicelib.services.notifications.requeue_deliveries import PAGE_SIZE, TENANT_TURN, requeue_stalled
from chalicelib.services.notifications.settings import redeliver
from tests.kit.deliveries import deliver, ended, notify, only_delivery, run_deliveries, sweep
from tests.kit.failing_store import refusing
from tests.kit.records import delivery as delivery_record
from tests.kit.world import World

MINUTE_MS = 60_000
WORK_MS = 40_000  # of the function's 55 s


def answering(*statuses: int) -> Callable[[ReceivedRequest], WebhookResponse]:
    answers = itertools.chain(statuses, itertools.repeat(204))
    return lambda _request: WebhookResponse(next(answers))


def failing_world(failures: int) -> World:
    """A world with one delivery whose first attempts fail."""
    world = World()
    world.container.webhook_client.answer = answering(*[500] * failures)
    notify(world, ended(world))
    return world


def messages(world: World) -> list[Any]:
    return world.container.queues.messages["deliveries"]


def put_overdue(world: World, number: int, tenant: str, age_ms: int = 0) -> list[Delivery]:
    """Store overdue deliveries of a tenant whose messages were lost."""
    at = world.clock.now() - 10 * MINUTE_MS - age_ms
    made = [
        delivery_record(owner=f"job_{tenant}_{one}", tenant=tenant, created_at=at, due_at=at, recheck_at=at, attempts=())
        for one in range(number)
    ]
    for one in made:
        world.container.deliveries.create(one)
    return made


def scheduled(world: World) -> Counter[str]:
    """Count the messages in the queue by tenant."""
    return Counter(message.tenant for message in messages(world))


def slow_down(world: World, port: Any, method: str, seconds: float) -> None:
    """Let each call of this method take so many seconds."""
    real = getattr(port, method)

    def call(*args: Any, **named: Any) -> Any:
        world.clock.advance(seconds)
        return real(*args, **named)

    setattr(port, method, call)


# ---- a message is sent on until its delivery is due


def test_a_retry_beyond_the_queue_delay_needs_no_sweep() -> None:
    """All nine attempts are made on time by the messages alone."""
    world = failing_world(8)

    for _ in range(25 * 720):
        deliver(world)
        world.clock.advance(5)

    delivery = only_delivery(world)
    assert delivery.state is DeliveryState.DELIVERED
    pauses = [after.at - before.at for before, after in itertools.pairwise(delivery.attempts)]
    for pause, planned in zip(pauses, RETRY_SCHEDULE, strict=True):
        assert 0 <= pause - planned * 0.9 * 1000 <= 10_000


def test_a_delivery_has_one_message_at_any_time() -> None:
    world = failing_world(8)
    most = 0

    for _ in range(2_000):
        deliver(world)
        sweep(world)
        most = max(most, len(messages(world)))
        world.clock.advance(60)

    assert only_delivery(world).state is DeliveryState.DELIVERED
    assert most == 1


def test_a_message_is_sent_on_with_the_remaining_delay() -> None:
    world = failing_world(5)
    while only_delivery(world).attempt_count < 4:
        deliver(world)
        world.clock.advance(5)
    due_at = only_delivery(world).due_at
    assert due_at - world.clock.now() > MAX_DELAY_SECONDS * 1000

    [first] = messages(world)
    delays = []
    while first.visible_at < due_at:
        world.clock.advance((first.visible_at - world.clock.now()) / 1000)
        assert deliver(world) == [DeliveryResult.FORWARDED]
        [first] = messages(world)
        delays.append((first.visible_at - world.clock.now()) / 1000)

    assert max(delays) <= MAX_DELAY_SECONDS
    assert due_at <= first.visible_at < due_at + 1_000


def test_a_message_of_an_earlier_attempt_is_dropped() -> None:
    """It is neither sent on nor attempted: the delivery has a message of its own."""
    world = failing_world(8)
    [stale] = [message.body for message in messages(world)]
    for _ in range(600):
        deliver(world)
        world.clock.advance(1)
    assert only_delivery(world).attempt_count == 4
    attempts, queued = len(world.container.webhook_client.requests), len(messages(world))

    assert handle_delivery_message(world.container, stale) is DeliveryResult.NOT_DUE

    assert (len(world.container.webhook_client.requests), len(messages(world))) == (attempts, queued)


def test_a_message_received_twice_is_not_sent_on_twice() -> None:
    """Its first receiver may have sent it on before it died; if not, the sweep finds the delivery."""
    world = failing_world(4)
    for _ in range(120):
        deliver(world)
        world.clock.advance(5)
    [message] = messages(world)
    world.clock.advance(600)

    results = [handle_delivery_message(world.container, message.body, receives) for receives in (1, 2, 3)]

    assert results == [DeliveryResult.FORWARDED, DeliveryResult.NOT_DUE, DeliveryResult.NOT_DUE]
    messages(world).clear()  # and what it sent on is lost as well
    run_deliveries(world, 1)
    assert only_delivery(world).state is DeliveryState.DELIVERED


def test_a_message_of_an_older_version_is_attempted_when_due_and_not_sent_on() -> None:
    world = failing_world(8)
    delivery = only_delivery(world)
    body = json.dumps({"owner": delivery.owner, "delivery": delivery.id})

    assert handle_delivery_message(world.container, body) is DeliveryResult.PENDING
    assert handle_delivery_message(world.container, body) is DeliveryResult.NOT_DUE


def test_a_redelivery_replaces_the_message_of_the_attempt_before() -> None:
    world = failing_world(4)
    for _ in range(120):
        deliver(world)
        world.clock.advance(5)
    redeliver(world.container, only_delivery(world).owner, only_delivery(world).id)
    run_deliveries(world, 1)

    assert only_delivery(world).state is DeliveryState.DELIVERED
    assert messages(world) == []


def test_messages_of_a_deep_queue_are_copied_at_growing_intervals() -> None:
    """They are not lost but wait; the queue must not fill with copies."""
    world = World()
    put_overdue(world, 1, "acme")

    for _ in range(20 * 60):
        world.clock.advance(60)
        sweep(world)

    assert 1 < len(messages(world)) <= 10


# ---- the sweep


def test_ten_thousand_overdue_deliveries_are_scheduled_in_one_run() -> None:
    """A delivery needs one send, and a put of its record and of its index row and a delete of the old row.

    At 7 ms a call, on the threads of the container, that is 10,000 * 4 * 7 ms / 8 = 35 s of the run's 40 s.
    """
    world = World()
    put_overdue(world, 10_000, "acme")
    began = world.clock.now()
    for port, method, calls in ((world.container.queues, "send_task", 1), (world.container.deliveries, "replace", 3)):
        slow_down(world, port, method, calls * 0.007 / MAX_WORKERS)
    for method in ("due", "load_due"):
        slow_down(world, world.container.deliveries, method, 0.02 / MAX_WORKERS)

    done = requeue_stalled(world.container, began + WORK_MS)

    assert done == {DeliveryResult.SCHEDULED: 10_000}
    assert world.clock.now() - began < WORK_MS


def test_deliveries_of_one_tenant_do_not_hide_those_of_another() -> None:
    """`big` has more overdue deliveries than a run has time for, all of them older."""
    world = World()
    put_overdue(world, 12_000, "big", age_ms=MINUTE_MS)
    put_overdue(world, 50, "small")
    slow_down(world, world.container.queues, "send_task", WORK_MS / 1000 / 5_000)

    done = requeue_stalled(world.container, world.clock.now() + WORK_MS)

    assert scheduled(world)["small"] == 50
    assert scheduled(world)["big"] > 4_000
    assert done[DeliveryResult.DEFERRED] > 5_000
    world.clock.advance(60)
    requeue_stalled(world.container, world.clock.now() + WORK_MS)
    requeue_stalled(world.container, world.clock.now() + WORK_MS)
    assert scheduled(world) == {"big": 12_000, "small": 50}


def test_a_run_reads_only_rows_of_a_tenant_beyond_its_turn() -> None:
    """So it reaches the end of the index, however many deliveries one tenant has."""
    world = World()
    put_overdue(world, 3_000, "big")
    loaded: list[int] = []
    real = world.container.deliveries.load_due

    def load(rows: Any, now: int) -> list[Delivery]:
        loaded.append(len(rows))
        return real(rows, now)

    world.container.deliveries.load_due = load  # type: ignore[method-assign]
    until = world.clock.now() + WORK_MS
    world.container.queues.send_task = lambda *_args: world.clock.advance(WORK_MS / 1000 / TENANT_TURN)  # type: ignore[method-assign]

    requeue_stalled(world.container, until)

    assert sum(loaded) <= TENANT_TURN + 4 * PAGE_SIZE


def test_the_delivery_sweep_stops_at_its_deadline() -> None:
    world = World()
    put_overdue(world, 10, "acme")
    slow_down(world, world.container.queues, "send_task", 1.0)

    done = requeue_stalled(world.container, world.clock.now() + 3_000)

    assert done == {DeliveryResult.SCHEDULED: 3, DeliveryResult.DEFERRED: 7}


def test_a_shard_that_cannot_be_read_does_not_hide_the_others() -> None:
    world = World()
    put_overdue(world, 40, "acme")

    with refusing(world.container.deliveries, "due"):
        first = requeue_stalled(world.container, world.clock.now() + WORK_MS)
    second = requeue_stalled(world.container, world.clock.now() + WORK_MS)

    assert 0 < first[DeliveryResult.SCHEDULED] < 40
    assert first[DeliveryResult.SCHEDULED] + second[DeliveryResult.SCHEDULED] == 40


def test_two_sweeps_at_once_schedule_each_delivery_and_do_no_harm() -> None:
    """The second one loses the swap, and its message is dropped."""
    world = World()
    put_overdue(world, 1, "acme")
    real = world.container.queues.send_task
    runs: list[Any] = []

    def send_during_another_run(*args: Any) -> None:
        real(*args)
        world.clock.advance(0.01)
        if not runs:
            runs.append(None)
            runs[0] = requeue_stalled(world.container, world.clock.now() + WORK_MS)

    world.container.queues.send_task = send_during_another_run  # type: ignore[method-assign]
    done = requeue_stalled(world.container, world.clock.now() + WORK_MS)

    assert (runs[0], done) == ({DeliveryResult.SCHEDULED: 1}, {DeliveryResult.NOT_DUE: 1})
    assert sorted(deliver(world)) == ["delivered", "not_due"]
    assert len(world.container.webhook_client.requests) == 1


@pytest.mark.parametrize("error", [Throttled, ValueError])
def test_a_delivery_that_cannot_be_scheduled_is_tried_again_by_the_next_run(error: type[Exception]) -> None:
    world = World()
    put_overdue(world, 3, "acme")

    with refusing(world.container.queues, "send_task", error=error):
        first = requeue_stalled(world.container, world.clock.now() + WORK_MS)
    second = requeue_stalled(world.container, world.clock.now() + WORK_MS)

    assert first == {DeliveryResult.SCHEDULED: 2, DeliveryResult.DEFERRED: 1}
    assert second == {DeliveryResult.SCHEDULED: 1}


# ---- a name that resolves to a forbidden address


def forbidden_then(world: World, times: int, *, recover: bool = True) -> None:
    """Let the name of the receiver resolve to a forbidden address so many times."""
    answers = iter([True] * times)

    def post(_request: ReceivedRequest) -> WebhookResponse:
        if next(answers, not recover):
            raise DeliveryError("the host is not at a public address", forbidden=True)
        return WebhookResponse(204)

    world.container.webhook_client.answer = post


def test_a_name_that_resolves_to_a_private_address_for_minutes_does_not_end_a_delivery() -> None:
    world = World()
    forbidden_then(world, 2)
    notify(world, ended(world))

    run_deliveries(world, 1)

    first, second, third = only_delivery(world).attempts
    assert only_delivery(world).state is DeliveryState.DELIVERED
    assert (first.error, second.error, third.error) == ("the host is not at a public address",) * 2 + (None,)
    assert min(second.at - first.at, third.at - second.at) >= 300_000
    assert only_delivery(world).forbidden_in_a_row == 0


def test_a_name_that_stays_private_ends_the_delivery_after_three_attempts() -> None:
    world = World()
    forbidden_then(world, 0, recover=False)
    notify(world, ended(world))

    run_deliveries(world, 2)

    assert only_delivery(world).state is DeliveryState.FAILED
    assert (len(only_delivery(world).attempts), only_delivery(world).forbidden_in_a_row) == (3, 3)


def test_only_attempts_in_a_row_end_a_delivery_to_a_private_address() -> None:
    """Any other outcome in between starts the count anew, and so does an operator's retry."""
    world = World()
    outcomes = iter("FFxFFxFFF")

    def post(_request: ReceivedRequest) -> WebhookResponse:
        if next(outcomes) == "F":
            raise DeliveryError("the host is not at a public address", forbidden=True)
        return WebhookResponse(500)

    world.container.webhook_client.answer = post
    enqueue_message(world.container, "acme", "job_1", [Recipient(Channel.WEBHOOK, "https://hooks.example.com/x")], "s", "t", "msg_1")

    run_deliveries(world, 24, step=20)

    assert len(only_delivery(world).attempts) == 9
    redelivered = redeliver(world.container, only_delivery(world).owner, only_delivery(world).id)
    assert redelivered.forbidden_in_a_row == 0
