"""Counters of the change stream, in the table `counters`.

Each job has a mark, `m#<job>` / `m`. Counters are at the keys that the domain gives; each is an
item with one number for each of its names. The names are not known beforehand, so there is no model
and these are plain requests. `v` of a counter grows by one with each transaction that adds to it.

DynamoDB cancels a transaction that meets another one on an item, and a busy counter is changed by a
writer for each shard of the change stream. So a counter may have parts, `<sort key>~<writer>`, and
its value is the sum of all. A part is made only when writers have met.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.aws.names import table_name
from chalicelib.adapters.decoding import decode, decode_readable
from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import BATCH_KEYS, Raw, repeat_on_conflict, whole_numbers
from chalicelib.domain.errors import StaleVersion, Throttled
from chalicelib.domain.metrics.counters import CounterIncrement, CountMark
from chalicelib.ports import MarkUpdate
from chalicelib.ports.counters import VERSION, WRITERS, CounterKey

KEYS = ("pk", "sk")
MARK = "m"
MARK_REFUSED = "ConditionalCheckFailed"  # a cancellation reason
PART = "~"  # between sort key and writer; sorts behind all that sort keys of counters contain


class DynamoCounters:
    """Units: 0.5 to read a mark, 1 to get one counter, 17 for each of several, since each possible part
    is asked for; 2 for each mark and each counter of a transaction.
    """

    def __init__(self, stage: str, pause: Callable[[float], None] = time.sleep) -> None:
        self._table, self._pause = table_name(stage, "counters"), pause

    def marks(self, job_ids: Sequence[str], *, consistent: bool = False) -> dict[str, CountMark]:
        keys = [(_mark_key(job_id), MARK) for job_id in dict.fromkeys(job_ids)]
        found = decode_readable(self._items(keys, consistent=consistent), _mark)
        return {mark.job_id: mark for mark in found}  # one that cannot be read counts as absent: then its condition fails

    def increment(self, marks: Sequence[MarkUpdate], increments: Sequence[CounterIncrement], writer: int = 0) -> None:
        puts = [{"Put": self._mark_put(one)} for one in marks]
        updates = [{"Update": self._counter_update(one, writer)} for one in increments]
        self._transact([*puts, *updates], lambda write: write())

    def get(self, keys: Sequence[CounterKey]) -> dict[CounterKey, dict[str, int]]:
        found: dict[CounterKey, dict[str, int]] = {}
        for pk, sk in dict.fromkeys(keys):  # one query each: reading every part by its key would cost a unit for each that is absent
            found |= _sums(self._query(pk, len(parts_of((pk, sk))), sk)["Items"])
        return found

    def query(self, pk: str, limit: int) -> dict[str, dict[str, int]]:
        response = self._query(pk, limit + 1)
        found = [(sk, numbers) for (_, sk), numbers in _sums(response["Items"]).items()]
        complete = found[:-1] if "LastEvaluatedKey" in response else found  # the last one may have further parts
        return dict(complete[:limit])

    def _query(self, pk: str, limit: int, sk: str | None = None) -> Raw:
        """Read a partition, or all parts of one of its counters."""
        condition, values = "#pk = :pk", {":pk": pk}
        if sk is not None:
            condition, values = f"{condition} AND #sk BETWEEN :first AND :last", {**values, ":first": sk, ":last": last_part(sk)}
        with aws.translate_errors():
            response: Raw = aws.client("dynamodb").query(
                TableName=self._table,
                KeyConditionExpression=condition,
                ExpressionAttributeNames={"#pk": "pk"} | ({"#sk": "sk"} if sk is not None else {}),
                ExpressionAttributeValues={name: {"S": value} for name, value in values.items()},
                ConsistentRead=True,
                Limit=limit,
            )
        return response

    def overwrite(self, key: CounterKey, version: int, numbers: Mapping[str, int], ttl: int) -> bool:
        """Put the first part, and delete the others, on the condition that none has changed.

        The sum of the versions grows with each change of any part, so an equal sum means that none
        has changed since the caller read them.
        """
        seen = {(item["pk"]["S"], item["sk"]["S"]): int(item["v"]["N"]) for item in self._items(parts_of(key), consistent=True)}
        if sum(seen.values()) != version:
            return False
        stored = {name: {"N": str(amount)} for name, amount in numbers.items()}
        item = {**_key(key), **stored, "v": {"N": str(version + 1)}, "ttl": {"N": str(ttl)}}
        first, *others = parts_of(key)
        writes = [{"Put": {"TableName": self._table, "Item": item, **_unchanged(seen.get(first, 0))}}]
        for part in others:
            action = "Delete" if part in seen else "ConditionCheck"
            writes.append({action: {"TableName": self._table, "Key": _key(part), **_unchanged(seen.get(part, 0))}})
        try:
            self._transact(writes, lambda write: repeat_on_conflict(write, self._pause))
        except StaleVersion:
            return False
        return True

    def _transact(self, writes: Sequence[Raw], make: Callable[[Callable[[], None]], None]) -> None:
        """Write all or nothing. `make` calls the function that it is given, once or again.

        Raises:
            StaleVersion: a condition did not hold, or another transaction was under way.
        """
        from botocore.exceptions import ClientError

        def write() -> None:
            with aws.translate_errors():
                aws.client("dynamodb").transact_write_items(TransactItems=list(writes))

        try:
            make(write)
        except ClientError as exc:
            if MARK_REFUSED not in aws.cancellation_codes(exc):
                raise  # an invalid request: no try would succeed
            raise StaleVersion(None) from exc
        except Throttled as exc:
            if not aws.is_conflict(exc.__cause__):
                raise
            raise StaleVersion(None) from exc

    def _mark_put(self, update: MarkUpdate) -> Raw:
        """Return the put of a mark on the condition that the stored one is still what was read."""
        new, seen = update.new, update.seen.version
        item = {
            **_key((_mark_key(new.job_id), MARK)),
            "v": {"N": str(new.version)},
            "data": {"S": json.dumps(dict(new.counted), separators=(",", ":"))},
            "ttl": {"N": str(update.ttl)},
        }
        return {"TableName": self._table, "Item": item, **_unchanged(seen)}

    def _counter_update(self, increment: CounterIncrement, writer: int) -> Raw:
        names = {f"#{at}": name for at, name in enumerate(increment.amounts)}
        values: Raw = {f":{at}": {"N": str(amount)} for at, amount in enumerate(increment.amounts.values())}
        added = ", ".join([*(f"#{at} :{at}" for at in range(len(names))), "#v :one"])
        set_ttl = " SET #ttl = :ttl" if increment.ttl is not None else ""
        return {
            "TableName": self._table,
            "Key": _key(parts_of(increment.key)[writer]),
            "UpdateExpression": f"ADD {added}{set_ttl}",
            "ExpressionAttributeNames": {**names, "#v": "v"} | ({"#ttl": "ttl"} if set_ttl else {}),
            "ExpressionAttributeValues": {**values, ":one": {"N": "1"}} | ({":ttl": {"N": str(increment.ttl)}} if set_ttl else {}),
        }

    def _items(self, keys: Sequence[CounterKey], *, consistent: bool) -> Iterator[Raw]:
        left: list[Raw] = [_key(key) for key in keys]
        tries = 0
        while left:
            request = {self._table: {"Keys": left[:BATCH_KEYS], "ConsistentRead": consistent}}
            with aws.translate_errors():
                response = aws.client("dynamodb").batch_get_item(RequestItems=request)
            yield from response["Responses"].get(self._table, [])
            skipped = response.get("UnprocessedKeys", {}).get(self._table, {}).get("Keys", [])
            left = [*skipped, *left[BATCH_KEYS:]]
            tries = tries + 1 if skipped else 0
            if tries >= dynamodb.BATCH_TRIES:
                raise Throttled
            if skipped:
                self._pause(dynamodb.CONFLICT_BACKOFF * 2**tries)


def parts_of(key: CounterKey) -> list[CounterKey]:
    """Return the keys of all parts that a counter may have, in the order of their writers."""
    pk, sk = key
    return [key, *((pk, f"{sk}{PART}{writer:02}") for writer in range(1, WRITERS + 1))]


def last_part(sk: str) -> str:
    """Return the greatest sort key that a part of a counter may have."""
    return f"{sk}{PART}{WRITERS:02}"


def _sums(items: Iterable[Raw]) -> dict[CounterKey, dict[str, int]]:
    """Add up the parts of each counter."""
    sums: dict[CounterKey, dict[str, int]] = {}
    for item in items:
        counter = sums.setdefault((item["pk"]["S"], item["sk"]["S"].partition(PART)[0]), {})
        for name, amount in _numbers(item).items():
            counter[name] = counter.get(name, 0) + amount
    return sums


def _unchanged(version: int) -> Raw:
    """Return the condition that an item still has this version; 0: that it does not exist."""
    values = {"ExpressionAttributeValues": {":seen": {"N": str(version)}}} if version else {}
    condition = "#v = :seen" if version else "attribute_not_exists(#v)"
    return {"ConditionExpression": condition, "ExpressionAttributeNames": {"#v": "v"}, **values}


def _mark_key(job_id: str) -> str:
    return f"m#{job_id}"


def _key(key: CounterKey) -> Raw:
    return {name: {"S": part} for name, part in zip(KEYS, key, strict=True)}


def _mark(item: Raw) -> CountMark:
    """Decode a mark.

    Raises:
        UnreadableRecord: it cannot be decoded.
    """
    pk: str = item["pk"]["S"]

    def build() -> CountMark:
        return CountMark(job_id=pk.removeprefix("m#"), version=int(item["v"]["N"]), counted=dict(json.loads(item["data"]["S"])))

    return decode(pk, build)


def _numbers(item: Raw) -> dict[str, int]:
    """Return all whole numbers of a counter, with its version under the name `VERSION`."""
    numbers = whole_numbers(item, ("ttl",))
    version = numbers.pop("v", 0)
    return {**numbers, VERSION: version}
