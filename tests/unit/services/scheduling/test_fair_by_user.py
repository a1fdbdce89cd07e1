"""A tenant that shares by user: who starts, in which line jobs wait, and what it costs the others."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.limits.rate_limit import ACCOUNT, RateLimit
from chalicelib.domain.limits.tenant_limits import LimitsChange
from chalicelib.domain.queues.causes import CauseKind, cause_of
from chalicelib.services.limits.manage_limits import set_limits
from chalicelib.services.scheduling.waits import describe_wait
from tests.kit.failing_store import refusing
from tests.kit.live_stage import run_until
from tests.kit.provider import Script
from tests.kit.world import ALICE, World

MODEL = "gpt-4o-mini"
RATE = cause_of(CauseKind.RATE, MODEL)
SLOTS = cause_of(CauseKind.SLOTS, "t:acme")
BOB = replace(ALICE, user="bob")
STRANGER = replace(ALICE, tenant="other", user="zoe")
ODD = tuple(replace(ALICE, user=user) for user in ("", "a#b#0", "ü" * 100, "\u0000", "ann"))


def stage(requests: int = 60, **limits: Any) -> World:
    """A stage with a known rate limit, and a tenant with limits of its own."""
    world = World(*[Script(deltas=["x"])] * 2_000)
    limit = RateLimit(model=MODEL, account=ACCOUNT, configured_requests=requests, version=1)
    world.container.rates.save_limit(RateLimit(model=MODEL, account=ACCOUNT), limit)
    share(world, **limits)
    return world


def share(world: World, **limits: Any) -> None:
    if limits:
        set_limits(world.container, "acme", LimitsChange(values=limits), "root")
        world.clock.advance(31)


def submit(world: World, count: int, caller: Caller = ALICE, **fields: Any) -> list[Job]:
    return [world.submit(caller=caller, **fields) for _ in range(count)]


def hold(world: World) -> None:
    """Let workers take what is in the queue, without a scheduler."""
    for _ in range(100):
        if not world.container.queues.depth("normal"):
            return
        world.deliver("normal")


def started(world: World, jobs: list[Job]) -> int:
    return sum(world.job(job).started_at is not None for job in jobs)


def waits(world: World, jobs: list[Job]) -> list[float]:
    return [((world.job(job).started_at or 10**15) - job.created_at) / 1000 for job in jobs]


def all_ended(world: World, jobs: list[Job]) -> bool:
    return all(world.job(job).status.is_terminal for job in jobs)


@pytest.mark.parametrize(("fair_by", "ahead"), [("user", 25), ("tenant", 250)])
def test_a_job_of_another_user_does_not_wait_behind_all_that_one_has(fair_by: str, ahead: int) -> None:
    """With 300 jobs of one user before it."""
    world = stage(600, fair_by=fair_by)
    busy = submit(world, 600)
    hold(world)
    waiting = [job for job in busy if world.job(job).status is Status.HELD]
    assert {world.job(job).line_by_user for job in waiting} == {fair_by == "user"}
    (rare,) = submit(world, 1, BOB)
    hold(world)
    before = started(world, busy)

    assert run_until(world, lambda: world.job(rare).started_at is not None, 300)

    passed = started(world, busy) - before
    assert passed <= ahead if fair_by == "user" else passed >= ahead


def test_every_user_gets_as_much_whatever_its_name_is_and_nothing_is_lost() -> None:
    world = stage(120, fair_by="user")
    first = submit(world, 130)
    hold(world)
    jobs = {caller.user: submit(world, 20, caller) for caller in ODD}
    hold(world)

    assert run_until(world, lambda: sum(started(world, own) for own in jobs.values()) >= 40, 300)
    got = {user: started(world, own) for user, own in jobs.items()}
    assert max(got.values()) - min(got.values()) <= 2

    everything = [*first, *itertools.chain(*jobs.values())]
    assert run_until(world, lambda: all_ended(world, everything), 400)
    assert Counter(world.job(job).status for job in everything) == {Status.COMPLETED: len(everything)}
    assert run_until(world, lambda: not world.container.lines.lines_by_user, 200)


def test_users_share_what_their_tenant_gets_of_the_limit() -> None:
    """Another tenant, with as many jobs, starts as many as all of them together."""
    world = stage(120, fair_by="user")
    own = [*submit(world, 90), *submit(world, 90, BOB), *submit(world, 90, ODD[1])]
    others = submit(world, 150, STRANGER)
    hold(world)
    before = started(world, own), started(world, others)

    run_until(world, lambda: started(world, [*own, *others]) - sum(before) >= 120, 300)

    got = started(world, own) - before[0], started(world, others) - before[1]
    assert abs(got[0] - got[1]) <= 6


@pytest.mark.parametrize(("before", "after"), [("tenant", "user"), ("user", "tenant")])
def test_jobs_that_wait_while_the_setting_changes_are_all_released_once(before: str, after: str) -> None:
    world = stage(60, fair_by=before)
    early = submit(world, 100)
    hold(world)
    share(world, fair_by=after)
    late = [*submit(world, 20), *submit(world, 20, BOB)]
    hold(world)
    jobs = [*early, *late]
    lines = {world.job(job).line_by_user for job in jobs if world.job(job).status is Status.HELD}
    assert lines == {True, False}

    assert run_until(world, lambda: all_ended(world, jobs), 600)

    assert Counter(world.job(job).status for job in jobs) == {Status.COMPLETED: len(jobs)}
    assert len(world.provider.requests) == len(jobs)
    assert run_until(world, lambda: not {**world.container.lines.lines, **world.container.lines.lines_by_user}, 200)


def test_a_job_that_meets_the_limit_again_stays_in_the_line_in_which_it_is() -> None:
    """Its record says which one, so the row that is written is that of its own line."""
    world = stage(1, fair_by="user")
    jobs = submit(world, 2)
    hold(world)
    (held,) = [world.job(job) for job in jobs if world.job(job).status is Status.HELD]
    share(world, fair_by="tenant")
    world.deliver("normal", [world.wake(held)])

    again = world.job(held)
    assert (again.status, again.line_by_user) == (Status.HELD, True)
    assert list(world.container.lines.lines) == []
    assert list(world.container.lines.lines_by_user) == [(RATE, "acme")]


def test_slots_of_a_tenant_go_to_its_users_in_turn() -> None:
    numbers = itertools.cycle([0.5, 0.91, 0.77, 0.64, 0.98, 0.83, 0.42])
    world = stage(100_000, fair_by="user", concurrency=1)
    world.container.random = lambda: next(numbers)
    now = world.clock.now()
    occupied = world.submit(caller=ODD[4])
    hold_slot = world.container.jobs.get(occupied.id)
    assert hold_slot is not None
    world.container.jobs.slots["t:acme#0"] += 1
    busy = submit(world, 40)
    hold(world)
    rare = submit(world, 5, BOB)
    hold(world)
    assert {world.job(job).cause for job in [*busy, *rare]} == {SLOTS}
    assert all(world.job(job).line_by_user for job in [*busy, *rare])
    world.container.jobs.slots["t:acme#0"] -= 1

    assert run_until(world, lambda: all_ended(world, rare), 600)

    assert started(world, busy) <= 25
    assert run_until(world, lambda: all_ended(world, busy), 600)
    assert world.clock.now() > now


def test_limits_that_cannot_be_read_let_a_job_wait_in_the_other_line() -> None:
    world = stage(1, fair_by="user")
    jobs = submit(world, 2)
    real = world.container.limits_of
    seen: list[str] = []

    def limits_of(tenant: str) -> Any:
        seen.append(tenant)
        if len(seen) > 4:  # the gates have read them
            raise Unavailable
        return real(tenant)

    world.container.limits_of = limits_of  # type: ignore[method-assign]
    hold(world)
    world.container.limits_of = real  # type: ignore[method-assign]

    assert run_until(world, lambda: all_ended(world, jobs), 200)


def test_where_a_job_stands_counts_the_jobs_of_its_user_and_its_start_those_of_all() -> None:
    world = stage(60, fair_by="user")
    busy = submit(world, 160)
    rare = submit(world, 8, BOB)
    hold(world)
    held = [world.job(job) for job in [*busy, *rare] if world.job(job).status is Status.HELD]
    last = max((job for job in held if job.user == "bob"), key=lambda job: (job.queued_at, job.id))

    wait = describe_wait(world.container, last)

    ahead = sum(job.user == "bob" for job in held) - 1
    assert wait.ahead == ahead
    assert wait.start_at is not None
    assert wait.start_at - world.clock.now() >= 2 * ahead * 1_000 * 0.9  # each of two users starts one every other second


def test_the_first_job_of_a_user_starts_when_about_half_of_the_users_have_had_their_turn() -> None:
    world = stage(60, fair_by="user")
    jobs = submit(world, 70)
    for number in range(40):
        jobs += submit(world, 1, replace(BOB, user=f"user{number}"))
    hold(world)
    last = world.job(jobs[-1])

    wait = describe_wait(world.container, last)

    assert (last.status, wait.ahead) == (Status.HELD, 0)
    assert wait.start_at is not None
    assert wait.start_at - world.clock.now() >= 15_000


# ---- what it costs those who do not use it


def record_calls(world: World) -> list[tuple[str, Any]]:
    """Note each request that waiting makes, with what it asks for."""
    calls: list[tuple[str, Any]] = []

    def noting(name: str, real: Any, *args: Any, **named: Any) -> Any:
        calls.append((name, {key: value for key, value in named.items() if value not in (None, False)}))
        return real(*args, **named)

    for port in ("lines", "tenant_limits"):
        target = getattr(world.container, port)
        for name in [one for one in dir(target) if not one.startswith("_") and callable(getattr(target, one))]:
            setattr(target, name, partial(noting, f"{port}.{name}", getattr(target, name)))
    return calls


BEFORE = {  # to start 100 jobs at 60 a minute
    "lines.touch": 93,
    "lines.held": 100,
    "lines.rows": 432,
    "lines.shard": 192,
    "lines.acquire_shard": 63,
    "lines.release_shard": 1,
    "lines.save_position": 11,
    "tenant_limits.tenants": 11,
}


def test_without_it_no_request_asks_for_a_line_by_user_and_the_requests_are_those_of_before() -> None:
    """The numbers are those of the version before it, for the same load."""
    world = stage(60)
    calls = record_calls(world)
    jobs = submit(world, 100)
    hold(world)
    assert run_until(world, lambda: all_ended(world, jobs), 300)

    assert [named for _, named in calls if "by_user" in named or "turn" in named] == []
    assert Counter(name for name, _ in calls) == BEFORE


def test_a_store_of_limits_that_fails_does_not_stop_a_line_by_user() -> None:
    """Which lines there are says the store of lines: the scheduler need not know the setting."""
    world = stage(60, fair_by="user")
    jobs = submit(world, 80)
    hold(world)
    with refusing(world.container.tenant_limits, "get", 5, Unavailable):
        assert run_until(world, lambda: all_ended(world, jobs), 400)
