"""Compare the time of ten jobs in one invocation with that of one job: `python -m bench batch`.

Each job has a subscriber, and a stream that is paced as a model's. If streams do not slow each
other, ten jobs take as long as one.
"""

from __future__ import annotations

import time
from statistics import median

from bench.findings import Finding, finding, table, verdicts
from bench.prose import POINTS_PER_TOKEN
from bench.rig import Rig, open_rig

TOKENS, PACE, JOBS, ROUNDS = 600, 100.0, 10, 3
AIM = {"wall time of ten jobs relative to one": 1.1}


def measure() -> Finding:
    """Run one job and ten jobs in turn, and compare the medians."""
    with open_rig() as rig:
        _run(rig, 1, 20)  # imports, connections and caches
        one, many = [], []
        for _ in range(ROUNDS):
            one.append(_run(rig, 1, TOKENS))
            many.append(_run(rig, JOBS, TOKENS))
    seconds = {"1": median(wall for wall, _ in one), str(JOBS): median(wall for wall, _ in many)}
    return finding(
        "batch",
        f"one invocation, {TOKENS} tokens a job at {PACE:g} a second, a subscriber each, medians of {ROUNDS}",
        AIM,
        dict.fromkeys(AIM, seconds[str(JOBS)] / seconds["1"]),
        seconds={jobs: round(wall, 3) for jobs, wall in seconds.items()},
        processor={"1": round(median(cpu for _, cpu in one), 3), str(JOBS): round(median(cpu for _, cpu in many), 3)},
    )


def show(found: Finding) -> str:
    """Format the finding as a table."""
    rows: list[tuple[str, ...]] = [(jobs, f"{wall:.2f}", f"{found['processor'][jobs]:.2f}") for jobs, wall in found["seconds"].items()]
    return "\n".join([table(rows, ("jobs in one invocation", "seconds", "processor seconds")), verdicts(found)])


def _run(rig: Rig, count: int, tokens: int) -> tuple[float, float]:
    """Run `count` jobs in one invocation. Returns: wall time and processor time in seconds."""
    jobs = [rig.submit(1) for _ in range(count)]
    cpu = time.process_time()
    wall = rig.run(jobs, tokens, PACE)
    cpu = time.process_time() - cpu
    for job in jobs:
        rig.check(job, 1, tokens * POINTS_PER_TOKEN)
    return wall, cpu
