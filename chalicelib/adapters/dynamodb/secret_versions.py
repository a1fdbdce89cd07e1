"""Which version of a secret is current, in the table `counters`: `secret#<name of the secret>` / `version`."""

from __future__ import annotations

from pynamodb.attributes import UnicodeAttribute

from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import Item, bound

VERSION = "version"


class SecretVersionItem(Item):
    """It has no TTL: it lives as long as its secret."""

    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    version = UnicodeAttribute(attr_name="v")


class DynamoSecretVersions:
    """Units: 1 to put, 0.5 to get, 1 consistently."""

    def __init__(self, stage: str) -> None:
        self._items = bound(SecretVersionItem, stage, "counters")

    def get(self, name: str, *, consistent: bool = False) -> str | None:
        item = dynamodb.get(self._items, *_key(name), consistent=consistent)
        return item.version if item is not None else None

    def put(self, name: str, version: str) -> None:
        dynamodb.put(self._items(*_key(name), version=version))


def _key(name: str) -> tuple[str, str]:
    return f"secret#{name}", VERSION
