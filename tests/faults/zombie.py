"""A worker that freezes at one of its calls, and resumes at a chosen call of its successors."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from chalicelib.domain.failures import StreamCut
from tests.faults.provider import ScriptedAnswer
from tests.faults.scenarios import ScenarioFunction
from tests.faults.simulation import Simulation
from tests.faults.steps import Actor, Step

NEVER = 10**6
SETTLE_SECONDS = 15.0  # in which the others wait for the resumed worker to do what it still can
HEARTBEAT_LAG_SECONDS = 40.0


class Zombie:
    """A `Director` that freezes the first worker before or `after` its call `freezes_at`.

    The worker resumes when the sweeper and its successors have made `resumes_at` calls, counted
    from the one that fences it. Their next call waits until the resumed worker has ended, for at
    most `SETTLE_SECONDS`. Its heartbeat would detect the fencing, so it is late unless
    `heartbeat_in_time`.
    """

    def __init__(self, freezes_at: int, resumes_at: int, *, after: bool = False, heartbeat_in_time: bool = False) -> None:
        self.freezes_at, self.resumes_at, self.after_effect, self.heartbeat_in_time = freezes_at, resumes_at, after, heartbeat_in_time
        self.actor: Actor | None = None
        self.frozen_step = ""
        self.own_calls = self.other_calls = 0
        self.resumed = False

    @property
    def is_frozen(self) -> bool:
        return bool(self.frozen_step) and not self.resumed

    async def before(self, step: Step) -> None:
        if self.actor is None and step.actor.role == "worker":
            self.actor = step.actor
        if step.actor is self.actor:
            if self.resumed and step.name == "leases.renew" and not self.heartbeat_in_time:
                await asyncio.sleep(HEARTBEAT_LAG_SECONDS)
            self.own_calls += 1
            if self.own_calls == self.freezes_at and not self.after_effect:
                self._freeze(step)
        elif self.is_frozen and step.actor.role in ("sweep", "worker") and (self.other_calls or step.name == "leases.fence"):
            self.other_calls += 1
            if self.other_calls == self.resumes_at:
                step.note += "   <-- here the zombie resumes"
                await self.resume()

    async def after(self, step: Step) -> None:
        if step.actor is self.actor and self.own_calls == self.freezes_at and self.after_effect and not self.frozen_step:
            self._freeze(step)

    async def resume(self) -> None:
        """Resume the worker, and wait until it has ended or `SETTLE_SECONDS` have passed."""
        if self.actor is None or not self.is_frozen:
            return
        self.resumed = True
        self.actor.awake.set()
        if self.actor.root is not None:
            await asyncio.wait([self.actor.root], timeout=SETTLE_SECONDS)

    def _freeze(self, step: Step) -> None:
        self.frozen_step = step.name
        step.note += "   <-- freezes here"
        step.actor.awake.clear()


ANSWERS: dict[str, Sequence[ScriptedAnswer]] = {
    "whole": [ScriptedAnswer(pieces=2), ScriptedAnswer(pieces=2, every=0.3)],
    "cut": [ScriptedAnswer(pieces=1, error=StreamCut()), ScriptedAnswer(pieces=2, every=0.3)],
    "cancelled": [ScriptedAnswer(pieces=2)],
    "durable": [ScriptedAnswer(pieces=3, every=0.5)],
    "durable, cancelled": [ScriptedAnswer(pieces=3, every=0.5)],
}


def frozen_scenario(name: str, zombie: Zombie) -> ScenarioFunction:
    """Return a scenario with one job and one subscriber.

    If `cancelled` is in its name, the job is cancelled while its worker is frozen. A worker that is
    still frozen when the job has ended resumes then.
    """

    async def scenario(sim: Simulation) -> None:
        job = await sim.submit(name, *ANSWERS[name], config={"durable": "durable" in name})
        await sim.watch(job)
        if "cancelled" in name and await sim.until(lambda: zombie.is_frozen, 30):
            await asyncio.sleep(1.0)
            await sim.cancel(job)
        await sim.until(lambda: sim.job(job).status.is_terminal and all(worker is zombie.actor for worker in sim.workers))
        await zombie.resume()

    return scenario
