"""Values checked against a JSON Schema: every wrong field at once, in words that help whoever sent it.

The library is imported where it is used: it costs 25 ms, which only the first check should pay. It is never allowed to fetch: a schema
may come from a caller, and a `$ref` to an address would be a request of ours to wherever they like.
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

MAX_DEPTH = 64  # levels of lists and objects; the library itself stops at 255
MAX_DETAILS = 100  # nobody reads more, and the answer stays small
MAX_COMPILED = 128
OF_NUMBERS = frozenset(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"])
OF_THE_VALUE = OF_NUMBERS | {"type", "enum", "const", "minLength", "maxLength", "pattern", "minItems", "maxItems"}

_compiled: OrderedDict[int, tuple[Schema, Validator]] = OrderedDict()


def problems(schema: Schema, value: Any, at: str = "") -> tuple[Detail, ...]:
    """What is wrong with `value`, empty when nothing is. `at` is where the value stands in the request, as `config`.

    Never raises for what the value is; `schema` has to be usable (`schema_problems`). A schema is compiled once per object, so one that
    is used often should be a constant, and none may be changed after its first use.
    """
    flaws: list[Detail] = []
    clean = _readable(value, at, 0, flaws)
    found = {detail.path: detail for detail in flaws}
    try:
        for detail in _details(_validator(schema).iter_errors(clean), schema, at):
            if not any(detail.path == flaw.path or detail.path.startswith(f"{flaw.path}.") for flaw in flaws):
                found.setdefault(detail.path, detail)
            if len(found) >= MAX_DETAILS:
                break
    except ValueError:  # what the library cannot take although it is JSON
        found.setdefault(at, Detail(at, "cannot be read"))
    return tuple(islice(found.values(), MAX_DETAILS))


def schema_problems(schema: Any, at: str = "") -> tuple[Detail, ...]:
    """Why `schema`, which a caller sent, is no JSON Schema that can be used; empty when it is one."""
    if not isinstance(schema, dict):
        return (Detail(at, f"must be a JSON Schema (an object), not {shortened(schema)}"),)
    flaws: list[Detail] = []
    _readable(schema, at, 0, flaws)
    if flaws:
        return tuple(flaws[:MAX_DETAILS])
    try:
        _validator(schema)
    except ValueError as exc:
        where = [str(step) for step in getattr(exc, "instance_path", [])]
        reason = str(getattr(exc, "message", exc)).splitlines()[0]
        return (Detail(_joined(at, *where), f"is not a JSON Schema that can be used: {shortened(reason, 160, quoted=False)}"),)
    return ()


def _validator(schema: Schema) -> Validator:
    """The compiled schema. The cache keeps the schema too, so that its id stays its own."""
    known = _compiled.get(id(schema))
    if known:
        return known[1]
    from jsonschema_rs import validator_for

    validator = validator_for(schema, retriever=_refuse)
    _compiled[id(schema)] = schema, validator
    if len(_compiled) > MAX_COMPILED:
        _compiled.popitem(last=False)
    return validator


def _refuse(uri: str) -> Any:
    raise LookupError("a `$ref` may only point into the schema itself")


def _readable(value: Any, path: str, depth: int, flaws: list[Detail]) -> Any:
    """The value with what no JSON reader should have let through replaced, so that the rest can still be checked."""
    if isinstance(value, str):
        return _text(value, path, flaws)
    if isinstance(value, float) and not math.isfinite(value):
        flaws.append(Detail(path, f"must be a finite number, not {value}"))
        return 0
    if isinstance(value, dict | list | tuple):
        if depth >= MAX_DEPTH:
            flaws.append(Detail(path, f"is nested deeper than {MAX_DEPTH} levels"))
            return None
        if isinstance(value, dict):
            return {_text(str(k), path, flaws): _readable(v, _joined(path, str(k)), depth + 1, flaws) for k, v in value.items()}
        return [_readable(item, _joined(path, str(index)), depth + 1, flaws) for index, item in enumerate(value)]
    if value is None or isinstance(value, int | float):
        return value
    flaws.append(Detail(path, f"must be JSON, not a {type(value).__name__}"))
    return None


def _text(value: str, path: str, flaws: list[Detail]) -> str:
    if value.isascii():
        return value
    joined = repair_surrogates(value)
    if joined != value:
        flaws.append(Detail(path, "has half a character (an unpaired surrogate)"))
    return joined


def _details(errors: Iterable[ValidationError], schema: Schema, at: str) -> Iterator[Detail]:
    for error in errors:
        path = _joined(at, *(str(step) for step in error.instance_path))
        about: Any = error.kind  # what else it has depends on its name
        kind, rule = about.name, _subschema(schema, error.schema_path)
        if kind == "required":
            yield Detail(_joined(path, about.property), "is missing")
        elif kind == "additionalProperties":
            known = list(rule.get("properties", {}))
            yield from (Detail(_joined(path, name), describe_unknown_field(name, known)) for name in about.unexpected)
        elif kind in ("anyOf", "oneOf") and hasattr(about, "context"):
            meant = _meant(about.context, error.instance_path)
            yield from _details(meant, schema, at) if meant else [_misfit(path, rule, error.instance)]
        elif kind in ("minProperties", "maxProperties") and rule:
            one = rule.get("minProperties") == rule.get("maxProperties") == 1
            bound = "exactly one" if one else f"at {'least' if kind == 'minProperties' else 'most'} {rule[kind]}"
            yield Detail(path, f"must have {bound} of {', '.join(rule.get('properties', {})) or 'its fields'}")
        elif kind in OF_THE_VALUE and rule:
            yield _misfit(path, rule, error.instance)
        else:
            yield Detail(path, f"does not fit `{kind}`: {shortened(error.instance)}")


def _misfit(path: str, rule: Schema, value: Any) -> Detail:
    return Detail(path, f"must be {describe_expected(rule)}, not {shortened(value)}")


def _meant(branches: list[list[ValidationError]], place: list[str | int]) -> list[ValidationError]:
    """What is wrong by the one alternative that has the value's shape; nothing if the shape does not tell which was meant."""
    shape = ("type", "enum", "const")
    like = [branch for branch in branches if not any(one.kind.name in shape and one.instance_path == place for one in branch)]
    return like[0] if len(like) == 1 else []


def _subschema(schema: Schema, path: list[str | int]) -> Schema:
    """The schema that holds the keyword at the end of `path`; empty if the path cannot be followed."""
    here: Any = schema
    for step in path[:-1]:
        try:
            here = here[step]
        except (KeyError, IndexError, TypeError):
            return {}
    return here if isinstance(here, dict) else {}


def _joined(*steps: str) -> str:
    """A dotted path whose steps can be sent and stay short."""
    return ".".join(shortened(step, 80, quoted=False) for step in steps if step)
