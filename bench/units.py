"""Compute the capacity units that DynamoDB charges, from the items and the documented rules.

Emulators cannot be used for this, because they report constants. The sources are sections of the
DynamoDB developer guide:

* Sizes and units: "DynamoDB item sizes and formats" and "DynamoDB read and write operations".
* Indexes: "Using Global Secondary Indexes". Adding, removing or rewriting an entry is a write of
  its size; changing its key is two writes; changing an attribute that the entry does not contain is
  none.
* Transactions: "How it works". Each item is written twice; its changes are propagated to indexes
  afterwards, so an index entry is written once. The emulator's authors measured the same on
  DynamoDB (ministack 1.5.33, `services/dynamodb.py`).
"""

from __future__ import annotations

from math import ceil
from typing import Any

from infra.tables import Index, Table

Raw = dict[str, Any]  # an item as DynamoDB's API writes it: {"id": {"S": "job_1"}}

WRITE_BYTES, READ_BYTES = 1024, 4096
STORAGE_OVERHEAD = 100  # bytes per item; charged for storage only


def item_bytes(item: Raw) -> int:
    """Return the size of an item: its attribute names, in UTF-8, and its values."""
    return sum(len(name.encode()) + _value_bytes(value) for name, value in item.items())


def write_units(table: Table, old: Raw | None, new: Raw | None, *, in_transaction: bool = False) -> int:
    """Return the write units of a put, update or delete that replaced `old` by `new`.

    In a transaction the item counts twice.
    """
    base = _units_of_write(max(item_bytes(old or {}), item_bytes(new or {})))
    return base * (2 if in_transaction else 1) + index_units(table, old, new)


def index_units(table: Table, old: Raw | None, new: Raw | None) -> int:
    """Return the write units of the index entries alone."""
    return sum(_entry_units(_entry(table, index, old), _entry(table, index, new), index) for index in table.indexes)


def read_units(size: int, *, consistent: bool) -> float:
    """Return the read units for one item, or for all items of one query.

    A miss costs as much as a small item.
    """
    return max(1, ceil(size / READ_BYTES)) * (1.0 if consistent else 0.5)


def stored_bytes(table: Table, item: Raw) -> int:
    """Return the storage of an item and its index entries."""
    entries = [entry for index in table.indexes if (entry := _entry(table, index, item))]
    return sum(item_bytes(stored) + STORAGE_OVERHEAD for stored in [item, *entries])


def _units_of_write(size: int) -> int:
    return max(1, ceil(size / WRITE_BYTES))


def _entry(table: Table, index: Index, item: Raw | None) -> Raw | None:
    """Return the index entry of an item; None if the item lacks one of the index keys."""
    if not item or index.hash_key not in item or index.range_key not in item:
        return None
    names = {table.hash_key, table.range_key, index.hash_key, index.range_key, *index.include}
    return {name: value for name, value in item.items() if name in names}


def _entry_units(old: Raw | None, new: Raw | None, index: Index) -> int:
    if old == new:
        return 0
    if old is None or new is None:
        return _units_of_write(item_bytes(old or new or {}))
    if all(old[key] == new[key] for key in (index.hash_key, index.range_key)):
        return _units_of_write(max(item_bytes(old), item_bytes(new)))
    return _units_of_write(item_bytes(old)) + _units_of_write(item_bytes(new))


def _value_bytes(value: dict[str, Any]) -> int:
    ((kind, content),) = value.items()
    if kind == "S":
        return len(content.encode())
    if kind == "N":
        return ceil(len(content.lstrip("-").replace(".", "").strip("0") or "0") / 2) + 1
    if kind == "B":
        return len(content)
    if kind in ("BOOL", "NULL"):
        return 1
    if kind in ("SS", "NS", "BS"):
        return sum(_value_bytes({kind[0]: element}) for element in content)
    parts = content if kind == "L" else content.values()
    names = sum(len(name.encode()) for name in content) if kind == "M" else 0
    return 3 + names + sum(1 + _value_bytes(part) for part in parts)
