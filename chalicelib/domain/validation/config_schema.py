"""The JSON Schema of `config`, of a job or of a batch, and the rules between its fields."""

from __future__ import annotations

from typing import Any

from chalicelib.domain.errors import Detail
from chalicelib.domain.execution.response_cache import MAX_SECONDS
from chalicelib.domain.queues.lanes import LANES
from chalicelib.domain.streaming.pacing import StreamingMode
from chalicelib.domain.validation.schema import problems

Schema = dict[str, Any]


def optional(schema: Schema) -> Schema:
    """Return the schema with null allowed, which means "not given"."""
    return {"anyOf": [schema, {"type": "null"}]} if "enum" not in schema else {"enum": [*schema["enum"], None]}


def closed(properties: Schema, **more: Any) -> Schema:
    """Return an object schema that allows no other properties."""
    return {"type": "object", "properties": properties, "additionalProperties": False, **more}


MAX_TIMEOUT = 840  # seconds; an attempt must fit into one invocation of a worker
MAX_DURABLE_TIMEOUT = 86_400  # seconds; a durable attempt is handed over between workers

PRIORITY: Schema = {"enum": list(LANES)}
NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 128}

FORMAT_NAME: Schema = {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"}
_PLAIN = {"json_object": "json", "text": "text"}  # formats that OpenAI writes as an object, and that are a word here
RESPONSE_FORMAT: Schema = {
    "anyOf": [
        {"enum": ["text", "json"]},
        closed(
            {
                "type": {
                    "const": "json_schema",
                    "x-instead": {kind: f'write `response_format: "{name}"`' for kind, name in _PLAIN.items()},
                },
                "name": FORMAT_NAME,
                "schema": {"type": "object"},
                "strict": {"type": "boolean"},
                "json_schema": {
                    "type": "object",
                    "required": ["schema"],
                    "properties": {"name": FORMAT_NAME, "schema": {"type": "object"}, "strict": {"type": "boolean"}},
                },
            },
            required=["type"],
            **{
                "if": {"properties": {"type": {"const": "json_schema"}}},
                "then": {"anyOf": [{"required": ["schema"]}, {"required": ["json_schema"]}]},
            },
        ),
    ]
}

# Parameters of the Responses API that are passed through unchanged.
OPENAI: Schema = closed(
    {
        "top_p": {"type": "number", "minimum": 0, "maximum": 1},
        "reasoning": {"type": "object"},
        "service_tier": {"enum": ["auto", "default", "flex", "priority"]},
        "store": {"type": "boolean"},
        "safety_identifier": {"type": "string", "maxLength": 64},
        "prompt_cache_key": {"type": "string", "maxLength": 64},
        "truncation": {"enum": ["auto", "disabled"]},
        "metadata": {  # OpenAI takes texts only, of these lengths
            "type": "object",
            "maxProperties": 16,
            "propertyNames": {"type": "string", "maxLength": 64},
            "additionalProperties": {"type": "string", "maxLength": 512},
        },
    }
)

CACHE: Schema = {
    "anyOf": [{"type": "boolean"}, closed({"ttl": {"type": "number", "minimum": 1, "maximum": MAX_SECONDS}}, required=["ttl"])]
}

CONFIG: Schema = closed(
    {
        "model": optional(NAME),
        "priority": optional(PRIORITY),
        "max_tokens": optional({"type": "integer", "minimum": 16, "maximum": 128_000}),
        "temperature": optional({"type": "number", "minimum": 0, "maximum": 2}),
        "system_prompt": optional({"type": "string", "maxLength": 100_000}),
        "response_format": optional(RESPONSE_FORMAT),
        "streaming_mode": optional({"enum": [mode.value for mode in StreamingMode]}),
        "max_attempts": optional({"type": "integer", "minimum": 1, "maximum": 10}),
        "timeout": optional({"type": "number", "minimum": 1, "maximum": MAX_DURABLE_TIMEOUT}),
        "retry_for": optional({"type": "number", "minimum": 0, "maximum": 604_800}),
        "openai": optional(OPENAI),
        "durable": optional({"type": "boolean"}),
        "cache": optional(CACHE),
        "fallback_models": optional({"type": "array", "maxItems": 5, "items": NAME}),
    }
)


def config_problems(config: dict[str, Any]) -> list[Detail]:
    """Return every problem of a `config`."""
    return [*problems(CONFIG, config, "config"), *durable_problems(config)]


def durable_problems(config: dict[str, Any]) -> list[Detail]:
    """Return the problems of fields that depend on `durable`."""
    timeout, openai, details = config.get("timeout"), config.get("openai"), []
    if config.get("durable") is True:
        if isinstance(openai, dict) and openai.get("store") is False:
            details.append(Detail("config.openai.store", "cannot be false for a durable job: OpenAI must store its response"))
    elif isinstance(timeout, int | float) and MAX_TIMEOUT < timeout <= MAX_DURABLE_TIMEOUT:
        details.append(Detail("config.timeout", f"may be at most {MAX_TIMEOUT} without config.durable"))
    return details
