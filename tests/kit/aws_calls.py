"""Count the requests that are sent to an AWS service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from chalicelib.adapters.aws import client as aws


@contextmanager
def counted_calls(service: str, *operations: str) -> Iterator[list[dict[str, Any]]]:
    """Yield a list that gets the parameters of each request of these operations."""
    calls: list[dict[str, Any]] = []
    events = aws.client(service).meta.events

    def count(params: dict[str, Any], **_: object) -> None:
        calls.append(params)

    for operation in operations:
        events.register(f"before-call.{service}.{operation}", count)
    try:
        yield calls
    finally:
        for operation in operations:
            events.unregister(f"before-call.{service}.{operation}", count)
