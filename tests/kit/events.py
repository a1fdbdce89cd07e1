"""Server-Sent Events, parsed as by a standard EventSource."""

from __future__ import annotations

import json
from typing import Any

from tests.kit.http import Api, Reply


class Events(list[dict[str, Any]]):
    """The events of one response, each as `{"id", "event", "data"}`."""

    def __init__(self, text: str) -> None:
        super().__init__()
        for block in text.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and not line.startswith(":"))
            if "data" in fields:
                self.append({"id": fields.get("id"), "event": fields.get("event", "message"), "data": json.loads(fields["data"])})


def read_whole_stream(api: Api, url: str, most: int = 50) -> tuple[list[dict[str, Any]], list[Reply]]:
    """Reconnect with the last event id, as EventSource does, until the response is 204."""
    events: list[dict[str, Any]] = []
    replies: list[Reply] = []
    while len(replies) < most:
        headers = {"last_event_id": events[-1]["id"]} if events else {}
        replies.append(api.call("GET", url, **headers))
        if replies[-1].status == 204:
            return events, replies
        events += Events(replies[-1].text)
    raise AssertionError(f"the stream did not end within {most} requests")
