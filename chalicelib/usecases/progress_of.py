"""The progress of a running attempt, as the log keeps it and watchers are told."""

from __future__ import annotations

import resource
from typing import Any

from chalicelib.domain.job import Ms
from chalicelib.domain.units import dollars, seconds
from chalicelib.usecases.attempt import Attempt
from chalicelib.usecases.usage import counted


def progress_of(attempt: Attempt, now: Ms) -> dict[str, Any]:
    """The tracker's figures, with the cost so far and what the environment spends on it.

    `network_latency_ms` is from the request to the first text; `api_call_count` the requests that this job has made to the provider.
    """
    used = counted(attempt, None)
    cost = attempt.price.cost(used) if attempt.price and used else None
    spent = resource.getrusage(resource.RUSAGE_SELF)
    elapsed = max(1, now - attempt.started_at) / 1000
    first = seconds(attempt.first_token_at - attempt.started_at) if attempt.first_token_at else None
    return {
        **attempt.tracker.snapshot(),
        "cost_so_far": None if cost is None else dollars((attempt.job.cost or 0) + cost),
        "performance_metrics": {
            "memory_usage_mb": round(spent.ru_maxrss / 1024, 1),
            "cpu_usage_percent": round(100 * min(1.0, (spent.ru_utime + spent.ru_stime - attempt.cpu_at_start) / elapsed), 1),
            "network_latency_ms": None if first is None else round(first * 1000),
            "api_call_count": attempt.number if attempt.kind.work is None else 0,
        },
    }
