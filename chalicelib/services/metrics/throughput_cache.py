"""Cache the measured throughput in one environment: each entry is read at most once a minute."""

from __future__ import annotations

from chalicelib.domain.bounded_cache import BoundedCache
from chalicelib.domain.metrics.throughput import UNMEASURED, Throughput
from chalicelib.domain.units import Ms
from chalicelib.ports import Clock, ThroughputStats
from chalicelib.services.log import Log

CACHE_TTL_MS = 60_000
MAX_ENTRIES = 500  # pairs of type and model


class ThroughputCache:
    """The throughput by job type and model. If the store fails, the last known value or
    `UNMEASURED` is used: the estimate is worse, but no job fails.
    """

    def __init__(self, stats: ThroughputStats, clock: Clock, log: Log) -> None:
        self._stats, self._clock, self._log = stats, clock, log
        self._entries = BoundedCache[tuple[str, str], tuple[Throughput, Ms]](MAX_ENTRIES)

    def get(self, job_type: str, model: str) -> Throughput:
        """Return the throughput, from the store if the cached entry is older than a minute."""
        now = self._clock.now()
        throughput, read_at = self._entries.get((job_type, model)) or (UNMEASURED, None)
        if read_at is not None and 0 <= now - read_at < CACHE_TTL_MS:
            return throughput
        try:
            throughput = self._stats.get(job_type, model, now)
        except Exception as exc:  # noqa: BLE001 - only estimates use it, so it must fail no job
            self._log("throughput_unavailable", job_type=job_type, model=model, error=exc)
        self._entries.put((job_type, model), (throughput, now))
        return throughput
