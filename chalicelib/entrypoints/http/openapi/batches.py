"""What the table of routes does not say of batches and of uploads, for the API's document."""

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
_UPLOAD_ID: Schema = {"type": "string", "description": "A file of the caller's, from `POST /uploads`, instead of rows."}
_RETRY_FAILED: Schema = closed({"cancelled": {"type": "boolean", "default": False, "description": "Those that were cancelled as well."}})
_SUBMISSION: Schema = {
    "anyOf": [
        _ITEMS,
        closed(
            {"items": _ITEMS, **PROPERTIES, "config": optional(CONFIG), "upload_id": _UPLOAD_ID},
            oneOf=[{"required": ["items"]}, {"required": ["upload_id"]}],
        ),
    ]
}
_TABLE: Schema = {"type": "string", "description": "Rows, as docs/batches.md says what they look like; the terms are in the query."}


def _in_query(name: str, rule: Schema) -> Schema:
    """A term as the query has it: what is no text there is JSON, and null is not said at all."""
    if name in ("config", "options", "notify"):
        return {"type": "string", "contentMediaType": JSON, "description": "JSON, as it would stand in a JSON body."}
    plain = {key: value for key, value in rule.items() if key not in ("enum", "type")}
    if "enum" in rule:
        return {**plain, "enum": [word for word in rule["enum"] if word is not None]}
    (kind,) = (kind for kind in rule["type"] if kind != "null")
    return {**plain, "type": kind}


QUERY: dict[str, Schema] = {
    **{name: _in_query(name, rule) for name, rule in PROPERTIES.items()},
    "upload_id": _UPLOAD_ID,
    "detailed": {"type": "boolean", "description": "With the rows, a page of them."},
    "format": {"enum": ["json", "csv"], "default": "json"},
}

PARAMETERS: dict[str, tuple[str, ...]] = {
    "POST /batches": ("Idempotency-Key", *PROPERTIES, "upload_id"),
    "GET /batches": ("tenant", "limit", "cursor"),
    "GET /batches/{batch_id}": ("tenant", "detailed", "limit", "cursor", "wait", "If-None-Match"),
    "GET /batches/{batch_id}/export": ("tenant", "format", "wait", "If-None-Match"),
    "GET /batches/{batch_id}/deliveries": ("tenant",),
    "POST /batches/{batch_id}/deliveries/{delivery_id}/retry": ("tenant",),
    "POST /batches/{batch_id}/retry-failed": ("tenant", "Idempotency-Key"),
    "DELETE /batches/{batch_id}": ("tenant",),
    "POST /batches/{batch_id}/recount": ("tenant",),
}
BODIES: dict[str, str] = {"POST /batches": "BatchSubmission", "POST /batches/{batch_id}/retry-failed": "RetryFailed"}
REQUESTS: dict[str, Schema] = {"BatchSubmission": _SUBMISSION, "RetryFailed": _RETRY_FAILED}
OTHER_BODIES: dict[str, dict[str, Schema]] = {"POST /batches": {kind: _TABLE for kind in CONTENT_TYPES if kind != JSON}}
ANSWERS: dict[str, dict[str, str | None]] = {
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
_OUTLOOK = BatchEstimate(
    count=1, estimated_from=None, input_tokens=0, output_tokens=0, expected_cost=None, max_cost=None, duration_ms=0, first=()
)


def answers() -> dict[str, dict[str, Any]]:
    """What these routes answer, by name: every field of what they do answer, of something empty."""
    seen = BatchView(_BATCH, BatchCounts())
    page = {"data": {"type": "array", "items": {"type": "object"}}, "next_cursor": {"type": ["string", "null"]}}
    text, count = {"type": "string"}, {"type": "integer"}
    return {
        "Batch": _fields(batch_responses.batch(seen, 0)),
        "BatchExport": {**_fields(batch_responses.in_list(seen, 0)), "items": page["data"]},
        "Batches": page,
        "DryRun": _fields(batch_responses.estimate(_OUTLOOK, 0)),
        "Deliveries": page,
        "UploadLink": {"upload_id": text, "url": text, "method": text, "headers": {}, "expires_at": text, "max_bytes": count},
    }


def _fields(shape: batch_responses.Shape) -> dict[str, Any]:
    return {name: {} for name in shape}
