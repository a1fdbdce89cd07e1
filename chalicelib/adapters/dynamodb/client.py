"""DynamoDB for the stores: PynamoDB's models on the client of the process, and calls that it lacks.

* Models are declared without a table. `bound` ties one to a stage's table, so importing them needs
  no stage and makes no client.
* All models share one botocore client (`aws.client`). By default each would build its own, with
  timeouts that outlive a lease.
* A failed condition returns the stored item (`ALL_OLD`). The SDK repeats a request whose response
  was lost, and the repetition of a write that was made fails its condition; the writer compares the
  stored item with its own. `Model.save` cannot ask for that.
* Expressions name attributes by placeholders only, so reserved words cannot break one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from random import uniform
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
from chalicelib.adapters.aws.names import table_name
from chalicelib.domain.errors import Throttled

Raw = dict[str, Any]  # an item as DynamoDB's API writes it: {"id": {"S": "job_1"}}

CONDITION_FAILED = "ConditionalCheckFailedException"
CONFLICT_TRIES = 5  # of a write that met another one; all tries take well below the timeout of a request
CONFLICT_BACKOFF = 0.02  # seconds, doubled with each try
BATCH_KEYS = 100  # BatchGetItem's limit
BATCH_WRITES = 25  # BatchWriteItem's
BATCH_TRIES = 5  # for keys that a busy DynamoDB left unprocessed
TTL_GRACE_SECONDS = 86_400  # how long a row outlives its own end: TTL only cleans up, readers compare times


class ConditionFailed(Exception):
    """The condition of a write did not hold. `item` is the stored item, None if there is none."""

    def __init__(self, item: Raw | None) -> None:
        super().__init__(CONDITION_FAILED)
        self.item = item


class TransactionConditionFailed(Exception):
    """Conditions of a transaction did not hold.

    `items` has one entry for each write, in order: None if its condition held, else the stored item
    (`{}`: there is none).
    """

    def __init__(self, items: list[Raw | None]) -> None:
        super().__init__("TransactionCanceledException")
        self.items = items


class SharedConnection(Connection):
    """PynamoDB's connection on the shared client.

    Outages are raised as `Unavailable`, refused requests as botocore raises them.
    """

    @property
    def client(self) -> Any:
        return aws.client("dynamodb")

    def _make_api_call(self, operation_name: str, operation_kwargs: dict[str, Any]) -> dict[str, Any]:
        with aws.translate_errors():
            response: dict[str, Any] = self.client._make_api_call(operation_name, operation_kwargs)
        return response


class Item(Model):
    """A kind of item. Several kinds share a table and differ in their keys."""

    @classmethod
    def _get_connection(cls) -> TableConnection:
        table = super()._get_connection()
        if not isinstance(table.connection, SharedConnection):
            shared = SharedConnection()
            shared.add_meta_table(table.get_meta_table())
            table.connection = shared
        return table


class IntAttribute(Attribute[int]):
    """An integer, as all stored times, counts and costs are. PynamoDB's own number may be a float."""

    attr_type = NUMBER

    def serialize(self, value: int) -> str:
        return str(int(value))

    def deserialize(self, value: str) -> int:
        return int(value)


I = TypeVar("I", bound=Item)  # noqa: E741
T = TypeVar("T")


def bound(model: type[I], stage: str, table: str) -> type[I]:
    """Return the model on a stage's table."""
    tied: type[I] = _bound(model, table_name(stage, table))
    return tied


def put(item: Item, condition: Condition | None = None) -> None:
    """Put the whole item, with one PutItem.

    Raises:
        ConditionFailed: with the stored item.
    """
    _call(item, "PutItem", item.get_save_kwargs_from_instance(condition, "ALL_OLD" if condition is not None else None))


def update(item: Item, actions: Sequence[Action], condition: Condition | None = None, returns: str = "NONE") -> Raw:
    """Update an item, with one UpdateItem.

    `returns` is DynamoDB's `ReturnValues`, such as `UPDATED_NEW`.

    Raises:
        ConditionFailed: with the stored item.
    """
    kwargs = item.get_update_kwargs_from_instance(list(actions), condition, "ALL_OLD" if condition is not None else None)
    attributes: Raw = _call(item, "UpdateItem", {**kwargs, "ReturnValues": returns}).get("Attributes", {})
    return attributes


def delete(item: Item, condition: Condition | None = None) -> Raw | None:
    """Delete an item, with one DeleteItem, and return what was stored.

    Raises:
        ConditionFailed: with the stored item.
    """
    kwargs = item.get_delete_kwargs_from_instance(condition, "ALL_OLD" if condition is not None else None)
    return _call(item, "DeleteItem", {**kwargs, "ReturnValues": "ALL_OLD"}).get("Attributes")


def update_changed(seen: Item, new: Item, condition: Condition) -> None:
    """Update the attributes in which `new` differs from `seen`, with one UpdateItem.

    Attributes that this version of the code does not know stay as they are.

    Raises:
        ConditionFailed: with the stored item.
    """
    before, after = _present(seen), _present(new)
    changed = [getattr(type(new), name).set(value) for name, value in after.items() if before.get(name) != value]
    removed = [getattr(type(new), name).remove() for name in before if name not in after]
    update(seen, changed + removed, condition)


def _present(item: Item) -> dict[str, Any]:
    return {name: value for name, value in item.attribute_values.items() if value is not None}


def get(model: type[I], *key: str) -> I | None:
    """Return the item with this key, read consistently."""
    try:
        return model.get(key[0], key[1] if key[1:] else None, consistent_read=True)
    except model.DoesNotExist:
        return None


def repeat_on_conflict(call: Callable[[], T], pause: Callable[[float], None] = time.sleep) -> T:
    """Make a write. Repeat it for a moment if it met another one on the same item: it had no effect.

    The pauses are random, so that writers that met do not meet again. A transaction that was
    throttled is repeated as often as botocore repeats any other throttled request.

    Raises:
        Throttled: it was refused each time; `aws.is_conflict` of its cause says whether by other
            writers, which will be through soon, or by a limit.
    """
    for attempt in range(1, CONFLICT_TRIES + 1):
        try:
            return call()
        except Throttled as exc:
            if attempt >= _tries(exc.__cause__):
                raise
            pause(uniform(0.5, 1.0) * CONFLICT_BACKOFF * 2**attempt)
    raise Throttled


def _tries(cause: BaseException | None) -> int:
    if aws.is_conflict(cause):
        return CONFLICT_TRIES
    return aws.ATTEMPTS if aws.error_code(cause) == aws.CANCELLED else 1  # botocore has repeated any other


def transact_put(writes: Sequence[tuple[Item, Condition | None]], pause: Callable[[float], None] = time.sleep) -> None:
    """Put several items in one TransactWriteItems, which costs double.

    It is repeated if it meets another write.

    Raises:
        TransactionConditionFailed: with the stored items whose conditions did not hold.
        Throttled: as `repeat_on_conflict`.
    """
    connection = writes[0][0]._get_connection().connection

    def put_all() -> None:
        puts = [item.get_save_kwargs_from_instance(condition, "ALL_OLD") for item, condition in writes]
        connection.transact_write_items([], [], puts, [])

    try:
        repeat_on_conflict(put_all, pause)
    except TransactWriteError as exc:
        raise TransactionConditionFailed(_refusals(exc)) from exc


def batch_put(items: Sequence[Item], pause: Callable[[float], None] = time.sleep) -> None:
    """Put items without conditions, with one BatchWriteItem for each 25.

    Raises:
        Throttled: DynamoDB left some unprocessed in every try.
    """
    _batch_write(items, [item.serialize() for item in items], "put_items", ("PutRequest", "Item"), pause)


def batch_delete(items: Sequence[Item], pause: Callable[[float], None] = time.sleep) -> None:
    """Delete items without conditions, with one BatchWriteItem for each 25. Deleting an absent item succeeds.

    Raises:
        Throttled: DynamoDB left some unprocessed in every try.
    """
    keys = [item._get_keys() for item in items]  # type: ignore[no-untyped-call]
    _batch_write(items, keys, "delete_items", ("DeleteRequest", "Key"), pause)


def _batch_write(items: Sequence[Item], left: list[Any], operation: str, request: tuple[str, str], pause: Callable[[float], None]) -> None:
    """PynamoDB's own `batch_write` repeats unprocessed items without a pause."""
    table: Any = items[0]._get_connection() if items else None
    tries = 0
    while table is not None and left:
        response = table.batch_write_item(**{operation: left[:BATCH_WRITES]})
        skipped = (response or {}).get("UnprocessedItems", {}).get(table.table_name, [])
        left = [*(one[request[0]][request[1]] for one in skipped), *left[BATCH_WRITES:]]
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
    """Return the items that exist, in no order, with one BatchGetItem for each hundred keys.

    Raises:
        Throttled: DynamoDB left some keys unprocessed in every try.
    """
    table = model._get_connection()
    names: list[str] = table.get_meta_table().get_key_names()  # type: ignore[no-untyped-call]
    left: list[Any] = [dict(zip(names, key, strict=True)) for key in dict.fromkeys(keys)]
    found: list[I] = []
    tries = 0
    while left:
        response = table.batch_get_item(left[:BATCH_KEYS], consistent_read=consistent, attributes_to_get=attributes)
        found += [model.from_raw_data(raw) for raw in response["Responses"].get(table.table_name, [])]
        skipped = response.get("UnprocessedKeys", {}).get(table.table_name, {}).get("Keys", [])
        left = [*skipped, *left[BATCH_KEYS:]]
        tries = tries + 1 if skipped else 0
        if tries >= BATCH_TRIES:
            raise Throttled
        if skipped:
            pause(CONFLICT_BACKOFF * 2**tries)
    return found


@cache  # one class for each table: PynamoDB keeps its connection in the class
def _bound(model: Any, name: str) -> Any:
    return type(model.__name__, (model,), {"Meta": type("Meta", (), {"table_name": name}), "__module__": model.__module__})


def _call(item: Item, operation: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Make one write, with `repeat_on_conflict`."""
    from botocore.exceptions import ClientError

    connection = item._get_connection().connection
    try:
        response: dict[str, Any] = repeat_on_conflict(lambda: connection.dispatch(operation, kwargs))
    except ClientError as exc:
        if aws.error_code(exc) == CONDITION_FAILED:
            raise ConditionFailed(exc.response.get("Item")) from exc
        raise
    return response


def _refusals(exc: TransactWriteError) -> list[Raw | None]:
    reasons = getattr(exc.cause, "response", {}).get("CancellationReasons", [])
    refusals = [reason.get("Item", {}) if reason.get("Code") == "ConditionalCheckFailed" else None for reason in reasons]
    if all(refusal is None for refusal in refusals):
        raise exc
    return refusals
