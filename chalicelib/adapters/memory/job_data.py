"""Specs, chunks and results of jobs in memory."""

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
    """Stores specs as JSON, as the real store does.

    Tests may use `kept_until`, their TTLs in seconds since 1970.
    """

    def __init__(self) -> None:
        self.kept_until: dict[str, int] = {}
        self._specs: dict[str, str] = {}
        self._versions: dict[str, int] = {}

    def put(self, job_id: str, tenant: str, spec: JobSpec, ttl: int) -> None:
        self._specs[job_id] = json.dumps(spec.to_dict())
        self.kept_until[job_id] = ttl

    def extend_ttl(self, job_id: str, ttl: int) -> bool:
        if job_id not in self._specs:
            return False
        self.kept_until[job_id] = max(ttl, self.kept_until[job_id])
        return True

    def replace(self, job_id: str, tenant: str, spec: JobSpec, version: int) -> None:
        data, stored = json.dumps(spec.to_dict()), self._versions.get(job_id, 0)
        if job_id in self._specs and stored < version:
            self._specs[job_id], self._versions[job_id] = data, version
        elif stored == version and data != self._specs.get(job_id, data):
            raise StaleVersion(None)

    def get(self, job_id: str) -> JobSpec | None:
        stored = self._specs.get(job_id)
        return JobSpec.from_dict(json.loads(stored)) if stored else None

    def delete(self, job_id: str) -> None:
        """Delete the spec, as DynamoDB does after its TTL."""
        self._specs.pop(job_id, None)


class MemoryChunks:
    """Tests may use `rows`, the chunks by (job, attempt, end)."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int, int], Chunk] = {}
        self._lock = threading.Lock()

    def append(self, chunk: Chunk) -> None:
        key = (chunk.job_id, chunk.attempt, chunk.end)
        with self._lock:
            stored = self.rows.setdefault(key, deepcopy(chunk))
        if stored != chunk:
            raise ChunkConflict

    def put_progress(self, chunk: Chunk) -> None:
        with self._lock:
            self.rows[chunk.job_id, chunk.attempt, chunk.end] = deepcopy(chunk)

    def read(self, job_id: str, attempt: int, offset: int = 0) -> list[Chunk]:
        with self._lock:
            found = [chunk for (job, number, end), chunk in self.rows.items() if (job, number) == (job_id, attempt) and end > offset]
        return deepcopy(sorted(found, key=lambda chunk: chunk.end))

    def delete_all(self, job_id: str) -> None:
        with self._lock:
            for key in [key for key in self.rows if key[0] == job_id]:
                del self.rows[key]

    def last(self, job_id: str, attempt: int) -> Chunk | None:
        chunks = self.read(job_id, attempt, -1)
        return chunks[-1] if chunks else None


class MemoryResults:
    """Tests may use `links`, by (job, attempt), for texts that the real store keeps as objects."""

    def __init__(self) -> None:
        self.links: dict[tuple[str, int], str] = {}
        self._results: dict[tuple[str, int], Result] = {}
        self._lock = threading.Lock()

    def put_if_absent(self, result: Result, tenant: str) -> None:
        with self._lock:
            self._results.setdefault((result.job_id, result.attempt), deepcopy(result))

    def put(self, result: Result, tenant: str) -> None:
        with self._lock:
            stored = self._results.get((result.job_id, result.attempt))
            estimated = stored is not None and stored.finish_reason == WORKER_LOST and result.is_exact
            if stored is None or stored.generation <= result.generation or estimated:
                self._results[result.job_id, result.attempt] = deepcopy(result)

    def get(self, job_id: str, attempt: int) -> Result | None:
        with self._lock:
            return deepcopy(self._results.get((job_id, attempt)))

    def get_many(self, attempts: Sequence[tuple[str, int]]) -> list[Result]:
        return [found for job_id, attempt in attempts if (found := self.get(job_id, attempt)) is not None]

    def delete_all(self, job_id: str) -> None:
        with self._lock:
            for key in [key for key in self._results if key[0] == job_id]:
                del self._results[key]

    def clear(self) -> None:
        """Delete all results, as DynamoDB does after their TTL."""
        self._results.clear()

    def attempts(self, job_id: str) -> list[Result]:
        with self._lock:
            numbers = sorted(number for job, number in self._results if job == job_id)
            return [replace(self._results[job_id, number], text="", parsed=None) for number in numbers]

    def link(self, job_id: str, attempt: int, seconds: int = 300) -> str | None:
        return self.links.get((job_id, attempt))


class MemoryJobData:
    """Deletes what the other twins store of a job."""

    def __init__(
        self,
        specs: MemoryJobSpecs,
        chunks: MemoryChunks,
        results: MemoryResults,
        subscriptions: MemorySubscriptions,
        dependencies: MemoryDependencies,
        files: MemoryJobFiles,
    ) -> None:
        self._specs, self._chunks, self._results, self._subscriptions = specs, chunks, results, subscriptions
        self._dependencies, self._files = dependencies, files

    def delete_all(self, job_id: str, tenant: str) -> None:
        self._specs.delete(job_id)
        self._chunks.delete_all(job_id)
        self._results.delete_all(job_id)
        self._subscriptions.delete_all(job_id)
        self._dependencies.delete_all(job_id)
        self._files.delete_all(job_id)

    def rows(self, job_id: str) -> list[str]:
        """For tests: what is still stored of a job."""
        attempts = [f"result {result.attempt}" for result in self._results.attempts(job_id)]
        chunks = [f"chunk {attempt}:{end}" for job, attempt, end in self._chunks.rows if job == job_id]
        subscriptions = [f"subscription {subscription.connection_id}" for subscription in self._subscriptions.for_job(job_id)]
        controls = ["controls"] if self._subscriptions.controls([job_id]) else []
        dependencies = [f"edge {edge}" for edge in self._dependencies.edges if job_id in edge]
        dependencies += ["dependency record"] if self._dependencies.get(job_id) else []
        return [*dependencies, *(["spec"] if self._specs.get(job_id) else []), *chunks, *attempts, *subscriptions, *controls]
