"""Jobs that wait in several shards of a line: whoever releases them sees all."""

from __future__ import annotations

from dataclasses import replace

from chalicelib.domain.jobs.index_keys import tenant_shard
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.limits.tenant_limits import LimitsChange
from chalicelib.services.limits.manage_limits import set_limits
from tests.kit.provider import Script
from tests.kit.world import World


def grown(world: World, shards: int) -> None:
    set_limits(world.container, "acme", LimitsChange(values={"shards": shards}), "root")
    world.clock.advance(120)


def submitted(world: World, count: int) -> list[Job]:
    jobs = []
    for number in range(count):
        jobs.append(world.submit(f"{number}"))
        world.clock.advance(0.01)
    return jobs


def test_the_scheduler_releases_the_jobs_of_all_shards() -> None:
    """Three of eight jobs start in a minute; those that were there before the growth come first."""
    world = World(Script(deltas=["a"]))
    world.container.settings = replace(world.container.settings, type_limits=("general=-/3",))
    old = submitted(world, 4)
    world.deliver("normal")
    grown(world, 4)
    new = submitted(world, 8)
    world.deliver("normal")
    assert len({tenant_shard(job) for job in new}) > 2
    assert {world.job(job).status for job in new} == {Status.HELD}

    for _ in range(40):
        world.sweep(10.0)
        world.deliver()

    records = [world.job(job) for job in (*old, *new)]
    assert {record.status for record in records} == {Status.COMPLETED}
    starts = [record.started_at or 0 for record in records]
    assert max(starts[:4]) <= min(starts[4:])
    assert all(sum(start <= other < start + 58_000 for other in starts) <= 3 for start in starts)


def test_a_job_that_ends_sends_the_next_one_of_any_shard() -> None:
    world = World(Script(deltas=["a"]))
    set_limits(world.container, "acme", LimitsChange(values={"concurrency": 1}), "root")
    grown(world, 4)
    jobs = submitted(world, 8)
    world.deliver("normal")
    for _ in range(30):
        world.deliver("ready")

    assert [world.job(job).status for job in jobs] == [Status.COMPLETED] * 8
