"""The requests as JSON Schema: what is validated, and what the API's document says."""

from __future__ import annotations

from typing import Any

from chalicelib.domain.bulk import Action
from chalicelib.domain.cached import LONGEST_SECONDS
from chalicelib.domain.endpoint import LONGEST_URL
from chalicelib.domain.job import Status
from chalicelib.domain.lanes import LANES
from chalicelib.domain.pacing import MODES
from chalicelib.domain.parents import POLICIES
from chalicelib.domain.recipients import MOST_ADDRESSES, MOST_RECIPIENTS

Schema = dict[str, Any]


def _optional(schema: Schema) -> Schema:
    """The schema, or null for "not said"."""
    return {"anyOf": [schema, {"type": "null"}]} if "enum" not in schema else {"enum": [*schema["enum"], None]}


def _object(properties: Schema, **more: Any) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False, **more}


LONGEST_TIMEOUT = 840  # seconds, within one invocation of a worker
LONGEST_DURABLE = 86_400

PRIORITY: Schema = {"enum": list(LANES)}
NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 128}

RESPONSE_FORMAT: Schema = {
    "anyOf": [
        {"enum": ["text", "json"]},
        _object(
            {
                "type": {"const": "json_schema"},
                "name": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"},
                "schema": {"type": "object"},
                "strict": {"type": "boolean"},
                "json_schema": {"type": "object", "required": ["schema"], "properties": {"schema": {"type": "object"}}},
            },
            required=["type"],
            anyOf=[{"required": ["schema"]}, {"required": ["json_schema"]}],
        ),
    ]
}

# Parameters of the Responses API that may be passed on as they are.
OPENAI: Schema = _object(
    {
        "top_p": {"type": "number", "minimum": 0, "maximum": 1},
        "reasoning": {"type": "object"},
        "service_tier": {"enum": ["auto", "default", "flex", "priority"]},
        "store": {"type": "boolean"},
        "safety_identifier": {"type": "string", "maxLength": 64},
        "prompt_cache_key": {"type": "string", "maxLength": 64},
        "truncation": {"enum": ["auto", "disabled"]},
        "metadata": {"type": "object", "maxProperties": 16},
    }
)

CACHE: Schema = {
    "anyOf": [{"type": "boolean"}, _object({"ttl": {"type": "number", "minimum": 1, "maximum": LONGEST_SECONDS}}, required=["ttl"])]
}

CONFIG: Schema = _object(
    {
        "model": _optional(NAME),
        "priority": _optional(PRIORITY),
        "max_tokens": _optional({"type": "integer", "minimum": 16, "maximum": 128_000}),
        "temperature": _optional({"type": "number", "minimum": 0, "maximum": 2}),
        "system_prompt": _optional({"type": "string", "maxLength": 100_000}),
        "response_format": _optional(RESPONSE_FORMAT),
        "streaming_mode": _optional({"enum": list(MODES)}),
        "max_attempts": _optional({"type": "integer", "minimum": 1, "maximum": 10}),
        "timeout": _optional({"type": "number", "minimum": 1, "maximum": LONGEST_DURABLE}),
        "retry_for": _optional({"type": "number", "minimum": 0, "maximum": 604_800}),
        "openai": _optional(OPENAI),
        "durable": _optional({"type": "boolean"}),
        "cache": _optional(CACHE),
        "fallback_models": _optional({"type": "array", "maxItems": 5, "items": NAME}),
    }
)

TAGS: Schema = {"type": "array", "maxItems": 10, "items": {"type": "string", "minLength": 1, "maxLength": 64}}
EXPIRES_IN: Schema = {"type": "number", "minimum": 1, "maximum": 2_592_000}
DELAY: Schema = {"type": "number", "minimum": 0, "maximum": 2_592_000}

NOTIFY: Schema = {"type": "array", "maxItems": MOST_RECIPIENTS, "items": {"type": "string", "minLength": 1, "maxLength": 320}}

SUBMIT: Schema = _object(
    {
        "prompt": _optional({"type": "string"}),
        "input": {},
        "job_type": _optional(NAME),
        "type": _optional(NAME),
        "priority": _optional(PRIORITY),
        "options": _optional({"type": "object"}),
        "config": _optional(CONFIG),
        "metadata": _optional({"type": "object"}),
        "tags": _optional(TAGS),
        "user": _optional(NAME),
        "dedupe_key": _optional({"type": "string", "minLength": 1, "maxLength": 255}),
        "expires_in": _optional(EXPIRES_IN),
        "expires_at": _optional({"type": "string"}),
        "ticket": _optional({"type": "boolean"}),
        "async": _optional({"type": "boolean"}),
        "depends_on": {"type": ["array", "object", "null"], "items": {"type": "string"}, "additionalProperties": {"type": "string"}},
        "on_parent_failure": _optional({"enum": list(POLICIES)}),
        "run_at": _optional({"type": "string"}),
        "delay": _optional(DELAY),
        "webhook_url": _optional({"type": "string", "minLength": 1, "maxLength": LONGEST_URL}),
        "notify": _optional(NOTIFY),
    }
)

TICKET: Schema = _object(
    {
        "jobs": _optional({"type": "array", "minItems": 1, "maxItems": 100, "items": {"type": "string", "maxLength": 64}}),
        "expires_in": _optional({"type": "number", "minimum": 1, "maximum": 3_600}),
    }
)

UPLOAD: Schema = _object(
    {
        "content_type": _optional({"type": "string", "minLength": 1, "maxLength": 100, "pattern": "^[ -~]*$"}),
        "size": _optional({"type": "integer", "minimum": 1}),
    }
)

CIRCUIT: Schema = _object({"reason": _optional({"type": "string", "minLength": 1, "maxLength": 200})})

CHANGE: Schema = _object(
    {
        "priority": _optional(PRIORITY),
        "run_at": _optional({"type": "string"}),
        "delay": _optional(DELAY),
        "expires_at": _optional({"type": "string"}),
        "expires_in": _optional(EXPIRES_IN),
        "tags": _optional(TAGS),
        "metadata": _optional({"type": "object"}),
    }
)

WORD: Schema = {"type": "string", "minLength": 1, "maxLength": 255}
FILTER: Schema = {
    "status": {"enum": [status.value for status in Status]},
    "type": WORD,
    "priority": PRIORITY,
    "batch": WORD,
    "user": WORD,
    "tag": WORD,
    "dedupe_key": WORD,
    "model": WORD,
    "error_code": WORD,
    "since": WORD,
    "until": WORD,
    "tenant": WORD,
}
FAILED_FILTERS = ("type", "error_code", "user", "model", "since", "until", "tenant")
IDS: Schema = {"type": "array", "minItems": 1, "maxItems": 1000, "items": {"type": "string", "minLength": 1, "maxLength": 64}}
NOT_YET_ACTIONS = ("pause", "resume")

BULK: Schema = _object(
    {
        "action": {"enum": [*(action.value for action in Action), *NOT_YET_ACTIONS]},
        "ids": IDS,
        "filter": _object(FILTER),
        "all": {"type": "boolean"},
        "priority": PRIORITY,
        "dry_run": {"type": "boolean"},
    },
    required=["action"],
)

FAILED: Schema = _object(
    {"ids": IDS, "all": {"type": "boolean"}, "dry_run": {"type": "boolean"}, **{name: FILTER[name] for name in FAILED_FILTERS}}
)

REDRIVE: Schema = _object({"lane": _optional(PRIORITY)})

RETRY: Schema = _object({"run": _optional({"type": "integer", "minimum": 1})})

ADDRESSES: Schema = _object(
    {
        "emails": {"type": "array", "maxItems": MOST_ADDRESSES, "items": {"type": "string", "minLength": 3, "maxLength": 254}},
        "slack": {"type": "object", "maxProperties": MOST_ADDRESSES, "additionalProperties": {"type": ["string", "null"]}},
    }
)

WEBHOOK_TEST: Schema = _object({"url": {"type": "string", "minLength": 1, "maxLength": LONGEST_URL}}, required=["url"])

NOTHING: Schema = _object({})
