"""Counterexamples of the models of waiting, run on the real services.

Each test takes the shortest counterexample without one rule, and repeats what matters of it on the
code: there it does no harm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.transitions import claim, hold
from chalicelib.domain.limits.admission import HoldReason
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker, force_open
from chalicelib.domain.queues.causes import CauseKind, cause_of, shard_of
from chalicelib.domain.queues.lanes import READY, SCHEDULE
from chalicelib.ports import Line
from chalicelib.services.maintenance.context import SweepResult
from chalicelib.services.maintenance.sweep_lines import sweep_lines
from chalicelib.services.scheduling.scheduler import serve_shard
from chalicelib.services.scheduling.visits import ShardMessage
from chalicelib.services.worker.admission.gates import SLOW_HOLD_MS
from tests.kit.failing_store import refusing
from tests.kit.jobs import NOW
from tests.kit.time import run
from tests.kit.world import World
from tests.model.search import Small, explore
from tests.model.waiting import Line as LineModel
from tests.model.waiting import Releases, SchedulerEnds, Schedulers

MODEL = "gpt-4o-mini"
CAUSE = cause_of(CauseKind.CIRCUIT, MODEL)
LINE = (CAUSE, "acme")
FORCED = replace(force_open(CircuitBreaker(model=MODEL), "operator", "a test", "m1", NOW), version=1)


def without(model: Small, rule: str) -> str:
    """Return the shortest trace to a violation without `rule`."""
    report = explore(model, frozenset(model.rules) - {rule})
    assert report.violation
    return "; ".join(report.trace)


def world_with_held_job() -> tuple[World, Job]:
    """A job that waits for a circuit that an operator has opened."""
    world = World()
    world.container.circuit_breakers.replace(CircuitBreaker(model=MODEL), FORCED)
    held = world.submit()
    world.deliver("normal")
    assert (world.job(held).status, world.job(held).cause) == (Status.HELD, CAUSE)
    return world, world.job(held)


def close(world: World) -> None:
    world.container.circuit_breakers.replace(FORCED, CircuitBreaker(model=MODEL, version=2))


def serve(world: World, seconds: float) -> None:
    """Let one loop of the scheduler serve the line for so long."""
    ctx = world.container
    message = ShardMessage(shard_of(CAUSE, ctx.scheduler_shards), at=ctx.clock.now())
    run(world.loop, serve_shard(ctx, message, ctx.clock.now() + round(seconds * 1000)))


def released(world: World) -> list[tuple[str, int]]:
    """Return the jobs and generations that were sent to the queue of released jobs."""
    return [(wake_up.job_id, wake_up.generation) for queue, wake_up in world.container.queues.sent if queue == READY.name]


def record(world: World, *calls: tuple[Any, str]) -> list[str]:
    """Return a list to which the named calls of ports are added in their order."""
    order: list[str] = []

    def recording(name: str, real: Callable[..., Any], *args: Any, **named: Any) -> Any:
        order.append(name)
        return real(*args, **named)

    for port, name in calls:
        setattr(port, name, partial(recording, name, getattr(port, name)))
    return order


def empty_line(world: World) -> None:
    """An earlier job has left the row of the line."""
    world.container.lines.touch(*LINE, world.clock.now())


# ---- the row of a line


def test_a_held_job_is_in_no_line_without_its_row_being_first() -> None:
    assert "the worker writes held; the worker dies" in without(LineModel(), "row-first")

    world = World()
    world.container.circuit_breakers.replace(CircuitBreaker(model=MODEL), FORCED)
    order = record(world, (world.container.lines, "touch"), (world.container.jobs, "replace"))
    world.submit()
    world.deliver("normal")

    assert order == ["touch", "replace"]


def test_a_line_loses_its_row_without_a_second_look() -> None:
    assert without(LineModel(), "two-looks").endswith("the worker writes the row; a scheduler finds nobody; the scheduler removes the row")

    world = World()
    empty_line(world)
    world.clock.advance(3600)  # whatever the row says of its time
    serve(world, 20)
    assert LINE in world.container.lines.lines
    serve(world, 60)
    assert LINE not in world.container.lines.lines


def test_a_line_loses_its_row_without_regard_to_who_has_written_it_since() -> None:
    assert "a scheduler finds nobody; the worker writes the row" in without(LineModel(), "untouched")

    world = World()
    empty_line(world)
    lines = world.container.lines
    remove, refused = lines.remove, list[bool]()

    def touch_first(line: Line) -> bool:
        if not refused:
            lines.touch(line.cause, line.tenant, world.clock.now())
        refused.append(remove(line))
        return refused[-1]

    lines.remove = touch_first  # type: ignore[method-assign]
    serve(world, 90)

    assert refused == [False, True]


def test_looks_before_the_row_was_written_do_not_count_without_new_ones() -> None:
    """The same rule: a row that changes while a loop looks at its line starts the looks again."""
    world = World()
    empty_line(world)
    world.loop.call_later(25, empty_line, world)
    serve(world, 50)
    assert LINE in world.container.lines.lines

    serve(world, 60)
    assert LINE not in world.container.lines.lines


def test_a_frozen_worker_holds_a_job_in_no_line_without_the_row_again() -> None:
    assert "the worker freezes; a scheduler finds nobody" in without(LineModel(), "row-again")

    world = World()
    ctx = world.container
    ctx.circuit_breakers.replace(CircuitBreaker(model=MODEL), FORCED)
    write = ctx.jobs.replace

    def freeze(seen: Job, new: Job, *args: Any) -> None:
        if new.status is Status.HELD:
            world.clock.advance(SLOW_HOLD_MS / 1000)
            assert ctx.lines.remove(ctx.lines.lines[LINE])
        write(seen, new, *args)

    ctx.jobs.replace = freeze  # type: ignore[method-assign]
    world.submit()
    world.deliver("normal")

    assert LINE in ctx.lines.lines


# ---- releases


def test_a_lost_release_loses_the_job_without_its_place_in_line() -> None:
    assert without(Releases(), "in-line").endswith("releases generation 0; a release is lost")

    world, held = world_with_held_job()
    close(world)
    with refusing(world.container.queues, "send_released"):
        serve(world, 20)
    assert world.job(held) == held

    serve(world, 20)
    assert released(world) == [(held.id, held.generation)] * len(released(world)) != []


def test_releases_are_stale_for_ever_without_the_same_generation() -> None:
    report = explore(Releases(), frozenset(Releases.rules) - {"same-generation"})
    assert report.violation.startswith("STUCK")

    world, held = world_with_held_job()
    close(world)
    serve(world, 40)

    assert released(world) == [(held.id, held.generation)] * 3  # again each 15 s, and the record is as it was
    assert world.job(held) == held


def test_two_workers_run_a_job_that_was_released_twice_without_one_claim() -> None:
    assert without(Releases(), "claim-once").count("a worker starts the job") == 2

    world, held = world_with_held_job()
    now = world.clock.now()
    first = claim(held, held.generation, "lease-a#1", now)

    assert first is not None
    assert first.status is Status.PROCESSING
    assert claim(first, held.generation, "lease-b#1", now) is None
    paused = hold(held, held.generation, HoldReason.RATE_LIMITED, None, now, cause_of(CauseKind.RATE, MODEL))
    assert paused is not None
    assert claim(paused, held.generation, "lease-b#1", now) is None  # nor does it start a job that waits in another line now


# ---- schedulers


def test_a_line_waits_for_ever_without_the_sweep_of_lines() -> None:
    assert "a worker holds the job and dies" in without(Schedulers(), "lines-swept")

    world, held = world_with_held_job()
    world.container.queues.messages[SCHEDULE].clear()  # the worker died before it woke the shard, or its message was lost
    close(world)
    found = sweep_lines(world.container, world.clock.now() + 40_000)

    assert found[SweepResult.SCHEDULER_WOKEN] == 1
    serve(world, 1)
    assert released(world) == [(held.id, held.generation)]
    assert not sweep_lines(world.container, world.clock.now() + 40_000)[SweepResult.EXPIRED]


def test_a_job_never_ends_behind_a_gate_that_stays_shut_without_its_last_moment() -> None:
    report = explore(Schedulers(), frozenset(Schedulers.rules) - {"last-moment"})
    assert report.violation.startswith('STUCK: "the job ends or runs')

    world, held = world_with_held_job()
    assert held.due_at == held.expires_at
    world.clock.advance((held.expires_at - world.clock.now()) / 1000)
    sweep_lines(world.container, world.clock.now() + 40_000)

    assert world.job(held).status is Status.EXPIRED


def test_a_job_that_is_held_while_the_scheduler_ends_is_missed_without_another_look() -> None:
    assert "nobody; the holder: job; the holder: lease" in without(SchedulerEnds(), "lease-then-lines")

    world, held = world_with_held_job()
    close(world)
    lines = world.container.lines
    line, release = lines.lines.pop(LINE), lines.release_shard

    def hold_first(*args: Any) -> None:
        release(*args)
        lines.lines[LINE] = line

    lines.release_shard = hold_first  # type: ignore[method-assign]
    serve(world, 3)

    assert (held.id, held.generation) in released(world)


def test_a_job_that_is_held_while_the_scheduler_ends_is_missed_without_the_lease_read_last() -> None:
    assert without(SchedulerEnds(), "job-then-lease").startswith("the holder: lease")

    world = World()
    ctx = world.container
    ctx.circuit_breakers.replace(CircuitBreaker(model=MODEL), FORCED)
    order = record(world, (ctx.lines, "touch"), (ctx.jobs, "replace"), (ctx.lines, "shard"), (ctx.queues, "send_task"))
    world.submit()
    world.deliver("normal")

    assert order == ["touch", "replace", "shard", "send_task"]
