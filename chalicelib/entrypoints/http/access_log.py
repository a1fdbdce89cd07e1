"""Write the access log: one event per request.

The query string is never logged, because it may contain a ticket.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.units import Ms
from chalicelib.observability import record


def id_of(raw: Any) -> str:
    """The id of a request, for its response and its log events."""
    return (getattr(raw, "context", None) or {}).get("requestId") or str(uuid4())


def log_request(raw: Any, request_id: str, status: int, duration_ms: Ms, caller: Caller | None = None) -> None:
    record(
        "request",
        method=raw.method,
        route=(raw.context or {}).get("resourcePath"),
        status=status,
        ms=duration_ms,
        tenant=caller.tenant if caller else None,
        key_id=caller.key_id if caller else None,
        request_id=request_id,
    )
