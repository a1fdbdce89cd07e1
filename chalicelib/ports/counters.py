"""What must be exact: batches, and what is counted from the change stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from chalicelib.domain.batches.batch import Batch
from chalicelib.domain.batches.row import Row
from chalicelib.domain.metrics.counters import CounterIncrement, CountMark
from chalicelib.domain.units import Ms

CounterKey = tuple[str, str]  # the two keys of a counter
VERSION = "version"  # of a counter: how often it was changed


@dataclass(frozen=True, slots=True)
class MarkUpdate:
    """A job's mark as it was seen, and as it is to be; `ttl` in seconds since 1970."""

    seen: CountMark
    new: CountMark
    ttl: int


class Counters(Protocol):
    """Counters, each a few whole numbers, and the mark of each job that was counted."""

    def marks(self, job_ids: Sequence[str], *, consistent: bool = False) -> dict[str, CountMark]:
        """The marks that exist, a request for each hundred."""

    def increment(self, marked: Sequence[MarkUpdate], adds: Sequence[CounterIncrement]) -> None:
        """Swap the marks in and add to the counters, all or nothing: one transaction, so at most a hundred of both. Each counter that is
        added to says by its version that it was.

        Raises:
            StaleVersion: a mark is no longer the one that was seen. So it is for a repetition of what had been done.
        """

    def get(self, places: Sequence[CounterKey]) -> dict[CounterKey, dict[str, int]]:
        """The counters that exist, read consistently."""

    def query(self, pk: str, limit: int) -> dict[str, dict[str, int]]:
        """The first counters of a partition, by their second key, read consistently: one request."""

    def overwrite(self, place: CounterKey, version: int, numbers: Mapping[str, int], ttl: int) -> bool:
        """Let a counter say just this, if its version is still the one that was seen. False: it is not."""


class Batches(Protocol):
    """The records of batches, and which of them are not at rest."""

    def create(self, batch: Batch) -> None:
        """Put a new one; what is there already stays. First what names it as open, so that it is never forgotten."""

    def get(self, tenant: str, batch_id: str) -> Batch | None:
        """The record, read consistently."""

    def replace(self, seen: Batch, new: Batch) -> None:
        """Swap `new` in for `seen`, if the version is still the one seen; a new run is named as open first. A swap that had been done
        already succeeds.

        Raises:
            StaleVersion: it moved on; `current` is what is there.
        """

    def mark_closed(self, batch: Batch) -> None:
        """It is at rest: name it as open no longer, unless another run of it has begun."""

    def page(self, tenant: str, before: str | None, limit: int) -> tuple[list[Batch], str | None]:
        """A tenant's batches, the newest first, and the id to go on `before`, None at the end: one request."""

    def stalled(self, now: Ms, limit: int) -> list[Batch]:
        """Open ones that nobody works on, others each minute if there are more: two requests."""


class BatchRows(Protocol):
    """The rows of batches, and what is said once for all of them, in object storage."""

    def put_part(self, tenant: str, batch_id: str, part: int, rows: Sequence[Row]) -> None:
        """Rows in the order in which they are released."""

    def get_part(self, tenant: str, batch_id: str, part: int) -> list[Row] | None: ...

    def put_options(self, tenant: str, batch_id: str, terms: Mapping[str, Any]) -> None: ...

    def get_options(self, tenant: str, batch_id: str) -> dict[str, Any] | None: ...

    def put_export(self, tenant: str, batch_id: str, name: str, text: str, content_type: str) -> str:
        """Keep an export for some time, and answer an address from which it can be read for a few minutes."""
