"""JSON schemas of the requests, for validation and for the OpenAPI document."""

from __future__ import annotations

from chalicelib.domain.jobs.bulk_operation import BulkAction
from chalicelib.domain.jobs.dependencies import MAX_PARENTS, POLICIES
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.limits.pauses import MAX_REASON_LENGTH
from chalicelib.domain.limits.rate_limit import MAX_LIMIT
from chalicelib.domain.limits.tenant_limits import MAX_CONCURRENCY, MAX_INDEX_SHARDS, MAX_QUEUED, MAX_WEIGHT, MIN_WEIGHT, QUEUED, FairBy
from chalicelib.domain.notifications.recipients import MAX_ADDRESSES, MAX_RECIPIENTS
from chalicelib.domain.notifications.webhook_url import MAX_URL_LENGTH
from chalicelib.domain.queues.lanes import JOB_QUEUES
from chalicelib.domain.validation.config_schema import CONFIG, NAME, PRIORITY, Schema, closed, optional
from chalicelib.entrypoints.http.query import MAX_LENGTH
from chalicelib.services.jobs.list_jobs import Filters

TAGS: Schema = {"type": "array", "maxItems": 10, "items": {"type": "string", "minLength": 1, "maxLength": 64}}
EXPIRES_IN: Schema = {"type": "number", "minimum": 1, "maximum": 2_592_000}
DELAY: Schema = {"type": "number", "minimum": 0, "maximum": 2_592_000}

NOTIFY: Schema = {"type": "array", "maxItems": MAX_RECIPIENTS, "items": {"type": "string", "minLength": 1, "maxLength": 320}}

SUBMIT: Schema = closed(
    {
        "prompt": optional({"type": "string"}),
        "input": {},
        "job_type": optional(NAME),
        "type": optional(NAME),
        "priority": optional(PRIORITY),
        "options": optional({"type": "object"}),
        "config": optional(CONFIG),
        "metadata": optional({"type": "object"}),
        "tags": optional(TAGS),
        "user": optional(NAME),
        "dedupe_key": optional({"type": "string", "minLength": 1, "maxLength": 255}),
        "expires_in": optional(EXPIRES_IN),
        "expires_at": optional({"type": "string"}),
        "ticket": optional({"type": "boolean"}),
        "async": optional({"type": "boolean"}),
        "depends_on": {
            "type": ["array", "object", "null"],
            "maxItems": MAX_PARENTS,
            "maxProperties": MAX_PARENTS,
            "items": {"type": "string"},
            "additionalProperties": {"type": "string"},
        },
        "on_parent_failure": optional({"enum": list(POLICIES)}),
        "run_at": optional({"type": "string"}),
        "delay": optional(DELAY),
        "webhook_url": optional({"type": "string", "minLength": 1, "maxLength": MAX_URL_LENGTH}),
        "notify": optional(NOTIFY),
    }
)

TICKET: Schema = closed(
    {
        "jobs": optional({"type": "array", "minItems": 1, "maxItems": 100, "items": {"type": "string", "maxLength": 64}}),
        "expires_in": optional({"type": "number", "minimum": 1, "maximum": 3_600}),
    }
)

UPLOAD: Schema = closed(
    {
        "content_type": optional({"type": "string", "minLength": 1, "maxLength": 100, "pattern": "^[ -~]*$"}),
        "size": {"type": "integer", "minimum": 1, "maximum": 10**12},  # a size that is too large is 413
    },
    required=["size"],
)

CIRCUIT: Schema = closed({"reason": optional({"type": "string", "minLength": 1, "maxLength": 200})})

_JOBS: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_QUEUED}
TENANT_LIMITS: Schema = closed(
    {
        "weight": optional({"type": "number", "minimum": MIN_WEIGHT, "maximum": MAX_WEIGHT}),
        "fair_by": optional({"enum": [one.value for one in FairBy]}),
        "concurrency": optional({"type": "integer", "minimum": 1, "maximum": MAX_CONCURRENCY}),
        "user_concurrency": optional({"type": "integer", "minimum": 1, "maximum": MAX_CONCURRENCY}),
        "queued": optional(closed({name: optional(_JOBS) for name in QUEUED})),
        "shards": {"type": "integer", "minimum": 1, "maximum": MAX_INDEX_SHARDS},
    },
    minProperties=1,
)

_A_MINUTE: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}
MODEL_LIMITS: Schema = closed({"requests": optional(_A_MINUTE), "tokens": optional(_A_MINUTE)}, minProperties=1)

CHANGE: Schema = closed(
    {
        "priority": optional(PRIORITY),
        "run_at": optional({"type": "string"}),
        "delay": optional(DELAY),
        "expires_at": optional({"type": "string"}),
        "expires_in": optional(EXPIRES_IN),
        "tags": optional(TAGS),
        "metadata": optional({"type": "object"}),
    }
)

SHORT_TEXT: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_LENGTH}
FILTER: Schema = {
    "status": {"enum": [status.value for status in Status]},
    "type": SHORT_TEXT,
    "priority": PRIORITY,
    "batch": SHORT_TEXT,
    "user": SHORT_TEXT,
    "tag": SHORT_TEXT,
    "dedupe_key": SHORT_TEXT,
    "model": SHORT_TEXT,
    "error_code": SHORT_TEXT,
    "since": SHORT_TEXT,
    "until": SHORT_TEXT,
    "tenant": SHORT_TEXT,
}
FILTERS = tuple(Filters.__dataclass_fields__)  # of a list of jobs
FAILED_FILTERS = ("type", "error_code", "user", "model", "since", "until", "tenant")
PAGE = ("limit", "cursor")
IDS: Schema = {"type": "array", "minItems": 1, "maxItems": 1000, "items": {"type": "string", "minLength": 1, "maxLength": 64}}
REASON: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_REASON_LENGTH}
MAX_BULK_LIMIT = 1_000

BULK: Schema = closed(
    {
        "action": {"enum": [action.value for action in BulkAction]},
        "ids": IDS,
        "filter": closed(FILTER),
        "all": {"type": "boolean"},
        "priority": PRIORITY,
        "reason": optional(REASON),
        "pause_until": optional({"type": "string"}),
        "before": SHORT_TEXT,
        "limit": {"type": "integer", "minimum": 1, "maximum": MAX_BULK_LIMIT},
        "dry_run": {"type": "boolean"},
    },
    required=["action"],
)

_SCOPE: Schema = {"tenant": optional(NAME), "type": optional(NAME), "lane": optional(PRIORITY), "batch": optional(SHORT_TEXT)}
_PAUSE: Schema = {"reason": REASON, "until": optional({"type": "string"}), "replace": {"type": "boolean"}}
PAUSE: Schema = closed({"scope": closed(_SCOPE), **_PAUSE}, required=["scope", "reason"])
QUEUE_PAUSE: Schema = closed({"tenant": optional(NAME), **_PAUSE}, required=["reason"])
QUEUE_RESUME: Schema = closed({"tenant": optional(NAME)})
BATCH_PAUSE: Schema = closed({**_PAUSE, "reason": optional(REASON)})
JOB_PAUSE: Schema = closed({"reason": optional(REASON), "until": optional({"type": "string"})})

FAILED: Schema = closed(
    {"ids": IDS, "all": {"type": "boolean"}, "dry_run": {"type": "boolean"}, **{name: FILTER[name] for name in FAILED_FILTERS}}
)

REDRIVE: Schema = closed({"lane": optional({"enum": list(JOB_QUEUES)})})

RETRY: Schema = closed({"run": optional({"type": "integer", "minimum": 1})})

ADDRESSES: Schema = closed(
    {
        "emails": {"type": "array", "maxItems": MAX_ADDRESSES, "items": {"type": "string", "minLength": 3, "maxLength": 254}},
        "slack": {"type": "object", "maxProperties": MAX_ADDRESSES, "additionalProperties": {"type": ["string", "null"]}},
    }
)

WEBHOOK_TEST: Schema = closed({"url": {"type": "string", "minLength": 1, "maxLength": MAX_URL_LENGTH}}, required=["url"])

NOTHING: Schema = closed({})
