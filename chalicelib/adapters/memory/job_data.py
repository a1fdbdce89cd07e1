"""What is kept of a job beside its record, in memory: specs, chunks, results."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

from chalicelib.adapters.memory.dependencies import MemoryDependencies
from chalicelib.adapters.memory.files import MemoryJobFiles
from chalicelib.adapters.memory.streaming import MemorySubscriptions
from chalicelib.domain.errors import ChunkConflict, StaleVersion
from chalicelib.domain.execution.result import WORKER_LOST, Result
from chalicelib.domain.execution.transcript import Chunk
from chalicelib.domain.jobs.spec import JobSpec


class MemoryJobSpecs:
    """Bodies as JSON, because that is what the real store gives back. `kept_until` is open to tests, in seconds."""

    def __init__(self) -> None:
        self.kept_until: dict[str, int] = {}
        self._bodies: dict[str, str] = {}
        self._versions: dict[str, int] = {}

    def put(self, job_id: str, tenant: str, body: JobSpec, ttl: int) -> None:
        self._bodies[job_id] = json.dumps(body.to_dict())
        self.kept_until[job_id] = ttl

    def extend_ttl(self, job_id: str, until: int) -> None:
        if job_id in self._bodies:
            self.kept_until[job_id] = max(until, self.kept_until[job_id])

    def replace(self, job_id: str, tenant: str, body: JobSpec, version: int) -> None:
        data, there = json.dumps(body.to_dict()), self._versions.get(job_id, 0)
        if job_id in self._bodies and there < version:
            self._bodies[job_id], self._versions[job_id] = data, version
        elif there == version and data != self._bodies.get(job_id, data):
            raise StaleVersion(None)

    def get(self, job_id: str) -> JobSpec | None:
        stored = self._bodies.get(job_id)
        return JobSpec.from_dict(json.loads(stored)) if stored else None

    def forget(self, job_id: str) -> None:
        """What retention does when a body's time is over."""
        self._bodies.pop(job_id, None)


class MemoryChunks:
    """`rows` is open to tests: chunks by (job, attempt, end)."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int, int], Chunk] = {}
        self._lock = threading.Lock()

    def append(self, chunk: Chunk) -> None:
        place = (chunk.job_id, chunk.attempt, chunk.end)
        with self._lock:
            there = self.rows.setdefault(place, deepcopy(chunk))
        if there != chunk:
            raise ChunkConflict

    def put_progress(self, chunk: Chunk) -> None:
        with self._lock:
            self.rows[chunk.job_id, chunk.attempt, chunk.end] = deepcopy(chunk)

    def read(self, job_id: str, attempt: int, offset: int = 0) -> list[Chunk]:
        with self._lock:
            found = [chunk for (job, number, end), chunk in self.rows.items() if (job, number) == (job_id, attempt) and end > offset]
        return deepcopy(sorted(found, key=lambda chunk: chunk.end))

    def forget(self, job_id: str) -> None:
        with self._lock:
            for place in [place for place in self.rows if place[0] == job_id]:
                del self.rows[place]

    def last(self, job_id: str, attempt: int) -> Chunk | None:
        chunks = self.read(job_id, attempt, -1)
        return chunks[-1] if chunks else None


class MemoryResults:
    """`links` is open to tests: the addresses of texts that the real store would keep as objects."""

    def __init__(self) -> None:
        self.links: dict[tuple[str, int], str] = {}
        self._results: dict[tuple[str, int], Result] = {}
        self._lock = threading.Lock()

    def put_if_absent(self, result: Result, tenant: str) -> None:
        with self._lock:
            self._results.setdefault((result.job_id, result.attempt), deepcopy(result))

    def put(self, result: Result, tenant: str) -> None:
        with self._lock:
            there = self._results.get((result.job_id, result.attempt))
            estimated = there is not None and there.finish_reason == WORKER_LOST and result.is_exact
            if there is None or there.generation <= result.generation or estimated:
                self._results[result.job_id, result.attempt] = deepcopy(result)

    def get(self, job_id: str, attempt: int) -> Result | None:
        with self._lock:
            return deepcopy(self._results.get((job_id, attempt)))

    def get_many(self, attempts: Sequence[tuple[str, int]]) -> list[Result]:
        return [found for job_id, attempt in attempts if (found := self.get(job_id, attempt)) is not None]

    def forget(self, job_id: str) -> None:
        with self._lock:
            for place in [place for place in self._results if place[0] == job_id]:
                del self._results[place]

    def clear(self) -> None:
        """What retention does when their time is over."""
        self._results.clear()

    def attempts(self, job_id: str) -> list[Result]:
        with self._lock:
            numbers = sorted(number for job, number in self._results if job == job_id)
            return [replace(self._results[job_id, number], text="", parsed=None) for number in numbers]

    def link(self, job_id: str, attempt: int, seconds: int = 300) -> str | None:
        return self.links.get((job_id, attempt))


class MemoryJobData:
    """All that the other stores keep of a job."""

    def __init__(
        self,
        bodies: MemoryJobSpecs,
        chunks: MemoryChunks,
        results: MemoryResults,
        watchers: MemorySubscriptions,
        dependencies: MemoryDependencies,
        files: MemoryJobFiles,
    ) -> None:
        self._bodies, self._chunks, self._results, self._watchers = bodies, chunks, results, watchers
        self._dependencies, self._files = dependencies, files

    def delete_all(self, job_id: str, tenant: str) -> None:
        self._bodies.forget(job_id)
        self._chunks.forget(job_id)
        self._results.forget(job_id)
        self._watchers.forget(job_id)
        self._dependencies.forget(job_id)
        self._files.forget(job_id)

    def rows(self, job_id: str) -> list[str]:
        """For tests: what is still kept of a job."""
        attempts = [f"result {result.attempt}" for result in self._results.attempts(job_id)]
        chunks = [f"chunk {attempt}:{end}" for job, attempt, end in self._chunks.rows if job == job_id]
        watchers = [f"watcher {watcher.connection_id}" for watcher in self._watchers.for_job(job_id)]
        controls = ["controls"] if self._watchers.controls([job_id]) else []
        family = [f"edge {place}" for place in self._dependencies.edges if job_id in place]
        family += ["wait"] if self._dependencies.get(job_id) else []
        return [*family, *(["body"] if self._bodies.get(job_id) else []), *chunks, *attempts, *watchers, *controls]
