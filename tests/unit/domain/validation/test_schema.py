"""Validation: all problems at once, in words for people, whatever the value."""

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


def _told(value: Any, at: str = "config") -> dict[str, str]:
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
        ({"format": {}}, "config.format.name", "is missing"),  # an object was meant, so its own problem is told
        ({"format": {"name": 1}}, "config.format.name", "must be text, not 1"),
        ({"temprature": 1}, "config.temprature", "unknown field `temprature`; did you mean `temperature`?"),
        ({"zzz": 1}, "config.zzz", "unknown field `zzz`"),
        ([], "config", "must be an object, not a list of 0 items"),
        ("x" * 999, "config", f'must be an object, not "{"x" * 60}…"'),
        ({"max_tokens": -(10**99)}, "config.max_tokens", "must be a whole number at least 1, not a whole number of more than 60 digits"),
        ({"anything": math.nan}, "config.anything", "must be a finite number, not nan"),
        ({"anything": [1, -math.inf]}, "config.anything.1", "must be a finite number, not -inf"),
        ({"anything": "\ud83d"}, "config.anything", "has half a character (an unpaired surrogate)"),
        ({"anything": b"x"}, "config.anything", "must be JSON, not a bytes"),
    ],
)
def test_one_problem(value: Any, path: str, message: str) -> None:
    """Each problem is told once, at its place, without a dump of the value."""
    assert _told(value) == {path: message}


def test_all_at_once() -> None:
    """Nobody has to send a request five times to learn of five mistakes."""
    told = _told({"temperature": "hot", "max_tokens": 1.5, "tags": [1, 2], "modes": "none", "anything": math.inf})

    assert set(told) == {"config.temperature", "config.max_tokens", "config.tags.0", "config.tags.1", "config.modes", "config.anything"}


def test_paths_at_the_top() -> None:
    """Without a place of its own a value's fields stand at the top."""
    assert [detail.path for detail in problems(CONFIG, {"mode": 1})] == ["mode"]
    assert [detail.path for detail in problems({"required": ["prompt"]}, {})] == ["prompt"]


def test_what_fits_has_no_problems() -> None:
    """Nothing is told of a value that fits."""
    assert _told({"temperature": 0.3, "tags": ["a"], "format": {"name": "x"}, "note": None, "anything": {"é": ["😀"]}}) == {}


def test_deep_nesting_is_a_problem_like_any_other() -> None:
    """A value that is nested without end is refused, and the rest of it is still checked."""
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]

    details = problems(CONFIG, {"anything": deep, "temperature": "hot"}, "config")

    assert details[0].message == "is nested deeper than 64 levels"
    assert details[-1].path == "config.temperature"


def test_a_thousand_wrong_items_make_a_short_answer() -> None:
    """The answer is bounded, whatever was sent."""
    details = problems({"items": {"type": "string"}}, list(range(5_000)), "items")
    names = problems(CONFIG, {"n" * 9_000: 1})

    assert len(details) == MAX_DETAILS
    assert len(names[0].message) < 200
    assert len(names[0].path) < 200


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec=None)), inner, max_size=4),
    max_leaves=12,
)


@given(value=JSONISH | st.fixed_dictionaries({}, optional=dict.fromkeys(CONFIG["properties"], JSONISH)))
def test_never_raises_and_can_be_sent(value: Any) -> None:
    """Whatever JSON can carry is answered, in text that can be sent as UTF-8."""
    for detail in problems(CONFIG, value, "config"):
        json.dumps([detail.path, detail.message], ensure_ascii=False).encode()
        assert detail.message


@pytest.mark.parametrize(
    ("schema", "path", "part"),
    [
        (3, "format.schema", "must be a JSON Schema (an object), not 3"),
        ({"type": "strng"}, "format.schema.type", "is not a JSON Schema that can be used"),
        ({"properties": {"a": {"pattern": "("}}}, "format.schema.properties.a.pattern", "is not a JSON Schema"),
        ({"$ref": "http://169.254.169.254/latest"}, "format.schema", "is not a JSON Schema"),
        ({"$ref": "file:///etc/passwd"}, "format.schema", "is not a JSON Schema"),
        ({"const": "\ud800"}, "format.schema.const", "has half a character"),
    ],
)
def test_a_callers_schema_is_checked(schema: Any, path: str, part: str) -> None:
    """A schema that cannot be used is told of, and none makes us fetch anything."""
    (detail,) = schema_problems(schema, "format.schema")

    assert detail.path == path
    assert part in detail.message
    assert "root:" not in detail.message


def test_a_usable_schema_has_no_problems() -> None:
    """References into the schema itself are fine, and values are checked through them."""
    schema = {"$defs": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/n"}}}

    assert schema_problems(schema) == ()
    assert problems(schema, {"a": "x"})[0].message == 'must be a whole number, not "x"'


def test_compiled_once_and_bounded() -> None:
    """A constant schema is compiled once; callers' own schemas do not pile up."""
    problems(CONFIG, {})
    first = schemas._compiled[id(CONFIG)]
    problems(CONFIG, {})
    assert schemas._compiled[id(CONFIG)] is first

    for _ in range(schemas.MAX_COMPILED * 2):
        problems({"type": "object"}, {})
    assert len(schemas._compiled) <= schemas.MAX_COMPILED


def test_importing_loads_no_library() -> None:
    """Only the first check pays for the library."""
    code = "import sys, chalicelib.domain.validation.schema; sys.exit('jsonschema_rs' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
