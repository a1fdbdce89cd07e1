"""OpenAPI parameters, request bodies and responses of the routes.

Routes that are not listed here appear in the document with their path and role, and with any object
as request body.
"""

from __future__ import annotations

from typing import Any

from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.spec import JobConfig, JobSpec
from chalicelib.domain.streaming.subscriptions import LAST_OFFSET
from chalicelib.entrypoints.http.openapi import batches as openapi_batches
from chalicelib.entrypoints.http.requests import schemas
from chalicelib.entrypoints.http.responses import jobs as job_responses
from chalicelib.entrypoints.http.responses import progress as progress_responses
from chalicelib.entrypoints.http.responses import results as result_responses
from chalicelib.services.jobs.submit_job import Accepted

Schema = dict[str, Any]


EVENT_ID: Schema = {"type": "string", "pattern": r"^[0-9]{1,9}:[0-9]{1,12}(:(v[0-9]{1,9}|end(:[0-9]{1,9})?))?$"}
QUERY: dict[str, Schema] = {
    **openapi_batches.QUERY,
    **{name: schema for name, schema in schemas.FILTER.items() if name in schemas.FILTERS},
    "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
    "cursor": {"type": "string", "description": "`next_cursor` of the previous page."},
    "wait": {"type": "integer", "minimum": 0, "maximum": 20, "default": 0, "description": "Long polling: seconds to wait for a change."},
    "include": {"type": "array", "items": {"enum": ["prompt"]}, "description": "`prompt`: include prompt and input."},
    "attempt": {"type": "integer", "minimum": 0, "description": "The number of an attempt; default: the last one."},
    "offset": {"type": "integer", "minimum": 0, "maximum": LAST_OFFSET, "default": 0, "description": "In Unicode code points."},
    "ticket": {"type": "string", "description": "A stream ticket instead of an API key, for browsers."},
    "last_event_id": {**EVENT_ID, "description": "Like the header `Last-Event-ID`, for a first request."},
    "lastEventId": {**EVENT_ID, "description": "The same, as polyfills of EventSource name it."},
    "all": {"type": "boolean"},
    "dry_run": {"type": "boolean"},
}
HEADERS: dict[str, Schema] = {
    "Idempotency-Key": {"type": "string", "minLength": 1, "maxLength": 255},
    "If-None-Match": {"type": "string", "description": "An `ETag`: 304 if nothing has changed."},
    "If-Match": {"type": "string", "description": "An `ETag`: 412 if something has changed."},
    "Last-Event-ID": {**EVENT_ID, "description": "The client's position, as `attempt:offset`."},
}
# The query parameters are those of `endpoint`.
REQUEST_HEADERS: dict[str, tuple[str, ...]] = {
    **openapi_batches.REQUEST_HEADERS,
    "POST /jobs": ("Idempotency-Key",),
    "GET /jobs/{job_id}": ("If-None-Match",),
    "PATCH /jobs/{job_id}": ("If-Match",),
    "GET /jobs/{job_id}/status": ("If-None-Match",),
    "GET /jobs/{job_id}/progress": ("If-None-Match",),
    "GET /jobs/{job_id}/stream": ("Last-Event-ID",),
    "POST /jobs/{job_id}/retry": ("Idempotency-Key",),
    "POST /bulk": ("Idempotency-Key",),
    "POST /failed-jobs/retry": ("Idempotency-Key",),
}
REQUEST_BODIES: dict[str, str] = {
    **openapi_batches.REQUEST_BODIES,
    "POST /jobs": "Submission",
    "POST /jobs/estimate": "Submission",
    "PATCH /jobs/{job_id}": "Change",
    "POST /jobs/{job_id}/retry": "Retry",
    "POST /bulk": "Bulk",
    "POST /failed-jobs/retry": "FailedJobs",
    "POST /failed-jobs/redrive": "Redrive",
    "POST /stream-tickets": "StreamTicket",
    "POST /uploads": "Upload",
    "POST /circuits/{model}/open": "Circuit",
    "POST /circuits/{model}/close": "Circuit",
    "POST /webhooks/rotate": "Nothing",
    "PUT /webhooks/addresses": "WebhookAddresses",
    "POST /webhooks/test": "WebhookTest",
}
NON_JSON_BODIES = openapi_batches.NON_JSON_BODIES  # by content type
REQUEST_SCHEMAS: dict[str, Schema] = {
    **openapi_batches.REQUEST_SCHEMAS,
    "SubmissionOfAnyType": schemas.SUBMIT,
    "Change": schemas.CHANGE,
    "Retry": schemas.RETRY,
    "Bulk": schemas.BULK,
    "FailedJobs": schemas.FAILED,
    "Redrive": schemas.REDRIVE,
    "StreamTicket": schemas.TICKET,
    "Upload": schemas.UPLOAD,
    "Circuit": schemas.CIRCUIT,
    "Nothing": schemas.NOTHING,
    "WebhookAddresses": schemas.ADDRESSES,
    "WebhookTest": schemas.WEBHOOK_TEST,
}
# By route and status: a schema, a content type, or None for a plain success.
RESPONSES: dict[str, dict[str, str | None]] = {
    **openapi_batches.RESPONSES,
    "POST /jobs": {"202": "Accepted", "200": "Result"},
    "GET /jobs/{job_id}": {"200": "Record", "304": None},
    "PATCH /jobs/{job_id}": {"200": "Record"},
    "DELETE /jobs/{job_id}": {"200": "Status", "202": "Status"},
    "POST /jobs/{job_id}/cancel": {"200": "Status", "202": "Status"},
    "POST /jobs/{job_id}/retry": {"202": "Status"},
    "GET /jobs/{job_id}/status": {"200": "Status", "304": None},
    "GET /jobs/{job_id}/progress": {"200": "Progress", "304": None},
    "GET /jobs/{job_id}/result": {"200": "Result", "202": "Status", "307": None},
    "GET /jobs/{job_id}/stream": {"200": "text/event-stream", "204": None},
    "POST /jobs/{job_id}/deliveries/{delivery_id}/retry": {"202": None},
    "POST /stream-tickets": {"201": None},
    "POST /bulk": {"200": None, "202": None},
    "POST /failed-jobs/retry": {"200": None, "202": None},
    "DELETE /failed-jobs": {"200": None, "202": None},
    "DELETE /failed-jobs/{job_id}": {"200": None, "202": None},
}
STATUS_DESCRIPTIONS = {
    "200": "Success.",
    "201": "Created.",
    "202": "Accepted, or not finished yet.",
    "204": "No more events: the stream has ended.",
    "304": "Not modified.",
    "307": "The content is at `Location`.",
}

_JOB = Job(
    id="",
    tenant="",
    user="",
    key_id="",
    type="",
    lane="normal",
    model="",
    status=Status.QUEUED,
    created_at=0,
    queued_at=0,
    expires_at=0,
    due_at=0,
)
_SPEC = JobSpec(prompt="", config=JobConfig(model="", max_tokens=16))


def response_schemas() -> dict[str, Schema]:
    """Response schemas by name. The fields are those of the real responses to an empty job."""
    others = {name: _object_of(properties) for name, properties in openapi_batches.response_schemas().items()}
    return {
        **others,
        "Accepted": _fields_of(job_responses.accepted(Accepted(job=_JOB, spec=_SPEC, position=1), None)),
        "Record": _fields_of(job_responses.record(_JOB, _SPEC, None, content=True)),
        "Status": _fields_of(progress_responses.status(_JOB, None, None, 0)),
        "Progress": _fields_of(progress_responses.progress(_JOB, None, None, 0, content=True)),
        "Result": _fields_of(result_responses.result(_JOB, None)),
    }


def _fields_of(shape: job_responses.Shape) -> Schema:
    return _object_of({name: {} for name in shape})


def _object_of(properties: Schema) -> Schema:
    return {"type": "object", "required": ["success", *properties], "properties": {"success": {"const": True}, **properties}}
