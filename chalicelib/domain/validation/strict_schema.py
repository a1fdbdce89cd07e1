"""What OpenAI's strict mode refuses in a schema, as far as it is known.

In strict mode each object is closed and has all its properties required, and the keywords are a
part of JSON Schema: https://developers.openai.com/api/docs/guides/structured-outputs. Whatever is
not listed there as refused is left to OpenAI.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from chalicelib.domain.errors import Detail
from chalicelib.domain.validation.schema_messages import shortened

MAX_DETAILS = 20  # places that are named
MAX_LEVELS = 10  # of objects in objects
MAX_PROPERTIES = 5_000
MAX_ENUM_VALUES = 1_000
REFUSED_KEYWORDS = frozenset(
    {
        *("allOf", "oneOf", "not", "if", "then", "else", "dependentRequired", "dependentSchemas"),
        *("patternProperties", "propertyNames", "unevaluatedProperties", "minProperties", "maxProperties"),
        *("uniqueItems", "contains", "minContains", "maxContains", "unevaluatedItems", "prefixItems"),
    }
)
# One of these says what a value is; a schema without any of them is open.
SAYS_WHAT = frozenset({"type", "anyOf", "$ref", "enum", "const", "properties", "items"})
FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
HINT = "; leave out `strict`, and the answer is checked against the schema only here"


def strict_problems(schema: dict[str, Any], at: str) -> list[Detail]:
    """Return why strict mode refuses a valid schema, with the place of each; empty if nothing is known."""
    found = list(islice(_problems(schema, at, 1, root=True), MAX_DETAILS))
    if not found and (count := sum(len(part.get("properties", ())) for part in _objects(schema))) > MAX_PROPERTIES:
        found.append(Detail(at, f"has {count:,} properties; in strict mode {MAX_PROPERTIES:,} are allowed"))
    if not found and (values := sum(len(part["enum"]) for part in _parts(schema) if isinstance(part.get("enum"), list))) > MAX_ENUM_VALUES:
        found.append(Detail(at, f"has {values:,} values of enums; in strict mode {MAX_ENUM_VALUES:,} are allowed"))
    return found


def _problems(schema: Any, at: str, level: int, *, root: bool = False) -> Iterator[Detail]:
    if not isinstance(schema, dict):
        if schema is not False:  # `additionalProperties` is one as well, and is checked with its object
            yield Detail(at, f"must be a schema with a type in strict mode, not {shortened(schema)}{HINT}")
        return
    kinds = schema.get("type")
    is_object = kinds == "object" or "properties" in schema or (isinstance(kinds, list) and "object" in kinds)
    if root and (kinds != "object" or "anyOf" in schema):
        yield Detail(at, f"must be an object, and not `anyOf`, at its root in strict mode{HINT}")
    yield from (Detail(f"{at}.{name}", f"is not allowed in strict mode{HINT}") for name in schema if name in REFUSED_KEYWORDS)
    if isinstance(given := schema.get("format"), str) and given not in FORMATS:
        yield Detail(f"{at}.format", f"must be one of {', '.join(sorted(FORMATS))} in strict mode, not {shortened(given)}{HINT}")
    yield from _kind_problems(schema, at)
    if is_object:
        yield from _object_problems(schema, at, level)
    for name in ("properties", "$defs", "definitions"):
        for key, part in _mapping(schema.get(name)).items():
            yield from _problems(part, f"{at}.{name}.{shortened(key, 60, quoted=False)}", level + (name == "properties"))
    for index, part in enumerate(schema["anyOf"] if isinstance(schema.get("anyOf"), list) else ()):
        yield from _problems(part, f"{at}.anyOf.{index}", level)
    if "items" in schema:
        yield from _problems(schema["items"], f"{at}.items", level)


def _kind_problems(schema: dict[str, Any], at: str) -> Iterator[Detail]:
    """Yield what is missing to know the kind of a value, or what stands beside a reference to it."""
    if not (SAYS_WHAT | REFUSED_KEYWORDS) & schema.keys():
        yield Detail(at, f"must have a type in strict mode{HINT}")
    if schema.get("type") == "array" and "items" not in schema and "prefixItems" not in schema:
        yield Detail(f"{at}.items", f"is missing: in strict mode a list says what its items are{HINT}")
    if "$ref" in schema and (others := [name for name in schema if name not in ("$ref", "$defs", "definitions")]):
        names = ", ".join(f"`{shortened(name, 60, quoted=False)}`" for name in others[:5])
        yield Detail(at, f"may have nothing beside `$ref` in strict mode, but has {names}{HINT}")


def _object_problems(schema: dict[str, Any], at: str, level: int) -> Iterator[Detail]:
    if schema.get("additionalProperties") is not False:
        yield Detail(f"{at}.additionalProperties", f"must be false in strict mode{HINT}")
    required = schema.get("required")
    missing = [name for name in _mapping(schema.get("properties")) if not isinstance(required, list) or name not in required]
    if missing:
        names = ", ".join(f"`{shortened(name, 60, quoted=False)}`" for name in missing[:5])
        yield Detail(f"{at}.required", f"must name all properties in strict mode; missing: {names}{HINT}")
    unknown = [name for name in required if name not in _mapping(schema.get("properties"))] if isinstance(required, list) else []
    if unknown:
        yield Detail(f"{at}.required", f"names `{shortened(unknown[0], 60, quoted=False)}`, which is no property{HINT}")
    if level > MAX_LEVELS:
        yield Detail(at, f"is nested deeper than {MAX_LEVELS} levels of objects, which strict mode refuses{HINT}")


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    return (part for part in _parts(schema) if isinstance(part.get("properties"), dict))


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield the schema and all schemas in it."""
    if not isinstance(schema, dict):
        return
    yield schema
    for name in ("properties", "$defs", "definitions"):
        for part in _mapping(schema.get(name)).values():
            yield from _parts(part)
    for part in schema["anyOf"] if isinstance(schema.get("anyOf"), list) else ():
        yield from _parts(part)
    yield from _parts(schema.get("items"))


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
