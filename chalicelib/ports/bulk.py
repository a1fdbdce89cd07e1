"""Bulk operations."""

from __future__ import annotations

from typing import Protocol

from chalicelib.domain.jobs.bulk_operation import BulkOperation
from chalicelib.domain.units import Ms


class BulkOperations(Protocol):
    """Bulk actions, each kept for a week after its last step."""

    def create(self, bulk: BulkOperation) -> None:
        """Put a new one; what is there already stays. First what names it as unfinished, so that it is never forgotten."""

    def get(self, tenant: str, bulk_id: str) -> BulkOperation | None: ...

    def replace(self, seen: BulkOperation, new: BulkOperation) -> None:
        """Swap `new` in for `seen`, if the version is still the one seen. A swap that had been done already succeeds.

        Raises:
            StaleVersion: it moved on; `current` is what is there.
        """

    def unfinished(self, now: Ms, limit: int) -> list[BulkOperation]:
        """Those that are unfinished and that nobody works on, the oldest first: one request, and one each."""
