"""Deliveries as SQS and the sweep bring them up, on the twins, in virtual time."""

from __future__ import annotations

import json
from dataclasses import replace

from chalicelib.adapters.memory.notifications import ReceivedRequest
from chalicelib.consumers.notify_job_end import notify_job_ends
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.notifications.delivery import Delivery
from chalicelib.services.notifications.dispatcher import DeliveryResult, handle_delivery_message, requeue_stalled
from tests.kit.world import World

HOOK = "https://hooks.example.com/headrace"
Change = tuple[str, Job | None, Job | None]


def ended(world: World, status: Status = Status.COMPLETED, **fields: object) -> Change:
    """The change in which a job that names a webhook ends."""
    job = world.submit(**{"webhook_url": HOOK, **fields})  # type: ignore[arg-type]
    before = replace(job, status=Status.PROCESSING, attempt=1)
    after = replace(before, status=status, version=3, due_at=None, finished_at=world.clock.now(), cost=1_500_000)
    return job.id, before, after


def tell(world: World, *changes: Change) -> None:
    notify_job_ends(world.container, changes)


def deliver(world: World) -> list[DeliveryResult]:
    """One invocation on whatever the queue holds now."""
    received = world.container.queues.receive("deliveries")
    done = [handle_delivery_message(world.container, message.body) for message in received]
    world.container.queues.acknowledge("deliveries", [message.receipt for message in received])
    return done


def sweep(world: World) -> int:
    return requeue_stalled(world.container, world.clock.now() + 10_000)[DeliveryResult.SCHEDULED]


def live(world: World, hours: float, step: float = 5.0) -> None:
    """Let time pass, with a sweep each minute and whoever delivers always there."""
    seconds = 0.0
    while seconds < hours * 3_600:
        deliver(world)
        if seconds % 60 < step:
            sweep(world)
        world.clock.advance(step)
        seconds += step
    deliver(world)


def only(world: World) -> Delivery:
    (delivery,) = world.container.deliveries.rows.values()
    return delivery


def payload(letter: ReceivedRequest) -> dict[str, object]:
    body: dict[str, object] = json.loads(letter.body)
    return body
