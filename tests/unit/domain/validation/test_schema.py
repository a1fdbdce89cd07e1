"""Validation: all problems at once, as readable messages, for any value."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.validation import schema as schemas
from chalicelib.domain.validation.schema import MAX_DETAILS, problems, schema_problems

CONFIG: dict[str, Any] = {
    "type": "object",
    "properties": {
        "temperature": {"type": "number", "minimum": 0, "maximum": 2},
        "max_tokens": {"type": "integer", "minimum": 1},
        "mode": {"enum": ["realtime", "batched", "none"]},
        "tags": {"type": "array", "maxItems": 2, "items": {"type": "string", "minLength": 1, "maxLength": 4}},
        "format": {
            "anyOf": [
                {"enum": ["text", "json"]},
                {
                    "type": "object",
                    "properties": {"name": {"type": "string"}},
                    "required": ["name"],
                    "additionalProperties": False,
                },
            ]
        },
        "note": {"type": ["string", "null"], "maxLength": 3},
        "flag": {"type": "boolean"},
        "key": {"type": "string", "pattern": "^[a-z]+$"},
        "above": {"type": "number", "exclusiveMinimum": 0},
        "anything": {},
    },
    "additionalProperties": False,
}


def _problems(value: Any, at: str = "config") -> dict[str, str]:
    return {detail.path: detail.message for detail in problems(CONFIG, value, at)}


@pytest.mark.parametrize(
    ("value", "path", "message"),
    [
        ({"temperature": "hot"}, "config.temperature", 'must be a number between 0 and 2, not "hot"'),
        ({"temperature": 3}, "config.temperature", "must be a number between 0 and 2, not 3"),
        ({"temperature": True}, "config.temperature", "must be a number between 0 and 2, not true"),
        ({"temperature": None}, "config.temperature", "must be a number between 0 and 2, not null"),
        ({"max_tokens": 0}, "config.max_tokens", "must be a whole number at least 1, not 0"),
        ({"above": 0}, "config.above", "must be a number above 0, not 0"),
        ({"mode": "live"}, "config.mode", 'must be one of "realtime", "batched", "none", not "live"'),
        ({"tags": ["a", ""]}, "config.tags.1", 'must be text of 1 to 4 characters, not ""'),
        ({"tags": [[1, 2]]}, "config.tags.0", "must be text of 1 to 4 characters, not a list of 2 items"),
        ({"tags": ["a"] * 3}, "config.tags", "must be a list of at most 2 items, not a list of 3 items"),
        ({"note": "long"}, "config.note", 'must be text of at most 3 characters or null, not "long"'),
        ({"key": "A"}, "config.key", 'must be text that matches ^[a-z]+$, not "A"'),
        ({"flag": {"a": 1}}, "config.flag", "must be true or false, not an object with 1 field"),
        ({"format": "xml"}, "config.format", 'must be one of "text", "json" or an object, not "xml"'),
        ({"format": {}}, "config.format.name", "is missing"),  # the value is an object, so the object branch reports its problem
        ({"format": {"name": 1}}, "config.format.name", "must be text, not 1"),
        ({"temprature": 1}, "config.temprature", "unknown field `temprature`; did you mean `temperature`?"),
        ({"zzz": 1}, "config.zzz", "unknown field `zzz`"),
        ([], "config", "must be an object, not a list of 0 items"),
        ("x" * 999, "config", f'must be an object, not "{"x" * 60}…"'),
        ({"max_tokens": -(10**99)}, "config.max_tokens", "must be a whole number at least 1, not a whole number of more than 60 digits"),
        ({"anything": math.nan}, "config.anything", "must be a finite number, not NaN"),
        ({"anything": [1, -math.inf]}, "config.anything.1", "must be a finite number, not -Infinity"),
        ({"anything": "\ud83d"}, "config.anything", "has half a character (an unpaired surrogate)"),
        ({"anything": b"x"}, "config.anything", "must be JSON, not a bytes"),
    ],
)
def test_problem_message_for_each_kind_of_invalid_value(value: Any, path: str, message: str) -> None:
    """Messages describe the value instead of dumping all of it."""
    assert _problems(value) == {path: message}


def test_all_problems_are_reported_at_once() -> None:
    reported = _problems({"temperature": "hot", "max_tokens": 1.5, "tags": [1, 2], "modes": "none", "anything": math.inf})

    assert set(reported) == {"config.temperature", "config.max_tokens", "config.tags.0", "config.tags.1", "config.modes", "config.anything"}


def test_paths_without_a_prefix_start_at_the_field() -> None:
    assert [detail.path for detail in problems(CONFIG, {"mode": 1})] == ["mode"]
    assert [detail.path for detail in problems({"required": ["prompt"]}, {})] == ["prompt"]


def test_valid_value_has_no_problems() -> None:
    assert _problems({"temperature": 0.3, "tags": ["a"], "format": {"name": "x"}, "note": None, "anything": {"é": ["😀"]}}) == {}


def test_deep_nesting_is_reported_as_a_problem() -> None:
    """The rest of the value is still checked."""
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]

    details = problems(CONFIG, {"anything": deep, "temperature": "hot"}, "config")

    assert details[0].message == "is nested deeper than 64 levels"
    assert details[-1].path == "config.temperature"


def test_number_and_length_of_problems_are_bounded() -> None:
    details = problems({"items": {"type": "string"}}, list(range(5_000)), "items")
    names = problems(CONFIG, {"n" * 9_000: 1})

    assert len(details) == MAX_DETAILS
    assert len(names[0].message) < 200
    assert len(names[0].path) < 200


def test_items_beyond_a_limit_are_not_validated_one_by_one() -> None:
    """The library would build an error for each of them."""
    details = problems(CONFIG, {"tags": [[]] * 30_000, "mode": "live"}, "config")

    assert {detail.path: detail.message for detail in details} == {
        "config.tags": "must be a list of at most 2 items, not a list of 30000 items",
        "config.mode": 'must be one of "realtime", "batched", "none", not "live"',
    }


def test_fields_beyond_a_limit_are_not_validated_one_by_one() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "object", "maxProperties": 3, "additionalProperties": {"type": "string"}}}}

    assert [detail.path for detail in problems(schema, {"a": {str(n): n for n in range(30_000)}})] == ["a"]


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": [f"option {n}" for n in range(5_000)]},
        {"anyOf": [{"type": "array", "minItems": n, "maxItems": n} for n in range(2_000)]},
        {"type": "string", "pattern": "x" * 50_000},
        {"type": "integer", "minimum": 10**4_000},
        {"type": "object", "minProperties": 1, "properties": {f"field {n}": {} for n in range(5_000)}},
    ],
)
def test_message_is_short_however_long_the_schema_is(schema: dict[str, Any]) -> None:
    (detail,) = problems(schema, {} if "minProperties" in schema else 5)

    assert len(detail.message) < 700


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec=None)), inner, max_size=4),
    max_leaves=12,
)


@given(value=JSONISH | st.fixed_dictionaries({}, optional=dict.fromkeys(CONFIG["properties"], JSONISH)))
def test_problems_never_raises_and_reports_valid_utf8(value: Any) -> None:
    for detail in problems(CONFIG, value, "config"):
        json.dumps([detail.path, detail.message], ensure_ascii=False).encode()
        assert detail.message


@pytest.mark.parametrize(
    ("schema", "path", "part"),
    [
        (3, "format.schema", "must be a JSON Schema (an object), not 3"),
        ({"type": "strng"}, "format.schema.type", "is not a JSON Schema that can be used"),
        ({"properties": {"a": {"pattern": "("}}}, "format.schema.properties.a.pattern", "is not a JSON Schema"),
        ({"$ref": "http://169.254.169.254/latest"}, "format.schema", "has a $ref that is not supported"),
        ({"$ref": "file:///etc/passwd"}, "format.schema", "has a $ref that is not supported"),
        ({"const": "\ud800"}, "format.schema.const", "has half a character"),
    ],
)
def test_invalid_caller_schema_is_reported_at_its_path(schema: Any, path: str, part: str) -> None:
    """A reference to a URL or a file must never be fetched."""
    (detail,) = schema_problems(schema, "format.schema")

    assert detail.path == path
    assert part in detail.message
    assert "root:" not in detail.message


def test_internal_references_in_a_schema_are_resolved() -> None:
    schema = {"$defs": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/n"}}}

    assert schema_problems(schema) == ()
    assert problems(schema, {"a": "x"})[0].message == 'must be a whole number, not "x"'


def test_schema_cache_reuses_entries_and_is_bounded() -> None:
    """Schemas of callers must not fill the memory."""
    problems(CONFIG, {})
    first = schemas._compiled[id(CONFIG)]
    problems(CONFIG, {})
    assert schemas._compiled[id(CONFIG)] is first

    for _ in range(schemas.MAX_COMPILED * 2):
        problems({"type": "object"}, {})
    assert len(schemas._compiled) <= schemas.MAX_COMPILED


def test_import_does_not_load_jsonschema_rs() -> None:
    """Only the first validation pays for the library."""
    code = "import sys, chalicelib.domain.validation.schema; sys.exit('jsonschema_rs' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
