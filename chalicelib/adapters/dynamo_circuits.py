"""The circuits of all models: one partition of the table `live`, so that one Query reads them all."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from pynamodb.attributes import UnicodeAttribute

from chalicelib.adapters import dynamo
from chalicelib.adapters.dynamo import ConditionFailed, IntAttribute, Item, bound
from chalicelib.domain.circuit import Circuit, State
from chalicelib.domain.errors import StaleVersion

BOARD, PREFIX = "board", "circuit#"
KEPT_FOR = 2 * 86_400  # seconds after the last change: what was not heard of for so long says nothing any more


class CircuitItem(Item):
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
    ttl = IntAttribute(null=True)


class DynamoCircuits:
    """Units: half a read for all of them (up to 4 KB, some thirty circuits), 1 to write."""

    def __init__(self, stage: str) -> None:
        self._items = bound(CircuitItem, stage, "live")

    def all(self) -> list[Circuit]:
        return [_circuit_of(item) for item in self._items.query(BOARD, self._items.sk.startswith(PREFIX))]

    def get(self, model: str) -> Circuit | None:
        item = dynamo.find(self._items, BOARD, PREFIX + model)
        return _circuit_of(item) if item else None

    def replace(self, seen: Circuit, new: Circuit) -> None:
        """A whole put: nobody else writes here, and no index is there to be changed."""
        unchanged = self._items.version == seen.version if seen.version else self._items.pk.does_not_exist()
        try:
            dynamo.put(self._item_of(new), unchanged)
        except ConditionFailed as failed:
            current = _circuit_of(self._items.from_raw_data(failed.item)) if failed.item else None
            if current != new:
                raise StaleVersion(current) from failed

    def _item_of(self, circuit: Circuit) -> CircuitItem:
        """Without what goes without saying. One that a person keeps open stays."""
        kept: dict[str, Any] = {field.name: getattr(circuit, field.name) or None for field in fields(circuit) if field.name != "model"}
        times = [moment for moment in (circuit.last_failure_at, circuit.opened_at, circuit.closed_at, circuit.until) if moment]
        ttl = None if circuit.is_forced or not times else max(times) // 1000 + KEPT_FOR
        return self._items(BOARD, PREFIX + circuit.model, **{**kept, "state": circuit.state.value, "ttl": ttl})


def _circuit_of(item: CircuitItem) -> Circuit:
    stored = {field.name: getattr(item, field.name) for field in fields(Circuit) if field.name not in ("model", "state")}
    given = {name: value for name, value in stored.items() if value is not None}
    return Circuit(model=item.sk.removeprefix(PREFIX), state=State(item.state), **given)
