"""Limits of tenants, in the table `coordination`: `tenant-limits` / tenant.

`limited-tenants` / `names` names the tenants that have any, so that the others cost no read.
"""

from __future__ import annotations

from typing import Any

from pynamodb.attributes import UnicodeAttribute, UnicodeSetAttribute

from chalicelib.adapters.decoding import checked
from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import Item, bound, decoded
from chalicelib.adapters.dynamodb.json_record import JsonRecords, Key, known_fields, non_default_fields
from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.limits.tenant_limits import TenantLimits

PARTITION = "tenant-limits"
NAMES = ("limited-tenants", "names")


class TenantNamesItem(Item):
    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    names = UnicodeSetAttribute()


class DynamoTenantLimits:
    """Units: 0.5 for each 4 KB of names, 1 to read one, 2 to write one. A name costs about its length.

    A name is never removed: a tenant whose limits are all unset costs as much as one with limits.
    """

    def __init__(self, stage: str) -> None:
        self._names = bound(TenantNamesItem, stage, "coordination")
        self._records = JsonRecords(stage, "coordination", key=_key_of, encode=_encode, decode=_decode, ttl=None)

    def tenants(self) -> frozenset[str]:
        item = dynamodb.get(self._names, *NAMES, consistent=False)
        return _names_of(item) if item is not None else frozenset()

    def get(self, tenant: str) -> TenantLimits | None:
        return self._records.get((PARTITION, tenant))

    def all(self) -> list[TenantLimits]:
        return self._records.query(PARTITION, limit=100_000)

    def replace(self, seen: TenantLimits, new: TenantLimits) -> None:
        """The name comes first: a crash in between leaves a name without limits, which does no harm."""
        dynamodb.update(self._names(*NAMES), [self._names.names.add({new.tenant})])
        if seen.version:
            self._records.replace(seen, new)
            return
        stored = self._records.create(new)
        if stored != new:
            raise StaleVersion(stored)


@decoded
def _names_of(item: TenantNamesItem) -> frozenset[str]:
    return frozenset(item.names)


def _key_of(limits: TenantLimits) -> Key:
    return PARTITION, limits.tenant


def _encode(limits: TenantLimits) -> dict[str, Any]:
    return non_default_fields(limits)


def _decode(stored: dict[str, Any]) -> TenantLimits:
    return checked(TenantLimits(**known_fields(TenantLimits, stored)))
