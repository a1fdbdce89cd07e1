"""How a run that went wrong is told, so that it can be played again; and how many there were, for whoever reads that all went right."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.transitions import MAX_ISOLATED_CRASHES
from tests.faults.cloud import Cloud, Stuck
from tests.faults.invariants import broken
from tests.faults.scenarios import Scenario
from tests.faults.steps import Director, Fault
from tests.summary import SUMMARY

SEED = os.environ.get("HEADRACE_FAULT_SEED", "2026")  # of what is drawn by lot
RUNS, CALLS = Counter[str](), Counter[str]()  # by test
KINDS = Counter[str]()  # of faults that struck


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
    finally:
        remember(cloud)
    wrong = [job for job in cloud.real.jobs.heads.values() if job.status not in scenario.ends and not _spent(job)]
    return broken(cloud) + [f"{job.id[-3:]} ended {job.status.value}" for job in wrong]


def _spent(job: Job) -> bool:
    """Whether it may fail: as many of its workers died, or of its attempts failed, as may."""
    return job.status is Status.FAILED and (job.isolated_crashes >= MAX_ISOLATED_CRASHES or job.tries >= job.max_attempts)


def report(name: str, what: object, cloud: Cloud, problems: Sequence[str]) -> str:
    """The scenario, what was done to it, what was wrong, and every call."""
    lines = [f"{name}: {what}", *(f"  - {problem}" for problem in problems), cloud.steps.printed()]
    return "\n".join(lines)


def remember(cloud: Cloud) -> None:
    """Count a run under the test that asked for it."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").partition("::")[2].partition(" ")[0].partition("[")[0].replace("::runTest", "")
    RUNS[test] += 1
    CALLS[test] += len(cloud.steps.trace)
    KINDS.update(kind.value for step, kind in cloud.steps.faults.items() if step <= len(cloud.steps.trace))


def numbers() -> list[str]:
    """What pytest's report says at its end."""
    if not RUNS:
        return []
    total = f"{RUNS.total():,} runs of the whole engine, {CALLS.total():,} calls; every rule was checked after each"
    runs = [f"  {test}: {count:,} runs, {CALLS[test]:,} calls" for test, count in RUNS.most_common()]
    seed = f"what is drawn by lot was drawn from seed {SEED} (HEADRACE_FAULT_SEED)"
    return [total, seed, *runs, f"{KINDS.total():,} faults struck:", *(f"  {count:,} times {kind}" for kind, count in KINDS.most_common())]


SUMMARY["faults in memory"] = numbers
