"""API keys, and the URLs of the stage."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from chalicelib.domain.auth.identity import Key


class ApiKeys(Protocol):
    """Stores API keys by the hash of their secret, and what a deployment writes about the stage."""

    def key(self, key_hash: str) -> Key | None:
        """Return the key whose secret has this hash, also an expired or revoked one."""

    def many(self, key_hashes: Collection[str]) -> list[Key]:
        """Return the keys whose secrets have these hashes. One request for each hundred."""

    def put_key(self, key: Key) -> None:
        """Store a key, in one transaction under its hash and under its tenant."""

    def keys(self, tenant: str) -> list[Key]:
        """Return the keys of a tenant, by id."""

    def endpoints(self) -> dict[str, str]:
        """Return the URLs of this stage, `ws_url` and `api_url`, as its deployment wrote them.

        Empty before the first.
        """
