"""One batch of the change stream with a fault at any call of its threads: nothing is lost.

Jobs of the batch are processed at once. After a death Lambda gets the batch again, and what a
reader leaves is found by the sweeper.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from chalicelib.consumers.job_changes import process_job_changes
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.queues.wakeup import WakeUp
from chalicelib.services.maintenance.sweeper import sweep
from tests.faults.processes import Change
from tests.faults.sampling import sample
from tests.faults.simulation import LANE, Simulation
from tests.faults.step_ports import StepPort
from tests.faults.steps import Fault, Kind
from tests.kit.dependencies import child_of, write_end

PARENTS, CHILDREN = 3, 2
HOOK = "https://example.com/hook"
DEATHS = (Kind.DIES_BEFORE, Kind.DIES_AFTER)


class ReaderSimulation(Simulation):
    """The function `on_job_change` alone, with a batch in which several jobs end."""

    follows_changes = False

    def _install_ports(self) -> None:
        super()._install_ports()
        self.world.container.deliveries = StepPort("deliveries", self.real.deliveries, self.steps)  # type: ignore[assignment]
        self.sent_to: Counter[tuple[str, str]] = Counter()  # frames by connection and event
        self.deaths = 0

    def _on_frame(self, connection: str, frame: dict[str, object]) -> None:
        self.sent_to[connection, str(frame["event"])] += 1

    def run_batch(self) -> None:
        """End the parents, and deliver the batch of their changes until its function returns."""
        parents = [self.world.submit(f"parent {number}", webhook_url=HOOK) for number in range(PARENTS)]
        self.children = [child_of(self.world, parent) for parent in parents for _ in range(CHILDREN)]
        self.both = child_of(self.world, *parents)
        changes: list[Change] = []
        for number, parent in enumerate(parents):
            self.world.watch(parent, f"c{number}")
            ended = write_end(self.world, parent)
            running = replace(parent, status=Status.PROCESSING, version=parent.version + 1)
            changes += [(parent.id, None, parent), (parent.id, parent, running), (parent.id, running, ended)]
        self.parents = parents
        self.world.loop.run_until_complete(self.deliver(sorted(changes, key=lambda change: change[2].version)))
        self.world.loop.run_until_complete(self._recover())

    async def deliver(self, changes: Sequence[Change]) -> None:
        while isinstance(await self.run_call("stream", process_job_changes, self.world.container, changes), BaseException):
            self.deaths += 1
            await asyncio.sleep(1.0)

    async def _recover(self) -> None:
        await asyncio.sleep(300.0)  # a frozen process goes on
        await self.run_call("sweep", sweep, self.world.container)

    def problems(self, *, frames: bool) -> list[str]:
        found = [f"{child.id[-3:]} is {self.job(child.id).status}" for child in [*self.children, self.both] if not self._is_released(child)]
        sent = Counter(WakeUp.from_json(message.body).job_id for message in self.real.queues.messages[LANE])
        found += [f"{child.id[-3:]} has no wake-up" for child in [*self.children, self.both] if not sent[child.id]]
        notified = Counter(delivery.owner for delivery in self.real.deliveries.rows.values())
        expected = {parent.id: 1 for parent in self.parents}
        found += [f"deliveries by job: {notified}"] if notified != expected else []
        if frames:
            found += [f"c{number} got no end" for number in range(PARENTS) if not self.sent_to[f"c{number}", "job_completed"]]
        dead = self.real.queues.dead_lettered["stream"]
        return found + ([f"dead letters: {dead}"] if dead else [])

    def _is_released(self, child: Job) -> bool:
        return (self.job(child.id).status, self.job(child.id).generation) == (Status.QUEUED, 2)


def run(faults: Sequence[Fault] = ()) -> ReaderSimulation:
    sim = ReaderSimulation(faults)
    try:
        sim.run_batch()
    finally:
        sim.close()
    return sim


def calls(sim: ReaderSimulation) -> list[int]:
    return [step.number for step in sim.steps.trace if step.actor.role == "stream"]


def test_jobs_of_a_batch_are_processed_at_once_and_sockets_last() -> None:
    sim = run()
    trace = [step for step in sim.steps.trace if step.actor.role == "stream"]
    names = [step.name for step in trace]

    assert sim.problems(frames=True) == []
    owners = [str(step.args[0]) for step in trace if step.name == "job_specs.get"]
    first, last = names.index("job_specs.get"), len(names) - 1 - names[::-1].index("deliveries.create")
    assert len(set(owners)) == PARENTS
    assert "deliveries.create" in names[first : first + 2 * PARENTS], "the threads take no turns"
    assert last < names.index("dependencies.children") < names.index("sockets.post")
    assert {name.partition(".")[0] for name in names[names.index("sockets.post") :]} <= {"sockets", "keys"}


@pytest.mark.parametrize("kind", Kind, ids=[kind.name.lower() for kind in Kind])
def test_nothing_is_lost_with_a_fault_at_any_call_of_a_reader(kind: Kind) -> None:
    """A frame may be: its client asks again. But a process that dies gets the whole batch again."""
    died = 0
    for number in sample(calls(run()), kind):
        sim = run([Fault(number, kind)])
        died += sim.deaths
        problems = sim.problems(frames=kind in DEATHS)
        assert not problems, "\n".join([f"step {number}: {kind.value}", *problems, sim.steps.formatted()])
    assert died > 0 or kind not in DEATHS


def test_a_batch_that_is_delivered_again_changes_nothing() -> None:
    sim = ReaderSimulation()
    try:
        sim.run_batch()
        wake_ups, deliveries = len(sim.real.queues.messages[LANE]), dict(sim.real.deliveries.rows)
        changes = [(parent.id, parent, sim.job(parent.id)) for parent in sim.parents]
        sim.world.loop.run_until_complete(sim.deliver(changes))
    finally:
        sim.close()

    assert (len(sim.real.queues.messages[LANE]), sim.real.deliveries.rows) == (wake_ups, deliveries)
    assert sim.problems(frames=True) == []
