"""Parse requests to `/jobs`. All invalid fields are reported at once."""

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
from chalicelib.domain.text import REPLACEMENT
from chalicelib.domain.units import Ms, parse_rfc3339
from chalicelib.domain.validation.config_schema import CONFIG, durable_problems
from chalicelib.domain.validation.schema import problems
from chalicelib.domain.validation.schema_messages import shortened
from chalicelib.domain.validation.whole_numbers import whole_numbers
from chalicelib.entrypoints.http.requests import schemas
from chalicelib.entrypoints.http.requests.dependencies import parse_depends_on
from chalicelib.entrypoints.http.server import ApiRequest
from chalicelib.services.jobs.list_jobs import Filters

MAX_METADATA_BYTES = 16_000
MAX_KEY_LENGTH = 255
MAX_DELAY_SECONDS = 2_592_000  # 30 days
MAX_EXPIRY_SECONDS = MAX_DELAY_SECONDS
LAST_ATTEMPT = 10**9
DEFAULT_EXPIRY_SECONDS = 86_400.0
DEPENDENT_EXPIRY_SECONDS = 30 * DEFAULT_EXPIRY_SECONDS  # of jobs with parents, which may have to wait themselves


def check(schema: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """Validate `data` against a JSON schema and return it, with an `int` for every integer.

    Raises:
        InvalidRequest: `data` does not match the schema.
    """
    details = problems(schema, data)
    if details:
        raise InvalidRequest(details=details)
    checked: dict[str, Any] = whole_numbers(schema, data)
    return checked


def submission(data: dict[str, Any], now: Ms) -> Submission:
    """Parse a `POST /jobs` or `/jobs/estimate`.

    Raises:
        InvalidRequest: fields are invalid; the details name all of them.
    """
    details = list(problems(schemas.SUBMIT, data))
    config = data.get("config") if isinstance(data.get("config"), dict) else {}
    assert isinstance(config, dict)
    kind = _same(details, "type", data.get("type"), "job_type", data.get("job_type")) or "general"
    priority = _same(details, "priority", data.get("priority"), "config.priority", config.get("priority")) or "normal"
    if data.get("input") is not None and data.get("prompt") is not None:
        details.append(Detail("input", "cannot be given together with prompt"))
    metadata = _metadata(details, data) or {}
    run_at = _run_at(details, data, now)
    parents = parse_depends_on(details, data.get("depends_on"))
    expires_in = _expires_in(details, data, run_at or now, DEPENDENT_EXPIRY_SECONDS if parents else DEFAULT_EXPIRY_SECONDS)
    details += durable_problems(config)
    if details:
        raise InvalidRequest(details=tuple(details))
    return Submission(
        prompt=data.get("prompt"),
        input=data.get("input"),
        job_type=kind,
        priority=priority,
        options=data.get("options") or {},
        config={name: value for name, value in whole_numbers(CONFIG, config).items() if name != "priority"},
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
    """Parse a `PATCH /jobs/{id}`: the changes of the record, and the metadata (None: unchanged).

    Raises:
        InvalidRequest: fields are invalid; the details name all of them.
    """
    details = list(problems(schemas.CHANGE, data))
    metadata = _metadata(details, data)
    has_start = data.get("run_at") is not None or data.get("delay") is not None
    run_at = _run_at(details, data, now) or now if has_start else None
    has_expiry = data.get("expires_at") is not None or data.get("expires_in") is not None
    start = run_at or now
    expires_at = start + round(_expires_in(details, data, start) * 1000) if has_expiry else None
    if all(value is None for value in data.values()) and not details:
        details.append(Detail("", f"has no field to change; fields are {', '.join(schemas.CHANGE['properties'])}"))
    if details:
        raise InvalidRequest(details=tuple(details))
    priority: str | None = data.get("priority")
    return JobEdit(run_at=run_at, expires_at=expires_at, lane=priority, tags=_tags(data), changes_spec=metadata is not None), metadata


def versions(request: ApiRequest) -> frozenset[int] | None:
    """The record versions that If-Match names; None accepts any version."""
    header = request.headers.get("if-match")
    if header is None or header.strip() == "*":
        return None
    tags = [tag.strip().removeprefix("W/").strip('"') for tag in header.split(",")]
    return frozenset(int(tag[1:]) for tag in tags if tag[:1] == "v" and tag[1:].isascii() and tag[1:].isdigit() and len(tag) < 12)


def idempotency_key(request: ApiRequest) -> str | None:
    """The Idempotency-Key header, None without one.

    Raises:
        InvalidRequest: the key is empty or longer than 255 characters, or is not UTF-8.
    """
    key: str | None = request.headers.get("idempotency-key")
    if key is not None and REPLACEMENT in key:  # different keys would become the same
        raise InvalidRequest(details=(Detail("Idempotency-Key", "is not UTF-8; ASCII is safest in a header"),))
    if key is not None and not 1 <= len(key) <= MAX_KEY_LENGTH:
        raise InvalidRequest(details=(Detail("Idempotency-Key", "must have 1 to 255 characters"),))
    return key


def filters(request: ApiRequest, **fixed: str) -> Filters:
    """Parse the filters of a list from the query.

    Args:
        fixed: filters that the route sets itself.

    Raises:
        InvalidRequest: the value of a parameter is not allowed.
    """
    details: list[Detail] = []
    enums = {"status": [status.value for status in Status], "priority": list(LANES)}
    for name, allowed in enums.items():
        if name in request.query and request.query[name] not in allowed:
            details.append(Detail(name, f"must be one of {', '.join(allowed)}"))
    times: dict[str, Any] = {name: time_of(details, name, request.query[name]) for name in ("since", "until") if name in request.query}
    if details:
        raise InvalidRequest(details=tuple(details))
    values: dict[str, Any] = {name: value for name, value in request.query.items() if name in Filters.__dataclass_fields__}
    return Filters(**(values | times | fixed))


def number(request: ApiRequest, name: str, default: int, lowest: int, highest: int) -> int:
    """A whole number from the query.

    Raises:
        InvalidRequest: the value is not a number, or out of range.
    """
    text = request.query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 12 or not lowest <= int(text) <= highest:
        raise InvalidRequest(details=(Detail(name, f"must be a whole number from {lowest} to {highest}"),))
    return int(text)


def flag(request: ApiRequest, name: str) -> bool:
    """A `true` or `false` in the query; false without it.

    Raises:
        InvalidRequest: it is something else.
    """
    text = request.query.get(name, "false")
    if text not in ("true", "false"):
        raise InvalidRequest(details=(Detail(name, "must be true or false"),))
    return text == "true"


def included(request: ApiRequest, allowed: Collection[str]) -> set[str]:
    """The values of `include`, separated by commas.

    Raises:
        InvalidRequest: a value is not allowed.
    """
    given = {text.strip() for text in request.query.get("include", "").split(",")} - {""}
    if not given <= set(allowed):
        raise InvalidRequest(details=(Detail("include", f"must be {', '.join(allowed)}"),))
    return given


def offset(request: ApiRequest) -> int:
    """The `offset` parameter, in code points."""
    return number(request, "offset", 0, 0, LAST_OFFSET)


def attempt(request: ApiRequest, default: int) -> int:
    """The `attempt` parameter."""
    return number(request, "attempt", default, 0, LAST_ATTEMPT)


def etags(request: ApiRequest) -> list[str] | None:
    """The entity tags in If-None-Match, None without the header."""
    header = request.headers.get("if-none-match")
    return None if header is None else [tag.strip().removeprefix("W/") for tag in header.split(",")]


def time_of(details: list[Detail], name: str, text: Any) -> Ms | None:
    """Parse a time; if it is invalid, append a detail and return None."""
    try:
        return parse_rfc3339(text)
    except (ValueError, TypeError, OverflowError):
        details.append(Detail(name, "must be a time such as 2026-11-22T09:30:00Z"))
        return None


def _metadata(details: list[Detail], data: dict[str, Any]) -> dict[str, Any] | None:
    metadata: dict[str, Any] | None = data.get("metadata")
    if len(json.dumps(metadata).encode()) > MAX_METADATA_BYTES:
        details.append(Detail("metadata", "is larger than 16 KB"))
    return metadata


def _tags(data: dict[str, Any]) -> tuple[str, ...] | None:
    tags = data.get("tags")
    return None if tags is None else tuple(dict.fromkeys(tags))


def _same(details: list[Detail], name: str, value: Any, other: str, other_value: Any) -> Any:
    """The value of a field that has two names; different values are an error."""
    if value is not None and other_value is not None and value != other_value:
        details.append(Detail(name, f"is {shortened(value)} but {other} is {shortened(other_value)}; they are names of the same field"))
    return value if value is not None else other_value


def _run_at(details: list[Detail], data: dict[str, Any], now: Ms) -> Ms | None:
    """When the job may start, from `run_at` or `delay`. None: now, also for a time in the past."""
    moment, delay = data.get("run_at"), data.get("delay")
    if moment is not None and delay is not None:
        details.append(Detail("run_at", "cannot be given together with delay"))
    if moment is None:
        return now + round(delay * 1000) if isinstance(delay, int | float) and 0 < delay <= MAX_DELAY_SECONDS else None
    at = time_of(details, "run_at", moment)
    if at is not None and at > now + MAX_DELAY_SECONDS * 1000:
        details.append(Detail("run_at", "must be within 30 days"))
    return at if at is not None and at > now else None


def _expires_in(details: list[Detail], data: dict[str, Any], now: Ms, default: float = DEFAULT_EXPIRY_SECONDS) -> float:
    """Seconds until the job expires, from `expires_in` or `expires_at`."""
    duration, moment = data.get("expires_in"), data.get("expires_at")
    if moment is None:
        return float(duration) if isinstance(duration, int | float) and 0 < duration <= MAX_EXPIRY_SECONDS else default
    if duration is not None:
        details.append(Detail("expires_at", "cannot be given together with expires_in"))
    at = time_of(details, "expires_at", moment)
    if at is not None and at <= now:
        details.append(Detail("expires_at", "must be after the job may start"))
    return ((at or now) - now) / 1000
