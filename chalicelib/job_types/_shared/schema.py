"""Build the JSON Schemas of job types: closed objects with all properties required.

OpenAI's strict mode demands that.

A model writes properties in the order of the schema, so observations come before the judgements
that rest on them.
"""

from __future__ import annotations

from typing import Any

from chalicelib.domain.jobs.job_type import Schema

TEXT: Schema = {"type": "string"}
TEXTS: Schema = {"type": "array", "items": TEXT}
TURN: Schema = {"type": "integer", "minimum": 1}

LANGUAGE: Schema = {
    "type": "string",
    "description": "The language of the answer, as an English name: `Italian`. Default: the language of the content.",
    "pattern": "^[A-Z][A-Za-z]{1,23}( [A-Z][A-Za-z]{1,23})?$",
}


def closed(**properties: Schema) -> Schema:
    """Return the schema of an object with exactly these properties."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def list_of(**properties: Schema) -> Schema:
    """Return the schema of a list of such objects."""
    return {"type": "array", "items": closed(**properties)}


def one_of(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def number(minimum: float, maximum: float, description: str = "") -> Schema:
    return {"type": "number", "minimum": minimum, "maximum": maximum} | ({"description": description} if description else {})


def nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def options_schema(**properties: Schema) -> Schema:
    """Return the schema of options: all are optional, and unknown ones are refused."""
    return {"type": "object", "properties": properties, "additionalProperties": False}


def subset_of(values: Any, description: str) -> Schema:
    """Return the schema of an option that selects some of these values."""
    return {"type": "array", "description": description, "items": one_of(*values), "minItems": 1, "maxItems": len(list(values))}


def phrases(description: str, max_items: int, max_length: int = 60) -> Schema:
    """Return the schema of an option that lists free texts of one line each."""
    item = {"type": "string", "pattern": rf"^[^\x00-\x1f\x7f]{{1,{max_length}}}$"}
    return {"type": "array", "description": description, "items": item, "minItems": 1, "maxItems": max_items}


def phrase(description: str, max_length: int = 200) -> Schema:
    """Return the schema of an option that is free text of one line."""
    return {"type": "string", "description": description, "pattern": rf"^[^\x00-\x1f\x7f]{{1,{max_length}}}$"}
