"""Batches and their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from chalicelib.domain.batches.batch import Batch
from chalicelib.domain.batches.row import Row
from chalicelib.domain.units import Ms


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
