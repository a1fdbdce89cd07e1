"""Request bodies as the OpenAPI document shows them: with the rules between fields, as alternatives.

Requests are validated with the schemas of `requests/schemas.py` and with code, whose messages are
clearer than those about alternatives would be. A client that generates requests from the document
needs the rules.
"""

from __future__ import annotations

from chalicelib import job_types
from chalicelib.domain.batches.options import MAX_ROWS, PROPERTIES
from chalicelib.domain.batches.parsing.forms import FORM
from chalicelib.domain.batches.parsing.json_rows import CONTENT_FIELDS, ITEM
from chalicelib.domain.batches.parsing.reader import CONTENT_TYPES, JSON
from chalicelib.domain.jobs.bulk_operation import ALLOWED, BulkAction
from chalicelib.domain.jobs.dependencies import MAX_PARENTS
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.domain.validation.config_schema import CONFIG, MAX_TIMEOUT, NAME, PRIORITY, Schema, closed, optional
from chalicelib.entrypoints.http.requests import schemas
from chalicelib.services.jobs.plan_job import MODEL_ONLY_OPTIONS

NULL: Schema = {"type": "null"}
JOB_ID: Schema = {"type": "string", "pattern": "^job_[0-9A-HJKMNP-TV-Z]{26}$"}
BATCH_ID: Schema = {"type": "string", "pattern": "^batch_[0-9A-HJKMNP-TV-Z]{22}0000$"}
TIME: Schema = {"type": "string", "format": "date-time"}
UPLOAD_ID: Schema = {"type": "string", "description": "An upload from `POST /uploads`, instead of rows."}
_TEXT: Schema = {"type": "string", "pattern": r"\S"}
_RECIPIENT = r"^(email:[A-Za-z0-9._+-]{1,64}@([A-Za-z0-9]{1,63}\.)+[A-Za-z]{2,63}|slack:[a-z0-9][a-z0-9_-]{0,63})$"
_RECIPIENTS: Schema = {**schemas.NOTIFY, "items": {"type": "string", "pattern": _RECIPIENT}}
_URL: Schema = {"type": "string", "format": "uri", "pattern": "^https://", "maxLength": 2_000}
_PARENT_NAME = "^[A-Za-z0-9_-]{1,64}$"


def _config(left_out: tuple[str, ...] = ()) -> Schema:
    """`config` without some of its fields."""
    fields = {name: rule for name, rule in CONFIG["properties"].items() if name not in left_out}
    within_a_worker = {"properties": {"timeout": optional({"type": "number", "maximum": MAX_TIMEOUT})}}
    if "durable" in left_out:
        return {**closed(fields), "allOf": [within_a_worker]}
    kept_by_openai = {
        "properties": {"openai": {"properties": {"store": {"const": True}}}, "durable": {"const": True}},
        "required": ["durable"],
    }
    return {
        **closed(fields),
        "anyOf": [{"properties": {"durable": {"enum": [False, None]}, **within_a_worker["properties"]}}, kept_by_openai],
    }


_CLEARER: Schema = {  # than in the schema that validates
    "expires_at": optional(TIME),
    "run_at": optional(TIME),
    "depends_on": {
        "anyOf": [
            {"type": "array", "items": JOB_ID, "maxItems": MAX_PARENTS, "uniqueItems": True},
            {"type": "object", "propertyNames": {"pattern": _PARENT_NAME}, "additionalProperties": JOB_ID, "maxProperties": MAX_PARENTS},
            NULL,
        ]
    },
    "webhook_url": optional(_URL),
    "notify": optional(_RECIPIENTS),
}
SUBMISSION_FIELDS: Schema = {
    **{name: rule for name, rule in schemas.SUBMIT["properties"].items() if name not in ("prompt", "input", "options", "job_type", "type")},
    **_CLEARER,
    "config": optional(_config()),
    "config_of_task": optional(_config(MODEL_ONLY_OPTIONS)),
}
_TWICE = [["run_at", "delay"], ["expires_at", "expires_in"]]  # two ways to say the same


def submission(kind: JobType, *, named: bool, options: Schema, content: Schema | None) -> Schema:
    """The submission of a job of one type.

    Args:
        named: the request has to name the type.
        options: the schema of its options.
        content: the schema of its input; None: it takes a prompt.
    """
    fields = {name: {"$ref": f"#/components/schemas/SubmissionFields/properties/{name}"} for name in SUBMISSION_FIELDS}
    task_config = fields.pop("config_of_task")
    names = ("job_type", "type")  # two names of one field
    prompt: Schema = {"type": "string", "pattern": r"\S", "maxLength": 1_000_000}
    return {
        "title": kind.title,
        "description": kind.description,
        "x-least-role": kind.min_role,
        **closed(
            {
                **fields,
                **{name: {"enum": [kind.name, None]} for name in names},
                "config": task_config if kind.is_task else fields["config"],
                "options": {"anyOf": [options, NULL]},
                "prompt": NULL if content else prompt,
                "input": content or NULL,
            },
            required=["input" if content else "prompt"],
        ),
        **({"anyOf": [{"required": [name], "properties": {name: {"const": kind.name}}} for name in names]} if named else {}),
        "not": {"anyOf": [{"required": pair} for pair in _TWICE]},
    }


_FIELDS_OF_CHANGE: Schema = {**schemas.CHANGE["properties"], "run_at": optional(TIME), "expires_at": optional(TIME)}
CHANGE: Schema = {
    **closed(_FIELDS_OF_CHANGE, minProperties=1),
    "anyOf": [{"required": [name], "properties": {name: {"not": NULL}}} for name in _FIELDS_OF_CHANGE],
    "not": {"anyOf": [{"required": pair} for pair in _TWICE]},
}

_PAUSED_UNTIL: Schema = {"until": optional(TIME)}


def _pause(schema: Schema) -> Schema:
    return {**schema, "properties": {**schema["properties"], **_PAUSED_UNTIL}}


_OF_BATCH = closed({"tenant": optional(NAME), "batch": BATCH_ID, "type": NULL, "lane": NULL}, required=["batch"])
_OF_QUEUE = closed(
    {
        "tenant": optional(NAME),
        "type": {"enum": [*(kind.name for kind in job_types.all_types()), None]},
        "lane": optional(PRIORITY),
        "batch": NULL,
    }
)
PAUSE: Schema = {
    **schemas.PAUSE,
    "properties": {**schemas.PAUSE["properties"], **_PAUSED_UNTIL, "scope": {"anyOf": [_OF_QUEUE, _OF_BATCH]}},
}

_FILTER: Schema = {**schemas.FILTER, "since": TIME, "until": TIME}


def _bulk(action: BulkAction) -> list[Schema]:
    """The ways to select the jobs of an action: by ids, by a filter, or all."""
    fields: Schema = {"action": {"const": action.value}, "dry_run": {"type": "boolean"}}
    required = ["action"]
    if action is BulkAction.SET_PRIORITY:
        fields, required = {**fields, "priority": PRIORITY}, [*required, "priority"]
    if action is BulkAction.PAUSE:
        fields |= {"reason": optional(schemas.REASON), "pause_until": optional(TIME)}
    some: Schema = {"before": TIME, "limit": {"type": "integer", "minimum": 1, "maximum": schemas.MAX_BULK_LIMIT}}
    rules = {**_FILTER, "status": {"enum": sorted(status.value for status in ALLOWED[action])}}
    narrowing = {**closed(rules), "anyOf": [{"required": [name]} for name in rules if name != "tenant"]}
    return [
        closed({**fields, "ids": schemas.IDS, "all": {"const": False}, "filter": closed({})}, required=[*required, "ids"]),
        closed({**fields, **some, "filter": narrowing, "all": {"type": "boolean"}}, required=[*required, "filter"]),
        closed({**fields, **some, "all": {"const": True}, "filter": closed({"tenant": rules["tenant"]})}, required=[*required, "all"]),
    ]


BULK: Schema = {"anyOf": [way for action in BulkAction for way in _bulk(action)]}
FAILED: Schema = {
    "anyOf": [
        closed({"ids": schemas.IDS, "all": {"const": False}, "dry_run": {"type": "boolean"}}, required=["ids"]),
        closed(
            {"all": {"const": True}, "dry_run": {"type": "boolean"}, **{name: _FILTER[name] for name in schemas.FAILED_FILTERS}},
            required=["all"],
        ),
    ]
}
TICKET: Schema = closed(
    {**schemas.TICKET["properties"], "jobs": optional({"type": "array", "minItems": 1, "maxItems": 100, "items": JOB_ID})}
)
ADDRESSES: Schema = closed(
    {
        "emails": {
            **schemas.ADDRESSES["properties"]["emails"],
            "items": {"type": "string", "format": "email", "minLength": 3, "maxLength": 254},
        },
        "slack": {
            **schemas.ADDRESSES["properties"]["slack"],
            "propertyNames": {"pattern": "^[a-z0-9][a-z0-9_-]{0,63}$"},
            "additionalProperties": optional(_URL),
        },
    }
)
WEBHOOK_TEST: Schema = closed({"url": _URL}, required=["url"])

_ITEM: Schema = {
    "anyOf": [
        _TEXT,
        {
            "type": "object",
            "properties": {
                **ITEM["properties"],
                "content": optional(_TEXT),
                "prompt": optional(_TEXT),
                "input": {"anyOf": [_TEXT, {"type": "object"}, NULL]},
            },
            "additionalProperties": False,
            "anyOf": [
                {"required": [name], "properties": {name: {"not": NULL}, **{other: NULL for other in CONTENT_FIELDS if other != name}}}
                for name in CONTENT_FIELDS
            ],
        },
    ]
}
_ITEMS: Schema = {"type": "array", "minItems": 1, "maxItems": MAX_ROWS, "items": _ITEM}
_JOB_TYPE: Schema = {"enum": [*(kind.name for kind in job_types.all_types()), None]}
BATCH_OPTIONS: Schema = {
    **PROPERTIES,
    "type": _JOB_TYPE,
    "job_type": _JOB_TYPE,
    "config": optional(_config()),
    "prompt_template": optional({"type": "string", "pattern": r"\{\{\s*[A-Za-z_][\w.]*\s*\}\}", "maxLength": 100_000}),
    "webhook_url": optional(_URL),
    "notify": optional(_RECIPIENTS),
}
BATCH: Schema = {
    "anyOf": [
        _ITEMS,
        closed({"items": _ITEMS, **BATCH_OPTIONS}, required=["items"]),
        closed({"upload_id": UPLOAD_ID, **BATCH_OPTIONS}, required=["upload_id"]),
    ]
}
RETRY_FAILED: Schema = closed({"cancelled": {"type": "boolean", "default": False, "description": "Retry cancelled rows as well."}})

# By route: the name of the schema of its JSON body.
REQUEST_BODIES: dict[str, str] = {
    "POST /jobs": "Submission",
    "POST /jobs/estimate": "Submission",
    "PATCH /jobs/{job_id}": "Change",
    "POST /jobs/{job_id}/retry": "Retry",
    "POST /bulk": "Bulk.request",
    "POST /failed-jobs/retry": "FailedJobs",
    "POST /failed-jobs/redrive": "Redrive",
    "POST /stream-tickets": "StreamTicket",
    "POST /uploads": "Upload",
    "POST /circuits/{model}/open": "CircuitReason",
    "POST /circuits/{model}/close": "CircuitReason",
    "PUT /limits/models/{model}": "ModelLimits",
    "PUT /limits/tenants/{tenant}": "TenantLimits",
    "POST /queues/{queue}/pause": "QueuePause",
    "POST /queues/{queue}/resume": "QueueResume",
    "POST /pauses": "Pause.request",
    "POST /jobs/{job_id}/pause": "JobPause",
    "POST /batches/{batch_id}/pause": "BatchPause",
    "POST /webhooks/rotate": "Nothing",
    "PUT /webhooks/addresses": "WebhookAddresses",
    "POST /webhooks/test": "WebhookTest",
    "POST /batches": "BatchSubmission",
    "POST /batches/{batch_id}/retry-failed": "RetryFailed",
}
REQUIRED_BODIES = frozenset(["Submission", "Change", "Bulk.request", "FailedJobs", "Upload", "WebhookTest", "TenantLimits"]) | {
    "ModelLimits",
    "QueuePause",
    "Pause.request",
}
FILE_TYPES = [kind for kind in CONTENT_TYPES if kind != FORM]
REQUEST_SCHEMAS: dict[str, Schema] = {
    "SubmissionFields": closed(SUBMISSION_FIELDS),
    "Change": CHANGE,
    "Retry": schemas.RETRY,
    "Bulk.request": BULK,
    "FailedJobs": FAILED,
    "Redrive": schemas.REDRIVE,
    "StreamTicket": TICKET,
    "Upload": closed({"content_type": optional({"enum": FILE_TYPES}), "size": schemas.UPLOAD["properties"]["size"]}, required=["size"]),
    "CircuitReason": schemas.CIRCUIT,
    "ModelLimits": schemas.MODEL_LIMITS,
    "TenantLimits": schemas.TENANT_LIMITS,
    "QueuePause": _pause(schemas.QUEUE_PAUSE),
    "QueueResume": schemas.QUEUE_RESUME,
    "Pause.request": PAUSE,
    "JobPause": _pause(schemas.JOB_PAUSE),
    "BatchPause": _pause(schemas.BATCH_PAUSE),
    "Nothing": schemas.NOTHING,
    "WebhookAddresses": ADDRESSES,
    "WebhookTest": WEBHOOK_TEST,
    "BatchSubmission": BATCH,
    "RetryFailed": RETRY_FAILED,
}
_ROWS_AS_TEXT: Schema = {"type": "string", "description": "Rows in the format of docs/batches.md; the options are in the query."}
_FILES: Schema = {
    "type": "object",
    "description": "Files with rows, each of a type above, in fields of any name.",
    "additionalProperties": {"type": "string", "format": "binary"},
    "minProperties": 1,
}
# By route and content type.
OTHER_BODIES: dict[str, dict[str, Schema]] = {
    "POST /batches": {kind: {JSON: BATCH, FORM: _FILES}.get(rows, _ROWS_AS_TEXT) for kind, rows in CONTENT_TYPES.items() if kind != JSON}
}
