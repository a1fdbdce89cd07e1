"""The transports for the frames of a job, in the order in which they are tried."""

from __future__ import annotations

from cli.api import Api
from cli.transports.polling import PollingConnection
from cli.transports.sse import SseConnection
from cli.transports.websocket import open_websocket
from cli.watch import Transport


def transports_for(api: Api, job_id: str, ws_url: str | None) -> list[Transport]:
    """WebSocket if its address is known, then SSE, then polling."""
    over_http = [
        Transport("server-sent events", lambda: SseConnection(api, job_id)),
        Transport("polling", lambda: PollingConnection(api, job_id)),
    ]
    return over_http if ws_url is None else [Transport("websocket", lambda: open_websocket(api, job_id, ws_url)), *over_http]
