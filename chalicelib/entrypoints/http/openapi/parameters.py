"""The parameters of the routes in the OpenAPI document: in the query, in the path and in headers."""

from __future__ import annotations

from chalicelib.domain.streaming.subscriptions import LAST_OFFSET
from chalicelib.domain.validation.config_schema import Schema
from chalicelib.entrypoints.http.openapi.bodies import BATCH_ID, BATCH_OPTIONS, JOB_ID, TIME, UPLOAD_ID
from chalicelib.entrypoints.http.request_body import JSON
from chalicelib.entrypoints.http.requests import schemas
from chalicelib.entrypoints.http.requests.jobs import LAST_ATTEMPT

_EVENT_ID = "[0-9]{1,9}:[0-9]{1,12}(:(v[0-9]{1,9}|end(:[0-9]{1,9})?))?"
EVENT_ID: Schema = {"type": "string", "pattern": f"^{_EVENT_ID}$"}
EVENT_ID_OR_NONE: Schema = {"type": "string", "pattern": f"^({_EVENT_ID})?$"}
_AS_JSON = ("config", "options", "notify")  # batch options whose values are JSON in a query


def _in_query(rule: Schema) -> Schema:
    """The schema of a batch option as a query parameter, where it cannot be null."""
    if "anyOf" in rule:
        return next(part for part in rule["anyOf"] if part != {"type": "null"})
    plain = {key: value for key, value in rule.items() if key not in ("enum", "type")}
    if "enum" in rule:
        return {**plain, "enum": [value for value in rule["enum"] if value is not None]}
    (kind,) = (kind for kind in rule["type"] if kind != "null")
    return {**plain, "type": kind}


QUERY: dict[str, Schema] = {
    **schemas.FILTER,
    "since": TIME,
    "until": TIME,
    "batch": BATCH_ID,
    "upload_id": UPLOAD_ID,
    "detailed": {"type": "boolean", "description": "Include a page of rows."},
    "format": {"enum": ["json", "csv"], "default": "json"},
    "bom": {"type": "boolean", "default": False, "description": "Begin CSV with a byte order mark, by which Excel knows UTF-8."},
    "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
    "cursor": {"type": "string", "description": "`next_cursor` of the previous page."},
    "wait": {"type": "integer", "minimum": 0, "maximum": 20, "default": 0, "description": "Long polling: seconds to wait for a change."},
    "include": {"type": "array", "items": {"enum": ["prompt"]}, "description": "`prompt`: include prompt and input."},
    "attempt": {
        "type": "integer",
        "minimum": 0,
        "maximum": LAST_ATTEMPT,
        "description": "The number of an attempt; default: the last one.",
    },
    "offset": {"type": "integer", "minimum": 0, "maximum": LAST_OFFSET, "default": 0, "description": "In Unicode code points."},
    "ticket": {"type": "string", "description": "A stream ticket instead of an API key, for browsers."},
    "last_event_id": {**EVENT_ID_OR_NONE, "description": "Like the header `Last-Event-ID`, for a first request."},
    "lastEventId": {**EVENT_ID_OR_NONE, "description": "The same, as polyfills of EventSource name it."},
    "all": {"type": "boolean"},
    "dry_run": {"type": "boolean"},
}
# By route: parameters that it has alone, or that mean something else there.
OF_ROUTE: dict[str, dict[str, Schema]] = {
    "POST /batches": {name: _in_query(rule) for name, rule in BATCH_OPTIONS.items()},
    "GET /batches/{batch_id}/export": {"delimiter": _in_query(BATCH_OPTIONS["delimiter"])},
    "DELETE /failed-jobs": {"all": {"const": True}},
}
REQUIRED = frozenset([("DELETE /failed-jobs", "all")])
PATH: dict[str, Schema] = {
    "job_id": JOB_ID,
    "batch_id": BATCH_ID,
    "bulk_id": {"type": "string", "pattern": "^bulk_[0-9A-Z]{26}$"},
    "delivery_id": {"type": "string", "pattern": "^dlv_[A-Za-z0-9_-]{1,90}$"},
    "name": {"type": "string", "pattern": "^[a-z_]{1,64}$"},
    "queue": {
        "type": "string",
        "pattern": "^([a-z_]{1,64}|[*])(:(urgent|high|normal|low|[*]))?$",
        "description": "`type:lane`, `type`, `*:lane` or `*`.",
    },
    "pause_id": {"type": "string", "pattern": "^pause_[0-9a-f]{24}$"},
    "model": {"type": "string", "pattern": r"^[!-~]{1,128}$", "description": "Encoded for a path."},
    "tenant": {"type": "string", "pattern": r"^[!-~]{1,128}$", "description": "Encoded for a path."},
}
HEADERS: dict[str, Schema] = {
    "Idempotency-Key": {"type": "string", "minLength": 1, "maxLength": 255},
    "If-None-Match": {"type": "string", "description": "An `ETag`: 304 if nothing has changed."},
    "If-Match": {"type": "string", "description": "An `ETag`: 412 if something has changed."},
    "Last-Event-ID": {**EVENT_ID, "description": "The client's position, as `attempt:offset`."},
}
REQUEST_HEADERS: dict[str, tuple[str, ...]] = {
    "POST /jobs": ("Idempotency-Key",),
    "GET /jobs/{job_id}": ("If-None-Match",),
    "PATCH /jobs/{job_id}": ("If-Match",),
    "GET /jobs/{job_id}/status": ("If-None-Match",),
    "GET /jobs/{job_id}/progress": ("If-None-Match",),
    "GET /jobs/{job_id}/stream": ("Last-Event-ID",),
    "POST /jobs/{job_id}/retry": ("Idempotency-Key",),
    "POST /bulk": ("Idempotency-Key",),
    "POST /failed-jobs/retry": ("Idempotency-Key",),
    "POST /batches": ("Idempotency-Key",),
    "GET /batches/{batch_id}": ("If-None-Match",),
    "GET /batches/{batch_id}/export": ("If-None-Match",),
    "POST /batches/{batch_id}/retry-failed": ("Idempotency-Key",),
}


def parameter(route: str, name: str) -> Schema:
    """A parameter in the query or a header of a route, such as `GET /jobs`."""
    schema = dict(OF_ROUTE.get(route, {}).get(name) or QUERY.get(name) or HEADERS[name])
    text = schema.pop("description", None)
    described: Schema = {"name": name, "in": "header" if name in HEADERS else "query", **({"description": text} if text else {})}
    if (route, name) in REQUIRED:
        described["required"] = True
    if name in _AS_JSON:
        return {**described, "content": {JSON: {"schema": schema}}}
    # `include=a,b`; a repeated one is taken as well
    return {**described, "schema": schema, **({"explode": False} if schema.get("type") == "array" else {})}


def path_parameter(name: str) -> Schema:
    """A parameter in the path."""
    return {"name": name, "in": "path", "required": True, "schema": PATH[name]}
