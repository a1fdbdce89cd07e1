"""A worker that stands still at one of its calls until its successors have come to one of theirs, and then goes on as if nothing were."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from chalicelib.domain.failures import StreamCut
from tests.faults.answers import Says
from tests.faults.cloud import Cloud
from tests.faults.scenarios import Story
from tests.faults.steps import Actor, Step

NEVER = 10**6
SETTLED = 15.0  # seconds that the others wait for the zombie to do all that it still can
HEARTBEAT_LAGS = 40.0


class Zombie:
    """A `Director`. The first worker stops before or `after` its call number `stops`; it goes on when the sweep and its successors have
    made `wakes` calls, counted from the one that disowns it. The next of theirs waits until it has done its worst.

    Its heartbeat, which would tell it, lags, unless it is `told`.
    """

    def __init__(self, stops: int, wakes: int, *, after: bool = False, told: bool = False) -> None:
        self.stops, self.wakes, self.after_effect, self.told = stops, wakes, after, told
        self.actor: Actor | None = None
        self.stopped_at = ""
        self.own = self.others = 0
        self.done = False

    @property
    def asleep(self) -> bool:
        return bool(self.stopped_at) and not self.done

    async def before(self, step: Step) -> None:
        if self.actor is None and step.actor.role == "worker":
            self.actor = step.actor
        if step.actor is self.actor:
            if self.done and step.name == "leases.renew" and not self.told:
                await asyncio.sleep(HEARTBEAT_LAGS)
            self.own += 1
            if self.own == self.stops and not self.after_effect:
                self._stop(step)
        elif self.asleep and step.actor.role in ("sweep", "worker") and (self.others or step.name == "leases.fence"):
            self.others += 1
            if self.others == self.wakes:
                step.came += "   <-- here the zombie goes on"
                await self.wake()

    async def after(self, step: Step) -> None:
        if step.actor is self.actor and self.own == self.stops and self.after_effect and not self.stopped_at:
            self._stop(step)

    async def wake(self) -> None:
        """Let it go on, and wait until it can do no more."""
        if self.actor is None or not self.asleep:
            return
        self.done = True
        self.actor.awake.set()
        if self.actor.root is not None:
            await asyncio.wait([self.actor.root], timeout=SETTLED)

    def _stop(self, step: Step) -> None:
        self.stopped_at = step.name
        step.came += "   <-- stops here"
        step.actor.awake.clear()


STORIES: dict[str, Sequence[Says]] = {
    "whole": [Says(pieces=2), Says(pieces=2, every=0.3)],
    "cut": [Says(pieces=1, error=StreamCut()), Says(pieces=2, every=0.3)],
    "cancelled": [Says(pieces=2)],
    "durable": [Says(pieces=3, every=0.5)],
    "durable, cancelled": [Says(pieces=3, every=0.5)],
}


def frozen_story(name: str, zombie: Zombie) -> Story:
    """A watched job; in `cancelled` a cancel is asked while its worker stands still. At the latest the zombie wakes when all is done."""

    async def story(cloud: Cloud) -> None:
        job = await cloud.submit(name, *STORIES[name], config={"durable": "durable" in name})
        await cloud.watch(job)
        if "cancelled" in name and await cloud.until(lambda: zombie.asleep, 30):
            await asyncio.sleep(1.0)
            await cloud.cancel(job)
        await cloud.until(lambda: cloud.head(job).status.is_terminal and all(worker is zombie.actor for worker in cloud.workers))
        await zombie.wake()

    return story
