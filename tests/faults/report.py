"""How a run that went wrong is told, so that it can be played again."""

from __future__ import annotations

from collections.abc import Sequence

from chalicelib.domain.job import Job, Status
from chalicelib.domain.transitions import CRASHES_ALONE
from tests.faults.cloud import Cloud, Stuck
from tests.faults.invariants import broken
from tests.faults.scenarios import Scenario
from tests.faults.steps import Director, Fault


def told(scenario: Scenario, faults: Sequence[Fault] = (), director: Director | None = None) -> tuple[Cloud, list[str]]:
    """One run of a scenario, and what was wrong with it."""
    cloud = Cloud(faults, director)
    return cloud, problems_of(cloud, scenario)


def problems_of(cloud: Cloud, scenario: Scenario) -> list[str]:
    """Run it; the rules that it broke, and the ends that nobody wanted."""
    try:
        cloud.run(scenario.story)
    except Stuck as stuck:
        return [f"stuck: {stuck}"]
    wrong = [job for job in cloud.real.jobs.heads.values() if job.status not in scenario.ends and not _spent(job)]
    return broken(cloud) + [f"{job.id[-3:]} ended {job.status.value}" for job in wrong]


def _spent(job: Job) -> bool:
    """Whether it may fail: as many of its workers died, or of its attempts failed, as may."""
    return job.status is Status.FAILED and (job.alone_crashes >= CRASHES_ALONE or job.tries >= job.max_attempts)


def report(name: str, what: object, cloud: Cloud, problems: Sequence[str]) -> str:
    """The scenario, what was done to it, what was wrong, and every call."""
    lines = [f"{name}: {what}", *(f"  - {problem}" for problem in problems), cloud.steps.printed()]
    return "\n".join(lines)
