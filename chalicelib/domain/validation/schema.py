"""Validate values against a JSON Schema and report every wrong field at once, in words for users.

The library is imported at first use, because the import takes 25 ms. It may not fetch anything: a
schema may come from a caller, and a `$ref` with a URL would let the caller send requests from our
network.
"""

from __future__ import annotations

import json
import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from chalicelib.domain.errors import Detail
from chalicelib.domain.text import repair_surrogates
from chalicelib.domain.validation.openai_names import find_meant
from chalicelib.domain.validation.schema_cost import MAX_PATTERN_BYTES, TooComplex, check_size, count_steps
from chalicelib.domain.validation.schema_messages import describe_expected, describe_unknown_field, shortened

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError, Validator

Schema = dict[str, Any]
Path = tuple[Any, str] | None  # the path of the container, and the step from there; joined only where something is wrong

MAX_DEPTH = 64  # levels of lists and objects; the library fails beyond 255
MAX_DETAILS = 100  # problems that are reported; it bounds the size of the response
MAX_MESSAGE_LENGTH = 500  # characters of one problem
MAX_NAMES = 200  # fields of a schema that are compared with an unknown one
MAX_COMPILED = 128  # schemas in the cache
# Errors about an answer that does not fit, up to which it is said where. The library builds all of them, each with a
# copy of its value: a kilobyte and ten microseconds, and more for a large value (`count_steps`).
MAX_EXPLAINED_ERRORS = 30_000
_NUMBER_KEYWORDS = frozenset(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"])
_VALUE_KEYWORDS = _NUMBER_KEYWORDS | {"type", "enum", "const", "minLength", "maxLength", "pattern", "minItems", "maxItems"}

_compiled: OrderedDict[int, tuple[Schema, Validator]] = OrderedDict()
_one_answer = threading.Lock()  # the library keeps the interpreter to itself for a part of a validation


def problems(schema: Schema, value: Any, at: str = "") -> tuple[Detail, ...]:
    """Return the problems of `value`, at most one per path.

    `at`: the path of the value in the request, such as `config`.

    Never raises for any value; `schema` has to be valid (see `schema_problems`). A schema is
    compiled once per object, so a schema that is used often should be a constant, and must not be
    changed after its first use.
    """
    clean, first = _clean(schema, value, at)
    return _problems(_validator(schema), schema, clean, at, first)


def answer_problems(schema: Schema, value: Any, *, keep: bool) -> tuple[Detail, ...]:
    """Return the problems of a model's answer. Takes a second at most, so call it off the event loop.

    Args:
        keep: the schema is a constant of the code. The schema of a caller is compiled anew.

    Raises:
        TooComplex: it cannot be validated within that time. The message continues a sentence about
            the answer.
    """
    with _one_answer:
        clean, first = _clean({}, value, "")
        _, errors = count_steps(schema, clean)
        try:
            validator = _validator(schema) if keep else _compile_of_caller(schema)
            if errors <= MAX_EXPLAINED_ERRORS:
                return _problems(validator, schema, clean, "", first)
            if validator.is_valid(clean):
                return tuple(first)
            return (*first, Detail("", "is not what its schema demands; it is too large to say where"))[:MAX_DETAILS]
        except ValueError as exc:
            raise TooComplex("cannot be validated by its schema") from exc


def schema_problems(schema: Any, at: str = "") -> tuple[Detail, ...]:
    """Return why a schema from a caller cannot be used as JSON Schema; empty if it can."""
    if not isinstance(schema, dict):
        return (Detail(at, f"must be a JSON Schema (an object), not {shortened(schema)}"),)
    _, unreadable = _clean({}, schema, at)
    if unreadable:
        return tuple(unreadable)
    try:
        check_size(schema)
        _compile_of_caller(schema)
    except TooComplex as exc:
        return (Detail(at, str(exc)),)
    except ValueError as exc:
        path = [str(step) for step in getattr(exc, "instance_path", [])]
        reason = str(getattr(exc, "message", exc)).splitlines()[0]
        return (Detail(_join(at, *path), f"is not a JSON Schema that can be used: {shortened(reason, 160, quoted=False)}"),)
    return ()


def _problems(validator: Validator, schema: Schema, clean: Any, at: str, first: list[Detail]) -> tuple[Detail, ...]:
    """Return the problems of a value without unreadable parts; `first` were found before."""
    found = {detail.path: detail for detail in first}
    try:
        if not validator.is_valid(clean):
            for detail in _details(validator.iter_errors(clean), schema, at):
                if not any(detail.path == other.path or detail.path.startswith(f"{other.path}.") for other in first):
                    found.setdefault(detail.path, detail)
                if len(found) >= MAX_DETAILS:
                    break
    except ValueError:  # the library refuses some values that are JSON
        found.setdefault(at, Detail(at, "cannot be read"))
    return tuple(islice(found.values(), MAX_DETAILS))


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


def _compile_of_caller(schema: Schema) -> Validator:
    """Compile a schema that is used once: with patterns that take linear time, and not for the cache."""
    from jsonschema_rs import RegexOptions, validator_for

    return validator_for(schema, retriever=_refuse, pattern_options=RegexOptions(size_limit=MAX_PATTERN_BYTES))


def _refuse(uri: str) -> Any:
    raise LookupError("a `$ref` may only point into the schema itself")


def _clean(schema: Schema, value: Any, at: str) -> tuple[Any, list[Detail]]:
    """Return the value as it can be validated, and what is wrong with the rest: what is not JSON, and what is too
    long, because the library would build an error for each of a million items.
    """
    found: list[Detail] = []
    clean = value if _is_json(value) else _replace_unreadable(value, (None, at), 0, found)
    return _cut(schema, clean, (None, at), found), found


def _is_json(value: Any) -> bool:
    """Whether the value is JSON that can be encoded and is not too deep. Needs no copy of it in Python."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        return False
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = list(
            chain.from_iterable(part.values() if isinstance(part, dict) else part for part in level if isinstance(part, dict | list))
        )
        if any(isinstance(part, tuple) for part in level):
            return False
    return not level


def _cut(schema: Schema, value: Any, path: Path, found: list[Detail]) -> Any:
    """Return the value with lists cut to `maxItems` and objects to `maxProperties`, in the named fields of objects."""
    for keyword, kind in (("maxItems", list), ("maxProperties", dict)):
        if not isinstance(value, kind):
            continue
        rules = [rule for rule in _alternatives(schema) if _allows(rule, {list: "array", dict: "object"}[kind])]
        if len(rules) == 1 and len(value) > rules[0].get(keyword, len(value)):
            found.append(next(_bound_details(keyword, _text(path), rules[0], value)))
            return type(value)(islice(value.items() if isinstance(value, dict) else value, rules[0][keyword]))
        if len(rules) == 1 and isinstance(value, dict):
            fields = {name: rule for name, rule in rules[0].get("properties", {}).items() if isinstance(value.get(name), dict | list)}
            return {**value, **{name: _cut(rule, value[name], (path, name), found) for name, rule in fields.items()}}
    return value


def _allows(rule: Schema, kind: str) -> bool:
    return kind in (rule["type"] if isinstance(rule.get("type"), list) else [rule.get("type")])


def _alternatives(schema: Schema) -> Iterator[Schema]:
    yield schema
    for branch in chain(schema.get("anyOf", ()), schema.get("oneOf", ())):
        yield from _alternatives(branch)


def _replace_unreadable(value: Any, path: Path, depth: int, unreadable: list[Detail]) -> Any:
    """Return the value without parts that are not valid JSON, which go to `unreadable`."""

    def refuse(message: str) -> None:
        if len(unreadable) < MAX_DETAILS:
            unreadable.append(Detail(_text(path), message))

    if isinstance(value, str):
        repaired = repair_surrogates(value)
        if repaired != value:
            refuse("has half a character (an unpaired surrogate)")
        return repaired
    if isinstance(value, float) and not math.isfinite(value):
        name = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"  # as JSON parsers write them; 1e999 is infinite too
        refuse(f"must be a finite number, not {name}")
        return 0
    if isinstance(value, dict | list | tuple):
        if depth >= MAX_DEPTH:
            refuse(f"is nested deeper than {MAX_DEPTH} levels")
            return None
        if isinstance(value, dict):
            return {
                _replace_unreadable(str(name), path, depth, unreadable): _replace_unreadable(part, (path, str(name)), depth + 1, unreadable)
                for name, part in value.items()
            }
        return [_replace_unreadable(item, (path, str(index)), depth + 1, unreadable) for index, item in enumerate(value)]
    if value is None or isinstance(value, int | float):
        return value
    refuse(f"must be JSON, not a {type(value).__name__}")
    return None


def _text(path: Path) -> str:
    steps = []
    while path is not None:
        path, step = path
        steps.append(step)
    return _join(*reversed(steps))


def _details(errors: Iterable[ValidationError], schema: Schema, at: str) -> Iterator[Detail]:
    for error in errors:
        path = _join(at, *(str(step) for step in error.instance_path))
        kind: Any = error.kind  # its other attributes depend on its name
        keyword, rule = kind.name, _subschema(schema, error.schema_path)
        if keyword == "required":
            yield Detail(_join(path, kind.property), "is missing")
        elif keyword == "additionalProperties":
            known = list(islice(rule.get("properties", {}), MAX_NAMES))
            yield from (
                Detail(_join(path, name), describe_unknown_field(name, known, find_meant(name, schema, at))) for name in kind.unexpected
            )
        elif keyword in ("anyOf", "oneOf") and hasattr(kind, "context"):
            intended = _intended_branch(kind.context, error.instance_path)
            yield from _details(intended, schema, at) if intended else [_mismatch(path, rule, error.instance)]
        elif keyword in ("minProperties", "maxProperties") and rule:
            yield from _bound_details(keyword, path, rule, error.instance)
        elif keyword in _VALUE_KEYWORDS and rule:
            yield _mismatch(path, rule, error.instance)
        else:
            yield Detail(path, f"does not match `{keyword}`: {shortened(error.instance)}")


def _bound_details(keyword: str, path: str, rule: Schema, value: Any) -> Iterator[Detail]:
    """Yield the problem of a list or an object with too many or too few parts."""
    if keyword == "maxItems":
        yield _mismatch(path, rule, value)
        return
    one = rule.get("minProperties") == rule.get("maxProperties") == 1
    bound = "exactly one" if one else f"at {'least' if keyword == 'minProperties' else 'most'} {shortened(rule[keyword])}"
    names = ", ".join(shortened(name, 60, quoted=False) for name in islice(rule.get("properties", {}), MAX_NAMES))
    yield Detail(path, f"must have {bound} of {names or 'its fields'}"[:MAX_MESSAGE_LENGTH])


def _mismatch(path: str, rule: Schema, value: Any) -> Detail:
    instead = rule.get("x-instead")
    if isinstance(instead, dict) and isinstance(value, str) and value in instead:
        return Detail(path, f"cannot be {shortened(value)}; {instead[value]}")
    return Detail(path, f"must be {shortened(describe_expected(rule), MAX_MESSAGE_LENGTH, quoted=False)}, not {shortened(value)}")


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
