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
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache, wraps
from random import uniform
from typing import Any, Self, TypeVar

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
from chalicelib.adapters.decoding import PROBLEMS, decode
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

    damage: Exception | None = None  # why the stored attributes could not be read; then only the keys are set

    @classmethod
    def from_raw_data(cls, data: Raw) -> Self:
        """Return the item. A damaged one does not raise here, because it must not end a query of many."""
        try:
            return super().from_raw_data(data)
        except PROBLEMS as exc:
            keys = {attribute.attr_name for attribute in cls._key_attributes().values()}
            item = super().from_raw_data({name: value for name, value in data.items() if name in keys})
            item.damage = exc
            return item

    @property
    def key_text(self) -> str:
        """The key as text: `<partition key>`, or `<partition key>/<sort key>`."""
        return "/".join(str(self.attribute_values.get(name, "?")) for name in self._key_attributes())

    def check(self) -> None:
        """Raise what was wrong with the stored item, also if a required attribute is missing."""
        if self.damage is not None:
            raise self.damage
        values = self.attribute_values
        missing = [name for name, one in self.get_attributes().items() if not one.null and values.get(name) is None and one.default is None]
        if missing:
            raise KeyError(", ".join(missing))

    @classmethod
    def _key_attributes(cls) -> dict[str, Attribute[Any]]:
        keys = {name: one for name, one in cls.get_attributes().items() if one.is_hash_key or one.is_range_key}
        return dict(sorted(keys.items(), key=lambda item: item[1].is_range_key))

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


def decoded(build: Callable[[I], T]) -> Callable[[I], T]:
    """Make a decoder of items raise `UnreadableRecord` for every item that it cannot decode."""

    @wraps(build)
    def decode_item(item: I) -> T:
        def checked() -> T:
            item.check()
            return build(item)

        return decode(item.key_text, checked)

    return decode_item


def whole_numbers(item: Raw, without: Collection[str]) -> dict[str, int]:
    """Return the whole numbers of an item whose names are not known beforehand.

    Other attributes, which another version of the code may have added, are left out.
    """
    return {name: int(value["N"]) for name, value in item.items() if name not in without and value.get("N", ".").lstrip("-").isdecimal()}


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


def update_changed(seen: Item, new: Item, condition: Condition, always: Collection[str] = ()) -> None:
    """Update the attributes in which `new` differs from `seen`, with one UpdateItem.

    Attributes that this version of the code does not know stay as they are.

    Args:
        always: names of attributes that are written even if they do not differ.

    Raises:
        ConditionFailed: with the stored item.
    """
    update(seen, changes(seen, new, always), condition)


def changes(seen: Item, new: Item, always: Collection[str] = ()) -> list[Action]:
    """Return the actions of an update that writes the attributes in which `new` differs from `seen`.

    Args:
        always: names of attributes that are written even if they do not differ.
    """
    before, after = _present(seen), _present(new)
    changed = [getattr(type(new), name).set(value) for name, value in after.items() if before.get(name) != value or name in always]
    return changed + [getattr(type(new), name).remove() for name in before if name not in after]


def put_known(item: Item, condition: Condition) -> None:
    """Write every attribute that this version of the code knows, with one UpdateItem.

    Attributes that it does not know stay as they are, unlike with `put`.

    Raises:
        ConditionFailed: with the stored item.
    """
    update(item, known_actions(item), condition)


def known_actions(item: Item) -> list[Action]:
    """Return the actions of an update that writes every attribute that this version of the code knows."""
    values = item.attribute_values
    known = {name: getattr(type(item), name) for name in item.get_attributes() if name not in item._key_attributes()}
    return [attribute.remove() if values.get(name) is None else attribute.set(values[name]) for name, attribute in known.items()]


def _present(item: Item) -> dict[str, Any]:
    return {name: value for name, value in item.attribute_values.items() if value is not None}


def get(model: type[I], *key: str, consistent: bool = True) -> I | None:
    """Return the item with this key."""
    try:
        return model.get(key[0], key[1] if key[1:] else None, consistent_read=consistent)
    except model.DoesNotExist:
        return None


def count(model: type[I], partition: str, condition: Condition | None, limit: int, index: str | None = None) -> int:
    """Count the items of a partition of a table, or of an index, up to `limit`, with one Query.

    PynamoDB's own reads on to the end.
    """
    connection = model._get_connection()
    found = connection.query(partition, range_key_condition=condition, index_name=index, limit=limit, select="COUNT")
    return int(found["Count"])


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


def transact(
    puts: Sequence[tuple[Item, Condition | None]],
    updates: Sequence[tuple[Item, Sequence[Action], Condition | None]] = (),
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Put and update several items in one TransactWriteItems, which costs double.

    It is repeated if it meets another write.

    Raises:
        TransactionConditionFailed: with the stored items whose conditions did not hold, those of `puts` first.
        Throttled: as `repeat_on_conflict`.
    """
    items = [write[0] for write in puts] + [write[0] for write in updates]
    connection = items[0]._get_connection().connection

    def write_all() -> None:
        put = [item.get_save_kwargs_from_instance(condition, "ALL_OLD") for item, condition in puts]
        update = [item.get_update_kwargs_from_instance(list(actions), condition, "ALL_OLD") for item, actions, condition in updates]
        connection.transact_write_items([], [], put, update)

    try:
        repeat_on_conflict(write_all, pause)
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
