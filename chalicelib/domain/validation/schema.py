"""Validate values against a JSON Schema and report every wrong field at once, in words for users.

The library is imported at first use, because the import takes 25 ms. It may not fetch anything: a
schema may come from a caller, and a `$ref` with a URL would let the caller send requests from our
network.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from chalicelib.domain.errors import Detail
from chalicelib.domain.text import repair_surrogates
from chalicelib.domain.validation.schema_messages import describe_expected, describe_unknown_field, shortened

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError, Validator

Schema = dict[str, Any]

MAX_DEPTH = 64  # levels of lists and objects; the library fails beyond 255
MAX_DETAILS = 100  # problems that are reported; it bounds the size of the response
MAX_COMPILED = 128  # schemas in the cache
_NUMBER_KEYWORDS = frozenset(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"])
_VALUE_KEYWORDS = _NUMBER_KEYWORDS | {"type", "enum", "const", "minLength", "maxLength", "pattern", "minItems", "maxItems"}

_compiled: OrderedDict[int, tuple[Schema, Validator]] = OrderedDict()


def problems(schema: Schema, value: Any, at: str = "") -> tuple[Detail, ...]:
    """Return the problems of `value`, at most one per path.

    `at`: the path of the value in the request, such as `config`.

    Never raises for any value; `schema` has to be valid (see `schema_problems`). A schema is
    compiled once per object, so a schema that is used often should be a constant, and must not be
    changed after its first use.
    """
    unreadable: list[Detail] = []
    clean = _replace_unreadable(value, at, 0, unreadable)
    found = {detail.path: detail for detail in unreadable}
    try:
        for detail in _details(_validator(schema).iter_errors(clean), schema, at):
            if not any(detail.path == other.path or detail.path.startswith(f"{other.path}.") for other in unreadable):
                found.setdefault(detail.path, detail)
            if len(found) >= MAX_DETAILS:
                break
    except ValueError:  # the library refuses some values that are JSON
        found.setdefault(at, Detail(at, "cannot be read"))
    return tuple(islice(found.values(), MAX_DETAILS))


def schema_problems(schema: Any, at: str = "") -> tuple[Detail, ...]:
    """Return why a schema from a caller cannot be used as JSON Schema; empty if it can."""
    if not isinstance(schema, dict):
        return (Detail(at, f"must be a JSON Schema (an object), not {shortened(schema)}"),)
    unreadable: list[Detail] = []
    _replace_unreadable(schema, at, 0, unreadable)
    if unreadable:
        return tuple(unreadable[:MAX_DETAILS])
    try:
        _validator(schema)
    except ValueError as exc:
        path = [str(step) for step in getattr(exc, "instance_path", [])]
        reason = str(getattr(exc, "message", exc)).splitlines()[0]
        return (Detail(_join(at, *path), f"is not a JSON Schema that can be used: {shortened(reason, 160, quoted=False)}"),)
    return ()


def _validator(schema: Schema) -> Validator:
    """Return the compiled schema.

    The cache also holds the schema, so that its `id()` is not reused.
    """
    cached = _compiled.get(id(schema))
    if cached:
        return cached[1]
    from jsonschema_rs import validator_for

    validator = validator_for(schema, retriever=_refuse)
    _compiled[id(schema)] = schema, validator
    if len(_compiled) > MAX_COMPILED:
        _compiled.popitem(last=False)
    return validator


def _refuse(uri: str) -> Any:
    raise LookupError("a `$ref` may only point into the schema itself")


def _replace_unreadable(value: Any, path: str, depth: int, unreadable: list[Detail]) -> Any:
    """Return the value without parts that are not valid JSON, which go to `unreadable`."""
    if isinstance(value, str):
        return _replace_surrogates(value, path, unreadable)
    if isinstance(value, float) and not math.isfinite(value):
        unreadable.append(Detail(path, f"must be a finite number, not {value}"))
        return 0
    if isinstance(value, dict | list | tuple):
        if depth >= MAX_DEPTH:
            unreadable.append(Detail(path, f"is nested deeper than {MAX_DEPTH} levels"))
            return None
        if isinstance(value, dict):
            return {
                _replace_surrogates(str(name), path, unreadable): _replace_unreadable(part, _join(path, str(name)), depth + 1, unreadable)
                for name, part in value.items()
            }
        return [_replace_unreadable(item, _join(path, str(index)), depth + 1, unreadable) for index, item in enumerate(value)]
    if value is None or isinstance(value, int | float):
        return value
    unreadable.append(Detail(path, f"must be JSON, not a {type(value).__name__}"))
    return None


def _replace_surrogates(value: str, path: str, unreadable: list[Detail]) -> str:
    if value.isascii():
        return value
    repaired = repair_surrogates(value)
    if repaired != value:
        unreadable.append(Detail(path, "has half a character (an unpaired surrogate)"))
    return repaired


def _details(errors: Iterable[ValidationError], schema: Schema, at: str) -> Iterator[Detail]:
    for error in errors:
        path = _join(at, *(str(step) for step in error.instance_path))
        kind: Any = error.kind  # its other attributes depend on its name
        keyword, rule = kind.name, _subschema(schema, error.schema_path)
        if keyword == "required":
            yield Detail(_join(path, kind.property), "is missing")
        elif keyword == "additionalProperties":
            known = list(rule.get("properties", {}))
            yield from (Detail(_join(path, name), describe_unknown_field(name, known)) for name in kind.unexpected)
        elif keyword in ("anyOf", "oneOf") and hasattr(kind, "context"):
            intended = _intended_branch(kind.context, error.instance_path)
            yield from _details(intended, schema, at) if intended else [_mismatch(path, rule, error.instance)]
        elif keyword in ("minProperties", "maxProperties") and rule:
            one = rule.get("minProperties") == rule.get("maxProperties") == 1
            bound = "exactly one" if one else f"at {'least' if keyword == 'minProperties' else 'most'} {rule[keyword]}"
            yield Detail(path, f"must have {bound} of {', '.join(rule.get('properties', {})) or 'its fields'}")
        elif keyword in _VALUE_KEYWORDS and rule:
            yield _mismatch(path, rule, error.instance)
        else:
            yield Detail(path, f"does not match `{keyword}`: {shortened(error.instance)}")


def _mismatch(path: str, rule: Schema, value: Any) -> Detail:
    return Detail(path, f"must be {describe_expected(rule)}, not {shortened(value)}")


def _intended_branch(branches: list[list[ValidationError]], path: list[str | int]) -> list[ValidationError]:
    """Return the errors of the only alternative whose type fits the value, if there is one."""
    type_keywords = ("type", "enum", "const")
    fitting = [
        branch for branch in branches if not any(error.kind.name in type_keywords and error.instance_path == path for error in branch)
    ]
    return fitting[0] if len(fitting) == 1 else []


def _subschema(schema: Schema, path: list[str | int]) -> Schema:
    """Return the schema that has the keyword at the end of `path`; empty if there is none."""
    part: Any = schema
    for step in path[:-1]:
        try:
            part = part[step]
        except (KeyError, IndexError, TypeError):
            return {}
    return part if isinstance(part, dict) else {}


def _join(*steps: str) -> str:
    """Return a dotted path with shortened, encodable steps."""
    return ".".join(shortened(step, 80, quoted=False) for step in steps if step)
