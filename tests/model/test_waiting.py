"""Counterexamples of the models of waiting, run on the real services.

Each test takes the shortest counterexample without one rule, and repeats what matters of it on the
code: there it does no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.job_type import Limits as JobTypeLimits
from chalicelib.domain.jobs.transitions import claim, hold
from chalicelib.domain.limits.admission import HoldReason, RateTaken, WaitUntil
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker, force_open
from chalicelib.domain.limits.sliding_window import SECONDS, WIDE_WINDOW, Limits, added, fits, used
from chalicelib.domain.queues.causes import CauseKind, cause_of, shard_of
from chalicelib.domain.queues.lanes import READY, SCHEDULE
from chalicelib.domain.queues.wakeup import GRANT_MS, Grant
from chalicelib.ports import Line, Shard
from chalicelib.services.maintenance.context import SweepResult
from chalicelib.services.maintenance.sweep_lines import sweep_lines
from chalicelib.services.scheduling.scheduler import serve_shard
from chalicelib.services.scheduling.visits import CLOCK_ERROR_MS, Call, ShardMessage
from chalicelib.services.worker.admission import type_gate
from chalicelib.services.worker.admission.gates import admit_job
from chalicelib.services.worker.admission.rate_gate import granted_rate
from chalicelib.services.worker.run_task import TaskRun
from tests.kit.failing_store import refusing
from tests.kit.jobs import NOW, job
from tests.kit.task_types import chore, with_job_types
from tests.kit.time import run
from tests.kit.world import ALICE, World
from tests.model.search import Small, explore
from tests.model.waiting import Grants, Messages, PauseGate, Releases, Schedulers, Slots, SlotsKill, Visits, VisitsLoss
from tests.model.waiting import Line as LineModel

MODEL = "gpt-4o-mini"
CAUSE = cause_of(CauseKind.CIRCUIT, MODEL)
LINE = (CAUSE, "acme")
SHARD = shard_of(CAUSE, World().container.scheduler_shards)
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
    message = ShardMessage(SHARD, at=ctx.clock.now())
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


def at_release(world: World, act: Callable[[], None]) -> None:
    """Let something happen right after a scheduler has given up its lease, once."""
    lines = world.container.lines
    release = lines.release_shard

    def act_after(shard: Shard) -> None:
        release(shard)
        lines.release_shard = release  # type: ignore[method-assign]
        act()

    lines.release_shard = act_after  # type: ignore[method-assign]


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
            world.clock.advance(40)
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


# ---- visits


def test_a_job_that_is_held_while_the_scheduler_ends_is_missed_without_a_last_look_at_lines() -> None:
    assert "the scheduler reads the lines; the holder: job; the holder: shard" in without(Visits(), "last-lines")

    world, held = world_with_held_job()
    close(world)
    lines = world.container.lines
    line = lines.lines.pop(LINE)
    at_release(world, lambda: lines.lines.update({LINE: line}))
    serve(world, 3)

    assert (held.id, held.generation) in released(world)


def test_a_gate_that_opens_while_the_scheduler_ends_is_missed_without_a_last_look_at_gates() -> None:
    trace = without(Visits(), "last-gates")
    assert "the scheduler reads the gates: shut; the tenant resumes: remove; the tenant resumes: ask" in trace
    assert "it does not count" in trace

    world, held = world_with_held_job()
    at_release(world, lambda: close(world))
    serve(world, 20)

    assert (held.id, held.generation) in released(world)


def test_a_shard_seems_to_be_served_without_a_lease_that_was_given_up_for_good() -> None:
    assert "the scheduler gives up its lease; its thread renews the lease" in without(Visits(), "given-up")

    world, _ = world_with_held_job()
    lines = world.container.lines
    rows, seen = lines.rows, list[Shard | None]()

    async def slow(call: Callable[..., Any], *args: Any) -> Any:
        """A store that takes as long as three renewals."""
        if call == rows and lines.shard(SHARD) is None:
            await asyncio.sleep(7)
            seen.append(lines.shard(SHARD))
        return call(*args)

    world.container.offload = slow
    serve(world, 30)

    assert seen
    assert set(seen) == {None}


def test_a_request_is_dropped_as_seen_without_a_look_at_both() -> None:
    assert "it reads the gates again: shut; the tenant resumes: remove; the tenant resumes: ask; it reads the lines again" in without(
        Visits(), "seen"
    )

    world, _ = world_with_held_job()
    lines, circuits, requests = world.container.lines, world.container.circuit_breakers, list[ShardMessage]()

    def ask_between_the_looks() -> None:
        read = circuits.all

        def reading() -> list[CircuitBreaker]:
            found = read()
            world.clock.advance(0.1)
            requests.append(ShardMessage(SHARD, at=world.clock.now()))
            world.clock.advance(0.1)
            return found

        circuits.all = reading  # type: ignore[method-assign]

    at_release(world, ask_between_the_looks)
    serve(world, 20)
    shard = lines.shard(SHARD)

    assert shard is not None
    assert shard.asleep_until > 0
    assert requests[-1].counts(shard, world.clock.now())
    assert replace(requests[0], at=shard.since - 1_000).counts(shard, world.clock.now())  # by a clock that is a second behind
    assert not replace(requests[0], at=shard.since - CLOCK_ERROR_MS).counts(shard, world.clock.now())


def test_a_shard_that_is_asleep_misses_a_line_without_being_woken_for_a_new_one() -> None:
    assert "the scheduler ends" in without(Visits(), "new-line")

    world, _ = world_with_held_job()
    serve(world, 20)
    messages = world.container.queues.messages[SCHEDULE]
    messages.clear()
    world.submit()
    world.deliver("normal")
    assert not messages  # it knows the line, and the gate is shut

    world.submit(caller=replace(ALICE, tenant="other"))
    world.deliver("normal")
    assert [ShardMessage.from_json(message.body) for message in messages] == [ShardMessage(SHARD, at=world.clock.now())]


def test_a_job_is_missed_by_a_scheduler_that_ends_without_the_shard_being_read_last() -> None:
    assert "the holder: shard; " in without(Visits(), "job-then-shard")

    world = World()
    ctx = world.container
    ctx.circuit_breakers.replace(CircuitBreaker(model=MODEL), FORCED)
    order = record(world, (ctx.lines, "touch"), (ctx.jobs, "replace"), (ctx.lines, "shard"), (ctx.queues, "send_task"))
    world.submit()
    world.deliver("normal")

    assert order == ["touch", "replace", "shard", "send_task"]


def test_timers_never_die_out_without_counting_only_for_their_sleep() -> None:
    assert explore(Messages(), frozenset(Messages.rules) - {"timer"}).violation.startswith("STUCK")

    asleep = Shard(number=SHARD, owner="loop", until=0, asleep_until=NOW + 60_000, since=NOW)

    assert ShardMessage(SHARD, Call.TIMER, NOW + 60_000).counts(asleep, NOW + 60_000)
    assert not ShardMessage(SHARD, Call.TIMER, NOW + 50_000).counts(asleep, NOW + 60_000)
    assert not ShardMessage(SHARD, Call.TIMER, NOW + 60_000).counts(None, NOW + 60_000)


def test_messages_multiply_without_watches_counting_only_after_a_death() -> None:
    assert explore(Messages(), frozenset(Messages.rules) - {"watch"}).violation == "the messages multiply"

    watch = ShardMessage(SHARD, Call.WATCH)

    assert watch.counts(Shard(number=SHARD, owner="loop", until=NOW), NOW)
    assert not watch.counts(Shard(number=SHARD, owner="loop", until=NOW + 1), NOW)
    assert not watch.counts(Shard(number=SHARD, owner="loop", until=0, asleep_until=NOW + 60_000, since=NOW), NOW)
    assert not watch.counts(None, NOW)


def test_messages_do_not_multiply_while_a_gate_stays_shut() -> None:
    """An hour of a circuit that an operator has opened, with a sweep and a new job each minute."""
    world, _ = world_with_held_job()
    queues, begun, acquire = world.container.queues, list[str](), world.container.lines.acquire_shard

    def begin(shard: Shard, now: int) -> bool:
        if shard.until:
            begun.append(shard.owner)
        return acquire(shard, now)

    world.container.lines.acquire_shard = begin  # type: ignore[method-assign]
    for _ in range(60):
        world.submit()
        world.deliver("normal")
        sweep_lines(world.container, world.clock.now() + 40_000)
        world.schedule(20)
        world.clock.advance(40)

    assert len(queues.messages[SCHEDULE]) <= 20  # timers of sleeps that were interrupted come within 15 minutes
    assert len(set(begun)) <= 130
    assert not released(world)


# ---- grants


def test_more_than_the_limit_starts_without_counting_before_the_grant_is_sent() -> None:
    assert without(Grants(), "count-first").startswith("a scheduler grants job 0 1; job 1 is edited: 2 tokens; a worker asks for job 1")

    rates, at = World().container.rates, NOW
    frames = rates.take("account", MODEL, 1, 1, at)  # for a grant that is never used
    limits = Limits(requests=1)

    assert not fits(rates.take("account", MODEL, 1, 1, at + 1_000), limits, 1, at + 1_000)
    assert used(frames, at) == (1, 1)


def test_more_than_the_limit_starts_without_an_end_of_grants() -> None:
    assert without(Grants(), "expires").endswith("a worker asks for job 1: it starts; the grant of job 0 from second 0: it starts")

    counted = World().container.rates.take("account", MODEL, 1, 1, NOW)
    last = NOW + 1_000 * (WIDE_WINDOW - 1)  # an ask within the window
    grant = Grant(cause_of(CauseKind.RATE, MODEL), NOW, 1)

    assert not fits(added(counted, last, 1, 1), Limits(requests=1), 1, last)
    assert fits(added(counted, last + 1_000, 1, 1), Limits(requests=1), 1, last + 1_000)
    assert grant.is_valid(NOW)
    assert GRANT_MS <= 1_000 * (WIDE_WINDOW - SECONDS)  # what starts late is still a minute away from what starts then
    assert not grant.is_valid(NOW + GRANT_MS)


def test_more_than_the_limit_starts_without_giving_back_on_its_own_second() -> None:
    assert "its 1 are given back" in without(Grants(), "own-second")

    rates = World().container.rates
    rates.take("account", MODEL, 5, 1, NOW)
    rates.take("account", MODEL, 7, 1, NOW + 10_000)
    rates.give_back("account", MODEL, 5, 1, NOW)

    frames = rates.frames("account", MODEL, NOW + 10_000)
    assert used(frames, NOW + 10_000) == (1, 7)
    assert used(frames, NOW + 61_000) == (1, 7)  # the one of its second has gone, that of the other one has stayed


def test_an_expired_grant_is_given_back_once_though_the_job_is_refused_again() -> None:
    """The same rule: what is given back twice lets one more start than is counted."""

    async def work(_: TaskRun) -> Any:
        return {}

    world, kind = World(), chore(work, limits=JobTypeLimits(per_minute=2))
    world.container.job_type = with_job_types(kind)
    task, rates, account = world.submit("task", job_type=kind.name, input="task"), world.container.rates, type_gate.ACCOUNT
    grant = Grant(cause_of(CauseKind.TYPE, kind.name), world.clock.now())
    rates.take(account, kind.name, 0, 2, grant.at)  # another job has started in its second
    world.clock.advance(GRANT_MS / 1000)
    now = world.clock.now()
    rates.take(account, kind.name, 0, 1, now)  # and another one now

    admission = world.loop.run_until_complete(admit_job(world.container, task, grant))

    assert isinstance(admission, WaitUntil)
    assert used(rates.frames(account, kind.name, now), now) == (2, 0)


def test_more_than_the_limit_starts_without_the_record_deciding_what_a_grant_is_for() -> None:
    assert without(Grants(), "derived").startswith("a scheduler grants job 0 1; job 0 is edited: 2 tokens")

    granted = granted_rate(job(tokens=7), Grant(cause_of(CauseKind.RATE, MODEL), NOW, 1), NOW)

    assert granted == RateTaken(MODEL, 7, NOW)


# ---- slots


def test_more_jobs_run_than_allowed_without_the_condition_on_a_slot() -> None:
    trace = without(Slots(), "taken-if-free")

    assert "a worker reads for job 0: 0 taken; a worker reads for job 1: 0 taken" in trace


def test_a_free_slot_wakes_nobody_without_a_look_after_the_hold() -> None:
    assert without(Slots(), "look-again").endswith("job 0 ends and gives its slot back; the worker of job 0 looks at the line: nobody")


def test_a_free_slot_wakes_nobody_without_a_look_after_the_end() -> None:
    assert without(Slots(), "look-after").endswith("a worker writes job 1 held; it looks once more for job 1: 1 taken")


def test_a_slot_leaks_without_one_write() -> None:
    assert without(SlotsKill(), "one-write").endswith("a worker takes a slot for job 0; it dies before it claims job 0")


def test_a_held_job_misses_its_slot_without_the_sweep() -> None:
    assert "looks at the line: nobody; a worker writes job 1 held; it dies after it held job 1" in without(SlotsKill(), "sweep")


# ---- pauses


def test_a_resumed_job_waits_for_ever_without_removing_the_pause_before_asking() -> None:
    assert "the tenant resumes: ask; a request for a visit arrives" in without(Visits(), "remove-then-ask")


def test_a_resumed_job_waits_for_ever_without_the_sweep() -> None:
    assert without(VisitsLoss(), "sweep")

    world, held = world_with_held_job()
    serve(world, 20)
    close(world)  # nobody asks for a visit
    world.container.queues.messages[SCHEDULE].clear()
    world.clock.advance(60)
    sweep_lines(world.container, world.clock.now() + 40_000)
    world.schedule(5)

    assert released(world) == [(held.id, held.generation)]


def test_a_paused_job_starts_without_the_gates_being_passed_again() -> None:
    assert without(PauseGate(), "gates-again").endswith("the pause and the mark are written; the release arrives: nothing stops the job")

    world, held = world_with_held_job()
    world.deliver(READY.name, [world.wake(held)])  # a scheduler releases it, and its circuit is open again

    assert world.job(held) == held


def test_a_paused_job_starts_without_one_write_of_pause_and_mark() -> None:
    assert "the pause is written; the request dies; the request is repeated: it finds the pause" in without(PauseGate(), "mark-with-pause")
