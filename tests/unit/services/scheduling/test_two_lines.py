"""Jobs that need a slot and a rate: those that wait for the one do not wait for those that wait for the other."""

from __future__ import annotations

import pytest

from chalicelib.services.limits.manage_limits import set_limits
from tests.kit.live_stage import run_until
from tests.unit.services.scheduling.test_fair_by_user import LimitsChange, all_ended, hold, share, stage, submit


@pytest.mark.parametrize("limits", [{"user_concurrency": 1}, {"concurrency": 1}, {"concurrency": 2, "user_concurrency": 1}], ids=str)
@pytest.mark.parametrize("when", ["before", "while they wait"])
def test_jobs_of_both_lines_all_start(limits: dict[str, int], when: str) -> None:
    world = stage(600)
    if when == "before":
        share(world, **limits)
    jobs = submit(world, 750)
    hold(world)
    if when != "before":
        set_limits(world.container, "acme", LimitsChange(values=limits), "root")
        world.clock.advance(31)
    jobs += submit(world, 100)
    hold(world)

    assert run_until(world, lambda: all_ended(world, jobs), 900)

    records = [world.job(job) for job in jobs]
    assert all(record.attempt == 1 for record in records)
    assert sum(len(record.waits) for record in records) <= 4 * len(jobs)  # no job moves between the lines again and again
