"""Count the requests that the adapters make to AWS, and compute their capacity units.

moto answers the requests and checks their conditions. Its consumed capacity is not used, because it
is a constant.
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

Change = tuple[Raw | None, Raw | None]  # the item before and after
RowName = Callable[[str, str, Raw], str]  # (phase, table, item or key) to the name of the row that a request counts for


@dataclass
class Row:
    """The sums for one kind of request."""

    requests: int = 0
    sent: int = 0  # bytes of the items written
    read: int = 0  # bytes of the items read
    write_units: float = 0.0
    read_units: float = 0.0


@dataclass
class Meter:
    """Counts the requests of this process to DynamoDB, SQS and S3."""

    row_name: RowName
    rows: defaultdict[str, Row] = field(default_factory=lambda: defaultdict(Row))  # by name
    job_changes: list[Change] = field(default_factory=list)  # of the table `jobs`, for its change stream
    items: dict[tuple[str, ...], tuple[Table, Raw]] = field(default_factory=dict)  # as they are now, by table and key
    sqs: Counter[str] = field(default_factory=Counter)  # requests by operation
    s3_puts: int = 0
    transacted_index_units: int = 0  # write units of index entries that transactions wrote
    phase: str = ""

    def __post_init__(self) -> None:
        self._paused = False

    def attach(self, stage: str) -> None:
        """Register with the clients of DynamoDB, SQS and S3."""
        self._tables = {f"headrace-{stage}-{table.name}": table for table in TABLES}
        events = aws.client("dynamodb").meta.events
        events.register("before-parameter-build.dynamodb", self._before_request)
        events.register("after-call.dynamodb", self._after_response)
        aws.client("sqs").meta.events.register("after-call.sqs", self._count_sqs)
        aws.client("s3").meta.events.register("after-call.s3.PutObject", self._count_s3_put)

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Set the phase while the block runs; some reads can be told apart only by it."""
        previous, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = previous

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count requests while the block runs, because the measurement itself makes them."""
        previous, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = previous

    def _before_request(self, params: dict[str, Any], model: Any, context: dict[str, Any], **_: Any) -> None:
        if self._paused:
            return
        context["request"] = params
        if model.name in ("PutItem", "UpdateItem", "DeleteItem"):
            context["before"] = [self._target(params["TableName"], params.get("Key") or params["Item"])]
        elif model.name == "TransactWriteItems":
            writes = [write for entry in params["TransactItems"] for write in entry.values()]
            context["before"] = [self._target(write["TableName"], write.get("Key") or write["Item"]) for write in writes]

    def _target(self, name: str, item: Raw) -> tuple[Table, Raw, Raw | None]:
        """Return the table, the key and the current item that a write is about to change."""
        table = self._tables[name]
        key = {part: item[part] for part in (table.hash_key, table.range_key) if part}
        return table, key, self._get(name, key)

    def _get(self, name: str, key: Raw) -> Raw | None:
        with self.paused():
            found: Raw | None = aws.client("dynamodb").get_item(TableName=name, Key=key, ConsistentRead=True).get("Item")
        return found

    def _after_response(self, parsed: dict[str, Any], model: Any, context: dict[str, Any], **_: Any) -> None:
        if self._paused or "request" not in context:
            return
        request = context["request"]
        if "before" in context:
            for table, key, old in context["before"]:
                self._count_write(table, key, old, in_transaction=model.name == "TransactWriteItems")
        elif model.name == "GetItem":
            found = [parsed["Item"]] if "Item" in parsed else []
            self._count_read(request["TableName"], request["Key"], found, consistent=request.get("ConsistentRead", False))
        elif model.name == "Query":
            key = {"id": next(iter(request["ExpressionAttributeValues"].values()))}
            self._count_read(request["TableName"], key, parsed.get("Items", []), consistent=request.get("ConsistentRead", False))
        elif model.name == "BatchGetItem":
            self._count_batch_read(request, parsed)
        else:
            raise NotImplementedError(f"{model.name} is not metered; add it to bench/metering.py.")

    def _count_write(self, table: Table, key: Raw, old: Raw | None, *, in_transaction: bool) -> None:
        """Count a write; one whose condition failed is charged too."""
        new = self._get(next(name for name, candidate in self._tables.items() if candidate is table), key)
        row = self.rows[self.row_name(self.phase, table.name, new or old or key)]
        row.requests += 1
        row.sent += units.item_bytes(new or {})
        row.write_units += units.write_units(table, old, new, in_transaction=in_transaction)
        self.transacted_index_units += units.index_units(table, old, new) if in_transaction else 0
        address = (table.name, *(str(value) for value in key.values()))
        if new is not None:
            self.items[address] = table, new
        else:
            self.items.pop(address, None)
        if table.stream and old != new:
            self.job_changes.append((old, new))

    def _count_read(self, name: str, key: Raw, found: list[Raw], *, consistent: bool) -> None:
        size = sum(map(units.item_bytes, found))
        row = self.rows[self.row_name(self.phase, self._tables[name].name, found[0] if found else key)]
        row.requests += 1
        row.read += size
        row.read_units += units.read_units(size, consistent=consistent)

    def _count_batch_read(self, request: dict[str, Any], parsed: dict[str, Any]) -> None:
        """Count a batch read, in which the size of each item is rounded up separately."""
        for name, keys in request["RequestItems"].items():
            found, consistent = parsed["Responses"].get(name, []), keys.get("ConsistentRead", False)
            row = self.rows[self.row_name(self.phase, self._tables[name].name, keys["Keys"][0])]
            row.requests += 1
            row.read += sum(map(units.item_bytes, found))
            missing = len(keys["Keys"]) - len(found)
            row.read_units += sum(units.read_units(units.item_bytes(item), consistent=consistent) for item in found)
            row.read_units += missing * (1.0 if consistent else 0.5)

    def _count_sqs(self, model: Any, **_: Any) -> None:
        if not self._paused:
            self.sqs[model.name] += 1

    def _count_s3_put(self, **_: Any) -> None:
        if not self._paused:
            self.s3_puts += 1
