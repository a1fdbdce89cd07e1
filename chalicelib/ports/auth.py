"""Who may ask."""

from __future__ import annotations

from typing import Protocol

from chalicelib.domain.auth.identity import Key


class ApiKeys(Protocol):
    def key(self, key_hash: str) -> Key | None: ...

    def put_key(self, key: Key) -> None: ...

    def keys(self, tenant: str) -> list[Key]: ...

    def endpoints(self) -> dict[str, str]:
        """The addresses of this stage, as its deployment wrote them: `ws_url`, `api_url`. Empty before the first."""
