"""A worker that stands still for longer than its lease, and wakes when others have its job: every place to stop, every moment to wake."""

from __future__ import annotations

import pytest

from chalicelib.domain.jobs.job import Status
from tests.faults.cloud import Cloud
from tests.faults.reach import stride
from tests.faults.report import problems_of, report
from tests.faults.scenarios import Scenario
from tests.faults.steps import Step
from tests.faults.zombie import NEVER, STORIES, Zombie, frozen_story

STRIDES = {
    "whole": 1,
    "cut": 2,
    "cancelled": 1,
    "durable": 1,
    "durable, cancelled": 2,
}  # every other moment, beginning in turn, is enough for what differs little
WRITES = ("jobs.replace", "results.put", "chunks.append", "leases.open")  # where it matters whether the effect is there


def _run(name: str, zombie: Zombie) -> tuple[Cloud, list[str]]:
    cloud = Cloud(director=zombie)
    problems = problems_of(cloud, Scenario(frozen_story(name, zombie), (Status.COMPLETED, Status.CANCELLED)))
    return cloud, problems


def _own_steps(name: str) -> list[Step]:
    """What the first worker does when nothing stops it."""
    zombie = Zombie(NEVER, NEVER)
    cloud, problems = _run(name, zombie)
    assert not problems, report(name, "nobody stops", cloud, problems)
    return [step for step in cloud.steps.trace if step.actor is zombie.actor]


@pytest.mark.parametrize("name", STORIES)
def test_invariants_hold_with_a_zombie_that_resumes_at_any_step(name: str) -> None:
    """The worker freezes at each of its calls and resumes between the steps of its successors."""
    runs, far = 0, stride(STRIDES[name])
    for stops, step in enumerate(_own_steps(name), 1):
        for after in (False, True) if step.name in WRITES else (False,):
            last = Zombie(stops, NEVER, after=after)
            _run(name, last)
            for wakes in range(1 + stops % far, last.others + 1, far):
                zombie = Zombie(stops, wakes, after=after, told=wakes % 4 == 0)
                cloud, problems = _run(name, zombie)
                runs += 1
                what = f"stops {'after' if after else 'before'} its call {stops}, goes on at the others' call {wakes}"
                assert not problems, report(name, what, cloud, problems)
    assert runs > 50
