"""Schemas as the types write them: closed objects whose every property is required, as the provider's strict mode wants them.

The order of properties is the order in which a model writes them: what it has seen comes before what it makes of it.
"""

from __future__ import annotations

from typing import Any

from chalicelib.domain.jobs.job_type import Schema

TEXT: Schema = {"type": "string"}
TEXTS: Schema = {"type": "array", "items": TEXT}
TURN: Schema = {"type": "integer", "minimum": 1}

LANGUAGE: Schema = {
    "type": "string",
    "description": "The language that the answer is written in, as an English name: `Italian`. Default: that of the content.",
    "pattern": "^[A-Z][A-Za-z]{1,23}( [A-Z][A-Za-z]{1,23})?$",
}


def closed(**properties: Schema) -> Schema:
    """An object with exactly these fields."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def listed(**properties: Schema) -> Schema:
    """A list of such objects."""
    return {"type": "array", "items": closed(**properties)}


def one_of(*words: str) -> Schema:
    return {"type": "string", "enum": list(words)}


def number(least: float, most: float, means: str = "") -> Schema:
    return {"type": "number", "minimum": least, "maximum": most} | ({"description": means} if means else {})


def or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def options(**properties: Schema) -> Schema:
    """Options: all may be left out, and none is unknown."""
    return {"type": "object", "properties": properties, "additionalProperties": False}


def some_of(words: Any, description: str) -> Schema:
    """An option that chooses among words."""
    return {"type": "array", "description": description, "items": one_of(*words), "minItems": 1, "maxItems": len(list(words))}


def phrases(description: str, most: int, length: int = 60) -> Schema:
    """An option that lists words of the caller's own: one line each."""
    item = {"type": "string", "pattern": rf"^[^\x00-\x1f\x7f]{{1,{length}}}$"}
    return {"type": "array", "description": description, "items": item, "minItems": 1, "maxItems": most}


def phrase(description: str, length: int = 200) -> Schema:
    """An option in the caller's own words, on one line."""
    return {"type": "string", "description": description, "pattern": rf"^[^\x00-\x1f\x7f]{{1,{length}}}$"}
