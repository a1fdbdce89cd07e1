"""Messages that arrive twice, late or never, and a change stream that is read again."""

from __future__ import annotations

import asyncio
import copy
from random import Random
from typing import Any

import pytest

from tests.faults.report import failure_report, problems_of
from tests.faults.sampling import drawn
from tests.faults.scenarios import SCENARIOS, Scenario
from tests.faults.simulation import QUEUES, Simulation
from tests.faults.steps import Fault, Kind

DRAWS = drawn(20)


def _snapshot(sim: Simulation) -> dict[str, Any]:
    """Return a copy of the stored records, the clients' texts and the number of requests."""
    real = sim.real
    results = {key: real.results.get(*key) for key in sim.history.results}
    texts = {job_id: client.assembly.text for job_id, client in sim.clients.items()}
    stored = {"jobs": real.jobs.records, "log": real.chunks.rows, "results": results, "leases": real.leases.rows}
    return copy.deepcopy({**stored, "texts": texts, "requests": len(sim.history.responses)})


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("draw", range(DRAWS))
def test_redelivering_all_messages_changes_nothing(name: str, draw: int) -> None:
    """Late wake-ups of every generation are dropped, also when a fault came before."""
    random = Random(f"{name}/{draw}")
    before: dict[str, Any] = {}

    async def scenario(sim: Simulation) -> None:
        await SCENARIOS[name].run(sim)
        await sim.wait_until_idle()
        before.update(_snapshot(sim))
        repeated = list(sim.real.queues.sent) * random.choice((1, 2))
        random.shuffle(repeated)
        for lane, wake_up in repeated:
            sim.real.queues.put_raw(lane, wake_up.to_json())
            if random.random() < 0.3:
                await sim.wait_until_idle()

    fault = Fault(random.randint(1, 60), random.choice(list(Kind)))
    sim = Simulation([fault] if draw else [])
    problems = problems_of(sim, Scenario(scenario, SCENARIOS[name].ends))
    after = _snapshot(sim)
    problems += [f"{what} changed" for what in before if before[what] != after[what]]
    assert not problems, failure_report(name, f"all messages once more, {fault}", sim, problems)
    assert not any(sim.real.queues.messages[queue] for queue in QUEUES)


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("draw", range(DRAWS))
def test_replaying_the_change_stream_changes_nothing(name: str, draw: int) -> None:
    """Every message is delivered again behind it."""
    random = Random(f"stream/{name}/{draw}")
    before: dict[str, Any] = {}

    async def scenario(sim: Simulation) -> None:
        await SCENARIOS[name].run(sim)
        await sim.wait_until_idle()
        before.update(_snapshot(sim))
        sim.replay_changes()
        if random.random() < 0.5:
            await sim.wait_until_idle()
        for lane, wake_up in list(sim.real.queues.sent):
            sim.real.queues.put_raw(lane, wake_up.to_json())

    fault = Fault(random.randint(1, 60), random.choice(list(Kind)))
    sim = Simulation([fault] if draw else [])
    problems = problems_of(sim, Scenario(scenario, SCENARIOS[name].ends))
    after = _snapshot(sim)
    problems += [f"{what} changed" for what in before if before[what] != after[what]]
    assert not problems, failure_report(name, f"the change stream once more, {fault}", sim, problems)
    assert len(sim.changes) > 2


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("draw", range(DRAWS))
def test_doubled_messages_run_each_attempt_once(name: str, draw: int) -> None:
    """Both copies come in one batch or in two, to workers that live and workers that die."""
    random = Random(f"twice/{name}/{draw}")

    async def doubled(sim: Simulation) -> None:
        seen = 0
        while True:
            for lane, wake_up in sim.real.queues.sent[seen:]:
                sim.real.queues.put_raw(lane, wake_up.to_json())
            seen = len(sim.real.queues.sent)
            await asyncio.sleep(random.choice((0.005, 0.05, 0.5)))

    async def scenario(sim: Simulation) -> None:
        sim.spawn(doubled(sim))
        await SCENARIOS[name].run(sim)

    fault = Fault(random.randint(1, 60), random.choice(list(Kind)))
    sim = Simulation([fault] if draw else [])
    problems = problems_of(sim, Scenario(scenario, SCENARIOS[name].ends))
    assert not problems, failure_report(name, f"every message twice, {fault}", sim, problems)


@pytest.mark.parametrize("name", SCENARIOS)
def test_jobs_end_after_ten_minutes_of_lost_messages(name: str) -> None:
    """No job fails, because the sweeper sends the wake-ups again."""

    async def lossy(sim: Simulation) -> None:
        while sim.world.loop.moment < 600:
            for queue in QUEUES:
                sim.real.queues.messages[queue].clear()
            await asyncio.sleep(0.05)

    async def scenario(sim: Simulation) -> None:
        sim.spawn(lossy(sim))
        await SCENARIOS[name].run(sim)

    sim = Simulation()
    problems = problems_of(sim, Scenario(scenario, SCENARIOS[name].ends))
    assert not problems, failure_report(name, "no message arrives for ten minutes", sim, problems)
    assert sim.world.loop.moment > 300
