"""Clients that subscribe while a job ends (protocol rule 14: write first, then read)."""

from __future__ import annotations

import asyncio
from math import inf

import pytest

from chalicelib.domain.jobs.job import Status
from tests.faults.provider import ScriptedAnswer
from tests.faults.report import failure_report, problems_of
from tests.faults.scenarios import Scenario
from tests.faults.simulation import Simulation
from tests.faults.steps import Actor, Step, end

CALLS = 8  # the seven of a subscription (connection, key, record, subscription, row, record, frame), and none


class Subscriber:
    """A `Director`: a subscription makes `calls` calls before the worker's call number `at`.

    Its other calls follow after the worker's end. With `dies` the worker dies after its terminal
    write.
    """

    def __init__(self, at: int, calls: int, *, dies: bool = False) -> None:
        self.at, self.calls, self.dies = at, calls, dies
        self.worker: Actor | None = None
        self.requester: Actor | None = None
        self.worker_calls = self.subscription_calls = 0
        self.reached, self.calls_made = asyncio.Event(), asyncio.Event()

    async def before(self, step: Step) -> None:
        if step.actor.role == "worker" and self.worker in (None, step.actor):
            self.worker = step.actor
            self.worker_calls += 1
            if self.worker_calls == self.at:
                self.reached.set()
                async with asyncio.timeout(60):
                    await self.calls_made.wait()
        elif (self.reached.is_set() and step.name == "connections.get" and self.requester is None) or step.actor is self.requester:
            self.requester = step.actor
            if self.subscription_calls == self.calls:
                self.calls_made.set()
                await self._worker_ended()
            self.subscription_calls += 1

    async def after(self, step: Step) -> None:
        if step.actor is self.requester and step.name == "sockets.post":
            self.calls_made.set()
        if self.dies and step.name == "jobs.replace" and step.actor is self.worker and step.args[1].status.is_terminal:
            end(step.actor)

    async def _worker_ended(self) -> None:
        while self.worker is not None and self.worker.root is not None and not self.worker.root.done():
            await asyncio.sleep(0.1)


def _run(subscriber: Subscriber, *, follows_changes: bool) -> tuple[Simulation, list[str]]:
    async def scenario(sim: Simulation) -> None:
        job = await sim.submit("watched", ScriptedAnswer(pieces=2))
        await sim.until(subscriber.reached.is_set, 60)
        await sim.watch(job, silence=inf)

    sim = Simulation(director=subscriber)
    sim.follows_changes = follows_changes
    return sim, problems_of(sim, Scenario(scenario, (Status.COMPLETED,)))


@pytest.mark.parametrize(("dies", "follows_changes"), [(False, False), (True, True)], ids=["by the worker", "by the change stream"])
def test_subscribing_at_any_moment_receives_the_end(dies: bool, follows_changes: bool) -> None:
    """A living worker sends the end itself; after a dead one the change stream does."""
    first = Subscriber(1, CALLS, dies=dies)
    _run(first, follows_changes=follows_changes)
    assert first.worker_calls > 10

    for at in range(1, first.worker_calls + 1):
        for calls in range(CALLS):
            sim, problems = _run(Subscriber(at, calls, dies=dies), follows_changes=follows_changes)
            assert sim.clients
            assert not problems, failure_report("watched", f"{calls} calls before the worker's call {at}", sim, problems)
