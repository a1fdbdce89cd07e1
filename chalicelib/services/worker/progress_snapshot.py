"""The progress of a running attempt, as the log keeps it and watchers are told."""

from __future__ import annotations

import resource
from typing import Any

from chalicelib.domain.units import Ms, dollars
from chalicelib.services.worker.attempt import Attempt
from chalicelib.services.worker.usage import measure_usage


def progress_of(attempt: Attempt, now: Ms) -> dict[str, Any]:
    """The tracker's figures, with the cost so far and what the environment spends on it.

    `network_latency_ms` is from the request to the first text, null for an answer that another job was given; `api_call_count` the requests
    to the provider for this attempt. Memory (the most so far) and processor are the environment's, which other jobs share.
    """
    used = measure_usage(attempt, None)
    cost = attempt.price.cost(used) if attempt.price and used else None
    spent = resource.getrusage(resource.RUSAGE_SELF)
    elapsed = max(1, now - attempt.resumed_at) / 1000
    first = attempt.output.first_token_at - attempt.started_at if attempt.output.first_token_at and not attempt.is_free else None
    return {
        **attempt.output.tracker.snapshot(),
        "cost_so_far": None if cost is None else dollars((attempt.job.cost or 0) + cost),
        "performance_metrics": {
            "memory_usage_mb": round(spent.ru_maxrss / 1024, 1),
            "cpu_usage_percent": round(100 * min(1.0, (spent.ru_utime + spent.ru_stime - attempt.cpu_at_start) / elapsed), 1),
            "network_latency_ms": first,
            "api_call_count": attempt.calls,
        },
    }
