"""The ways to hear of a job, best first."""

from __future__ import annotations

from cli.api import Api
from cli.lines.polling import PollingLine
from cli.lines.sse import SseLine
from cli.lines.websocket import open_socket
from cli.watch import Way


def ways(api: Api, job_id: str, ws_url: str | None) -> list[Way]:
    """WebSocket where its address is known, then SSE, then polling."""
    over_http = [
        Way("server-sent events", lambda: SseLine(api, job_id)),
        Way("polling", lambda: PollingLine(api, job_id)),
    ]
    return over_http if ws_url is None else [Way("websocket", lambda: open_socket(api, job_id, ws_url)), *over_http]
