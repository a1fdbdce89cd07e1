"""Schemas that OpenAI's strict mode refuses."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.domain.validation.strict_schema import MAX_DETAILS, strict_problems
from chalicelib.job_types import all_types

TEXT = {"type": "string"}


def closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def places(schema: dict[str, Any]) -> list[str]:
    return [detail.path for detail in strict_problems(schema, "schema")]


def test_a_closed_schema_is_allowed() -> None:
    nested = closed(
        a=TEXT,
        b={"type": ["string", "null"], "format": "date"},
        c={"type": "array", "items": closed(d={"anyOf": [TEXT, {"type": "null"}]})},
    )

    assert places(nested) == []
    assert places(closed(a={"enum": ["x"]}, b={"const": 1})) == []
    assert places({**closed(next={"$ref": "#/$defs/node"}), "$defs": {"node": closed(next={"$ref": "#/$defs/node"})}}) == []


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "object", "properties": {"a": TEXT}, "required": ["a"]}, ["schema.additionalProperties"]),
        ({**closed(a=TEXT), "additionalProperties": True}, ["schema.additionalProperties"]),
        ({**closed(a=TEXT), "additionalProperties": TEXT}, ["schema.additionalProperties"]),
        ({**closed(a=TEXT, b=TEXT), "required": ["a"]}, ["schema.required"]),
        ({"type": "object", "properties": {"a": TEXT}, "additionalProperties": False}, ["schema.required"]),
        (closed(a={"type": "object", "properties": {}}), ["schema.properties.a.additionalProperties"]),
        (closed(a={"type": "array", "items": {"type": "object"}}), ["schema.properties.a.items.additionalProperties"]),
        (closed(a={"anyOf": [TEXT, {"type": "object"}]}), ["schema.properties.a.anyOf.1.additionalProperties"]),
        ({**closed(), "$defs": {"x": {"type": "object"}}}, ["schema.$defs.x.additionalProperties"]),
        ({"type": "array", "items": TEXT}, ["schema"]),
        ({"anyOf": [closed(), closed(a=TEXT)]}, ["schema"]),
        (
            closed(a={"oneOf": [TEXT]}, b={"allOf": [TEXT]}, c={"not": TEXT}),
            ["schema.properties.a.oneOf", "schema.properties.b.allOf", "schema.properties.c.not"],
        ),
        (closed(a={"type": "array", "items": TEXT, "uniqueItems": True}), ["schema.properties.a.uniqueItems"]),
        (closed(a={"type": "string", "format": "uri"}), ["schema.properties.a.format"]),
        (closed(a=True), ["schema.properties.a"]),
        (closed(a={}, b={"description": "anything"}), ["schema.properties.a", "schema.properties.b"]),
        (closed(a={"type": "array"}), ["schema.properties.a.items"]),
        ({**closed(a={"$ref": "#/$defs/x", "description": "One."}), "$defs": {"x": TEXT}}, ["schema.properties.a"]),
        ({**closed(a=TEXT), "required": ["a", "b"]}, ["schema.required"]),
    ],
)
def test_each_place_that_strict_mode_refuses_is_named(schema: dict[str, Any], expected: list[str]) -> None:
    assert places(schema) == expected


def test_properties_that_are_called_like_keywords_are_allowed() -> None:
    assert places(closed(oneOf=TEXT, **{"not": TEXT, "format": TEXT})) == []


def test_too_deep_and_too_large_schemas_are_named() -> None:
    deep = closed()
    for _ in range(10):
        deep = closed(a=deep)

    assert "nested deeper" in strict_problems(deep, "schema")[0].message
    assert "5,001 properties" in strict_problems(closed(**{f"p{n}": TEXT for n in range(5_001)}), "schema")[0].message
    assert "1,001 values" in strict_problems(closed(a={"enum": list(range(1_001))}), "schema")[0].message


def test_the_number_of_places_is_bounded() -> None:
    assert len(places(closed(**{f"p{n}": {"type": "object"} for n in range(100)}))) == MAX_DETAILS


@pytest.mark.parametrize("kind", [kind for kind in all_types() if kind.response_schema and not kind.is_task], ids=lambda kind: kind.name)
def test_the_schemas_of_the_job_types_are_allowed(kind: Any) -> None:
    assert places(kind.response_schema) == []
