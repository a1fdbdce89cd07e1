"""What is counted from the change stream, in `ledger`: a mark for each job, `m#<job>` / `m`, and counters wherever their keys say.

A counter is an item with a number for each of its names, so they are not known beforehand, and no model declares them: these are plain
requests. Each counter also has `v`, one more for each transaction that added to it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import BATCH_KEYS, CONDITION_FAILED, Raw, table_name
from chalicelib.domain.errors import StaleVersion, Throttled
from chalicelib.domain.metrics.counters import CounterIncrement, CountMark
from chalicelib.ports import MarkUpdate
from chalicelib.ports.counters import VERSION, CounterKey

KEYS = ("pk", "sk")
MARK = "m"
CANCELLED = "TransactionCanceledException"


class DynamoCounters:
    """Units: 0.5 to read a mark; 2 for each mark and each counter of a transaction."""

    def __init__(self, stage: str) -> None:
        self._table = table_name(stage, "counters")

    def marks(self, job_ids: Sequence[str], *, consistent: bool = False) -> dict[str, CountMark]:
        keys = [(_mark_key(job_id), MARK) for job_id in dict.fromkeys(job_ids)]
        found = [_mark(item) for item in self._items(keys, consistent=consistent)]
        return {mark.job_id: mark for mark in found}

    def increment(self, marked: Sequence[MarkUpdate], adds: Sequence[CounterIncrement]) -> None:
        writes = [{"Put": self._put_of(one)} for one in marked] + [{"Update": self._add_of(add)} for add in adds]
        from botocore.exceptions import ClientError

        try:
            with aws.translate_errors():
                aws.client("dynamodb").transact_write_items(TransactItems=writes)
        except ClientError as exc:
            if aws.error_code(exc) != CANCELLED:
                raise
            raise StaleVersion(None) from exc

    def get(self, places: Sequence[CounterKey]) -> dict[CounterKey, dict[str, int]]:
        items = self._items(list(dict.fromkeys(places)), consistent=True)
        return {(item["pk"]["S"], item["sk"]["S"]): _numbers(item) for item in items}

    def query(self, pk: str, limit: int) -> dict[str, dict[str, int]]:
        with aws.translate_errors():
            answer = aws.client("dynamodb").query(
                TableName=self._table,
                KeyConditionExpression="#pk = :pk",
                ExpressionAttributeNames={"#pk": "pk"},
                ExpressionAttributeValues={":pk": {"S": pk}},
                ConsistentRead=True,
                Limit=limit,
            )
        return {item["sk"]["S"]: _numbers(item) for item in answer["Items"]}

    def overwrite(self, place: CounterKey, version: int, numbers: Mapping[str, int], ttl: int) -> bool:
        from botocore.exceptions import ClientError

        said = {name: {"N": str(amount)} for name, amount in numbers.items()}
        item = {**_key(place), **said, "v": {"N": str(version + 1)}, "ttl": {"N": str(ttl)}}
        condition = "#v = :seen" if version else "attribute_not_exists(#v)"
        seen = {"ExpressionAttributeValues": {":seen": {"N": str(version)}}} if version else {}
        try:
            with aws.translate_errors():
                aws.client("dynamodb").put_item(
                    TableName=self._table, Item=item, ConditionExpression=condition, ExpressionAttributeNames={"#v": "v"}, **seen
                )
        except ClientError as exc:
            if aws.error_code(exc) == CONDITION_FAILED:
                return False
            raise
        return True

    def _put_of(self, marked: MarkUpdate) -> Raw:
        """A mark that was not there is to be not there still."""
        new, seen = marked.new, marked.seen.version
        item = {
            **_key((_mark_key(new.job_id), MARK)),
            "v": {"N": str(new.version)},
            "data": {"S": json.dumps(dict(new.counted), separators=(",", ":"))},
            "ttl": {"N": str(marked.ttl)},
        }
        condition = "#v = :seen" if seen else "attribute_not_exists(#v)"
        values = {"ExpressionAttributeValues": {":seen": {"N": str(seen)}}} if seen else {}
        return {
            "TableName": self._table,
            "Item": item,
            "ConditionExpression": condition,
            "ExpressionAttributeNames": {"#v": "v"},
            **values,
        }

    def _add_of(self, add: CounterIncrement) -> Raw:
        names = {f"#{at}": name for at, name in enumerate(add.amounts)}
        values: Raw = {f":{at}": {"N": str(amount)} for at, amount in enumerate(add.amounts.values())}
        added = ", ".join([*(f"#{at} :{at}" for at in range(len(names))), "#v :one"])
        keeps = " SET #ttl = :ttl" if add.ttl is not None else ""
        return {
            "TableName": self._table,
            "Key": _key(add.key),
            "UpdateExpression": f"ADD {added}{keeps}",
            "ExpressionAttributeNames": {**names, "#v": "v"} | ({"#ttl": "ttl"} if keeps else {}),
            "ExpressionAttributeValues": {**values, ":one": {"N": "1"}} | ({":ttl": {"N": str(add.ttl)}} if keeps else {}),
        }

    def _items(self, keys: Sequence[CounterKey], *, consistent: bool) -> Iterator[Raw]:
        left: list[Raw] = [_key(key) for key in keys]
        tries = 0
        while left:
            request = {self._table: {"Keys": left[:BATCH_KEYS], "ConsistentRead": consistent}}
            with aws.translate_errors():
                answer = aws.client("dynamodb").batch_get_item(RequestItems=request)
            yield from answer["Responses"].get(self._table, [])
            skipped = answer.get("UnprocessedKeys", {}).get(self._table, {}).get("Keys", [])
            left = [*skipped, *left[BATCH_KEYS:]]
            tries = tries + 1 if skipped else 0
            if tries >= dynamodb.BATCH_TRIES:
                raise Throttled
            if skipped:
                time.sleep(dynamodb.CONFLICT_BACKOFF * 2**tries)


def _mark_key(job_id: str) -> str:
    return f"m#{job_id}"


def _key(place: CounterKey) -> Raw:
    return {name: {"S": part} for name, part in zip(KEYS, place, strict=True)}


def _mark(item: Raw) -> CountMark:
    counted: dict[str, Any] = json.loads(item["data"]["S"])
    return CountMark(job_id=item["pk"]["S"].removeprefix("m#"), version=int(item["v"]["N"]), counted=counted)


def _numbers(item: Raw) -> dict[str, int]:
    """All numbers of a counter, its version by the name that the port has for it."""
    plain = {name: int(value["N"]) for name, value in item.items() if "N" in value and name not in ("v", "ttl")}
    return {**plain, VERSION: int(item.get("v", {"N": "0"})["N"])}
