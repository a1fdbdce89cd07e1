"""Run scenarios, describe failed runs, and count all runs for pytest's summary."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.transitions import MAX_ISOLATED_CRASHES
from tests.faults.invariants import violations
from tests.faults.scenarios import Scenario
from tests.faults.simulation import Simulation, Stuck
from tests.faults.steps import Director, Fault
from tests.summary import SUMMARY

SEED = os.environ.get("HEADRACE_FAULT_SEED", "2026")  # of the faults that are drawn at random
RUNS, CALLS = Counter[str](), Counter[str]()  # by test
KINDS = Counter[str]()  # of the faults that were injected


def run_scenario(scenario: Scenario, faults: Sequence[Fault] = (), director: Director | None = None) -> tuple[Simulation, list[str]]:
    """Run a scenario with these faults. Return the simulation and its problems."""
    sim = Simulation(faults, director)
    return sim, problems_of(sim, scenario)


def problems_of(sim: Simulation, scenario: Scenario) -> list[str]:
    """Run a scenario.

    Return the invariants that it broke, and the jobs that ended with another status than expected.
    """
    try:
        sim.run(scenario.run)
    except Stuck as stuck:
        return [f"stuck: {stuck}"]
    finally:
        count_run(sim)
    wrong = [job for job in sim.real.jobs.records.values() if job.status not in scenario.ends and not _may_have_failed(job)]
    return violations(sim) + [f"{job.id[-3:]} ended {job.status.value}" for job in wrong]


def _may_have_failed(job: Job) -> bool:
    """Whether the job has failed after the maximum of crashed workers or of attempts."""
    return job.status is Status.FAILED and (job.isolated_crashes >= MAX_ISOLATED_CRASHES or job.tries >= job.max_attempts)


def failure_report(name: str, what: object, sim: Simulation, problems: Sequence[str]) -> str:
    """Return the scenario, its faults, its problems and every call, as text."""
    lines = [f"{name}: {what}", *(f"  - {problem}" for problem in problems), sim.steps.formatted()]
    return "\n".join(lines)


def count_run(sim: Simulation) -> None:
    """Count a run for the test that is running."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").partition("::")[2].partition(" ")[0].partition("[")[0].replace("::runTest", "")
    RUNS[test] += 1
    CALLS[test] += len(sim.steps.trace)
    KINDS.update(kind.value for step, kind in sim.steps.faults.items() if step <= len(sim.steps.trace))


def summary_lines() -> list[str]:
    """Return the lines for the end of pytest's report."""
    if not RUNS:
        return []
    total = f"{RUNS.total():,} runs of the whole system, {CALLS.total():,} calls; the invariants were checked after each run"
    runs = [f"  {test}: {count:,} runs, {CALLS[test]:,} calls" for test, count in RUNS.most_common()]
    seed = f"random faults have the seed {SEED} (HEADRACE_FAULT_SEED)"
    kinds = [f"  {count:,} times {kind}" for kind, count in KINDS.most_common()]
    return [total, seed, *runs, f"{KINDS.total():,} faults were injected:", *kinds]


SUMMARY["faults in memory"] = summary_lines
