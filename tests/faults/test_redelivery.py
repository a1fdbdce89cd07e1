"""Every message that was ever sent comes once more, in any order, when everything is over: nothing happens."""

from __future__ import annotations

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
def test_all_messages_once_more(name: str, draw: int) -> None:
    """Late wake-ups of every generation, also of lives that ended badly, are dropped."""
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
