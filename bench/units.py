"""What DynamoDB charges for a request, by its documented rules from the items themselves: emulators answer constants.

Sizes and units: the developer guide's "DynamoDB item sizes and formats" and "DynamoDB read and write operations". Indexes: its "Using
Global Secondary Indexes": an entry that is added, removed or rewritten is a write of its size, a changed key is two of them, and a change
of what the entry does not hold is none. Transactions: its "How it works": two underlying writes of every item, and what they changed is
propagated to indexes afterwards, so an entry is one write; the emulator's authors measured the same on DynamoDB itself (ministack 1.5.33,
`services/dynamodb.py`).
"""

from __future__ import annotations

from math import ceil
from typing import Any

from infra.tables import Index, Table

Raw = dict[str, Any]  # an item as DynamoDB's API writes it: {"id": {"S": "job_1"}}

WRITE_BYTES, READ_BYTES = 1024, 4096
STORED_OVERHEAD = 100  # bytes an item, for storage only


def item_bytes(item: Raw) -> int:
    """Names and values, in UTF-8."""
    return sum(len(name.encode()) + _value_bytes(value) for name, value in item.items())


def write_units(table: Table, old: Raw | None, new: Raw | None, *, together: bool = False) -> int:
    """A put, update or delete that made `new` of `old`. In a transaction (`together`) the item counts double."""
    base = _writes(max(item_bytes(old or {}), item_bytes(new or {})))
    return base * (2 if together else 1) + index_units(table, old, new)


def index_units(table: Table, old: Raw | None, new: Raw | None) -> int:
    """The part of a write that the indexes are charged for."""
    return sum(_entry_units(_entry(table, index, old), _entry(table, index, new), index) for index in table.indexes)


def read_units(size: int, *, consistent: bool) -> float:
    """One item, or all that one query read; nothing found costs as much as something small."""
    return max(1, ceil(size / READ_BYTES)) * (1.0 if consistent else 0.5)


def stored_bytes(table: Table, item: Raw) -> int:
    """What an item and its index entries take in storage."""
    entries = [entry for index in table.indexes if (entry := _entry(table, index, item))]
    return sum(item_bytes(kept) + STORED_OVERHEAD for kept in [item, *entries])


def _writes(size: int) -> int:
    return max(1, ceil(size / WRITE_BYTES))


def _entry(table: Table, index: Index, item: Raw | None) -> Raw | None:
    """What an index holds of an item: nothing without both of its keys."""
    if not item or index.hash_key not in item or index.range_key not in item:
        return None
    names = {table.hash_key, table.range_key, index.hash_key, index.range_key, *index.include}
    return {name: value for name, value in item.items() if name in names}


def _entry_units(old: Raw | None, new: Raw | None, index: Index) -> int:
    if old == new:
        return 0
    if old is None or new is None:
        return _writes(item_bytes(old or new or {}))
    if all(old[key] == new[key] for key in (index.hash_key, index.range_key)):
        return _writes(max(item_bytes(old), item_bytes(new)))
    return _writes(item_bytes(old)) + _writes(item_bytes(new))


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
        return sum(_value_bytes({kind[0]: one}) for one in content)
    parts = content if kind == "L" else content.values()
    names = sum(len(name.encode()) for name in content) if kind == "M" else 0
    return 3 + names + sum(1 + _value_bytes(part) for part in parts)
