"""Parse requests to `/queues`, `/pauses` and to pause a job or a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from chalicelib.domain.errors import Detail, InvalidRequest
from chalicelib.domain.limits.pauses import MAX_PAUSE_MS, PauseScope
from chalicelib.domain.queues.lanes import LANES
from chalicelib.domain.units import Ms
from chalicelib.domain.validation.schema import problems
from chalicelib.entrypoints.http.requests.jobs import time_of

ANY = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseFields:
    """What a request says about a pause, besides its scope."""

    reason: str | None = None
    until: Ms | None = None
    replaces: bool = False


def pause_fields(schema: dict[str, Any], data: dict[str, Any], now: Ms) -> PauseFields:
    """Parse the body of a pause.

    Raises:
        InvalidRequest: fields are invalid; the details name all of them.
    """
    details = list(problems(schema, data))
    until = end_of_pause(details, "until", data.get("until"), now)
    if details:
        raise InvalidRequest(details=tuple(details))
    return PauseFields(reason=data.get("reason"), until=until, replaces=data.get("replace") is True)


def end_of_pause(details: list[Detail], name: str, text: Any, now: Ms) -> Ms | None:
    """The time at which a pause ends; None: it has no end, or the time is invalid and a detail was appended."""
    at = time_of(details, name, text) if isinstance(text, str) else None
    if at is not None and not now < at <= now + MAX_PAUSE_MS:
        details.append(Detail(name, "must be after now, and within a year"))
    return at


def scope_of(fields: dict[str, Any]) -> PauseScope:
    """The scope in the body of a `POST /pauses`, which matches its schema.

    Raises:
        InvalidRequest: a batch is given with another field than the tenant.
    """
    scope = PauseScope(tenant=fields.get("tenant"), type=fields.get("type"), lane=fields.get("lane"), batch=fields.get("batch"))
    if scope.batch is not None and (scope.type is not None or scope.lane is not None):
        raise InvalidRequest(details=(Detail("scope.batch", "cannot be given together with type or lane"),))
    return scope


def queue_scope(name: str, tenant: str | None) -> PauseScope:
    """The scope that the name of a queue means: `type:lane`, `type`, `*:lane` or `*`.

    Raises:
        InvalidRequest: it is none of these.
    """
    kind, separator, lane = unquote(name).partition(":")
    if not kind or (separator and lane not in (*LANES, ANY)):
        raise InvalidRequest(details=(Detail("name", f"must be type:lane, type, *:lane or *; lanes are {', '.join(LANES)}"),))
    return PauseScope(tenant=tenant, type=None if kind == ANY else kind, lane=lane if lane in LANES else None)
