"""What is kept of a job beside its head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chalicelib.domain.execution.result import Result
from chalicelib.domain.execution.transcript import Chunk
from chalicelib.domain.jobs.spec import JobSpec


class JobSpecs(Protocol):
    """What jobs are asked to do. Large ones go to object storage behind this port."""

    def put(self, job_id: str, tenant: str, body: JobSpec, ttl: int) -> None: ...

    def get(self, job_id: str) -> JobSpec | None: ...

    def extend_ttl(self, job_id: str, until: int) -> None:
        """Keep it until then (seconds since 1970) at least; nothing where there is none."""

    def replace(self, job_id: str, tenant: str, body: JobSpec, version: int) -> None:
        """Put `body` in its place, as the head of `version` says it; one that a later head says stays. Nothing where there is none.

        Raises:
            StaleVersion: another body was put for this version, by somebody whose change of the head looked the same.
        """


class JobData(Protocol):
    def delete_all(self, job_id: str, tenant: str) -> None:
        """Remove all that is kept of a job beside its head: body, log, results, watchers, controls, objects. Repeating it succeeds."""


class Chunks(Protocol):
    """The log: the text of each attempt as it is kept."""

    def append(self, chunk: Chunk) -> None:
        """Put a chunk where none ends. Repeating a put whose answer was lost succeeds.

        Raises:
            ChunkConflict: another chunk ends there.
        """

    def put_progress(self, chunk: Chunk) -> None:
        """Keep a chunk without text in the place of the one before: how far an attempt is whose text comes at its end.

        Only `last` shows it.
        """

    def read(self, job_id: str, attempt: int, offset: int = 0) -> list[Chunk]:
        """All chunks that end beyond `offset`, in order, read consistently."""

    def last(self, job_id: str, attempt: int) -> Chunk | None:
        """The chunk with the greatest end."""


class Results(Protocol):
    """The results of attempts. Large ones go to object storage behind this port."""

    def put(self, result: Result, tenant: str) -> None:
        """The row of an attempt, by its own worker: writing it again writes the same. The row of a later claim stays as it is, unless
        that is an estimate of `put_if_absent` and this one says what was charged.
        """

    def put_if_absent(self, result: Result, tenant: str) -> None:
        """The row of an attempt whose worker is dead, unless that worker has written, or writes, its own."""

    def get(self, job_id: str, attempt: int) -> Result | None: ...

    def get_many(self, attempts: Sequence[tuple[str, int]]) -> list[Result]:
        """Those that there are, in no order: one request for each hundred, and one for each large text."""

    def attempts(self, job_id: str) -> list[Result]:
        """The results of all attempts, the oldest first, without their texts."""

    def link(self, job_id: str, attempt: int, seconds: int = 300) -> str | None:
        """An address from which the text can be read for some time; None where it is kept in the table."""
