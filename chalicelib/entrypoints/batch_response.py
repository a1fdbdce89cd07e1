"""Answer SQS for a batch of messages: which of them must be delivered again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from chalicelib.bootstrap import Container

BatchResponse = dict[str, list[dict[str, str]]]
Record = Mapping[str, Any]  # a message in the event: `body`, `messageId`, `attributes` and more


def handle_each(
    ctx: Container, records: Sequence[Record], handle: Callable[[Record], object], each: Callable[..., Iterable[Exception | None]] = map
) -> BatchResponse:
    """Call `handle` with every message. One that fails does not stop the others.

    Args:
        each: `map`, or one that works in parallel.

    Raises:
        Exception: the first error, if the event source of this function takes no answer.
    """
    errors = list(each(partial(_error_of, handle), records))
    failed = {message_id(record): error for record, error in zip(records, errors, strict=True) if error is not None}
    return deliver_again(ctx, list(failed), next(iter(failed.values()))) if failed else all_processed()


def deliver_again(ctx: Container, ids: Sequence[str], error: Exception) -> BatchResponse:
    """The answer that these messages were not processed.

    A function that raises instead makes SQS take all its messages for failed, and slow the whole
    queue down. But an event source that was not told to expect this answer takes it for success, so
    the environment has to say that it was.

    Raises:
        Exception: `error`, if the event source of this function takes no answer.
    """
    if not ctx.settings.report_batch_failures:
        raise error
    ctx.log("messages_returned", count=len(ids), error=error)
    return {"batchItemFailures": [{"itemIdentifier": each} for each in ids]}


def all_processed() -> BatchResponse:
    return {"batchItemFailures": []}


def message_id(record: Record) -> str:
    """The id of a message. SQS takes an empty one in an answer for "all of them"."""
    return str(record.get("messageId", ""))


def _error_of(handle: Callable[[Record], object], record: Record) -> Exception | None:
    try:
        handle(record)
    except Exception as exc:  # noqa: BLE001 - the other messages of the batch must not come again because of this one
        return exc
    return None
