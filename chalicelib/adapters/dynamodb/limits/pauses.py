"""Pauses, in the table `coordination`: the board as `circuits` / `pauses`, where one query reads it with
the circuits, and those of a tenant as `pauses` / tenant.
"""

from __future__ import annotations

from typing import Any

from chalicelib.adapters.decoding import checked
from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import TransactionConditionFailed
from chalicelib.adapters.dynamodb.json_record import Fields, JsonRecords, Key, known_fields, non_default_fields
from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.limits.pauses import Bucket, Pause, PauseBoard, PauseScope, TenantPauses

BOARD_PARTITION, BOARD = "circuits", "pauses"
PARTITION = "pauses"
NO_END = 4_102_444_800  # the year 2100, in seconds: the record is never removed
RETENTION_SECONDS = 2 * 86_400  # of a tenant's record after its last pause is over


class DynamoPauses:
    """Units: 0.5 to read the pauses of a tenant; 1 for the board, consistently; 4 to write both."""

    def __init__(self, stage: str) -> None:
        self._boards = JsonRecords(
            stage,
            "coordination",
            key=lambda _: (BOARD_PARTITION, BOARD),
            encode=non_default_fields,
            decode=decode_board,
            ttl=lambda _: NO_END,
        )
        self._tenants = JsonRecords(stage, "coordination", key=_key_of, encode=non_default_fields, decode=_decode_tenant, ttl=_ttl)

    def board(self) -> PauseBoard:
        return self._boards.get((BOARD_PARTITION, BOARD)) or PauseBoard()

    def of_tenant(self, tenant: str, *, consistent: bool = False) -> TenantPauses:
        item = dynamodb.get(self._tenants.items, PARTITION, tenant, consistent=consistent)
        return self._tenants.record(item) if item else TenantPauses(tenant=tenant)

    def replace_board(self, seen: PauseBoard, new: PauseBoard) -> None:
        self._swap([(self._boards, seen, new)])

    def replace_tenant(self, seen: TenantPauses, new: TenantPauses, seen_board: PauseBoard, new_board: PauseBoard) -> None:
        self._swap([(self._boards, seen_board, new_board), (self._tenants, seen, new)])

    def page(self, before: str | None, limit: int) -> tuple[list[TenantPauses], str | None]:
        return self._tenants.page(PARTITION, before, limit)

    def _swap(self, changes: list[tuple[JsonRecords[Any], Any, Any]]) -> None:
        """Write all records, each over the version that was seen."""
        writes = []
        for records, seen, new in changes:
            items = records.items
            writes.append((records.item(new), items.version == seen.version if seen.version else items.pk.does_not_exist()))
        try:
            dynamodb.transact((), [(item, dynamodb.known_actions(item), unchanged) for item, unchanged in writes])
        except TransactionConditionFailed as failed:
            there = [records.items.from_raw_data(raw) if raw else None for (records, _, _), raw in zip(changes, failed.items, strict=True)]
            if any(stored is None or stored.data != item.data for (item, _), stored in zip(writes, there, strict=True)):
                current = there[0] if len(changes) == 1 else None
                raise StaleVersion(changes[0][0].record(current) if current is not None else None) from failed


def decode_board(stored: Fields) -> PauseBoard:
    """Return the board of an item's JSON."""
    data = known_fields(PauseBoard, stored)
    data["pauses"] = _pauses_of(stored)
    data["buckets"] = {name: _bucket_of(*values[:2]) for name, values in stored.get("buckets", {}).items()}
    return checked(PauseBoard(**data))


def _bucket_of(endless: int, until: int) -> Bucket:
    if not isinstance(endless, int) or not isinstance(until, int):
        raise TypeError("a bucket has two whole numbers")
    return Bucket(endless, until)


def _decode_tenant(stored: Fields) -> TenantPauses:
    return TenantPauses(**{**known_fields(TenantPauses, stored), "pauses": _pauses_of(stored)})


def _pauses_of(stored: Fields) -> tuple[Pause, ...]:
    return tuple(_pause_of(one) for one in stored.get("pauses", ()))


def _pause_of(stored: Fields) -> Pause:
    scope = checked(PauseScope(**known_fields(PauseScope, stored["scope"])))
    return checked(Pause(**{**known_fields(Pause, stored), "scope": scope}))


def _key_of(record: TenantPauses) -> Key:
    return PARTITION, record.tenant


def _ttl(record: TenantPauses) -> int:
    return NO_END if record.has_endless or not record.pauses else record.latest_end // 1000 + RETENTION_SECONDS
