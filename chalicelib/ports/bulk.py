"""Bulk operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chalicelib.domain.jobs.bulk_operation import BulkKey, BulkOperation
from chalicelib.domain.units import Ms


class BulkOperations(Protocol):
    """Stores bulk operations for a week after their last step, an index of the unfinished ones, and the order of each tenant."""

    def create(self, bulk: BulkOperation) -> None:
        """Put a new record. One that is there already stays.

        The index row is written first, so a crash cannot leave an operation that the sweeper does
        not find.
        """

    def get(self, tenant: str, bulk_id: str) -> BulkOperation | None:
        """Return the record, read consistently."""

    def replace(self, seen: BulkOperation, new: BulkOperation) -> None:
        """Swap `new` in for `seen` if the version is still that of `seen`.

        A repeated swap succeeds.

        Raises:
            StaleVersion: the version has changed; `current` is the stored record.
        """

    def unfinished(self, after: str | None, limit: int) -> tuple[list[BulkKey], str | None]:
        """Return a page of the names of the unfinished operations, in the order of their creation.

        Args:
            after: where the page before ended; None: the first page.
            limit: at most 1,000: as many rows as one response holds.

        Returns:
            The names in at most `limit` index rows, and where to continue `after`; None: the end.
            One request.
        """

    def load_unfinished(self, keys: Sequence[BulkKey], now: Ms) -> list[BulkOperation]:
        """Return the operations of these names that are not finished, read consistently, in this order.

        Unreadable ones are left out. One request for each hundred.
        """

    def request_turn(self, key: BulkKey) -> None:
        """Put an operation into the order of its tenant. One that is there stays."""

    def give_up_turn(self, key: BulkKey) -> None:
        """Remove an operation from the order of its tenant, if it is there; `replace` does so at its end."""

    def turns(self, tenant: str, limit: int | None) -> list[BulkKey]:
        """Return the first `limit` operations in the order of a tenant, or all, by their creation; read consistently.

        One may have ended: its process died before it gave up its turn.
        """
