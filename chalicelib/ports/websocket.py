"""WebSocket connections."""

from __future__ import annotations

from typing import Protocol


class Sockets(Protocol):
    def post(self, endpoint: str, connection_id: str, data: bytes) -> None:
        """Post one frame.

        Raises:
            ConnectionGone: forget it.
            ConnectionRefused: it is not known to be closed, but no post to it would fare better.
            ConnectionBusy: slow down, and post from the last acknowledged offset again.
        """

    def is_open(self, endpoint: str, connection_id: str) -> bool:
        """Whether the connection is still there.

        Raises:
            ConnectionRefused, ConnectionBusy: it cannot be told.
        """

    def close(self, endpoint: str, connection_id: str) -> None: ...
