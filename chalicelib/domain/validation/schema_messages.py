"""Describe what a schema expects and what it was given instead, in words for users."""

from __future__ import annotations

import json
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from chalicelib.domain.text import repair_surrogates, visible

MAX_CHOICES = 12  # alternatives that a message names
NOUNS = {
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


def describe_expected(rule: dict[str, Any], levels: int = 2) -> str:
    """Describe a schema: `a number between 0 and 2`, `one of "text", "json"`.

    Args:
        levels: of alternatives within alternatives that are described.
    """
    if "const" in rule:
        return shortened(rule["const"])
    if "enum" in rule:
        return _choice([shortened(option) for option in rule["enum"][: MAX_CHOICES + 1]])
    for keyword in ("anyOf", "oneOf"):
        if keyword in rule and levels:
            options = [option for option in rule[keyword][:MAX_CHOICES] if isinstance(option, dict)]
            return " or ".join(dict.fromkeys(describe_expected(option, levels - 1) for option in options))
    kinds = rule.get("type", [])
    if not kinds and rule.get("required"):
        return f"an object with {' and '.join(f'`{name}`' for name in rule['required'][:MAX_CHOICES])}"
    nouns = [_bounded(kind, rule) for kind in ([kinds] if isinstance(kinds, str) else kinds)]
    return " or ".join(nouns) if nouns else _bounded("value", rule)


def describe_unknown_field(name: str, known: Sequence[str], meant: str | None = None) -> str:
    """Return the problem of an unknown field, with the known field that was probably meant.

    `meant`: what to write instead, if that is certain.
    """
    label = shortened(name, 60, quoted=False)
    if meant is not None:
        return f"unknown field `{label}`; {meant}"
    near = get_close_matches(name[:60], known, n=1, cutoff=0.6)
    return f"unknown field `{label}`" + (f"; did you mean `{near[0]}`?" if near else "")


def describe_kind(value: Any) -> str:
    """Return what kind of JSON a value is: `a list`, `true or false`."""
    kinds = {str: "string", bool: "boolean", int: "number", float: "number", list: "array", dict: "object"}
    return NOUNS[kinds.get(type(value), "null")]


def shortened(value: Any, limit: int = 60, *, quoted: bool = True) -> str:
    """Return enough of the value to recognise it, as JSON.

    Lists and objects are only described, because they may be large. Invisible characters are
    written as in JSON.
    """
    if isinstance(value, dict | list | tuple):
        return _size("an object with", len(value), "field") if isinstance(value, dict) else _size("a list of", len(value), "item")
    if isinstance(value, str):
        short = repair_surrogates(value if len(value) <= limit else value[:limit] + "…")
        return visible(json.dumps(short, ensure_ascii=False) if quoted else short)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**limit:
        return f"a whole number of more than {limit} digits"
    return json.dumps(value, default=lambda other: f"a {type(other).__name__}")


def _bounded(kind: str, rule: dict[str, Any]) -> str:
    noun = NOUNS.get(kind, "a value")
    if kind == "string":
        wanted = rule.get("pattern")
        return (
            noun
            + _between(rule, "Length", " of", "character")
            + (f" that matches {shortened(wanted, 160, quoted=False)}" if wanted else "")
        )
    if kind == "array":
        return noun + _between(rule, "Items", " of", "item")
    if kind in ("number", "integer", "value"):
        return noun + _range(rule) + (f" that is a multiple of {shortened(rule['multipleOf'])}" if "multipleOf" in rule else "")
    return noun


def _range(rule: dict[str, Any]) -> str:
    low, high = rule.get("minimum"), rule.get("maximum")
    if low is not None and high is not None:
        return f" between {shortened(low)} and {shortened(high)}"
    words = {"minimum": "at least", "maximum": "at most", "exclusiveMinimum": "above", "exclusiveMaximum": "below"}
    bounds = [f"{word} {shortened(rule[key])}" for key, word in words.items() if rule.get(key) is not None]
    return f" {' and '.join(bounds)}" if bounds else ""


def _between(rule: dict[str, Any], what: str, lead: str, unit: str) -> str:
    low, high = rule.get(f"min{what}"), rule.get(f"max{what}")
    if low is None and high is None:
        return ""
    if low is None or high is None or not low:
        return _size(f"{lead} at most", high, unit) if high is not None else _size(f"{lead} at least", low, unit)
    return _size(lead, low, unit) if low == high else _size(f"{lead} {low} to", high, unit)


def _size(lead: str, count: Any, unit: str) -> str:
    return f"{lead} {shortened(count)} {unit}{'' if count == 1 else 's'}"


def _choice(options: list[str]) -> str:
    shown = options[:MAX_CHOICES] + (["…"] if len(options) > MAX_CHOICES else [])
    return f"one of {', '.join(shown)}" if len(shown) > 1 else "".join(shown)
