"""API keys and the URLs of the stage, in the table `accounts`.

A key is stored twice: `key#<hash of its secret>` / `key`, where requests find it, and
`tenant#<tenant>` / `key#<id>`, for listings.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pynamodb.attributes import BooleanAttribute, UnicodeAttribute

from chalicelib.adapters.decoding import decode_readable
from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import IntAttribute, Item, bound, decoded
from chalicelib.domain.auth.identity import Key, Role

PLAIN_FIELDS = ("id", "hash", "tenant", "user", "created_at", "expires_at", "revoked_at", "name")


class KeyItem(Item):
    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    id = UnicodeAttribute()
    hash = UnicodeAttribute()
    tenant = UnicodeAttribute()
    user = UnicodeAttribute()
    role = UnicodeAttribute()
    created_at = IntAttribute()
    expires_at = IntAttribute(null=True)
    revoked_at = IntAttribute(null=True)
    all_tenants = BooleanAttribute(default=False)
    name = UnicodeAttribute(null=True)


class EndpointsItem(Item):
    """The URLs that the deployment writes, `stage` / `endpoints`."""

    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    ws_url = UnicodeAttribute(null=True)
    api_url = UnicodeAttribute(null=True)


class DynamoApiKeys:
    """Units: 1 to read a key or the URLs, 4 to write a key (a transaction of two items)."""

    def __init__(self, stage: str) -> None:
        self._keys = bound(KeyItem, stage, "accounts")
        self._endpoints = bound(EndpointsItem, stage, "accounts")

    def key(self, key_hash: str) -> Key | None:
        item = dynamodb.get(self._keys, f"key#{key_hash}", "key")
        return _key_of(item) if item else None

    def many(self, key_hashes: Collection[str]) -> list[Key]:
        found = dynamodb.batch_get(self._keys, ((f"key#{key_hash}", "key") for key_hash in key_hashes), consistent=True)
        return list(decode_readable(found, _key_of))

    def put_key(self, key: Key) -> None:
        """Write both items in one transaction, so that a listing never misses a key that works."""
        values: dict[str, Any] = {name: getattr(key, name) for name in PLAIN_FIELDS}
        values |= {"role": key.role.label, "all_tenants": key.all_tenants}
        by_hash = self._keys(f"key#{key.hash}", "key", **values)
        by_tenant = self._keys(f"tenant#{key.tenant}", f"key#{key.id}", **values)
        dynamodb.transact([(by_hash, None), (by_tenant, None)])

    def keys(self, tenant: str) -> list[Key]:
        rows = self._keys.query(f"tenant#{tenant}", self._keys.sk.startswith("key#"), consistent_read=True)
        return list(decode_readable(rows, _key_of))

    def endpoints(self) -> dict[str, str]:
        item = dynamodb.get(self._endpoints, "stage", "endpoints")
        urls = {"ws_url": item.ws_url, "api_url": item.api_url} if item else {}
        return {name: url for name, url in urls.items() if url}

    def put_endpoints(self, ws_url: str, api_url: str) -> None:
        """Store the URLs at the end of a deployment."""
        dynamodb.put(self._endpoints("stage", "endpoints", ws_url=ws_url, api_url=api_url))


@decoded
def _key_of(item: KeyItem) -> Key:
    values: dict[str, Any] = {name: getattr(item, name) for name in PLAIN_FIELDS}
    return Key(**{**values, "name": item.name or "", "role": Role.named(item.role), "all_tenants": bool(item.all_tenants)})
