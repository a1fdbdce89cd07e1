"""Frames pushed over a WebSocket."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlencode

from cli.api import Api, is_local
from cli.errors import Problem
from cli.reducer import Frame
from cli.watch import LineBroken, WayClosed

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

OPEN_SECONDS = 10.0


class SocketLine:
    """One open socket, subscribed to one job."""

    def __init__(self, socket: ClientConnection, job_id: str) -> None:
        self._socket = socket
        self._job_id = job_id

    def subscribe(self, attempt: int, offset: int) -> None:
        """Attempt 0 is none: nothing is known yet, so everything is asked for."""
        position = {"attempt": attempt, "offset": offset} if attempt else {}
        self._send({"action": "subscribe", "job_id": self._job_id, **position})

    def receive(self, timeout: float) -> Frame | None:
        from websockets.exceptions import ConnectionClosed

        try:
            message = self._socket.recv(timeout)
        except TimeoutError:
            return None
        except ConnectionClosed as closed:
            raise LineBroken("the connection was closed") from closed
        return _frame(message)

    def ping(self) -> None:
        """A message, since what keeps a socket of API Gateway open is its own traffic."""
        self._send({"action": "ping"})

    def close(self) -> None:
        self._socket.close()

    def _send(self, message: dict[str, Any]) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            self._socket.send(json.dumps(message))
        except ConnectionClosed as closed:
            raise LineBroken("the connection was closed") from closed


def open_socket(api: Api, job_id: str, ws_url: str) -> SocketLine:
    """With the key in a header; where that is refused, as by a proxy that drops it, with a ticket in the address."""
    from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI

    try:
        try:
            return SocketLine(_connect(ws_url, api.headers()), job_id)
        except InvalidStatus as refused:
            if refused.response.status_code not in (401, 403):
                raise
            return SocketLine(_connect(f"{ws_url}?{urlencode({'ticket': _ticket(api, job_id)})}", {}), job_id)
    except InvalidURI as wrong:
        raise WayClosed(f"{ws_url} is no WebSocket address") from wrong
    except (OSError, InvalidHandshake) as problem:
        raise LineBroken(str(problem) or type(problem).__name__) from problem


def _connect(url: str, headers: dict[str, str]) -> ClientConnection:
    """The library's own keep-alive is off: silence is noticed by the watcher, which then asks."""
    from websockets.sync.client import connect

    proxy: Literal[True] | None = None if is_local(url) else True
    return connect(
        url, additional_headers=headers, open_timeout=OPEN_SECONDS, ping_interval=None, close_timeout=1, proxy=proxy, legacy=True
    )


def _ticket(api: Api, job_id: str) -> str:
    try:
        return str(api.post("/stream-tickets", {"jobs": [job_id]})["ticket"])
    except (Problem, KeyError) as problem:
        raise WayClosed(f"no ticket for a WebSocket: {problem}") from problem


def _frame(message: str | bytes) -> Frame | None:
    """A message that is no JSON object says nothing."""
    try:
        frame = json.loads(message)
    except ValueError:
        return None
    return frame if isinstance(frame, dict) else None
