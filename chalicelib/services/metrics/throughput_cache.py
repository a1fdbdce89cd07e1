"""The measured speeds as an environment knows them: each read at most once a minute, and never waited for twice."""

from __future__ import annotations

from chalicelib.domain.metrics.throughput import UNMEASURED, Throughput
from chalicelib.domain.units import Ms
from chalicelib.ports import Clock, ThroughputStats
from chalicelib.services.log import Log

CACHE_TTL_MS = 60_000
MAX_ENTRIES = 500  # types by models; beyond it all are read anew


class ThroughputCache:
    """`of(job_type, model)` answers at once what was read within the last minute. A store that does not answer costs a guess, not a job."""

    def __init__(self, speeds: ThroughputStats, clock: Clock, log: Log) -> None:
        self._speeds, self._clock, self._log = speeds, clock, log
        self._known: dict[tuple[str, str], tuple[Throughput, Ms]] = {}

    def get(self, job_type: str, model: str) -> Throughput:
        now = self._clock.now()
        known, read_at = self._known.get((job_type, model), (UNMEASURED, None))
        if read_at is not None and 0 <= now - read_at < CACHE_TTL_MS:
            return known
        try:
            known = self._speeds.get(job_type, model, now)
        except Exception as exc:  # noqa: BLE001 - what only an estimate is made of must not keep a job from anything
            self._log("throughput_unavailable", job_type=job_type, model=model, error=exc)
        if len(self._known) >= MAX_ENTRIES:
            self._known.clear()
        self._known[job_type, model] = (known, now)
        return known
