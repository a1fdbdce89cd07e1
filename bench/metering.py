"""Counting what the adapters ask of AWS, on the wire: every request of botocore's clients, sized and priced by the documented rules.

moto answers the requests, so conditions hold and fail as they do; its consumed capacity is a constant and not looked at.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bench import units
from bench.units import Raw
from chalicelib.adapters.aws import client as aws
from infra.tables import TABLES, Table

Change = tuple[Raw | None, Raw | None]
Kind = Callable[[str, str, Raw], str]  # (phase, table, key) to the name of the row that a request counts for


@dataclass
class Row:
    """What one kind of request came to."""

    requests: int = 0
    sent: int = 0  # bytes of the items written
    read: int = 0
    write_units: float = 0.0
    read_units: float = 0.0


@dataclass
class Meter:
    """`rows` by kind; `heads` are the changes of the jobs table, for its stream; `items` is what there is now."""

    kind: Kind
    rows: defaultdict[str, Row] = field(default_factory=lambda: defaultdict(Row))
    heads: list[Change] = field(default_factory=list)
    items: dict[tuple[str, ...], tuple[Table, Raw]] = field(default_factory=dict)
    sqs: Counter[str] = field(default_factory=Counter)
    s3_puts: int = 0
    entries_together: int = 0  # units of index entries that were written by transactions
    phase: str = ""

    def __post_init__(self) -> None:
        self._looking = False

    def attach(self, stage: str) -> None:
        """Listen to this process's clients of DynamoDB, SQS and S3."""
        self._tables = {f"headrace-{stage}-{table.name}": table for table in TABLES}
        events = aws.client("dynamodb").meta.events
        events.register("before-parameter-build.dynamodb", self._asked)
        events.register("after-call.dynamodb", self._answered)
        aws.client("sqs").meta.events.register("after-call.sqs", self._queue_answered)
        aws.client("s3").meta.events.register("after-call.s3.PutObject", self._object_put)

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Name what is going on, for the reads that do not tell by themselves."""
        before, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = before

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """Requests of the measurement itself."""
        before, self._looking = self._looking, True
        try:
            yield
        finally:
            self._looking = before

    def _asked(self, params: dict[str, Any], model: Any, context: dict[str, Any], **_: Any) -> None:
        if self._looking:
            return
        context["asked"] = params
        if model.name in ("PutItem", "UpdateItem", "DeleteItem"):
            context["before"] = [self._target(params["TableName"], params.get("Key") or params["Item"])]
        elif model.name == "TransactWriteItems":
            inner = [write for one in params["TransactItems"] for write in one.values()]
            context["before"] = [self._target(one["TableName"], one.get("Key") or one["Item"]) for one in inner]

    def _target(self, name: str, item: Raw) -> tuple[Table, Raw, Raw | None]:
        table = self._tables[name]
        key = {part: item[part] for part in (table.hash_key, table.range_key) if part}
        return table, key, self._look(name, key)

    def _look(self, name: str, key: Raw) -> Raw | None:
        with self.unseen():
            found: Raw | None = aws.client("dynamodb").get_item(TableName=name, Key=key, ConsistentRead=True).get("Item")
        return found

    def _answered(self, parsed: dict[str, Any], model: Any, context: dict[str, Any], **_: Any) -> None:
        if self._looking or "asked" not in context:
            return
        asked = context["asked"]
        if "before" in context:
            for table, key, old in context["before"]:
                self._wrote(table, key, old, together=model.name == "TransactWriteItems")
        elif model.name == "GetItem":
            found = [parsed["Item"]] if "Item" in parsed else []
            self._read(asked["TableName"], asked["Key"], found, consistent=asked.get("ConsistentRead", False))
        elif model.name == "Query":
            key = {"id": next(iter(asked["ExpressionAttributeValues"].values()))}
            self._read(asked["TableName"], key, parsed["Items"], consistent=asked.get("ConsistentRead", False))
        elif model.name == "BatchGetItem":
            self._read_many(asked, parsed)
        else:
            raise NotImplementedError(f"{model.name} is not counted yet")

    def _wrote(self, table: Table, key: Raw, old: Raw | None, *, together: bool) -> None:
        """Also where the condition failed: that is charged as well."""
        new = self._look(next(name for name, one in self._tables.items() if one is table), key)
        row = self.rows[self.kind(self.phase, table.name, new or old or key)]
        row.requests += 1
        row.sent += units.item_bytes(new or {})
        row.write_units += units.write_units(table, old, new, together=together)
        self.entries_together += units.index_units(table, old, new) if together else 0
        place = (table.name, *(str(value) for value in key.values()))
        if new is not None:
            self.items[place] = table, new
        else:
            self.items.pop(place, None)
        if table.stream and old != new:
            self.heads.append((old, new))

    def _read(self, name: str, key: Raw, found: list[Raw], *, consistent: bool) -> None:
        size = sum(map(units.item_bytes, found))
        row = self.rows[self.kind(self.phase, self._tables[name].name, found[0] if found else key)]
        row.requests += 1
        row.read += size
        row.read_units += units.read_units(size, consistent=consistent)

    def _read_many(self, asked: dict[str, Any], parsed: dict[str, Any]) -> None:
        """Each item of a batch is rounded up by itself."""
        for name, wanted in asked["RequestItems"].items():
            found = parsed["Responses"].get(name, [])
            row = self.rows[self.kind(self.phase, self._tables[name].name, wanted["Keys"][0])]
            row.requests += 1
            row.read += sum(map(units.item_bytes, found))
            absent = len(wanted["Keys"]) - len(found)
            row.read_units += sum(units.read_units(units.item_bytes(item), consistent=False) for item in found) + absent * 0.5

    def _queue_answered(self, model: Any, **_: Any) -> None:
        if not self._looking:
            self.sqs[model.name] += 1

    def _object_put(self, **_: Any) -> None:
        if not self._looking:
            self.s3_puts += 1
