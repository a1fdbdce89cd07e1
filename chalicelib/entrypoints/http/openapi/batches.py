"""OpenAPI parameters, request bodies and responses of the batch and upload routes."""

from __future__ import annotations

from typing import Any

from chalicelib.domain.batches.batch import Batch
from chalicelib.domain.batches.counters import BatchCounts
from chalicelib.domain.batches.options import MAX_ROWS, PROPERTIES
from chalicelib.domain.batches.parsing.json_rows import ITEM
from chalicelib.domain.batches.parsing.reader import CONTENT_TYPES, JSON
from chalicelib.domain.validation.config_schema import CONFIG, Schema, closed, optional
from chalicelib.entrypoints.http.responses import batches as batch_responses
from chalicelib.services.batches.estimate_batch import BatchEstimate
from chalicelib.services.batches.manage_batch import BatchView

_ITEMS: Schema = {"type": "array", "minItems": 1, "maxItems": MAX_ROWS, "items": ITEM}
_UPLOAD_ID: Schema = {"type": "string", "description": "An upload from `POST /uploads`, instead of rows."}
_RETRY_FAILED: Schema = closed({"cancelled": {"type": "boolean", "default": False, "description": "Retry cancelled rows as well."}})
_SUBMISSION: Schema = {
    "anyOf": [
        _ITEMS,
        closed(
            {"items": _ITEMS, **PROPERTIES, "config": optional(CONFIG), "upload_id": _UPLOAD_ID},
            oneOf=[{"required": ["items"]}, {"required": ["upload_id"]}],
        ),
    ]
}
_ROWS_AS_TEXT: Schema = {"type": "string", "description": "Rows in the format of docs/batches.md; the options are in the query."}


def _in_query(name: str, rule: Schema) -> Schema:
    """The schema of an option as a query parameter: objects are JSON text, null is omitted."""
    if name in ("config", "options", "notify"):
        return {"type": "string", "contentMediaType": JSON, "description": "JSON, as in a JSON body."}
    plain = {key: value for key, value in rule.items() if key not in ("enum", "type")}
    if "enum" in rule:
        return {**plain, "enum": [value for value in rule["enum"] if value is not None]}
    (kind,) = (kind for kind in rule["type"] if kind != "null")
    return {**plain, "type": kind}


QUERY: dict[str, Schema] = {
    **{name: _in_query(name, rule) for name, rule in PROPERTIES.items()},
    "upload_id": _UPLOAD_ID,
    "detailed": {"type": "boolean", "description": "Include a page of rows."},
    "format": {"enum": ["json", "csv"], "default": "json"},
}

REQUEST_HEADERS: dict[str, tuple[str, ...]] = {
    "POST /batches": ("Idempotency-Key",),
    "GET /batches/{batch_id}": ("If-None-Match",),
    "GET /batches/{batch_id}/export": ("If-None-Match",),
    "POST /batches/{batch_id}/retry-failed": ("Idempotency-Key",),
}
REQUEST_BODIES: dict[str, str] = {"POST /batches": "BatchSubmission", "POST /batches/{batch_id}/retry-failed": "RetryFailed"}
REQUEST_SCHEMAS: dict[str, Schema] = {"BatchSubmission": _SUBMISSION, "RetryFailed": _RETRY_FAILED}
NON_JSON_BODIES: dict[str, dict[str, Schema]] = {"POST /batches": {kind: _ROWS_AS_TEXT for kind in CONTENT_TYPES if kind != JSON}}
RESPONSES: dict[str, dict[str, str | None]] = {
    "POST /batches": {"202": "Batch", "200": "DryRun"},
    "GET /batches": {"200": "Batches"},
    "GET /batches/{batch_id}": {"200": "Batch", "304": None},
    "GET /batches/{batch_id}/export": {"200": "BatchExport", "307": None},
    "GET /batches/{batch_id}/deliveries": {"200": "Deliveries"},
    "GET /jobs/{job_id}/deliveries": {"200": "Deliveries"},
    "POST /batches/{batch_id}/deliveries/{delivery_id}/retry": {"202": None},
    "POST /batches/{batch_id}/retry-failed": {"202": "Batch"},
    "DELETE /batches/{batch_id}": {"200": "Batch", "202": "Batch"},
    "POST /batches/{batch_id}/recount": {"200": "Batch"},
    "POST /uploads": {"201": "UploadLink"},
}

_BATCH = Batch(id="", tenant="", user="", key_id="", role="", total=1, created_at=0, updated_at=0)
_ESTIMATE = BatchEstimate(
    count=1, estimated_from=None, input_tokens=0, output_tokens=0, expected_cost=None, max_cost=None, duration_ms=0, first=()
)


def response_schemas() -> dict[str, dict[str, Any]]:
    """Response schemas by name. The fields are those of the real response to an empty batch."""
    view = BatchView(_BATCH, BatchCounts())
    page = {"data": {"type": "array", "items": {"type": "object"}}, "next_cursor": {"type": ["string", "null"]}}
    text, count = {"type": "string"}, {"type": "integer"}
    return {
        "Batch": _fields(batch_responses.batch(view, 0)),
        "BatchExport": {**_fields(batch_responses.in_list(view, 0)), "items": page["data"]},
        "Batches": page,
        "DryRun": _fields(batch_responses.estimate(_ESTIMATE, 0)),
        "Deliveries": page,
        "UploadLink": {"upload_id": text, "url": text, "method": text, "headers": {}, "expires_at": text, "max_bytes": count},
    }


def _fields(shape: batch_responses.Shape) -> dict[str, Any]:
    return {name: {} for name in shape}
