"""The progress of a running attempt, as it is stored with its text and sent to subscribers."""

from __future__ import annotations

import resource
from typing import Any

from chalicelib.domain.units import Ms, dollars
from chalicelib.services.worker.attempt import Attempt
from chalicelib.services.worker.usage import running_usage


def progress_of(attempt: Attempt, now: Ms) -> dict[str, Any]:
    """Return the tracker's figures, the cost so far and performance metrics.

    `network_latency_ms` is the time from the request to the first text; null if no provider was
    asked. `api_call_count` counts the requests to the provider for this attempt. Memory (its peak)
    and processor time are those of the environment, which other jobs share.
    """
    usage = running_usage(attempt)
    cost = attempt.price.cost(usage) if attempt.price and usage else None
    resources = resource.getrusage(resource.RUSAGE_SELF)
    elapsed = max(1, now - attempt.resumed_at) / 1000
    latency = attempt.output.first_token_at - attempt.started_at if attempt.output.first_token_at and not attempt.is_free else None
    return {
        **attempt.output.tracker.snapshot(),
        "cost_so_far": None if cost is None else dollars((attempt.job.cost or 0) + cost),
        "performance_metrics": {
            "memory_usage_mb": round(resources.ru_maxrss / 1024, 1),
            "cpu_usage_percent": round(100 * min(1.0, (resources.ru_utime + resources.ru_stime - attempt.cpu_at_start) / elapsed), 1),
            "network_latency_ms": latency,
            "api_call_count": attempt.calls,
        },
    }
