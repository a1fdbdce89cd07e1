"""Requests as the use cases want them. Every wrong field is named at once."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from chalicelib.domain.errors import Detail, InvalidRequest
from chalicelib.domain.jobs.dependencies import CANCEL
from chalicelib.domain.jobs.edits import JobEdit
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.jobs.submission import Submission
from chalicelib.domain.queues.lanes import LANES
from chalicelib.domain.streaming.subscriptions import LAST_OFFSET
from chalicelib.domain.units import Ms, parse_rfc3339
from chalicelib.domain.validation.config_schema import durable_problems
from chalicelib.domain.validation.schema import problems
from chalicelib.entrypoints.http.requests import schemas
from chalicelib.entrypoints.http.requests.dependencies import parse_depends_on
from chalicelib.entrypoints.http.server import ApiRequest
from chalicelib.services.jobs.list_jobs import Filters

MAX_METADATA_BYTES = 16_000
MAX_KEY_LENGTH = 255
MAX_DELAY_SECONDS = 2_592_000  # seconds: 30 days
LAST_ATTEMPT = 10**9
A_DAY = 86_400.0  # seconds
MAX_RETRY_SECONDS = 30 * A_DAY  # for parents, unless said otherwise: they may have to wait themselves


def check(schema: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """`data`, if it fits.

    Raises:
        InvalidRequest: it does not.
    """
    wrong = problems(schema, data)
    if wrong:
        raise InvalidRequest(details=wrong)
    return data


def submission(data: dict[str, Any], now: Ms) -> Submission:
    """A `POST /jobs` or `/jobs/estimate`.

    Raises:
        InvalidRequest: with every field that cannot be used.
    """
    wrong = list(problems(schemas.SUBMIT, data))
    config = data.get("config") if isinstance(data.get("config"), dict) else {}
    assert isinstance(config, dict)
    kind = _same(wrong, "type", data.get("type"), "job_type", data.get("job_type")) or "general"
    priority = _same(wrong, "priority", data.get("priority"), "config.priority", config.get("priority")) or "normal"
    if data.get("input") is not None and data.get("prompt") is not None:
        wrong.append(Detail("input", "cannot be given together with prompt"))
    metadata = _metadata(wrong, data) or {}
    run_at = _run_at(wrong, data, now)
    parents = parse_depends_on(wrong, data.get("depends_on"))
    expires_in = _expires_in(wrong, data, run_at or now, MAX_RETRY_SECONDS if parents else A_DAY)
    wrong += durable_problems(config)
    if wrong:
        raise InvalidRequest(details=tuple(wrong))
    return Submission(
        prompt=data.get("prompt"),
        input=data.get("input"),
        job_type=kind,
        priority=priority,
        options=data.get("options") or {},
        config={name: value for name, value in config.items() if name != "priority"},
        metadata=metadata,
        tags=_tags(data) or (),
        user=data.get("user"),
        dedupe_key=data.get("dedupe_key"),
        expires_in=expires_in,
        run_at=run_at,
        depends_on=parents,
        on_parent_failure=data.get("on_parent_failure") or CANCEL,
        webhook_url=data.get("webhook_url"),
        notify=tuple(dict.fromkeys(data.get("notify") or ())),
    )


def change(data: dict[str, Any], now: Ms) -> tuple[JobEdit, dict[str, Any] | None]:
    """A `PATCH /jobs/{id}`: what is to be changed on the head, and the metadata, None if they stay.

    Raises:
        InvalidRequest: with every field that cannot be used.
    """
    wrong = list(problems(schemas.CHANGE, data))
    metadata = _metadata(wrong, data)
    begin_said = data.get("run_at") is not None or data.get("delay") is not None
    run_at = _run_at(wrong, data, now) or now if begin_said else None
    expiry_said = data.get("expires_at") is not None or data.get("expires_in") is not None
    begins = run_at or now
    expires_at = begins + round(_expires_in(wrong, data, begins) * 1000) if expiry_said else None
    if all(value is None for value in data.values()) and not wrong:
        wrong.append(Detail("", f"names nothing to change; there are {', '.join(schemas.CHANGE['properties'])}"))
    if wrong:
        raise InvalidRequest(details=tuple(wrong))
    priority: str | None = data.get("priority")
    return JobEdit(run_at=run_at, expires_at=expires_at, lane=priority, tags=_tags(data), changes_spec=metadata is not None), metadata


def versions(request: ApiRequest) -> frozenset[int] | None:
    """The versions of the record that If-Match names, None for any."""
    said = request.headers.get("if-match")
    if said is None or said.strip() == "*":
        return None
    tags = [tag.strip().removeprefix("W/").strip('"') for tag in said.split(",")]
    return frozenset(int(tag[1:]) for tag in tags if tag[:1] == "v" and tag[1:].isascii() and tag[1:].isdigit() and len(tag) < 12)


def idempotency_key(request: ApiRequest) -> str | None:
    """The Idempotency-Key header, if any.

    Raises:
        InvalidRequest: it is longer than 255 characters.
    """
    key: str | None = request.headers.get("idempotency-key")
    if key is not None and not 1 <= len(key) <= MAX_KEY_LENGTH:
        raise InvalidRequest(details=(Detail("Idempotency-Key", "must ctx 1 to 255 characters"),))
    return key


def filters(request: ApiRequest, names: Collection[str] = tuple(Filters.__dataclass_fields__), **fixed: str) -> Filters:
    """The filters of `GET /jobs`, or those of them that a list has; `fixed` are said by the list itself.

    Raises:
        InvalidRequest: a parameter is not known, or its value is not one of its words.
    """
    known = {*names, "limit", "cursor"}
    wrong = [Detail(name, f"is not a parameter here; known are {', '.join(sorted(known))}") for name in request.query if name not in known]
    enums = {"status": [status.value for status in Status], "priority": list(LANES)}
    for name, allowed in enums.items():
        if name in request.query and request.query[name] not in allowed:
            wrong.append(Detail(name, f"must be one of {', '.join(allowed)}"))
    times: dict[str, Any] = {name: time_of(wrong, name, request.query[name]) for name in ("since", "until") if name in request.query}
    if wrong:
        raise InvalidRequest(details=tuple(wrong))
    words: dict[str, Any] = {name: value for name, value in request.query.items() if name in Filters.__dataclass_fields__}
    return Filters(**(words | times | fixed))


def number(request: ApiRequest, name: str, default: int, lowest: int, highest: int) -> int:
    """A whole number of the query.

    Raises:
        InvalidRequest: it is none, or out of bounds.
    """
    text = request.query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 12 or not lowest <= int(text) <= highest:
        raise InvalidRequest(details=(Detail(name, f"must be a whole number from {lowest} to {highest}"),))
    return int(text)


def offset(request: ApiRequest) -> int:
    """`?offset=`, in code points."""
    return number(request, "offset", 0, 0, LAST_OFFSET)


def attempt(request: ApiRequest, default: int) -> int:
    """`?attempt=`."""
    return number(request, "attempt", default, 0, LAST_ATTEMPT)


def etags(request: ApiRequest) -> list[str] | None:
    """The tags that If-None-Match names, None without it."""
    seen = request.headers.get("if-none-match")
    return None if seen is None else [tag.strip().removeprefix("W/") for tag in seen.split(",")]


def time_of(wrong: list[Detail], name: str, text: Any) -> Ms | None:
    """A time, None if it is none, which is wrong then."""
    try:
        return parse_rfc3339(text)
    except (ValueError, TypeError, OverflowError):
        wrong.append(Detail(name, "must be a time such as 2026-11-22T09:30:00Z"))
        return None


def _metadata(wrong: list[Detail], data: dict[str, Any]) -> dict[str, Any] | None:
    metadata: dict[str, Any] | None = data.get("metadata")
    if len(json.dumps(metadata).encode()) > MAX_METADATA_BYTES:
        wrong.append(Detail("metadata", "is larger than 16 KB"))
    return metadata


def _tags(data: dict[str, Any]) -> tuple[str, ...] | None:
    tags = data.get("tags")
    return None if tags is None else tuple(dict.fromkeys(tags))


def _same(wrong: list[Detail], name: str, value: Any, other: str, other_value: Any) -> Any:
    """Two names for one thing: either will do, two different values are an error."""
    if value is not None and other_value is not None and value != other_value:
        wrong.append(Detail(name, f"says {value!r} but {other} says {other_value!r}; they are the same thing"))
    return value if value is not None else other_value


def _run_at(wrong: list[Detail], data: dict[str, Any], now: Ms) -> Ms | None:
    """When the job may begin: at a time, or after a delay; a time that has passed is now."""
    moment, delay = data.get("run_at"), data.get("delay")
    if moment is not None and delay is not None:
        wrong.append(Detail("run_at", "cannot be given together with delay"))
    if moment is None:
        return now + round(delay * 1000) if isinstance(delay, int | float) and 0 < delay <= MAX_DELAY_SECONDS else None
    at = time_of(wrong, "run_at", moment)
    if at is not None and at > now + MAX_DELAY_SECONDS * 1000:
        wrong.append(Detail("run_at", "must be within 30 days"))
    return at if at is not None and at > now else None


def _expires_in(wrong: list[Detail], data: dict[str, Any], now: Ms, default: float = A_DAY) -> float:
    said, moment = data.get("expires_in"), data.get("expires_at")
    if moment is None:
        return float(said) if isinstance(said, int | float) else default
    if said is not None:
        wrong.append(Detail("expires_at", "cannot be given together with expires_in"))
    at = time_of(wrong, "expires_at", moment)
    if at is not None and at <= now:
        wrong.append(Detail("expires_at", "must be after the job may begin"))
    return ((at or now) - now) / 1000
