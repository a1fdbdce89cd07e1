"""How the stores use DynamoDB: PynamoDB's models on the process's one client, and the few calls that its own methods lack.

* Models are declared without a table; `bound` ties one to a stage's table, so importing them needs no stage and makes no client.
* All models share one botocore client (`aws.client`). By themselves each would build its own, with timeouts that outlive a lease.
* A condition that fails gives back what is there (`ALL_OLD`), because the SDK repeats a request whose answer was lost, and the repetition
  of a write that had been done fails its condition: who wrote must look whether it was themselves. `Model.save` cannot ask for that.
* Expressions always name attributes by placeholders, so no reserved word can break one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, TypeVar

from pynamodb.attributes import Attribute
from pynamodb.connection.base import Connection
from pynamodb.connection.table import TableConnection
from pynamodb.constants import NUMBER
from pynamodb.exceptions import TransactWriteError
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action
from pynamodb.models import Model

from chalicelib.adapters.aws import client as aws
from chalicelib.domain.errors import Throttled

Raw = dict[str, Any]  # an item as DynamoDB's API writes it: {"id": {"S": "job_1"}}

CONDITION_FAILED = "ConditionalCheckFailedException"
CONFLICT_TRIES = 5  # of what met a transaction; together well below the timeout of a request
CONFLICT_BACKOFF = 0.02
BATCH_KEYS = 100  # BatchGetItem's limit
BATCH_WRITES = 25  # BatchWriteItem's
BATCH_TRIES = 5  # for keys that DynamoDB left out because it is busy
TTL_GRACE_SECONDS = 86_400  # seconds that a row outlives its own end: TTL only cleans up, readers compare times


class ConditionFailed(Exception):
    """The condition of a write did not hold. `item` is what is there, None if nothing is."""

    def __init__(self, item: Raw | None) -> None:
        super().__init__(CONDITION_FAILED)
        self.item = item


class TransactionConditionFailed(Exception):
    """Conditions of a transaction did not hold. `items` has, for each write in order, None or what was there (`{}`: nothing)."""

    def __init__(self, items: list[Raw | None]) -> None:
        super().__init__("TransactionCanceledException")
        self.items = items


class SharedConnection(Connection):
    """PynamoDB's connection on the shared client; failures to reach DynamoDB are raised in our words, refusals as botocore's."""

    @property
    def client(self) -> Any:
        return aws.client("dynamodb")

    def _make_api_call(self, operation_name: str, operation_kwargs: dict[str, Any]) -> dict[str, Any]:
        with aws.translate_errors():
            answer: dict[str, Any] = self.client._make_api_call(operation_name, operation_kwargs)
        return answer


class Item(Model):
    """A kind of item. Several kinds share a table and are told apart by their keys."""

    @classmethod
    def _get_connection(cls) -> TableConnection:
        table = super()._get_connection()
        if not isinstance(table.connection, SharedConnection):
            shared = SharedConnection()
            shared.add_meta_table(table.get_meta_table())
            table.connection = shared
        return table


class IntAttribute(Attribute[int]):
    """A whole number: times, counts and money here are nothing else, and PynamoDB's own number may be a float."""

    attr_type = NUMBER

    def serialize(self, value: int) -> str:
        return str(int(value))

    def deserialize(self, value: str) -> int:
        return int(value)


I = TypeVar("I", bound=Item)  # noqa: E741


def table_name(stage: str, table: str) -> str:
    return f"headrace-{stage}-{table}"


def bound(model: type[I], stage: str, table: str) -> type[I]:
    """The same model, on a stage's table."""
    tied: type[I] = _bound(model, table_name(stage, table))
    return tied


def put(item: Item, condition: Condition | None = None) -> None:
    """One PutItem of the whole item.

    Raises:
        ConditionFailed: with what is there.
    """
    _call(item, "PutItem", item.get_save_kwargs_from_instance(condition, "ALL_OLD" if condition is not None else None))


def update(item: Item, actions: Sequence[Action], condition: Condition | None = None, returns: str = "NONE") -> Raw:
    """One UpdateItem; `returns` as DynamoDB names it (`UPDATED_NEW`).

    Raises:
        ConditionFailed: with what is there.
    """
    kwargs = item.get_update_kwargs_from_instance(list(actions), condition, "ALL_OLD" if condition is not None else None)
    attributes: Raw = _call(item, "UpdateItem", {**kwargs, "ReturnValues": returns}).get("Attributes", {})
    return attributes


def delete(item: Item, condition: Condition | None = None) -> Raw | None:
    """One DeleteItem; the answer is what was there.

    Raises:
        ConditionFailed: with what is there.
    """
    kwargs = item.get_delete_kwargs_from_instance(condition, "ALL_OLD" if condition is not None else None)
    return _call(item, "DeleteItem", {**kwargs, "ReturnValues": "ALL_OLD"}).get("Attributes")


def update_changed(seen: Item, new: Item, condition: Condition) -> None:
    """One UpdateItem that makes `seen` into `new`, attribute by attribute: what this version of the code does not know stays as it is.

    Raises:
        ConditionFailed: with what is there.
    """
    before, after = _present(seen), _present(new)
    changed = [getattr(type(new), name).set(value) for name, value in after.items() if before.get(name) != value]
    gone = [getattr(type(new), name).remove() for name in before if name not in after]
    update(seen, changed + gone, condition)


def _present(item: Item) -> dict[str, Any]:
    return {name: value for name, value in item.attribute_values.items() if value is not None}


def get(model: type[I], *key: str) -> I | None:
    """The item with this key, read consistently."""
    try:
        return model.get(key[0], key[1] if key[1:] else None, consistent_read=True)
    except model.DoesNotExist:
        return None


def transact_put(writes: Sequence[tuple[Item, Condition | None]], pause: Callable[[float], None] = time.sleep) -> None:
    """One TransactWriteItems of puts, tried again when it met another transaction. It costs double, so only where it must be.

    Raises:
        TransactionRefused: with what is there, for each condition that did not hold.
    """
    connection = writes[0][0]._get_connection().connection
    for attempt in range(1, CONFLICT_TRIES + 1):
        puts = [item.get_save_kwargs_from_instance(condition, "ALL_OLD") for item, condition in writes]
        try:
            connection.transact_write_items([], [], puts, [])
        except TransactWriteError as exc:
            raise TransactionConditionFailed(_refusals(exc)) from exc
        except Throttled:
            if attempt == CONFLICT_TRIES:
                raise
            pause(CONFLICT_BACKOFF * 2**attempt)
        else:
            return


def batch_put(items: Sequence[Item], pause: Callable[[float], None] = time.sleep) -> None:
    """One BatchWriteItem of puts for each 25 items, without conditions.

    Raises:
        Throttled: some were left out again and again.
    """
    table = items[0]._get_connection() if items else None
    left: list[Any] = [item.serialize() for item in items]
    tries = 0
    while table is not None and left:
        answer = table.batch_write_item(put_items=left[:BATCH_WRITES])
        skipped = (answer or {}).get("UnprocessedItems", {}).get(table.table_name, [])
        left = [*(one["PutRequest"]["Item"] for one in skipped), *left[BATCH_WRITES:]]
        tries = tries + 1 if skipped else 0
        if tries >= BATCH_TRIES:
            raise Throttled
        if skipped:
            pause(CONFLICT_BACKOFF * 2**tries)


def batch_delete(items: Sequence[Item], pause: Callable[[float], None] = time.sleep) -> None:
    """One BatchWriteItem for each 25 items, without conditions. Deleting what is gone succeeds.

    PynamoDB's own `batch_write` repeats what DynamoDB left out without a pause.

    Raises:
        Throttled: some were left out again and again.
    """
    table = items[0]._get_connection() if items else None
    left: list[Any] = [item._get_keys() for item in items]  # type: ignore[no-untyped-call]
    tries = 0
    while table is not None and left:
        answer = table.batch_write_item(delete_items=left[:BATCH_WRITES])
        skipped = (answer or {}).get("UnprocessedItems", {}).get(table.table_name, [])
        left = [*(one["DeleteRequest"]["Key"] for one in skipped), *left[BATCH_WRITES:]]
        tries = tries + 1 if skipped else 0
        if tries >= BATCH_TRIES:
            raise Throttled
        if skipped:
            pause(CONFLICT_BACKOFF * 2**tries)


def batch_get(
    model: type[I],
    keys: Iterable[tuple[str, ...]],
    attributes: Sequence[str] | None = None,
    pause: Callable[[float], None] = time.sleep,
    *,
    consistent: bool = False,
) -> list[I]:
    """The items that exist, in no order: one BatchGetItem for each hundred keys."""
    table = model._get_connection()
    names: list[str] = table.get_meta_table().get_key_names()  # type: ignore[no-untyped-call]
    left: list[Any] = [dict(zip(names, key, strict=True)) for key in dict.fromkeys(keys)]
    found: list[I] = []
    tries = 0
    while left:
        answer = table.batch_get_item(left[:BATCH_KEYS], consistent_read=consistent, attributes_to_get=attributes)
        found += [model.from_raw_data(raw) for raw in answer["Responses"].get(table.table_name, [])]
        skipped = answer.get("UnprocessedKeys", {}).get(table.table_name, {}).get("Keys", [])
        left = [*skipped, *left[BATCH_KEYS:]]
        tries = tries + 1 if skipped else 0
        if tries >= BATCH_TRIES:
            raise Throttled
        if skipped:
            pause(CONFLICT_BACKOFF * 2**tries)
    return found


@cache  # a class is made once: it is what PynamoDB keeps its connection in
def _bound(model: Any, name: str) -> Any:
    return type(model.__name__, (model,), {"Meta": type("Meta", (), {"table_name": name}), "__module__": model.__module__})


def _call(item: Item, operation: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    """One write; again, for a moment, if it met a transaction on the same item, which has kept it from having any effect."""
    from botocore.exceptions import ClientError

    connection = item._get_connection().connection
    for attempt in range(1, CONFLICT_TRIES + 1):
        try:
            answer: dict[str, Any] = connection.dispatch(operation, kwargs)
        except ClientError as exc:
            if aws.error_code(exc) == CONDITION_FAILED:
                raise ConditionFailed(exc.response.get("Item")) from exc
            raise
        except Throttled as exc:
            if attempt == CONFLICT_TRIES or aws.error_code(exc.__cause__) not in aws.CONFLICTS:
                raise
            time.sleep(CONFLICT_BACKOFF * 2**attempt)
        else:
            return answer
    raise Throttled


def _refusals(exc: TransactWriteError) -> list[Raw | None]:
    reasons = getattr(exc.cause, "response", {}).get("CancellationReasons", [])
    refusals = [reason.get("Item", {}) if reason.get("Code") == "ConditionalCheckFailed" else None for reason in reasons]
    if all(refusal is None for refusal in refusals):
        raise exc
    return refusals
