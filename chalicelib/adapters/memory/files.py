"""In memory: objects that jobs make, and the limits of kinds of work."""

from __future__ import annotations

import threading

from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.limits.type_limiter import TypeLimiter
from chalicelib.domain.units import Ms


class MemoryFileWriter:
    def __init__(self, files: MemoryJobFiles, place: tuple[str, str, str]) -> None:
        self._files, self._place = files, place
        self._data = bytearray()

    def write(self, data: bytes) -> None:
        self._data += data

    def close(self) -> int:
        self._files.kept[self._place] = bytes(self._data)
        return len(self._data)

    def abort(self) -> None:
        self._data.clear()


class MemoryJobFiles:
    """`kept` is open to tests: objects by (tenant, job, name)."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str, str], bytes] = {}

    def create(self, tenant: str, job_id: str, name: str, content_type: str) -> MemoryFileWriter:
        return MemoryFileWriter(self, (tenant, job_id, name))

    def size(self, tenant: str, job_id: str, name: str) -> int | None:
        data = self.kept.get((tenant, job_id, name))
        return None if data is None else len(data)

    def link(self, tenant: str, job_id: str, name: str, seconds: int) -> str:
        return f"https://files.example/{tenant}/{job_id}/{name}?expires={seconds}"

    def forget(self, job_id: str) -> None:
        """What removing a job's page does."""
        for place in [place for place in self.kept if place[1] == job_id]:
            del self.kept[place]


class MemoryTypeLimiters:
    """`rows` is open to tests: what is known, by type."""

    def __init__(self) -> None:
        self.rows: dict[str, TypeLimiter] = {}
        self._lock = threading.Lock()

    def get(self, job_type: str) -> TypeLimiter | None:
        with self._lock:
            return self.rows.get(job_type)

    def replace(self, seen: TypeLimiter, new: TypeLimiter, now: Ms) -> None:
        with self._lock:
            there = self.rows.get(new.type)
            if there == new:
                return
            if (there.version if there else 0) != seen.version:
                raise StaleVersion(there)
            self.rows[new.type] = new
