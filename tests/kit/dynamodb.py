"""The DynamoDB client of the tests: sizes of items, requests that are counted, requests that fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from chalicelib.adapters.aws import client as aws


def item_size(item: dict[str, Any]) -> int:
    """Size in bytes as DynamoDB counts it.

    Names and texts count in UTF-8, a number has a byte for two digits and one more, and a boolean
    has one byte.
    """
    sizes: dict[str, Callable[[Any], int]] = {"S": _text, "B": len, "N": _number, "BOOL": lambda _: 1}
    return sum(len(name.encode()) + sizes[kind](content) for name, value in item.items() for kind, content in value.items())


def _text(content: str) -> int:
    return len(content.encode())


def _number(content: str) -> int:
    return (len(content.strip("-0.")) + 1) // 2 + 1


@contextmanager
def counted_requests() -> Iterator[Counter[str]]:
    """Count the requests of each operation, such as `GetItem`."""
    requests: Counter[str] = Counter()

    def count(model: Any, **_: object) -> None:
        requests[model.name] += 1

    events = aws.client("dynamodb").meta.events
    events.register_first("before-call.dynamodb", count)
    try:
        yield requests
    finally:
        events.unregister("before-call.dynamodb", count)


@contextmanager
def failing_requests(operation: str, code: str, status: int, times: int = 99, **more: Any) -> Iterator[list[str]]:
    """Let DynamoDB fail the next requests with an error, without any effect."""
    given: list[str] = []

    def answer(**_: object) -> tuple[Any, dict[str, Any]] | None:
        if len(given) >= times:
            return None
        given.append(code)
        parsed = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status, "RetryAttempts": 0}, **more}
        return type("Answer", (), {"status_code": status, "headers": {}})(), parsed

    events = aws.client("dynamodb").meta.events
    events.register_first(f"before-call.dynamodb.{operation}", answer)
    try:
        yield given
    finally:
        events.unregister(f"before-call.dynamodb.{operation}", answer)
