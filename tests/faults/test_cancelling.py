"""A cancel at every moment of a worker's life, and its death at every moment after that."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from chalicelib.domain.jobs.job import Status
from tests.faults.answers import Says
from tests.faults.cloud import Cloud
from tests.faults.report import problems_of, report
from tests.faults.scenarios import Scenario
from tests.faults.steps import Actor, Step, end

STRIDE = 3  # every third death, beginning in turn
NEVER = 10**6


class Cancelling:
    """A `Director`: a cancel is asked before the first worker's call number `asks`, and the worker dies before its call number `dies`."""

    def __init__(self, asks: int, dies: int) -> None:
        self.asks, self.dies = asks, dies
        self.worker: Actor | None = None
        self.own = 0
        self.asked = asyncio.Event()

    async def before(self, step: Step) -> None:
        if step.actor.role != "worker" or self.worker not in (None, step.actor):
            return
        self.worker = step.actor
        self.own += 1
        if self.own == self.asks:
            step.came += "   <-- a cancel is asked for"
            self.asked.set()
        if self.own == self.dies:
            step.came += "   <-- dies"
            end(step.actor)

    async def after(self, step: Step) -> None:
        return


def _run(durable: bool, asks: int, dies: int) -> tuple[Cloud, Cancelling, list[str]]:
    director = Cancelling(asks, dies)

    async def story(cloud: Cloud) -> None:
        job = await cloud.submit("cancelled", Says(pieces=4, every=0.5), Says(pieces=2), config={"durable": durable})
        await cloud.watch(job)
        if await cloud.until(director.asked.is_set, 120):
            await cloud.cancel(job)

    cloud = Cloud(director=director)
    problems = problems_of(cloud, Scenario(story, (Status.CANCELLED, Status.COMPLETED)))
    return cloud, director, problems


@pytest.mark.parametrize("durable", [False, True], ids=["plain", "durable"])
def test_invariants_hold_with_a_cancel_and_a_later_death_at_any_call(durable: bool) -> None:
    """The job ends once, and the subscriber holds the stored text."""
    run = partial(_run, durable)
    calls = run(NEVER, NEVER)[1].own
    assert calls > 20

    for asks in range(1, calls + 1):
        for dies in (*range(asks + asks % STRIDE, calls + 1, STRIDE), NEVER):
            cloud, _, problems = run(asks, dies)
            assert not problems, report("cancelled", f"asked before call {asks}, dies before call {dies}", cloud, problems)
