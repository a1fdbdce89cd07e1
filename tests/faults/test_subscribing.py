"""Whoever subscribes while a job ends is told, at whatever moment, without having to ask again [14]."""

from __future__ import annotations

import asyncio
from math import inf

import pytest

from chalicelib.domain.jobs.job import Status
from tests.faults.answers import Says
from tests.faults.cloud import Cloud
from tests.faults.report import problems_of, report
from tests.faults.scenarios import Scenario
from tests.faults.steps import Actor, Step, end

CALLS = 8  # of a subscription: connection, key, record, subscription, row, record, frame; and one more: all before the worker goes on


class Subscriber:
    """A `Director`: so many `calls` of a subscription are made just before the worker's call number `at`, the others when it has ended.

    With `dies` the worker does not come further than the write that says how the job ended.
    """

    def __init__(self, at: int, calls: int, *, dies: bool = False) -> None:
        self.at, self.calls, self.dies = at, calls, dies
        self.worker: Actor | None = None
        self.asking: Actor | None = None
        self.own = self.asked = 0
        self.begins, self.enough = asyncio.Event(), asyncio.Event()

    async def before(self, step: Step) -> None:
        if step.actor.role == "worker" and self.worker in (None, step.actor):
            self.worker = step.actor
            self.own += 1
            if self.own == self.at:
                self.begins.set()
                async with asyncio.timeout(60):
                    await self.enough.wait()
        elif (self.begins.is_set() and step.name == "connections.get" and self.asking is None) or step.actor is self.asking:
            self.asking = step.actor
            if self.asked == self.calls:
                self.enough.set()
                await self._worker_ended()
            self.asked += 1

    async def after(self, step: Step) -> None:
        if step.actor is self.asking and step.name == "sockets.post":
            self.enough.set()
        if self.dies and step.name == "jobs.replace" and step.actor is self.worker and step.args[1].status.is_terminal:
            end(step.actor)

    async def _worker_ended(self) -> None:
        while self.worker is not None and self.worker.root is not None and not self.worker.root.done():
            await asyncio.sleep(0.1)


def _run(subscriber: Subscriber, *, follows_changes: bool) -> tuple[Cloud, list[str]]:
    async def story(cloud: Cloud) -> None:
        job = await cloud.submit("watched", Says(pieces=2))
        await cloud.until(subscriber.begins.is_set, 60)
        await cloud.watch(job, silence=inf)

    cloud = Cloud(director=subscriber)
    cloud.follows_changes = follows_changes
    return cloud, problems_of(cloud, Scenario(story, (Status.COMPLETED,)))


@pytest.mark.parametrize(("dies", "follows_changes"), [(False, False), (True, True)], ids=["by the worker", "by the change stream"])
def test_subscribing_at_any_moment_receives_the_end(dies: bool, follows_changes: bool) -> None:
    """A living worker sends the end itself; after a dead one the change stream does."""
    first = Subscriber(1, CALLS, dies=dies)
    _run(first, follows_changes=follows_changes)
    assert first.own > 10

    for at in range(1, first.own + 1):
        for calls in range(CALLS):
            cloud, problems = _run(Subscriber(at, calls, dies=dies), follows_changes=follows_changes)
            assert cloud.clients
            assert not problems, report("watched", f"{calls} calls before the worker's call {at}", cloud, problems)
