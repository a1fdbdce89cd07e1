"""Ten jobs in one invocation against one: `python -m bench batch`.

Each has a watcher and a stream of its own from a source that paces itself as a model does. If the engine kept its streams apart, ten take
as long as one.
"""

from __future__ import annotations

import time
from statistics import median

from bench.findings import Finding, finding, table, verdicts
from bench.prose import POINTS_PER_TOKEN
from bench.rig import Rig, rig

TOKENS, PACE, TOGETHER, ROUNDS = 600, 100.0, 10, 3
AIM = {"wall time, ten jobs to one": 1.1}


def measure() -> Finding:
    """One job, then ten, in turn; the ratio of medians."""
    with rig() as built:
        _run(built, 1, 20)  # imports, connections and caches
        one, many = [], []
        for _ in range(ROUNDS):
            one.append(_run(built, 1, TOKENS))
            many.append(_run(built, TOGETHER, TOKENS))
    seconds = {"1": median(wall for wall, _ in one), str(TOGETHER): median(wall for wall, _ in many)}
    return finding(
        "batch",
        f"one invocation, {TOKENS} tokens a job at {PACE:g} a second, a watcher each, medians of {ROUNDS}",
        AIM,
        dict.fromkeys(AIM, seconds[str(TOGETHER)] / seconds["1"]),
        seconds={jobs: round(wall, 3) for jobs, wall in seconds.items()},
        processor={"1": round(median(cpu for _, cpu in one), 3), str(TOGETHER): round(median(cpu for _, cpu in many), 3)},
    )


def show(found: Finding) -> str:
    rows: list[tuple[str, ...]] = [(jobs, f"{wall:.2f}", f"{found['processor'][jobs]:.2f}") for jobs, wall in found["seconds"].items()]
    return "\n".join([table(rows, ("jobs in one invocation", "seconds", "processor seconds")), verdicts(found)])


def _run(built: Rig, count: int, tokens: int) -> tuple[float, float]:
    jobs = [built.submit(1) for _ in range(count)]
    cpu = time.process_time()
    wall = built.run(jobs, tokens, PACE)
    spent = time.process_time() - cpu
    for job in jobs:
        built.check(job, 1, tokens * POINTS_PER_TOKEN)
    return wall, spent
