"""A deep fair queue: each tenant's jobs are taken for lost or waiting by how far its own were read."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from chalicelib.domain.jobs.backlog import UNMARKED_MS
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.queues.causes import CauseKind, cause_of
from chalicelib.domain.queues.lanes import READY
from chalicelib.domain.queues.wakeup import Grant, WakeUp
from chalicelib.ports import Lease, QueueMessage
from chalicelib.services.maintenance import sweeper
from chalicelib.services.worker.process_messages import process_messages
from tests.kit.provider import Script
from tests.kit.world import ALICE, World

LANE = "normal"


def submit(world: World, tenant: str, number: int = 1, *, lost: bool = False) -> list[Job]:
    """Submit jobs of a tenant, a millisecond apart; with `lost`, their wake-ups are."""
    before = list(world.container.queues.messages[LANE])
    jobs = []
    for _ in range(number):
        jobs.append(world.submit(caller=replace(ALICE, tenant=tenant)))
        world.clock.advance(0.001)
    if lost:
        world.container.queues.messages[LANE] = before
    return jobs


def report(world: World, lane: str = LANE, **watermarks: int) -> None:
    """Let a worker be alive that has taken these tenants' jobs."""
    now, number = world.clock.now(), len(world.container.leases.rows)
    oldest = min(watermarks.values(), default=0)
    lease = Lease(id=f"w{number}", lane=lane, started_at=now, expires_at=now + 10**8, watermark=oldest, watermarks=watermarks)
    world.container.leases.open(lease)


def resent(world: World, after: float = 60.0) -> Counter[str]:
    """Sweep, and return how many jobs of each tenant were woken again."""
    world.container.queues.sent.clear()
    world.sweep(after=after)
    jobs = world.container.jobs.records
    return Counter(jobs[wake_up.job_id].tenant for _, wake_up in world.container.queues.sent)


def test_the_progress_of_one_tenant_does_not_make_the_waiting_jobs_of_another_look_lost() -> None:
    """A fair queue delivers the newest job of a quiet tenant before the oldest of a noisy one."""
    world = World()
    noisy = submit(world, "noisy", 50)
    [quiet] = submit(world, "quiet")
    report(world, noisy=noisy[0].queued_at)
    report(world, quiet=quiet.queued_at + 1)
    world.clock.advance(120)

    assert resent(world) == {"quiet": 1}


def test_a_lost_wake_up_is_found_however_many_jobs_of_another_tenant_wait_before_it() -> None:
    world = World()
    noisy = submit(world, "noisy", 3 * sweeper.MAX_PER_PARTITION)
    submit(world, "quiet", lost=True)
    [later] = submit(world, "quiet")
    report(world, noisy=noisy[0].queued_at, quiet=later.queued_at)
    world.clock.advance(120)

    assert resent(world) == {"quiet": 1}


def test_where_more_jobs_wait_than_are_read_those_behind_them_are_read_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read and only waits is put off, without another wake-up."""
    monkeypatch.setattr(sweeper, "MAX_DEEP", 5)
    world = World()
    noisy = submit(world, "noisy", 60)
    submit(world, "quiet", lost=True)
    [later] = submit(world, "quiet")
    report(world, noisy=noisy[0].queued_at, quiet=later.queued_at)
    world.clock.advance(120)

    runs = [resent(world, after=1) for _ in range(4)]

    assert sum(runs, Counter()) == {"quiet": 1}
    assert not runs[0]


def test_a_tenant_without_a_worker_waits_for_a_quarter_of_an_hour() -> None:
    """Its wake-up may be far behind; after that it is sent again."""
    world = World()
    submit(world, "unseen")
    report(world, noisy=world.clock.now())

    assert resent(world, after=UNMARKED_MS / 1000 - 1) == {}
    assert resent(world, after=2) == {"unseen": 1}


@pytest.mark.parametrize("change", ["an empty queue", "no worker", "a dead worker", "a worker of another queue", "a worker of `ready`"])
def test_without_a_backlog_that_is_being_read_every_due_job_is_woken(change: str) -> None:
    world = World()
    [job] = submit(world, "acme")
    if change != "no worker":
        queue = {"a worker of another queue": "low", "a worker of `ready`": READY.name}.get(change, LANE)
        report(world, queue, **({} if queue == READY.name else {"acme": job.queued_at}))
    if change == "a dead worker":
        world.container.leases.fence(world.container.leases.rows["w0"])
    if change == "an empty queue":
        world.container.queues.messages[LANE].clear()

    assert resent(world, after=121) == {"acme": 1}


@pytest.mark.parametrize(("since", "woken"), [(0, 0), (1, 1)])
def test_the_watermark_of_a_worker_of_the_previous_version_holds_for_every_tenant(since: int, woken: int) -> None:
    world = World()
    [job] = submit(world, "acme")
    report(world, acme=job.queued_at + since)
    world.container.leases.rows["w0"] = replace(world.container.leases.rows["w0"], watermarks={})

    assert resent(world, after=121)["acme"] == woken


def leases_of(world: World, messages: Callable[[list[QueueMessage]], list[QueueMessage]], queue: str = LANE) -> list[Lease]:
    """Deliver what the lane holds to the worker of a queue, and return the leases that it has opened."""
    opened: list[Lease] = []
    real = world.container.leases.open
    world.container.leases.open = lambda lease: (opened.append(lease), real(lease))[1]  # type: ignore[method-assign]
    received = messages(world.container.queues.receive(LANE))
    world.loop.run_until_complete(asyncio.ensure_future(process_messages(world.container, queue, received), loop=world.loop))
    return opened


def test_a_lease_names_the_oldest_ready_time_of_each_tenant() -> None:
    world = World(Script(deltas=["Hi."]))
    first, *_ = submit(world, "acme", 3)
    [other] = submit(world, "other")

    [lease] = leases_of(world, lambda received: received)

    assert lease.watermarks == {"acme": first.queued_at, "other": other.queued_at}
    assert lease.watermark == first.queued_at  # which the previous version reads


def test_a_worker_of_released_jobs_says_nothing_about_a_lane() -> None:
    world = World(Script(deltas=["Hi."]))
    submit(world, "acme")

    [lease] = leases_of(world, lambda received: received, READY.name)

    assert (lease.watermarks, lease.watermark) == ({}, 0)


def test_a_wake_up_with_a_grant_is_no_watermark() -> None:
    """A scheduler released it, so it says nothing about the order of the queue."""
    world = World(Script(deltas=["Hi."]))
    submit(world, "acme")
    [other] = submit(world, "other")
    grant = Grant(cause_of(CauseKind.CIRCUIT, "gpt-4o-mini"), world.clock.now())

    def granted(received: list[QueueMessage]) -> list[QueueMessage]:
        first, *others = received
        wake_up = replace(WakeUp.from_json(first.body), grant=grant)
        return [replace(first, body=wake_up.to_json()), *others]

    [lease] = leases_of(world, granted)

    assert lease.watermarks == {"other": other.queued_at}
