"""Messages come twice, late or never, and the change stream is read again from its beginning: nothing happens twice, nothing is lost."""

from __future__ import annotations

import asyncio
import copy
from random import Random
from typing import Any

import pytest

from tests.faults.cloud import LANE, Cloud
from tests.faults.report import problems_of, report
from tests.faults.scenarios import SCENARIOS, Scenario
from tests.faults.steps import Fault, Kind

DRAWS = 12


def _kept(cloud: Cloud) -> dict[str, Any]:
    """Everything that is kept, times included."""
    real = cloud.real
    results = {key: real.results.get(*key) for key in cloud.history.results}
    watched = {job_id: client.assembly.text for job_id, client in cloud.clients.items()}
    kept = {"jobs": real.jobs.heads, "log": real.chunks.rows, "results": results, "leases": real.leases.rows, "watched": watched}
    return copy.deepcopy({**kept, "asked": len(cloud.history.answers)})


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("draw", range(DRAWS))
def test_redelivering_all_messages_changes_nothing(name: str, draw: int) -> None:
    """Late wake-ups of every generation are dropped, also when a fault came before."""
    random = Random(f"{name}/{draw}")
    before: dict[str, Any] = {}

    async def story(cloud: Cloud) -> None:
        await SCENARIOS[name].story(cloud)
        await cloud.rest()
        before.update(_kept(cloud))
        again = list(cloud.real.queues.sent) * random.choice((1, 2))
        random.shuffle(again)
        for lane, wake_up in again:
            cloud.real.queues.put_raw(lane, wake_up.to_json())
            if random.random() < 0.3:
                await cloud.rest()

    fault = Fault(random.randint(1, 60), random.choice(list(Kind)))
    cloud = Cloud([fault] if draw else [])
    problems = problems_of(cloud, Scenario(story, SCENARIOS[name].ends))
    after = _kept(cloud)
    problems += [f"{what} changed" for what in before if before[what] != after[what]]
    assert not problems, report(name, f"all messages once more, {fault}", cloud, problems)
    assert not cloud.real.queues.messages[LANE]


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("draw", range(DRAWS))
def test_replaying_the_change_stream_changes_nothing(name: str, draw: int) -> None:
    """Every message is delivered again behind it."""
    random = Random(f"stream/{name}/{draw}")
    before: dict[str, Any] = {}

    async def story(cloud: Cloud) -> None:
        await SCENARIOS[name].story(cloud)
        await cloud.rest()
        before.update(_kept(cloud))
        cloud.replay()
        if random.random() < 0.5:
            await cloud.rest()
        for lane, wake_up in list(cloud.real.queues.sent):
            cloud.real.queues.put_raw(lane, wake_up.to_json())

    fault = Fault(random.randint(1, 60), random.choice(list(Kind)))
    cloud = Cloud([fault] if draw else [])
    problems = problems_of(cloud, Scenario(story, SCENARIOS[name].ends))
    after = _kept(cloud)
    problems += [f"{what} changed" for what in before if before[what] != after[what]]
    assert not problems, report(name, f"the change stream once more, {fault}", cloud, problems)
    assert len(cloud.changes) > 2


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("draw", range(DRAWS))
def test_doubled_messages_run_each_attempt_once(name: str, draw: int) -> None:
    """Both copies come in one batch or in two, to workers that live and workers that die."""
    random = Random(f"twice/{name}/{draw}")

    async def doubled(cloud: Cloud) -> None:
        seen = 0
        while True:
            for lane, wake_up in cloud.real.queues.sent[seen:]:
                cloud.real.queues.put_raw(lane, wake_up.to_json())
            seen = len(cloud.real.queues.sent)
            await asyncio.sleep(random.choice((0.005, 0.05, 0.5)))

    async def story(cloud: Cloud) -> None:
        cloud.background(doubled(cloud))
        await SCENARIOS[name].story(cloud)

    fault = Fault(random.randint(1, 60), random.choice(list(Kind)))
    cloud = Cloud([fault] if draw else [])
    problems = problems_of(cloud, Scenario(story, SCENARIOS[name].ends))
    assert not problems, report(name, f"every message twice, {fault}", cloud, problems)


@pytest.mark.parametrize("name", SCENARIOS)
def test_jobs_end_after_ten_minutes_of_lost_messages(name: str) -> None:
    """No job fails, because the sweeper sends the wake-ups again."""

    async def lossy(cloud: Cloud) -> None:
        while cloud.world.loop.moment < 600:
            cloud.real.queues.messages[LANE].clear()
            await asyncio.sleep(0.05)

    async def story(cloud: Cloud) -> None:
        cloud.background(lossy(cloud))
        await SCENARIOS[name].story(cloud)

    cloud = Cloud()
    problems = problems_of(cloud, Scenario(story, SCENARIOS[name].ends))
    assert not problems, report(name, "no message arrives for ten minutes", cloud, problems)
    assert cloud.world.loop.moment > 300
