"""Batch records for the tests of the batch rules and of what reads them."""

from __future__ import annotations

from typing import Any

from chalicelib.domain.batches.batch import Batch
from tests.kit.jobs import NOW

BATCH = "batch_" + "0" * 21 + "10000"


def batch(**changes: Any) -> Batch:
    """A new batch of ten rows, with changes."""
    values: dict[str, Any] = {"id": BATCH, "tenant": "acme", "user": "ann", "key_id": "k", "role": "user", "total": 10}
    return Batch(**({**values, "created_at": NOW, "updated_at": NOW} | changes))
