"""Frames to WebSocket connections, sent with API Gateway's management API.

| API Gateway responds | raised |
|---|---|
| 410 Gone | `ConnectionGone` |
| 429, 5xx, nothing in time | `ConnectionBusy`: too many requests, or this client's buffer is full; they cannot be told apart |
| 413 | a bug: a frame must be cut below 128 KB (and below 32 KB, to be billed as one) |
| 403 and other 4xx | `ConnectionRefused`: no later frame would be accepted, and a job must not fail because of a subscriber |

Frames are not repeated here. After a lost response the sender repeats from the last acknowledged
offset, and clients drop what they have already.
"""

from __future__ import annotations

from typing import Any

from chalicelib.adapters.aws import client as aws
from chalicelib.domain.errors import ConnectionBusy, ConnectionGone, ConnectionRefused

MAX_FRAME_BYTES = 131_072  # botocore's model of PostToConnection


class ApiGatewaySockets:
    """Calls: 1 for each method, not repeated."""

    def post(self, endpoint: str, connection_id: str, data: bytes) -> None:
        if len(data) > MAX_FRAME_BYTES:
            raise ValueError(f"API Gateway takes frames of {MAX_FRAME_BYTES} bytes, not of {len(data)}")
        self._call(endpoint, "post_to_connection", ConnectionId=connection_id, Data=data)

    def close(self, endpoint: str, connection_id: str) -> None:
        """Close the connection, if it is still open."""
        try:
            self._call(endpoint, "delete_connection", ConnectionId=connection_id)
        except ConnectionGone:
            return

    def is_open(self, endpoint: str, connection_id: str) -> bool:
        try:
            self._call(endpoint, "get_connection", ConnectionId=connection_id)
        except ConnectionRefused:
            raise
        except ConnectionGone:
            return False
        return True

    def _call(self, endpoint: str, operation: str, **arguments: Any) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            getattr(aws.client("apigatewaymanagementapi", endpoint_url=endpoint, attempts=1), operation)(**arguments)
        except (BotoCoreError, ClientError) as exc:
            if aws.translate_error(exc):
                raise ConnectionBusy from exc
            status = _status(exc)
            if status == 410:
                raise ConnectionGone from exc
            if 400 <= status < 500 and status != 413:
                raise ConnectionRefused(f"API Gateway refuses that connection ({status} {aws.error_code(exc)}).") from exc
            raise


def _status(exc: Exception) -> int:
    return int(getattr(exc, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
