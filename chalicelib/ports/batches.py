"""Batches and their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from chalicelib.domain.batches.batch import Batch
from chalicelib.domain.batches.row import Row
from chalicelib.domain.units import Ms


class Batches(Protocol):
    """Stores the records of batches, and an index of the open ones.

    A batch is open from before it is created until its end has been notified.
    """

    def create(self, batch: Batch) -> None:
        """Put a new record. One that is there already stays.

        The index row is written first, so a crash cannot leave a batch that the sweeper does not
        find.
        """

    def get(self, tenant: str, batch_id: str) -> Batch | None:
        """Return the record, read consistently."""

    def replace(self, seen: Batch, new: Batch) -> None:
        """Swap `new` in for `seen` if the version is still that of `seen`.

        A repeated swap succeeds. A new run is indexed as open first.

        Raises:
            StaleVersion: the version has changed; `current` is the stored record.
        """

    def mark_closed(self, batch: Batch) -> None:
        """Remove the batch from the index of open ones, unless a later run of it has begun."""

    def page(self, tenant: str, before: str | None, limit: int) -> tuple[list[Batch], str | None]:
        """Return a tenant's batches, newest first, and the id to continue `before` (None: the end).

        One request. Records that cannot be read are left out, so a page may be short.
        """

    def stalled(self, now: Ms, after: str | None, limit: int) -> tuple[list[Batch], str | None]:
        """Return a page of the open batches whose lock is over, in the order of their creation.

        Args:
            after: where the page before ended; None: the first page.

        Returns:
            The batches among at most `limit` index rows, and where to continue `after`; None: the
            end. One request, and one for each hundred. Records that cannot be
            read are left out.
        """


class BatchRows(Protocol):
    """Stores the rows of batches, their common options and their exports, in object storage."""

    def put_part(self, tenant: str, batch_id: str, part: int, rows: Sequence[Row]) -> None:
        """Store one part of the rows, in the order in which they are released."""

    def get_part(self, tenant: str, batch_id: str, part: int) -> list[Row] | None:
        """Return the rows of a part; None if they are no longer kept."""

    def put_options(self, tenant: str, batch_id: str, options: Mapping[str, Any]) -> None:
        """Store what all rows have in common."""

    def get_options(self, tenant: str, batch_id: str) -> dict[str, Any] | None:
        """Return what all rows have in common; None if it is no longer kept."""

    def put_export(self, tenant: str, batch_id: str, name: str, text: str, content_type: str) -> str:
        """Store an export and return a link from which it can be read for five minutes."""
