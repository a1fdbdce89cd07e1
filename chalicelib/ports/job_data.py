"""What is stored of a job beside its record: its spec, its text in chunks, its results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chalicelib.domain.execution.result import Result
from chalicelib.domain.execution.transcript import Chunk
from chalicelib.domain.jobs.spec import JobSpec


class JobSpecs(Protocol):
    """Stores job specs. Large ones go to object storage behind this port.

    `ttl` in seconds since 1970.
    """

    def put(self, job_id: str, tenant: str, spec: JobSpec, ttl: int) -> None:
        """Store the spec of a new job."""

    def get(self, job_id: str) -> JobSpec | None:
        """Return the spec, read consistently; None if it is no longer kept."""

    def extend_ttl(self, job_id: str, ttl: int) -> bool:
        """Keep the spec at least until `ttl`. Return whether there is one."""

    def replace(self, job_id: str, tenant: str, spec: JobSpec, version: int) -> None:
        """Replace the spec by the one that belongs to `version` of the job record.

        Nothing happens where there is no spec, or one of a later version.

        Raises:
            StaleVersion: another spec was stored for this version, by a concurrent edit.
        """


class JobData(Protocol):
    """Deletes what other stores keep of a job."""

    def delete_all(self, job_id: str, tenant: str) -> None:
        """Delete spec, chunks, results, subscriptions, controls, dependencies and files.

        Repeatable.
        """


class Chunks(Protocol):
    """Stores the text of each attempt, in chunks. Offsets are code points."""

    def append(self, chunk: Chunk) -> None:
        """Put a chunk where none ends (protocol rule 7: chunks are appended where none ends).

        Repeatable.

        Raises:
            ChunkConflict: another chunk ends there.
        """

    def put_progress(self, chunk: Chunk) -> None:
        """Store progress without text, in place of the one before.

        It is for an attempt whose text comes at its end. Only `last` returns it.
        """

    def read(self, job_id: str, attempt: int, offset: int = 0) -> list[Chunk]:
        """Return all chunks that end beyond `offset`, in order, read consistently."""

    def last(self, job_id: str, attempt: int) -> Chunk | None:
        """Return the chunk with the greatest end, read consistently."""


class Results(Protocol):
    """Stores the result of each attempt. Large texts go to object storage behind this port."""

    def put(self, result: Result, tenant: str) -> None:
        """Store the result of the worker's own attempt. Repeatable.

        The result of a later claim stays (protocol rule 23: one row per attempt, one writer),
        unless that is an estimate of `put_if_absent` and this one has the usage that was charged.
        """

    def put_if_absent(self, result: Result, tenant: str) -> None:
        """Store an estimate for the attempt of a dead worker, unless a result is there."""

    def get(self, job_id: str, attempt: int) -> Result | None:
        """Return the result, read consistently; None if it or its text is no longer kept."""

    def get_many(self, attempts: Sequence[tuple[str, int]]) -> list[Result]:
        """Return the results that exist, in no order.

        One request for each hundred, and one for each large text.
        """

    def attempts(self, job_id: str) -> list[Result]:
        """Return the results of all attempts, oldest first, without their texts."""

    def link(self, job_id: str, attempt: int, seconds: int = 300) -> str | None:
        """Return a link to the text that is valid for `seconds`; None if the text is in the table."""
