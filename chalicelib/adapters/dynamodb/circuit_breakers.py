"""Circuit breakers, in the table `coordination`: `circuits` / `circuit#<model>`.

They share one partition, so that one query reads them all. The board of the pauses is in it too, so
that the same query reads it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from pynamodb.attributes import UnicodeAttribute

from chalicelib.adapters.decoding import decode_readable
from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import ConditionFailed, IntAttribute, Item, bound, decoded
from chalicelib.adapters.dynamodb.json_record import known_fields
from chalicelib.adapters.dynamodb.limits.pauses import BOARD, decode_board
from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker, CircuitState, TenantCircuit
from chalicelib.domain.limits.pauses import PauseBoard

PARTITION, PREFIX = "circuits", "circuit#"
RETENTION_SECONDS = 2 * 86_400  # after the last change: older failures say nothing about the provider now


class CircuitBreakerItem(Item):
    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    state = UnicodeAttribute(attr_name="st")
    failures = IntAttribute(null=True, attr_name="n")
    last_failure_at = IntAttribute(null=True, attr_name="failed")
    opened_at = IntAttribute(null=True, attr_name="opened")
    closed_at = IntAttribute(null=True, attr_name="closed")
    until = IntAttribute(null=True)
    reason = UnicodeAttribute(null=True)
    trips = IntAttribute(null=True)
    version = IntAttribute(attr_name="v")
    mark = UnicodeAttribute(null=True)
    by = UnicodeAttribute(null=True)
    prober = UnicodeAttribute(null=True)
    failed = UnicodeAttribute(null=True, attr_name="jobs")  # JSON
    own = UnicodeAttribute(null=True)  # JSON
    ttl = IntAttribute(null=True)


class PartitionItem(CircuitBreakerItem):
    """A circuit breaker, or the board of the pauses, which has only keys, version and `data`."""

    state = UnicodeAttribute(null=True, attr_name="st")
    data = UnicodeAttribute(null=True)


class DynamoCircuitBreakers:
    """Units: 0.5 to read all of them (up to 4 KB, some thirty models), 1 to read one, 1 to write."""

    def __init__(self, stage: str) -> None:
        self._items = bound(CircuitBreakerItem, stage, "coordination")
        self._partition = bound(PartitionItem, stage, "coordination")

    def all(self) -> list[CircuitBreaker]:
        return list(decode_readable(self._items.query(PARTITION, self._items.sk.startswith(PREFIX)), _circuit_of))

    def all_with_board(self) -> tuple[list[CircuitBreaker], PauseBoard | None]:
        items = list(self._partition.query(PARTITION))
        stored = [item for item in items if item.sk == BOARD]
        boards = list(decode_readable(stored, _board_of)) if stored else [PauseBoard()]
        return list(decode_readable([item for item in items if item.sk.startswith(PREFIX)], _circuit_of)), boards[0] if boards else None

    def get(self, model: str) -> CircuitBreaker | None:
        item = dynamodb.get(self._items, PARTITION, PREFIX + model)
        return _circuit_of(item) if item else None

    def replace(self, seen: CircuitBreaker, new: CircuitBreaker) -> None:
        unchanged = self._items.version == seen.version if seen.version else self._items.pk.does_not_exist()
        try:
            dynamodb.put_known(self._item_of(new), unchanged)
        except ConditionFailed as failed:
            current = _circuit_of(self._items.from_raw_data(failed.item)) if failed.item else None
            if current != new:
                raise StaleVersion(current) from failed

    def _item_of(self, circuit: CircuitBreaker) -> CircuitBreakerItem:
        """Default values are not stored. A circuit that an operator forces open has no TTL."""
        stored: dict[str, Any] = {field.name: getattr(circuit, field.name) or None for field in fields(circuit) if field.name != "model"}
        stored |= {"failed": _json(circuit.failed), "own": _json([asdict(own) for own in circuit.own])}
        moments = (circuit.last_failure_at, circuit.opened_at, circuit.closed_at, circuit.until)
        times = [moment for moment in moments if moment]
        ttl = None if circuit.is_forced or not times else max(times) // 1000 + RETENTION_SECONDS
        return self._items(PARTITION, PREFIX + circuit.model, **{**stored, "state": circuit.state.value, "ttl": ttl})


@decoded
def _board_of(item: PartitionItem) -> PauseBoard:
    return decode_board(json.loads(item.data))


@decoded
def _circuit_of(item: CircuitBreakerItem) -> CircuitBreaker:
    stored = {field.name: getattr(item, field.name) for field in fields(CircuitBreaker) if field.name not in ("model", "state")}
    present = {name: value for name, value in stored.items() if value is not None}
    if "failed" in present:
        present["failed"] = tuple(json.loads(present["failed"]))
    if "own" in present:
        present["own"] = tuple(TenantCircuit(**known_fields(TenantCircuit, own)) for own in json.loads(present["own"]))
    return CircuitBreaker(model=item.sk.removeprefix(PREFIX), state=CircuitState(item.state), **present)


def _json(values: Sequence[Any]) -> str | None:
    return json.dumps(values, separators=(",", ":")) if values else None
