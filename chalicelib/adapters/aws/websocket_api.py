"""Frames to WebSocket connections, by API Gateway's management API at the endpoint that each connection recorded.

| API Gateway says | means |
|---|---|
| 410 Gone | `ConnectionGone` |
| 429, 5xx, nothing in time | `ConnectionBusy`: too many requests, or this client's buffer is full; one cannot tell which |
| 413 | a bug: a frame must be cut below 128 KB (and below 32 KB, to count as one) |
| 403 and other 4xx | `ConnectionRefused`, with the reason: no later post would fare better, and a job must not fail for its audience |

Posts are not repeated here: after an answer that was lost the reader posts again from what was acknowledged, and overlap is harmless.
"""

from __future__ import annotations

from typing import Any

from chalicelib.adapters.aws import client as aws
from chalicelib.domain.errors import ConnectionBusy, ConnectionGone, ConnectionRefused

LARGEST_FRAME = 131_072  # bytes; botocore's model of PostToConnection


class ApiGatewaySockets:
    def post(self, endpoint: str, connection_id: str, data: bytes) -> None:
        if len(data) > LARGEST_FRAME:
            raise ValueError(f"API Gateway takes frames of {LARGEST_FRAME} bytes, not of {len(data)}")
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
