"""Bound the work that a schema from a caller causes.

A schema of some lines may stand for millions of rules, because each `$ref` to a part counts anew, and
a recursive one for any number. So its expanded size is checked when it is submitted, and the number
of rules that apply to an answer before the answer is validated.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any
from urllib.parse import unquote

Schema = dict[str, Any]

# OpenAI takes 5,000 properties in ten levels of objects. Here every rule counts, those that combine
# others too, and so does every level that such a rule or a `$ref` adds.
MAX_SUBSCHEMAS = 10_000
MAX_NESTED = 100
MAX_PATTERNS = 200  # a compiled pattern takes up to `MAX_PATTERN_BYTES`
MAX_PATTERN_BYTES = 500_000
MAX_STEPS = 2_000_000  # rules that are applied to the values of one answer; each takes up to 0.2 microseconds
MAX_PAIRS = 300_000  # of a rule and a value, looked at to count the steps
CHARACTERS_PER_STEP = 32  # that a pattern reads
LENGTH_PER_STEP = 4_096  # characters that are counted for a rule on the length
BYTES_PER_ERROR = 256  # of a value; an error has a copy of the value that does not fit

_LISTS_IN_PLACE = ("allOf", "anyOf", "oneOf")
_IN_PLACE = ("not", "if", "then", "else")
_MAPS_IN_PLACE = ("dependentSchemas", "dependencies")
_OF_FIELDS = ("additionalProperties", "unevaluatedProperties")
_OF_ITEMS = ("items", "additionalItems", "unevaluatedItems", "contains")
_REFUSED = ("$dynamicRef", "$recursiveRef")
_DRAFTS = ("2020-12", "2019-09", "draft-07", "draft-06")  # earlier ones name and refer to parts in other ways
_NO_RULES = frozenset(["$defs", "definitions", "title", "description", "default", "examples", "$schema", "$id", "$comment"])


class TooComplex(ValueError):
    """The schema, or an answer under it, would take too long to validate."""


def check_size(schema: Schema) -> None:
    """Check the expanded size of a schema. A part that refers to itself counts once on its path.

    Raises:
        TooComplex: it is too large, too deep, or refers in ways that are not supported. The message
            continues a sentence about the schema.
    """
    _Expansion(schema).visit(schema, 0)


def count_steps(schema: Schema, value: Any) -> tuple[int, int]:
    """Return how many rules are applied to the value and its parts, at most, and the size of all
    errors that they could cause, in errors about a small value.

    Raises:
        TooComplex: more than `MAX_STEPS` rules.
    """
    try:
        return _Steps(schema).of(schema, value)
    except RecursionError as exc:
        raise TooComplex("is nested too deeply for its schema") from exc


class _Expansion:
    """Walks over a schema along its references, each path for itself."""

    def __init__(self, root: Schema) -> None:
        self._root, self._size, self._patterns = root, 0, 0
        self._open: set[int] = set()

    def visit(self, schema: Any, depth: int) -> None:
        self._size += 1
        if self._size > MAX_SUBSCHEMAS:
            raise TooComplex(f"has more than {MAX_SUBSCHEMAS:,} parts, with its references followed")
        if depth > MAX_NESTED:
            raise TooComplex(f"is nested deeper than {MAX_NESTED} levels, with its references followed")
        if not isinstance(schema, dict) or id(schema) in self._open:
            return
        self._check_keywords(schema)
        self._open.add(id(schema))
        for part in _parts(schema, self._root):
            self.visit(part, depth + 1)
        self._open.remove(id(schema))

    def _check_keywords(self, schema: Schema) -> None:
        for keyword in _REFUSED:
            if keyword in schema:
                raise TooComplex(f"uses {keyword}, which is not supported")
        if "$id" in schema and schema is not self._root:
            raise TooComplex("has a part with its own $id, which is not supported")
        draft = schema.get("$schema")
        if isinstance(draft, str) and not any(known in draft for known in _DRAFTS):
            raise TooComplex(f"has a $schema that is not supported; supported are {', '.join(_DRAFTS)}")
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference != "#" and not reference.startswith("#/"):
            raise TooComplex("has a $ref that is not supported; name a place in the schema, as in #/$defs/name")
        if isinstance(reference, str) and _resolve(reference, self._root) is None:
            raise TooComplex("has a $ref to a place that does not exist")
        self._patterns += isinstance(schema.get("pattern"), str) + len(_mapping(schema, "patternProperties"))
        if self._patterns > MAX_PATTERNS:
            raise TooComplex(f"has more than {MAX_PATTERNS} patterns, with its references followed")


class _Steps:
    """Counts the applications of rules to values, each pair of them once."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._counted: dict[tuple[int, int], tuple[int, int]] = {}
        self._sizes: dict[int, int] = {}

    def of(self, schema: Any, value: Any) -> tuple[int, int]:
        if not isinstance(schema, dict):
            return 1, 1 + self._size_of(value) // BYTES_PER_ERROR
        pair = id(schema), id(value)
        if pair in self._counted:
            return self._counted[pair]
        if len(self._counted) >= MAX_PAIRS:
            raise TooComplex("is too large for its schema")
        self._counted[pair] = 0, 0  # a rule that leads back to itself at the same value is not applied again
        steps = _own_steps(schema, value)
        errors = _own_errors(schema) * (1 + self._size_of(value) // BYTES_PER_ERROR)
        for part, other in _applied(schema, value, self._root):
            steps_of_part, errors_of_part = self.of(part, other)
            steps, errors = steps + steps_of_part, errors + errors_of_part
            if steps > MAX_STEPS:
                raise TooComplex("is too large for its schema")
        self._counted[pair] = steps, errors
        return steps, errors

    def _size_of(self, value: Any) -> int:
        """Return about how many bytes a value has as JSON."""
        if isinstance(value, str):
            return len(value)
        if not isinstance(value, dict | list):
            return 8
        if id(value) not in self._sizes:
            names = sum(map(len, value)) if isinstance(value, dict) else 0
            parts = value.values() if isinstance(value, dict) else value
            self._sizes[id(value)] = names + 8 * len(value) + sum(map(self._size_of, parts))
        return self._sizes[id(value)]


def _parts(schema: Schema, root: Schema) -> Iterator[Any]:
    """Yield the schemas directly below one."""
    yield from _in_place(schema, root)
    for keyword in (*_OF_FIELDS, *_OF_ITEMS, "propertyNames"):
        part = schema.get(keyword)
        if isinstance(part, dict):
            yield part
    for keyword in ("properties", "patternProperties"):
        yield from _mapping(schema, keyword).values()
    for keyword in ("prefixItems", "items"):
        part = schema.get(keyword)
        yield from part if isinstance(part, list) else ()


def _in_place(schema: Schema, root: Schema) -> Iterator[Any]:
    """Yield the schemas that apply to the same value."""
    for keyword in _LISTS_IN_PLACE:
        part = schema.get(keyword)
        yield from part if isinstance(part, list) else ()
    yield from (schema[keyword] for keyword in _IN_PLACE if isinstance(schema.get(keyword), dict))
    for keyword in _MAPS_IN_PLACE:
        yield from (part for part in _mapping(schema, keyword).values() if isinstance(part, dict))
    if isinstance(schema.get("$ref"), str):
        yield _resolve(schema["$ref"], root)


def _applied(schema: Schema, value: Any, root: Schema) -> Iterator[tuple[Any, Any]]:
    """Yield each schema directly below with each value that it is applied to."""
    for part in _in_place(schema, root):
        yield part, value
    if isinstance(value, dict):
        properties = _mapping(schema, "properties")
        yield from ((properties[name], part) for name, part in value.items() if name in properties)
        for rule in (*_mapping(schema, "patternProperties").values(), *(schema.get(keyword) for keyword in _OF_FIELDS)):
            if isinstance(rule, dict):
                yield from ((rule, part) for part in value.values())
        if isinstance(names := schema.get("propertyNames"), dict):
            yield from ((names, name) for name in value)
    elif isinstance(value, list):
        for keyword in ("prefixItems", "items"):
            rules = schema.get(keyword)
            yield from zip(rules, value, strict=False) if isinstance(rules, list) else ()
        for keyword in _OF_ITEMS:
            if isinstance(rule := schema.get(keyword), dict):
                yield from ((rule, part) for part in value)


def _own_steps(schema: Schema, value: Any) -> int:
    """Return the steps of a rule without those below it."""
    steps = 1
    if isinstance(options := schema.get("enum"), list):
        steps += len(options)
    if isinstance(value, str):
        steps += _pattern_steps(schema.get("pattern"), value) + len(value) // LENGTH_PER_STEP
    elif isinstance(value, dict):
        steps += _required_names(schema)
        patterns = _mapping(schema, "patternProperties")
        steps += sum(_pattern_steps(pattern, name) for pattern in patterns for name in value) if patterns else 0
    elif isinstance(value, list) and schema.get("uniqueItems") is True:
        steps += len(value) * 4
    return steps


def _own_errors(schema: Schema) -> int:
    """Return how many errors about one value a rule can cause, without those below it."""
    return 1 + len(schema.keys() - _NO_RULES) + _required_names(schema)


def _required_names(schema: Schema) -> int:
    """Return how many names are looked up in an object; each that is missing is an error."""
    lists = [schema.get("required"), *_mapping(schema, "dependentRequired").values(), *_mapping(schema, "dependencies").values()]
    return sum(len(names) for names in lists if isinstance(names, list))


def _pattern_steps(pattern: Any, text: str) -> int:
    if not isinstance(pattern, str):
        return 0
    return 1 + len(text) // CHARACTERS_PER_STEP


def _mapping(schema: Schema, keyword: str) -> dict[str, Any]:
    part = schema.get(keyword)
    return part if isinstance(part, dict) else {}


def _resolve(reference: str, root: Schema) -> Any:
    """Return the part that a reference such as `#/$defs/name` names; None if there is none."""
    part: Any = root
    for step in islice(unquote(reference).split("/"), 1, None):
        step = step.replace("~1", "/").replace("~0", "~")
        try:
            part = part[int(step)] if isinstance(part, list) else part[step]
        except (KeyError, IndexError, ValueError, TypeError):
            return None
    return part
