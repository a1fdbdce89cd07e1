"""Schemas of callers: their expanded size, and the cost of an answer under them."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import Any

import pytest

from chalicelib.domain.json_limits import MAX_ANSWER_VALUES
from chalicelib.domain.validation import schema_cost
from chalicelib.domain.validation.schema import answer_problems, schema_problems
from chalicelib.domain.validation.schema_cost import MAX_SUBSCHEMAS, TooComplex, count_steps
from tests.kit.hostile_bodies import AMBIGUOUS, chain, doubling, nested

TREE: dict[str, Any] = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"value": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
            "required": ["value", "children"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
MAX_CPU_SECONDS = 1.0


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf", "allOf"])
def test_a_schema_that_doubles_with_each_level_is_refused(keyword: str) -> None:
    (detail,) = schema_problems(doubling(40, keyword), "schema")

    assert (detail.path, detail.message) == ("schema", "has more than 10,000 parts, with its references followed")


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (chain(101), "nested deeper than 100 levels"),
        ({"not": {"not": {"properties": {f"p{n}": doubling(9)["$defs"]["d0"] for n in range(9)}, "$dynamicRef": "#x"}}}, r"\$dynamicRef"),
        ({"properties": {"a": {"$id": "https://example.com/a"}}}, r"own \$id"),
        ({"$defs": {"a": {"$anchor": "a"}}, "$ref": "#a"}, "name a place in the schema"),
        ({"$id": "https://example.com/a", "$ref": "https://example.com/a#/$defs/l1", "$defs": {"l1": {}}}, "name a place in the schema"),
        ({"$ref": "json-schema:///#/$defs/l1", "$defs": {"l1": {}}}, "name a place in the schema"),
        (
            {"$schema": "http://json-schema.org/draft-04/schema#", "properties": {"a": {"id": "#a"}, "b": {"$ref": "#/x"}}},
            r"\$schema that is not",
        ),
        ({"$ref": "#/$defs/absent"}, "a place that does not exist"),
        ({"properties": {f"p{n}": {"type": "string", "pattern": "a"} for n in range(201)}}, "200 patterns"),
        ({"pattern": "(?=a)b"}, "not a JSON Schema that can be used"),
        ({"pattern": r"\w{100000}"}, "not a JSON Schema that can be used"),
    ],
)
def test_a_schema_that_would_take_too_long_is_refused_with_the_reason(schema: Any, message: str) -> None:
    (detail,) = schema_problems(schema, "schema")

    assert detail.path.startswith("schema")
    assert re.search(message, detail.message), detail.message


def test_the_largest_schema_that_openai_takes_in_strict_mode_is_accepted() -> None:
    """5,000 properties, in ten levels of objects, and one that refers to itself."""
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(10):
        deep = {"type": "object", "properties": {"x": {"anyOf": [{"type": "array", "items": deep}, {"type": "null"}]}}}
    wide = {"type": "object", "properties": {f"p{n}": {"type": ["string", "null"]} for n in range(5_000)}}

    assert [schema_problems(schema) for schema in (deep, wide, TREE)] == [(), (), ()]


def test_a_recursive_schema_validates_and_reports_the_place() -> None:
    good = {"value": "a", "children": [{"value": "b", "children": []}]}
    bad = {"value": "a", "children": [{"value": 3, "children": []}]}

    assert answer_problems(TREE, good, keep=False) == ()
    assert [detail.path for detail in answer_problems(TREE, bad, keep=False)] == ["children.0.value"]


@pytest.mark.parametrize("schema", [{"$ref": "#"}, {"anyOf": [{"$ref": "#"}, {"type": "string"}]}, {"allOf": [{"$ref": "#"}]}])
def test_a_schema_that_refers_to_itself_at_the_same_value_ends(schema: Any) -> None:
    assert schema_problems(schema) == ()
    answer_problems(schema, "x", keep=False)


def test_an_answer_that_the_rules_of_a_recursive_schema_multiply_is_refused() -> None:
    assert count_steps(AMBIGUOUS, nested(4, "x"))[0] < 500
    with pytest.raises(TooComplex, match="is too large for its schema"):
        answer_problems(AMBIGUOUS, nested(60, "x"), keep=False)


def test_an_answer_too_large_to_explain_is_still_refused() -> None:
    schema = {"type": "array", "items": {"anyOf": [{"const": n} for n in range(1_000)]}}

    (detail,) = answer_problems(schema, [-1] * 1_000, keep=False)

    assert detail.message == "is not what its schema demands; it is too large to say where"


def worst_cases() -> dict[str, tuple[Any, Any]]:
    """The most expensive schemas and answers that are still validated, of each kind."""
    half = schema_cost.MAX_STEPS // 2 - 10_000
    alternatives = 900
    return {
        "values": ({"type": "array", "items": {"type": "string"}}, ["x"] * (MAX_ANSWER_VALUES - 1)),
        "values that do not fit": ({"type": "array", "items": {"type": "string"}}, [1] * (MAX_ANSWER_VALUES - 1)),
        "alternatives": ({"items": {"anyOf": [{"const": n} for n in range(alternatives)]}}, [alternatives - 1] * (half // alternatives)),
        "alternatives that do not fit": ({"items": {"anyOf": [{"const": n} for n in range(alternatives)]}}, [-1] * (half // alternatives)),
        "options": ({"items": {"enum": [f"o{n}" for n in range(1_000)]}}, ["x"] * (half // 1_000)),
        "patterns": ({"allOf": [{"pattern": f"(a|b|ab)*c{n}$|^x"} for n in range(200)]}, "x" + "ab" * 60_000),
        "patterns that do not fit": ({"allOf": [{"pattern": f"(a|b|ab)*c{n}$"} for n in range(200)]}, "ab" * 60_000),
        "doubled": (doubling(11), "x"),
        "doubled and not fitting": (doubling(11), 1),
        "doubled by oneOf and not fitting": (doubling(11, "oneOf"), 1),
        "doubled in a list": ({"items": doubling(6)["$defs"]["d0"], "$defs": doubling(6)["$defs"]}, [1] * 5_000),
        "recursive": (AMBIGUOUS, nested(16, "x")),
        "unique": ({"uniqueItems": True}, [[n] for n in range(90_000)]),
        "unique objects": ({"uniqueItems": True}, [{"a": n} for n in range(90_000)]),
        "names by pattern": ({"patternProperties": {f"{n}$": {} for n in range(100)}}, {f"n{n}": 1 for n in range(2_000)}),
        "required and missing": ({"items": {"required": [f"f{n}" for n in range(1_000)]}}, [{} for _ in range(1_000)]),
        "required by another and missing": (
            {"items": {"dependentRequired": {"a": [f"f{n}" for n in range(1_000)]}}},
            [{"a": 1} for _ in range(1_000)],
        ),
        "rules on one long text": ({"allOf": [{"maxLength": n} for n in range(2_000)]}, "x" * 200_000),
        "rules on one large object": ({"allOf": [{"maxProperties": n} for n in range(2_000)]}, {f"f{n}": "x" * 50 for n in range(3_000)}),
        "unevaluated": (
            {"allOf": [{"properties": {f"p{n}": {}}} for n in range(2_000)], "unevaluatedProperties": False},
            {"p1": 1, "x": 1},
        ),
    }


@pytest.mark.parametrize("name", worst_cases())
def test_the_most_expensive_answer_of_each_kind_takes_a_second_of_cpu_at_most(name: str) -> None:
    """So the lease of its worker, of 25 s, is renewed in time at a third of this machine's speed."""
    schema, answer = worst_cases()[name]
    assert schema_problems(schema) == ()

    before = time.process_time()
    with suppress(TooComplex):  # to find that out takes time as well
        answer_problems(schema, answer, keep=False)

    assert time.process_time() - before < MAX_CPU_SECONDS


def test_the_limit_of_parts_is_that_of_the_expanded_schema() -> None:
    wide = {"type": "object", "properties": {f"p{n}": {"$ref": "#/$defs/d"} for n in range(MAX_SUBSCHEMAS // 2)}, "$defs": {"d": {}}}

    assert "parts" in schema_problems(wide)[0].message
