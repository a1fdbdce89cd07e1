"""Frames pushed over a WebSocket."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlencode

from cli.api import Api
from cli.checks.proxies import is_loopback
from cli.checks.redaction import redact
from cli.errors import CliError
from cli.reducer import Frame
from cli.watch import ConnectionLost, TransportFailed

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

OPEN_TIMEOUT = 10.0


class WebSocketConnection:
    """One open WebSocket, subscribed to one job."""

    def __init__(self, socket: ClientConnection, job_id: str) -> None:
        self._socket = socket
        self._job_id = job_id

    def subscribe(self, attempt: int, offset: int) -> None:
        """Attempt 0 means that no position is known yet: the server then sends everything."""
        position = {"attempt": attempt, "offset": offset} if attempt else {}
        self._send({"action": "subscribe", "job_id": self._job_id, **position})

    def receive(self, timeout: float) -> Frame | None:
        from websockets.exceptions import ConnectionClosed

        try:
            message = self._socket.recv(timeout)
        except TimeoutError:
            return None
        except ConnectionClosed as closed:
            raise ConnectionLost("the connection was closed") from closed
        return _parse_frame(message)

    def ping(self) -> None:
        """Send a message: it keeps API Gateway from closing the WebSocket as idle."""
        self._send({"action": "ping"})

    def close(self) -> None:
        self._socket.close()

    def _send(self, message: dict[str, Any]) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            self._socket.send(json.dumps(message))
        except ConnectionClosed as closed:
            raise ConnectionLost("the connection was closed") from closed


def open_websocket(api: Api, job_id: str, ws_url: str) -> WebSocketConnection:
    """Connect with the key in a header.

    If that is rejected, use a ticket in the URL: some proxies drop the header.
    """
    from websockets.exceptions import InvalidHandshake, InvalidProxy, InvalidStatus, InvalidURI

    try:
        try:
            return WebSocketConnection(_connect(ws_url, api.headers()), job_id)
        except InvalidStatus as rejected:
            if rejected.response.status_code not in (401, 403):
                raise
            return WebSocketConnection(_connect(f"{ws_url}?{urlencode({'ticket': _ticket(api, job_id)})}", {}), job_id)
    except (InvalidURI, ValueError) as error:
        raise TransportFailed(f"{redact(ws_url)} is not a WebSocket address") from error
    except ImportError as error:  # a SOCKS proxy needs a package of its own
        raise TransportFailed("a WebSocket through a SOCKS proxy needs the package python-socks") from error
    except InvalidProxy as error:
        raise TransportFailed("the proxy of the environment is no address") from error
    except (OSError, InvalidHandshake, EOFError) as error:
        raise ConnectionLost(redact(str(error)) or type(error).__name__) from error


def _connect(url: str, headers: dict[str, str]) -> ClientConnection:
    """Open a WebSocket without the keep-alive of the library: `cli.watch` detects silence and
    subscribes again.
    """
    from websockets.sync.client import connect

    proxy: Literal[True] | None = None if is_loopback(url) else True
    return connect(
        url, additional_headers=headers, open_timeout=OPEN_TIMEOUT, ping_interval=None, close_timeout=1, proxy=proxy, legacy=True
    )


def _ticket(api: Api, job_id: str) -> str:
    try:
        return str(api.post("/stream-tickets", {"jobs": [job_id]})["ticket"])
    except (CliError, KeyError) as error:
        raise TransportFailed(f"no ticket for a WebSocket: {error}") from error


def _parse_frame(message: str | bytes) -> Frame | None:
    """The frame in a message; None if the message is not a JSON object."""
    try:
        frame = json.loads(message)
    except (ValueError, RecursionError):
        return None
    return frame if isinstance(frame, dict) else None
