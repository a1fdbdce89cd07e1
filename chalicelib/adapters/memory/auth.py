"""API keys in memory."""

from __future__ import annotations

import threading
from collections.abc import Collection

from chalicelib.domain.auth.identity import Key


class MemoryApiKeys:
    """`addresses` are the URLs that a deployment would have written."""

    def __init__(self, addresses: dict[str, str] | None = None) -> None:
        self.addresses = addresses or {}
        self._keys: dict[str, Key] = {}
        self._lock = threading.Lock()

    def key(self, key_hash: str) -> Key | None:
        with self._lock:
            return self._keys.get(key_hash)

    def many(self, key_hashes: Collection[str]) -> list[Key]:
        with self._lock:
            return [self._keys[key_hash] for key_hash in key_hashes if key_hash in self._keys]

    def put_key(self, key: Key) -> None:
        with self._lock:
            self._keys[key.hash] = key

    def keys(self, tenant: str) -> list[Key]:
        with self._lock:
            return sorted((key for key in self._keys.values() if key.tenant == tenant), key=lambda key: key.id)

    def endpoints(self) -> dict[str, str]:
        return dict(self.addresses)
