"""Webhook deliveries on the in-memory twins, in virtual time: create, dispatch, sweep."""

from __future__ import annotations

import json
from dataclasses import replace

from chalicelib.adapters.memory.notifications import ReceivedRequest
from chalicelib.consumers.notify_job_end import notify_job_ends
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.notifications.delivery import Delivery
from chalicelib.services.notifications.dispatcher import DeliveryResult, handle_delivery_message
from chalicelib.services.notifications.requeue_deliveries import requeue_stalled
from tests.kit.world import World

HOOK = "https://hooks.example.com/headrace"
Change = tuple[str, Job | None, Job | None]


def ended(world: World, status: Status = Status.COMPLETED, **fields: object) -> Change:
    """Submit a job with a webhook, and return the change in which it ends."""
    job = world.submit(**{"webhook_url": HOOK, **fields})  # type: ignore[arg-type]
    before = replace(job, status=Status.PROCESSING, attempt=1)
    after = replace(before, status=status, version=3, due_at=None, finished_at=world.clock.now(), cost=1_500_000)
    return job.id, before, after


def notify(world: World, *changes: Change) -> None:
    """Run the consumer that creates the deliveries of these changes."""
    notify_job_ends(world.container, changes, set[str]().add)


def deliver(world: World) -> list[DeliveryResult]:
    """Run the dispatcher once, on the messages that the queue holds now."""
    received = world.container.queues.receive("deliveries")
    results = [handle_delivery_message(world.container, message.body) for message in received]
    world.container.queues.acknowledge("deliveries", [message.receipt for message in received])
    return results


def sweep(world: World) -> int:
    """Requeue stalled deliveries. Return how many were scheduled."""
    return requeue_stalled(world.container, world.clock.now() + 10_000)[DeliveryResult.SCHEDULED]


def run_deliveries(world: World, hours: float, step: float = 5.0) -> None:
    """Advance the clock by `hours`.

    The dispatcher runs every `step` seconds, the sweeper every minute.
    """
    seconds = 0.0
    while seconds < hours * 3_600:
        deliver(world)
        if seconds % 60 < step:
            sweep(world)
        world.clock.advance(step)
        seconds += step
    deliver(world)


def only_delivery(world: World) -> Delivery:
    """Return the one delivery that exists."""
    (delivery,) = world.container.deliveries.rows.values()
    return delivery


def payload(request: ReceivedRequest) -> dict[str, object]:
    body: dict[str, object] = json.loads(request.body)
    return body
