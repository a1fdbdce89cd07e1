"""Concurrency of tenants and users: who starts, who waits in which line, and who is sent when a slot is free."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.errors import SlotsFull, Throttled
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.transitions import AttemptOutcome
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker, CircuitState
from chalicelib.domain.limits.tenant_limits import TenantLimits
from chalicelib.domain.queues.lanes import READY
from chalicelib.domain.queues.wakeup import WakeUp
from chalicelib.services.maintenance.sweep_lines import sweep_lines
from chalicelib.services.scheduling.slot_lines import SentForSlots, release_after
from tests.kit.failing_store import refusing
from tests.kit.provider import Script
from tests.kit.records import job as record
from tests.kit.world import ALICE, World, kill

TENANT, ANN = "t:acme", "u:acme#alice"
MINUTE_MS = 60_000
DONE = AttemptOutcome(status=Status.COMPLETED, length=0)


def limited(world: World, tenant: str = "acme", **limits: Any) -> None:
    store = world.container.tenant_limits
    seen = store.get(tenant) or TenantLimits(tenant=tenant)
    store.replace(seen, replace(seen, version=seen.version + 1, **limits))
    world.clock.advance(30)


def statuses(world: World, *jobs: Job) -> list[Status]:
    return [world.job(job).status for job in jobs]


def released(world: World) -> list[str]:
    """Take the wake-ups of released jobs out of their queue, and return the ids of their jobs."""
    return [WakeUp.from_json(message.body).job_id for message in world.container.queues.receive(READY.name)]


def finish(world: World) -> None:
    """Let every job that is released run, until none is."""
    for _ in range(50):
        messages = world.container.queues.receive(READY.name)
        if not messages:
            return
        world.deliver(READY.name, messages)


def test_jobs_above_the_concurrency_of_their_tenant_wait_in_its_line() -> None:
    """They are admitted together and see the same free slots: the claims decide."""
    world = World()
    limited(world, concurrency=2)
    jobs = [world.submit(f"{number}") for number in range(4)]
    claims: list[list[int]] = []
    replace_record = world.container.jobs.replace

    def watched(seen: Job, new: Job, limits: Any = None) -> None:
        replace_record(seen, new, limits)
        claims.append([world.container.jobs.slots[f"{TENANT}#0"]])

    vars(world.container.jobs)["replace"] = watched
    world.deliver("normal")

    held = [job for job in jobs if world.job(job).status is Status.HELD]
    assert len(held) == 2
    assert {(world.job(job).reason, world.job(job).cause) for job in held} == {("tenant_concurrency", f"slots:{TENANT}")}
    assert [world.job(job).attempt for job in held] == [0, 0]
    assert max(number for (number,) in claims) == 2

    finish(world)
    assert statuses(world, *jobs) == [Status.COMPLETED] * 4
    assert world.container.jobs.slots[f"{TENANT}#0"] == 0


def test_user_waits_for_a_slot_of_its_own_though_the_tenant_has_more() -> None:
    world = World()
    limited(world, concurrency=10, user_concurrency=1)
    bob = Caller(**{**{name: getattr(ALICE, name) for name in ("tenant", "role", "key_id", "key_hash")}, "user": "bob"})
    first, second, other = world.submit("a"), world.submit("b"), world.submit("c", caller=bob)
    world.deliver("normal")

    waiting = [job for job in (first, second) if world.job(job).status is Status.HELD]
    assert [(world.job(job).reason, world.job(job).cause) for job in waiting] == [("user_concurrency", f"slots:{ANN}")]
    assert world.job(other).status is Status.COMPLETED
    finish(world)
    assert statuses(world, first, second) == [Status.COMPLETED] * 2


def test_end_sends_the_first_job_of_the_line_in_its_order() -> None:
    """Lane, then age: the one that a better lane holds comes first."""
    world = World(random=lambda: 0.9)
    limited(world, concurrency=1)
    with Occupied(world):
        normal, urgent = world.submit("normal"), world.submit("urgent", priority="urgent")
        world.deliver("normal")
        world.deliver("urgent")
        assert statuses(world, normal, urgent) == [Status.HELD] * 2
        assert released(world) == []

    assert released(world) == [urgent.id]


def test_lower_lane_comes_first_at_times_so_that_it_never_starves() -> None:
    world = World(random=lambda: 0.04)
    limited(world, concurrency=1)
    with Occupied(world):
        low, urgent = world.submit("low", priority="low"), world.submit("urgent", priority="urgent")
        world.deliver("low")
        world.deliver("urgent")

    assert released(world) == [low.id]
    assert urgent.id != low.id


def test_newcomer_stands_behind_those_that_wait() -> None:
    """Though a slot is free for a moment; the first of the line is sent instead."""
    world = World()
    limited(world, concurrency=1)
    with Occupied(world):
        first = world.submit("first")
        world.deliver("normal")
    released(world)  # its wake-up is on its way
    newcomer = world.submit("newcomer")
    world.deliver("normal")

    assert statuses(world, first, newcomer) == [Status.HELD] * 2
    assert released(world)[0] == first.id


def test_newcomer_starts_at_once_where_many_slots_are_free() -> None:
    """The line is not even looked for."""
    world = World()
    limited(world, concurrency=40)
    with refusing(world.container.lines, "held", 99) as looks:
        job = world.submit("a")
        world.deliver("normal")

    assert world.job(job).status is Status.COMPLETED
    assert looks == [1]  # by its end


def test_tenant_without_limits_asks_for_no_slots() -> None:
    world = World()
    limited(world, "other", concurrency=1)
    with refusing(world.container.jobs, "slots_taken", 99) as asked, refusing(world.container.tenant_limits, "get", 99) as read:
        job = world.submit("a")
        world.deliver("normal")

    assert world.job(job).status is Status.COMPLETED
    assert (asked, read) == ([0], [0])


def test_nothing_starts_while_the_limits_cannot_be_read() -> None:
    """A limit protects something. The job waits some seconds, in no line."""
    world = World()
    limited(world, concurrency=1)
    job = world.submit("a")
    with refusing(world.container.jobs, "slots_taken", 99):
        world.deliver("normal")

    assert (world.job(job).status, world.job(job).reason, world.job(job).cause) == (Status.HELD, "limits_unknown", None)


def test_job_that_waits_for_a_circuit_and_a_slot_stands_in_the_line_of_the_circuit() -> None:
    """The shared cause; and it does not become the probe, because it could not run."""
    world = World()
    limited(world, concurrency=1)
    with Occupied(world):
        now = world.clock.now()
        world.container.circuit_breakers.replace(
            CircuitBreaker(model="gpt-4o-mini"),
            CircuitBreaker(model="gpt-4o-mini", version=1, state=CircuitState.OPEN, opened_at=now, until=now + MINUTE_MS, reason="down"),
        )
        world.clock.advance(10)
        waits_for_both = world.submit("both")
        world.deliver("normal")
        assert world.job(waits_for_both).cause == "circuit:gpt-4o-mini"

        world.clock.advance(60)  # a probe may be made now
        waits_for_slot = world.submit("slot")
        world.deliver("normal")
        assert world.job(waits_for_slot).cause == f"slots:{TENANT}"

    assert world.container.circuit_breakers.get("gpt-4o-mini").state is CircuitState.OPEN


def test_dead_worker_gives_its_slots_back_when_the_job_is_reclaimed() -> None:
    world = World(Script(deltas=("a", "b", "c"), every=2.0), Script())
    limited(world, concurrency=1)
    job, waiting = world.submit("a"), None
    kill(world, 1.0)
    assert world.job(job).slots == (f"{TENANT}#0",)
    waiting = world.submit("b")
    world.deliver("normal")
    assert world.job(waiting).status is Status.HELD

    world.sweep(after=60)

    assert world.container.jobs.slots[f"{TENANT}#0"] == 0
    assert set(released(world)) == {waiting.id}


def test_sweep_finds_a_free_slot_that_nobody_was_sent_for() -> None:
    """The worker that ended the job died before it looked at the line."""
    world = World()
    limited(world, concurrency=1)
    with Occupied(world, looks=False):
        waiting = world.submit("b")
        world.deliver("normal")
    assert released(world) == []

    sweep_lines(world.container, world.clock.now() + MINUTE_MS)

    assert set(released(world)) == {waiting.id}


def test_sweep_sends_all_that_may_start_after_the_limit_was_lifted_and_removes_the_row_in_the_end() -> None:
    world = World()
    limited(world, concurrency=1)
    with Occupied(world):
        jobs = [world.submit(f"{number}") for number in range(20)]
        world.deliver("normal")
        world.deliver("normal")
        limited(world, concurrency=None)
        sweep_lines(world.container, world.clock.now() + MINUTE_MS)
        finish(world)
        assert statuses(world, *jobs) == [Status.COMPLETED] * 20

    world.clock.advance(601)
    sweep_lines(world.container, world.clock.now() + MINUTE_MS)
    assert world.container.lines.lines == {}


def test_ten_ends_at_once_do_not_send_one_job_ten_times() -> None:
    """All slots are given back before the first end looks at the line."""
    world = World()
    limited(world, concurrency=10)
    with Occupied(world, slots=10):
        jobs = [world.submit(f"{number}") for number in range(30)]
        for _ in range(3):
            world.deliver("normal")
    sent = [*released(world), *released(world)]

    assert len(sent) == len(set(sent))
    assert 10 <= len(sent) < 20
    assert set(sent) <= {job.id for job in jobs}


def test_claim_that_lost_the_last_slot_is_held_and_holds_no_slot() -> None:
    world = World()
    limited(world, concurrency=3)
    job = world.submit("a")
    world.container.jobs.slots[f"{TENANT}#0"] = 0
    real = world.container.jobs.replace

    def full(seen: Job, new: Job, limits: Any = None) -> None:
        if limits:
            raise SlotsFull(TENANT)
        real(seen, new, limits)

    vars(world.container.jobs)["replace"] = full
    world.deliver("normal")

    assert (world.job(job).status, world.job(job).cause, world.job(job).slots) == (Status.HELD, f"slots:{TENANT}", ())


def test_line_that_cannot_be_served_fails_no_job() -> None:
    """The sweep looks at the line a minute later."""
    world = World()
    limited(world, concurrency=40)  # so many that the gate does not look for a line
    job = world.submit("a")
    with refusing(world.container.lines, "held", 99, Throttled):
        world.deliver("normal")

    assert world.job(job).status is Status.COMPLETED
    assert "slot_line_not_served" in [event for event, _ in world.log_lines]


class Occupied:
    """Slots of the tenant are taken by jobs that another worker runs; at the end they are given back.

    Args:
        looks: the worker lives on and looks at the line.
    """

    def __init__(self, world: World, *, slots: int = 1, looks: bool = True) -> None:
        self._world, self._slots, self._looks = world, slots, looks
        self._running: list[Job] = []

    def __enter__(self) -> None:
        jobs, now = self._world.container.jobs, self._world.clock.now()
        for _ in range(self._slots):
            other = record(user="carol", due_at=now + 10**9, expires_at=now + 10**9, retry_until=now + 10**9)
            jobs.create(other)
            claimed = transitions.claim(other, 1, "lease#x", now, slots=(f"{TENANT}#0",))
            assert claimed is not None
            jobs.replace(other, claimed)
            self._running.append(claimed)

    def __exit__(self, *_: object) -> None:
        container, sent, now = self._world.container, SentForSlots(), self._world.clock.now()
        ended = [transitions.finish(running, 1, "lease#x", DONE, now) for running in self._running]
        for before, after in zip(self._running, ended, strict=True):
            assert after is not None
            container.jobs.replace(before, after)
        for before, after in zip(self._running, ended, strict=True):
            if self._looks and after is not None:
                release_after(container, sent, before, after)
