"""Responses as the OpenAPI document shows them: by route their statuses, bodies and headers."""

from __future__ import annotations

from typing import Any

from chalicelib.domain.batches.batch import Batch
from chalicelib.domain.batches.counters import BatchCounts
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.spec import JobConfig, JobSpec
from chalicelib.entrypoints.http.responses import batches as batch_responses
from chalicelib.entrypoints.http.responses import jobs as job_responses
from chalicelib.entrypoints.http.responses import progress as progress_responses
from chalicelib.entrypoints.http.responses import results as result_responses
from chalicelib.services.batches.estimate_batch import BatchEstimate
from chalicelib.services.batches.manage_batch import BatchView
from chalicelib.services.jobs.submit_job import Accepted

Schema = dict[str, Any]

# By route and status: the name of a schema, or None for a response without a body.
RESPONSES: dict[str, dict[str, str | None]] = {
    "GET /health": {"200": "Health"},
    "GET /openapi.json": {"200": "Document"},
    "GET /me": {"200": "Me"},
    "GET /job-types": {"200": "JobTypes"},
    "GET /job-types/{name}": {"200": "JobType"},
    "POST /jobs": {"202": "Accepted", "200": "Result"},
    "POST /jobs/estimate": {"200": "Estimate"},
    "GET /jobs": {"200": "Jobs"},
    "GET /jobs/{job_id}": {"200": "Record", "304": None},
    "PATCH /jobs/{job_id}": {"200": "Record"},
    "DELETE /jobs/{job_id}": {"200": "Status", "202": "Status"},
    "POST /jobs/{job_id}/cancel": {"200": "Status", "202": "Status"},
    "POST /jobs/{job_id}/retry": {"202": "Status"},
    "GET /jobs/{job_id}/status": {"200": "Status", "304": None},
    "GET /jobs/{job_id}/progress": {"200": "Progress", "304": None},
    "GET /jobs/{job_id}/progress-history": {"200": "History"},
    "GET /jobs/{job_id}/text": {"200": "Text"},
    "GET /jobs/{job_id}/result": {"200": "Result", "202": "Status", "307": "ResultLink"},
    "GET /jobs/{job_id}/download": {"202": "Status", "307": "Download"},
    "GET /jobs/{job_id}/attempts": {"200": "Attempts"},
    "GET /jobs/{job_id}/explain": {"200": "Explanation"},
    "GET /jobs/{job_id}/graph": {"200": "Graph"},
    "GET /jobs/{job_id}/stream": {"200": "Events", "204": None},
    "GET /jobs/{job_id}/deliveries": {"200": "JobDeliveries"},
    "POST /jobs/{job_id}/deliveries/{delivery_id}/retry": {"202": "Delivery"},
    "POST /stream-tickets": {"201": "Ticket"},
    "POST /uploads": {"201": "UploadLink"},
    "POST /batches": {"202": "Batch", "200": "DryRun"},
    "GET /batches": {"200": "Batches"},
    "GET /batches/{batch_id}": {"200": "Batch", "304": None},
    "GET /batches/{batch_id}/export": {"200": "BatchExport", "307": "BatchExportLink"},
    "GET /batches/{batch_id}/deliveries": {"200": "BatchDeliveries"},
    "POST /batches/{batch_id}/deliveries/{delivery_id}/retry": {"202": "Delivery"},
    "POST /batches/{batch_id}/retry-failed": {"202": "Batch"},
    "DELETE /batches/{batch_id}": {"200": "Batch", "202": "Batch"},
    "POST /batches/{batch_id}/recount": {"200": "Batch"},
    "POST /bulk": {"200": "BulkOrCount", "202": "Bulk"},
    "GET /bulk/{bulk_id}": {"200": "Bulk"},
    "GET /failed-jobs": {"200": "FailedJobsPage"},
    "POST /failed-jobs/retry": {"200": "BulkOrCount", "202": "Bulk"},
    "POST /failed-jobs/redrive": {"200": "Redriven"},
    "DELETE /failed-jobs": {"200": "BulkOrCount", "202": "Bulk"},
    "DELETE /failed-jobs/{job_id}": {"200": "Deleted", "202": "Deleted"},
    "GET /health/system": {"200": "SystemHealth"},
    "GET /circuits": {"200": "Circuits"},
    "POST /circuits/{model}/open": {"200": "Circuit"},
    "POST /circuits/{model}/close": {"200": "Circuit"},
    "GET /limits": {"200": "Limits"},
    "PUT /limits/models/{model}": {"200": "ModelLimits.set"},
    "PUT /limits/tenants/{tenant}": {"200": "TenantLimits.set"},
    "GET /queues": {"200": "Queues"},
    "GET /queues/{queue}": {"200": "Queue"},
    "POST /queues/{queue}/pause": {"200": "Pause", "201": "Pause"},
    "POST /queues/{queue}/resume": {"200": "Resumed"},
    "GET /pauses": {"200": "Pauses"},
    "POST /pauses": {"200": "Pause", "201": "Pause"},
    "DELETE /pauses/{pause_id}": {"200": "Pause"},
    "POST /jobs/{job_id}/pause": {"200": "Status"},
    "POST /jobs/{job_id}/resume": {"200": "Status"},
    "POST /batches/{batch_id}/pause": {"200": "Pause", "201": "Pause"},
    "POST /batches/{batch_id}/resume": {"200": "BatchResumed"},
    "GET /webhooks": {"200": "Webhooks"},
    "POST /webhooks/rotate": {"200": "Webhooks"},
    "PUT /webhooks/addresses": {"200": "Webhooks"},
    "POST /webhooks/test": {"200": "TestDelivery"},
}
EVENT_STREAM = "text/event-stream"  # the content of `Events`
MORE_CONTENT: dict[str, dict[str, Schema]] = {"GET /batches/{batch_id}/export": {"text/csv": {"type": "string"}}}
# The statuses of errors that only some routes have.
ERRORS: dict[str, tuple[str, ...]] = {
    "POST /jobs": ("409", "410"),
    "PATCH /jobs/{job_id}": ("409", "412"),
    "POST /jobs/{job_id}/retry": ("409", "410"),
    "GET /jobs/{job_id}/text": ("410",),
    "GET /jobs/{job_id}/result": ("410",),
    "GET /jobs/{job_id}/download": ("410",),
    "GET /jobs/{job_id}/stream": ("410",),
    "POST /jobs/{job_id}/deliveries/{delivery_id}/retry": ("409",),
    "POST /batches": ("404", "409"),
    "GET /batches/{batch_id}/export": ("413",),
    "POST /batches/{batch_id}/deliveries/{delivery_id}/retry": ("409",),
    "POST /batches/{batch_id}/retry-failed": ("409",),
    "POST /bulk": ("409",),
    "POST /queues/{queue}/pause": ("409",),
    "POST /pauses": ("404", "409"),
    "POST /jobs/{job_id}/pause": ("409",),
    "POST /jobs/{job_id}/resume": ("409",),
    "POST /batches/{batch_id}/pause": ("409",),
    "POST /failed-jobs/retry": ("409",),
    "DELETE /failed-jobs/{job_id}": ("409",),
    "POST /jobs/estimate": ("404",),
    "POST /stream-tickets": ("404",),
}
STATUS_DESCRIPTIONS = {
    "200": "Success.",
    "201": "Created.",
    "202": "Accepted, or not finished yet.",
    "204": "No more events: the stream has ended.",
    "304": "Not modified.",
    "307": "The content is at `Location`.",
}

_FIELDS: dict[str, str] = {
    "Health": "status stage time",
    "Me": "tenant user role key_id expires_at limits websocket",
    "JobTypes": "data next_cursor",
    "Batches": "data next_cursor",
    "Circuits": "data next_cursor",
    "JobType": "job_type title description default_model max_tokens least_role limits stages retry_schedule_seconds works_without_key "
    "preliminary options_schema input_schema response_schema in_use",
    "Estimate": "job_type model queue queue_position estimated_input_tokens estimated_output_tokens estimated_cost max_cost currency "
    "estimated_duration_seconds estimated_completion_at",
    "Jobs": "data next_cursor scanned_until",
    "FailedJobsPage": "data next_cursor scanned_until dead_letters",
    "History": "job_id attempt data next_cursor",
    "Text": "job_id status attempt offset text next_offset done",
    "ResultLink": "job_id status length location",
    "Download": "job_id object location",
    "Attempts": "job_id data next_cursor total_cost wasted_cost currency",
    "Explanation": "job_id status events version",
    "Graph": "job_id nodes edges truncated",
    "JobDeliveries": "job_id data next_cursor",
    "BatchDeliveries": "batch_id data next_cursor",
    "Delivery": "delivery_id channel address event message_id status attempts next_attempt_at created_at finished_at",
    "Ticket": "ticket expires_at jobs",
    "UploadLink": "upload_id url method headers expires_at max_bytes",
    "BatchExportLink": "batch_id location",
    "Bulk": "bulk_id action status priority reason pause_until filter ids matched done skipped failed not_found problems created_by "
    "created_at updated_at finished_at",
    "Count": "dry_run action matched more",
    "Redriven": "redriven dropped kept lanes more",
    "Deleted": "job_id deleted",
    "SystemHealth": "status parts issues recommendations generated_at",
    "Circuit": "model scope tenants state reason forced forced_by failures trips last_failure_at opened_at closed_at until",
    "Limits": "limits tenants models types",
    "ModelLimits.set": "model requests tokens configured source used blocked_until waiting",
    "TenantLimits.set": "tenant weight fair_by concurrency running user_concurrency user_running queued shards updated_at updated_by",
    "Queues": "data next_cursor",
    "Queue": "name data next_cursor",
    "Pauses": "data next_cursor",
    "Pause": "pause_id name scope tenant by_operator by reason paused_at until",
    "Resumed": "name resumed ended",
    "BatchResumed": "batch_id resumed ended",
    "Webhooks": "secret rotated_at previous_valid_until addresses email_configured",
    "TestDelivery": "delivered message_id status_code error duration_seconds",
}
# What a response has only sometimes.
_SOMETIMES: dict[str, str] = {
    "Accepted": "deduplicated preliminary ticket",
    "Record": "prompt input",
    "Batch": "data next_cursor",
    "Deleted": "bulk_id",
}
# Texts that may be null in a response.
_NULLABLE: dict[str, str] = {"Pause": "tenant"}  # null: for everybody
_TEXT: Schema = {"type": "string"}
_TEXTS = frozenset(
    ["job_id", "bulk_id", "upload_id", "message_id", "delivery_id", "status", "tenant", "user", "currency", "text", "url", "method"]
) | {"location", "ticket", "secret", "job_type"}
_COUNTS = frozenset(
    ["version", "run", "offset", "next_offset", "length", "matched", "skipped", "failed", "not_found", "redriven", "dropped", "kept"]
) | {"count"}
_FLAGS = frozenset(
    [
        "deleted",
        "deduplicated",
        "truncated",
        "delivered",
        "forced",
        "email_configured",
        "dry_run",
        "more",
        "fallback",
        "resumed",
        "by_operator",
    ]
)

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
_BATCH = Batch(id="", tenant="", user="", key_id="", role="", total=1, created_at=0, updated_at=0)
_ESTIMATE = BatchEstimate(
    count=1, estimated_from=None, input_tokens=0, output_tokens=0, expected_cost=None, max_cost=None, duration_ms=0, first=()
)


def response_schemas() -> dict[str, Schema]:
    """Response schemas by name. The fields of the large ones are those of the real responses to an empty job or batch."""
    view = BatchView(_BATCH, BatchCounts())
    shapes: dict[str, Any] = {
        **{name: fields.split() for name, fields in _FIELDS.items()},
        "Accepted": job_responses.accepted(Accepted(job=_JOB, spec=_SPEC, position=1), None),
        "Record": job_responses.record(_JOB, _SPEC, None, now=0, content=True),
        "Status": progress_responses.status(_JOB, None, None, 0),
        "Progress": progress_responses.progress(_JOB, None, None, 0, content=True),
        "Result": result_responses.result(_JOB, None),
        "Batch": batch_responses.batch(view, 0),
        "BatchExport": [*batch_responses.in_list(view, 0), "items"],
        "DryRun": batch_responses.estimate(_ESTIMATE, 0),
    }
    either = {"anyOf": [{"$ref": "#/components/schemas/Bulk"}, {"$ref": "#/components/schemas/Count"}]}
    return {
        "Document": {"type": "object"},
        "Events": {"description": "Server-Sent Events: docs/api.md has their names and fields."},
        "BulkOrCount": either,
        **{
            name: _object_of(list(fields), _SOMETIMES.get(name, "").split(), _NULLABLE.get(name, "").split())
            for name, fields in shapes.items()
        },
    }


def error_statuses(name: str, *, public: bool, has_parameters: bool, has_body: bool) -> list[str]:
    """The statuses of the errors of a route."""
    statuses = {"400", "500", "503", *ERRORS.get(name, ())}
    statuses |= set() if public else {"401", "403", "429"}
    statuses |= {"404"} if has_parameters else set()
    statuses |= {"413", "415"} if has_body else set()
    return sorted(statuses)


def response_headers(name: str, status: str, *, public: bool, sent: tuple[str, ...]) -> list[str]:
    """The headers of a successful response.

    Args:
        sent: the headers that a request may have.
    """
    headers = ["X-Request-Id", "Headrace-Version"]
    headers += [] if public else ["RateLimit", "RateLimit-Policy"]
    headers += ["ETag"] if {"If-None-Match", "If-Match"} & set(sent) and status in ("200", "304") else []
    headers += ["Idempotent-Replayed"] if "Idempotency-Key" in sent else []
    headers += ["Location"] if status == "307" else []
    headers += ["Retry-After"] if (name.endswith(("/result", "/download")) and status == "202") else []
    return headers


def _object_of(fields: list[str], sometimes: list[str], nullable: list[str]) -> Schema:
    properties = {"success": {"const": True}, **{name: _field(name) for name in (*fields, *sometimes)}}
    properties |= {name: {"type": ["string", "null"]} for name in nullable}
    return {"type": "object", "required": ["success", *fields], "properties": properties}


def _field(name: str) -> Schema:
    if name.endswith("_at"):
        return {"type": ["string", "null"], "format": "date-time"}
    if name == "cost" or name.endswith("_cost") or name == "next_cursor":
        return {"type": ["string", "null"]}
    if name in _TEXTS:
        return _TEXT
    if name in _COUNTS:
        return {"type": "integer"}
    if name in _FLAGS:
        return {"type": "boolean"}
    return {"type": "array"} if name in ("data", "items") else {}
