"""Workers hold what is paused, and the scheduler releases it when the pause is over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.errors import Throttled
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.limits.pauses import PauseScope, bucket_of
from chalicelib.domain.queues.causes import CauseKind, cause_of
from chalicelib.domain.queues.lanes import READY, SCHEDULE
from chalicelib.domain.queues.wakeup import Grant, WakeUp
from chalicelib.ports import QueueMessage
from chalicelib.services.operations.pauses import PauseRequest, end_pauses, set_pause
from chalicelib.services.scheduling.scheduler import serve_shard
from chalicelib.services.scheduling.visits import ShardMessage
from chalicelib.services.worker.context import LocalState
from chalicelib.services.worker.process_messages import process_messages
from tests.kit.failing_store import refusing
from tests.kit.provider import Script
from tests.kit.time import run
from tests.kit.world import ALICE, World

OLGA = Caller(tenant="acme", user="olga", role=Role.OPERATOR, key_id="key_2", key_hash="hash2")
HAL = Caller(tenant="house", user="hal", role=Role.ADMIN, key_id="key_3", key_hash="hash3", all_tenants=True)
MALLORY = replace(ALICE, tenant="other", user="mallory")
GENERAL, EVERYTHING = PauseScope(type="general"), PauseScope()
QUICK = Script(deltas=["x"], first=0.1)


def pause(world: World, scope: PauseScope = GENERAL, caller: Caller = OLGA, seconds: float | None = None) -> None:
    until = world.clock.now() + round(seconds * 1000) if seconds is not None else None
    set_pause(world.container, caller, PauseRequest(scope=scope, reason="test", until=until, replace=True))


def resume(world: World, scope: PauseScope = GENERAL, caller: Caller = OLGA) -> None:
    assert end_pauses(world.container, caller, scope)


def environment(world: World) -> Any:
    """Another Lambda environment: it has read nothing yet."""
    return world.container.with_changes(local_state=LocalState())


def invoke(world: World, ctx: Any, messages: list[QueueMessage], queue: str = "normal") -> None:
    run(world.loop, process_messages(ctx, queue, messages))
    world.container.queues.acknowledge(queue, [message.receipt for message in messages])


def serve_shards(world: World) -> None:
    """Serve each shard that has messages for a second, as one loop does however many they are."""
    queues = world.container.queues
    messages = queues.receive(SCHEDULE, 10_000)
    for message in messages:
        queues.acknowledge(SCHEDULE, [message.receipt])
    named = {one.shard: one for message in messages if (one := ShardMessage.from_json(message.body)) is not None}
    for one in named.values():
        run(world.loop, serve_shard(world.container, one, world.clock.now() + 1_000))


def serve(world: World, jobs: Iterable[Job], seconds: float = 600) -> None:
    """Let the scheduler and the workers run until all these jobs have ended."""
    end = world.clock.now() + round(seconds * 1000)
    while not all(world.job(job).status.is_terminal for job in jobs):
        assert world.clock.now() < end, [world.job(job) for job in jobs if not world.job(job).status.is_terminal][:1]
        world.deliver()
        world.sweep(after=0.5)


def test_without_pauses_nothing_more_is_read() -> None:
    """The board comes with the circuits, in the same request."""
    world = World(QUICK)
    for _ in range(3):
        world.submit()

    with refusing(world.container.pauses, "of_tenant", 0) as tenants, refusing(world.container.pauses, "board", 0) as boards:
        world.deliver()
        world.clock.advance(10)
        world.submit()
        world.deliver()

    assert (tenants, boards) == ([0], [2])  # the twin of the circuits reads the board for its answer


def test_the_pauses_of_a_tenant_are_read_again_only_when_the_board_has_changed() -> None:
    world = World(QUICK)
    pause(world, PauseScope(lane="low"))
    with refusing(world.container.pauses, "of_tenant", 0) as reads:
        for _ in range(4):
            world.submit()
            world.deliver()
            world.clock.advance(2)
        assert reads == [1]
    pause(world)
    world.clock.advance(2)
    job = world.submit()
    world.deliver()

    assert world.job(job).status is Status.HELD


@pytest.mark.parametrize(
    ("scope", "caller", "cause"),
    [
        (GENERAL, OLGA, "pause:type:general"),
        (PauseScope(lane="normal"), OLGA, "pause:lane:normal"),
        (PauseScope(type="general", lane="normal"), OLGA, "pause:queue:general:normal"),
        (EVERYTHING, OLGA, "pause:tenant:acme"),
        (EVERYTHING, HAL, "pause:all"),
        (PauseScope(tenant="acme"), HAL, "pause:tenant:acme"),
        (GENERAL, HAL, "pause:type:general"),
    ],
)
def test_a_paused_job_waits_in_the_line_of_the_scope_and_completes_after_it(scope: PauseScope, caller: Caller, cause: str) -> None:
    world = World(QUICK)
    pause(world, scope, caller)
    job = world.submit()
    world.deliver()
    held = world.job(job)
    assert (held.status, held.reason, held.cause, held.attempt, held.resume_at) == (Status.HELD, "paused", cause, 0, None)

    world.clock.advance(300)
    world.deliver()
    assert world.job(job).status is Status.HELD
    resume(world, scope, caller)
    serve(world, [job], seconds=5)

    assert (world.job(job).status, world.job(job).attempt) == (Status.COMPLETED, 1)


def test_a_pause_with_an_end_releases_its_jobs_then() -> None:
    world = World(QUICK)
    pause(world, seconds=130)
    job = world.submit()
    world.deliver()
    ends_at = world.job(job).resume_at or 0
    assert 128_000 <= ends_at - world.clock.now() <= 130_000  # which users are told

    serve(world, [job], seconds=200)

    assert ends_at <= (world.job(job).started_at or 0) <= ends_at + 5_000


def test_another_tenant_in_the_same_bucket_is_not_held() -> None:
    twin = next(name for number in range(10_000) if bucket_of(name := f"t{number}") == bucket_of("acme"))
    world = World(QUICK)
    pause(world)
    job = world.submit(caller=replace(ALICE, tenant=twin))

    world.deliver()

    assert world.job(job).status is Status.COMPLETED


def test_a_line_stays_closed_while_a_wider_pause_covers_it() -> None:
    """Its jobs are not released to be held again."""
    world = World(QUICK)
    pause(world)
    job = world.submit()
    world.deliver()
    pause(world, EVERYTHING, HAL)
    resume(world)
    sent = len(world.container.queues.sent)

    for _ in range(5):
        world.schedule()
        world.clock.advance(1)
    assert len(world.container.queues.sent) == sent
    resume(world, EVERYTHING, HAL)
    world.clock.advance(60)
    world.sweep()
    serve(world, [job], seconds=90)

    assert world.job(job).attempt == 1


def test_a_job_of_two_pauses_goes_from_one_line_to_the_other() -> None:
    world = World(QUICK)
    pause(world)
    job = world.submit()
    world.deliver()
    pause(world, PauseScope(lane="normal"))
    resume(world)
    world.clock.advance(2)
    world.deliver()
    assert (world.job(job).cause, world.job(job).attempt) == ("pause:lane:normal", 0)

    resume(world, PauseScope(lane="normal"))
    serve(world, [job], seconds=5)

    assert world.job(job).attempt == 1


def test_a_running_attempt_goes_on_while_everything_is_paused() -> None:
    world = World(Script(deltas=["a"] * 50, every=1.0))
    job = world.submit()
    world.loop.call_later(5, lambda: pause(world, EVERYTHING))

    world.deliver()

    assert (world.job(job).status, world.job(job).attempt) == (Status.COMPLETED, 1)


def test_a_wake_up_that_comes_again_does_not_start_a_paused_job() -> None:
    world = World(QUICK)
    pause(world)
    job = world.submit()
    world.deliver()
    held = world.job(job)

    world.deliver("normal", [world.wake(job), world.wake(job, 1)])

    assert world.job(job) == held


def test_a_lost_request_for_a_visit_is_made_up_for_by_the_sweep() -> None:
    world = World(QUICK)
    pause(world)
    job = world.submit()
    world.deliver()
    with refusing(world.container.queues, "send_task", 10**6):
        resume(world)
    assert ("scheduler_not_woken" in {fact for fact, _ in world.log_lines}) is True

    world.sweep(after=60)
    serve(world, [job], seconds=70)

    assert world.job(job).attempt == 1


@pytest.mark.parametrize("method", ["of_tenant", "all_with_board"])
def test_a_job_waits_once_while_the_pauses_are_unknown_and_then_runs(method: str) -> None:
    """No fault of their store may stop jobs."""
    world = World(QUICK)
    pause(world, PauseScope(lane="low"))
    store = world.container.pauses if method == "of_tenant" else world.container.circuit_breakers
    job = world.submit()
    with refusing(store, method, 10**6, Throttled):
        world.deliver()
        held = world.job(job)
        world.clock.advance(12)
        world.deliver()

    assert (held.status, held.reason, held.cause) == (Status.HELD, "pauses_unknown", None)
    assert "pauses_unavailable" in {fact for fact, _ in world.log_lines}
    assert (world.job(job).status, world.job(job).attempt) == (Status.COMPLETED, 1)


def test_the_last_pauses_count_while_their_store_is_down() -> None:
    world = World(QUICK)
    pause(world, EVERYTHING, HAL)
    first = world.submit()
    world.deliver()
    later = world.submit()
    with refusing(world.container.circuit_breakers, "all_with_board", 10**6, Throttled):
        world.clock.advance(30)
        world.deliver()
        world.clock.advance(12)
        world.deliver()

        assert [world.job(job).cause for job in (first, later)] == ["pause:all"] * 2


def test_a_pause_in_a_flood_stops_starts_within_two_seconds_and_loses_doubles_and_disorders_nothing() -> None:
    """Three environments take 500 jobs of two tenants; the pause comes in the middle."""
    world = World(QUICK)
    jobs = [world.submit(caller=MALLORY if number % 5 == 4 else ALICE) for number in range(500)]
    environments = [environment(world) for _ in range(3)]

    def take(rounds: int) -> None:
        for number in range(rounds):
            if messages := world.container.queues.receive("normal"):
                invoke(world, environments[number % 3], messages)

    take(20)
    pause(world, EVERYTHING, HAL)
    paused_at = world.clock.now()
    take(100)

    started = [world.job(job).started_at for job in jobs]
    in_time = [at for at in started if at is not None]
    assert len(in_time) >= 200
    assert max(in_time) <= paused_at + 2_000
    held = [job for job in jobs if world.job(job).status is Status.HELD]
    assert len(held) + len(in_time) == 500
    assert {world.job(job).cause for job in held} == {"pause:all"}

    released_from = len(world.container.queues.sent)
    resume(world, EVERYTHING, HAL)
    resumed_at, peak = world.clock.now(), 0
    while any(not world.job(job).status.is_terminal for job in jobs):
        assert world.clock.now() < resumed_at + 300_000
        serve_shards(world)
        peak = max(peak, world.container.queues.depth(READY.name))
        while messages := world.container.queues.receive(READY.name):
            invoke(world, environments[0], messages, READY.name)
        world.sweep(after=0.5)

    assert {world.job(job).status for job in jobs} == {Status.COMPLETED}
    assert {world.job(job).attempt for job in jobs} == {1}
    assert len(world.provider.requests) == 500
    sent = [wake_up.job_id for queue, wake_up in world.container.queues.sent[released_from:] if queue == READY.name]
    for tenant in ("acme", "other"):
        waiting = [job.id for job in held if job.tenant == tenant]
        first_releases = list(dict.fromkeys(job_id for job_id in sent if job_id in set(waiting)))
        assert first_releases == waiting
    assert peak <= 100  # waves: workers of other jobs are not crowded out


def test_what_a_scheduler_took_for_a_paused_job_is_given_back() -> None:
    """The job had waited for a rate, and its tenant was paused when it was released."""
    world = World(QUICK)
    pause(world, EVERYTHING)
    job = world.submit()
    grant = Grant(cause_of(CauseKind.RATE, job.model), world.clock.now(), 10)
    message = QueueMessage(WakeUp(job.id, job.generation, grant).to_json(), "r1")

    with refusing(world.container.rates, "give_back", 0) as returned:
        world.deliver("normal", [message])

    assert (world.job(job).cause, returned) == ("pause:tenant:acme", [1])
