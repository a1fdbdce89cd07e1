"""Whole numbers as JSON has them: `5`, `5.0` and `5e0` are the same integer to a JSON Schema."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def whole_numbers(schema: Schema, value: Any) -> Any:
    """Return the valid value with an `int` wherever the schema asks for an integer and a float stands."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and _asks_for_integer(schema) else value
    if isinstance(value, dict):
        rules = {name: rule for part in _parts(schema) for name, rule in part.get("properties", {}).items()}
        others: Schema = next(
            (part["additionalProperties"] for part in _parts(schema) if isinstance(part.get("additionalProperties"), dict)), {}
        )
        return {name: whole_numbers(rules.get(name, others), part) for name, part in value.items()}
    if isinstance(value, list):
        rule: Schema = next((part["items"] for part in _parts(schema) if isinstance(part.get("items"), dict)), {})
        return [whole_numbers(rule, item) for item in value] if rule else value
    return value


def _asks_for_integer(schema: Schema) -> bool:
    kinds = {kind for part in _parts(schema) for kind in ([part["type"]] if isinstance(part.get("type"), str) else part.get("type", ()))}
    return "integer" in kinds and "number" not in kinds


def _parts(schema: Schema) -> list[Schema]:
    """The schema and its alternatives."""
    if not isinstance(schema, dict):
        return []
    return [schema, *(inner for name in ("anyOf", "oneOf") for part in schema.get(name, ()) for inner in _parts(part))]
