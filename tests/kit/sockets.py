"""A WebSocket client whose events reach `app.py` in API Gateway's format."""

from __future__ import annotations

import json
from typing import Any

from cli.reducer import TextAssembler
from tests.kit.http import CONTEXT, Api


class Socket:
    """One connection. `frames` are the frames that were sent to it."""

    def __init__(self, api: Api, connection_id: str = "c1") -> None:
        self.api, self.id = api, connection_id

    def connect(self, token: str | None = None, ticket: str | None = None) -> int:
        headers = {"Authorization": f"Bearer hr_{token}"} if token else {}
        query = {"ticket": ticket} if ticket else None
        event = {"headers": headers, "queryStringParameters": query, **self._context("$connect", "CONNECT")}
        return int(self.api.module.websocket_connect(event, CONTEXT)["statusCode"])

    def send(self, message: Any) -> list[dict[str, Any]]:
        """Send one message, and return the frames that were sent while it was handled."""
        before = len(self.frames)
        body = message if isinstance(message, str) or message is None else json.dumps(message)
        answer = self.api.module.websocket_message({"body": body, **self._context("$default", "MESSAGE")}, CONTEXT)
        assert answer == {"statusCode": 200}
        return self.frames[before:]

    def disconnect(self) -> None:
        self.api.module.websocket_disconnect(self._context("$disconnect", "DISCONNECT"), CONTEXT)

    @property
    def frames(self) -> list[dict[str, Any]]:
        return self.api.container.sockets.events(self.id)

    @property
    def assembled(self) -> TextAssembler:
        """The text as a client assembles it from the frames so far."""
        assembly = TextAssembler()
        for frame in self.frames:
            assembly.receive(frame)
        return assembly

    def _context(self, route: str, kind: str) -> dict[str, Any]:
        return {
            "requestContext": {
                "routeKey": route,
                "eventType": kind,
                "connectionId": self.id,
                "domainName": "ws.example",
                "stage": "api",
                "apiId": "abc123",
                "requestId": "r1",
            }
        }
