"""The terms of a batch: all that is said once for all of its rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chalicelib.domain.errors import Detail, InvalidRequest
from chalicelib.domain.notifications.recipients import MAX_RECIPIENTS
from chalicelib.domain.notifications.webhook_url import MAX_URL_LENGTH
from chalicelib.domain.queues.lanes import LANES, LOW
from chalicelib.domain.template import names
from chalicelib.domain.validation.schema import Schema, problems

MAX_ROWS = 10_000
MAX_DELAY = 3_600
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t"}

_WORD: Schema = {"type": ["string", "null"], "minLength": 1, "maxLength": 128}
_SOME: Schema = {"type": ["integer", "null"], "minimum": 1, "maximum": MAX_ROWS}

# What may be said, in a JSON body beside `items`, or in the query. `config` and `options` are checked by whoever makes jobs of the rows.
PROPERTIES: dict[str, Schema] = {
    "name": _WORD,
    "type": _WORD,
    "job_type": _WORD,
    "model": _WORD,
    "priority": {"enum": [*LANES, None]},
    "config": {"type": ["object", "null"]},
    "options": {"type": ["object", "null"]},
    "prompt_template": {"type": ["string", "null"], "minLength": 1, "maxLength": 100_000},
    "batch_size": _SOME,
    "delay": {"type": ["number", "null"], "minimum": 0, "maximum": MAX_DELAY},
    "parallel_limit": _SOME,
    "failure_tolerance": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
    "dry_run": {"type": ["boolean", "null"]},
    "webhook_url": {"type": ["string", "null"], "minLength": 1, "maxLength": MAX_URL_LENGTH},
    "notify": {"type": ["array", "null"], "maxItems": MAX_RECIPIENTS, "items": {"type": "string", "minLength": 1, "maxLength": 320}},
    "delimiter": {"enum": [*DELIMITERS, *DELIMITERS.values(), None]},
}
OPTIONS_SCHEMA: Schema = {"type": "object", "properties": PROPERTIES, "additionalProperties": False}
TEXT_OPTIONS = (
    *("name", "options", "prompt_template", "batch_size", "delay", "parallel_limit", "failure_tolerance", "dry_run", "delimiter"),
    *("webhook_url", "notify"),
)
JSON_OPTIONS = (
    "config",
    "options",
    "batch_size",
    "delay",
    "parallel_limit",
    "failure_tolerance",
    "dry_run",
    "notify",
)  # not text, in the query


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """`config` holds only what was said, the model too, without the priority. `batch_size` rows are released at a time, `delay` seconds
    apart; None: all at once. `parallel_limit`: so many of its jobs at once; None: no bound. `failure_tolerance`: the share of rows that
    may fail before the rest is cancelled; None: all may. `webhook_url` and `notify` are told of its end.
    """

    name: str | None = None
    type: str = "general"
    priority: str = LOW.name
    config: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    prompt_template: str | None = None
    batch_size: int | None = None
    delay: float = 0.0
    parallel_limit: int | None = None
    failure_tolerance: float | None = None
    dry_run: bool = False
    webhook_url: str | None = None
    notify: tuple[str, ...] = ()
    delimiter: str | None = None


def options_from_query(query: Mapping[str, str]) -> dict[str, Any]:
    """What the query says, as it would stand in a JSON body: `config` and `options` are JSON there too.

    Raises:
        InvalidRequest: a value is no JSON where it should be.
    """
    said: dict[str, Any] = dict(query)
    wrong = []
    for name in JSON_OPTIONS:
        if name in query:
            try:
                said[name] = json.loads(query[name])
            except (ValueError, RecursionError):
                wrong.append(Detail(name, 'must be JSON, as true, 20, ["..."] or {...}'))
    if wrong:
        raise InvalidRequest(details=tuple(wrong))
    return said


def merge_options(said: Mapping[str, Any], also: Mapping[str, Any]) -> dict[str, Any]:
    """What was said in two places: the query, the body, or a JSON file that was uploaded.

    Raises:
        InvalidRequest: two different values of one field.
    """
    differing = [name for name in said if said[name] is not None and also.get(name) not in (None, said[name])]
    if differing:
        message = "is said twice, with two different values: in the query, the body or the file"
        raise InvalidRequest(details=tuple(Detail(name, message) for name in differing))
    return {**also, **{name: value for name, value in said.items() if value is not None}}


def parse_options(said: Mapping[str, Any]) -> BatchOptions:
    """The terms, with what is short for something else put where it belongs.

    Raises:
        InvalidRequest: with every field that cannot be used.
    """
    wrong = list(problems(OPTIONS_SCHEMA, dict(said)))
    config = said.get("config")
    inner: dict[str, Any] = dict(config) if isinstance(config, dict) else {}
    kind = _same(wrong, "type", said.get("type"), "job_type", said.get("job_type"))
    model = _same(wrong, "model", said.get("model"), "config.model", inner.pop("model", None))
    priority = _same(wrong, "priority", said.get("priority"), "config.priority", inner.pop("priority", None))
    if priority is not None and priority not in tuple(LANES) and said.get("priority") is None:
        wrong.append(Detail("config.priority", f"must be one of {', '.join(LANES)}"))
    if wrong:
        raise InvalidRequest(details=tuple(wrong))
    template = said.get("prompt_template")
    if template is not None and not names(template):
        raise InvalidRequest(details=(Detail("prompt_template", "has no place such as {{input}}: every prompt would be the same"),))
    given = {name: said[name] for name in TEXT_OPTIONS if said.get(name) is not None}
    if "notify" in given:
        given["notify"] = tuple(dict.fromkeys(given["notify"]))
    if kind is not None:
        given["type"] = kind
    if priority is not None:
        given["priority"] = priority
    if "delimiter" in given:
        given["delimiter"] = DELIMITERS.get(given["delimiter"], given["delimiter"])
    return BatchOptions(**given, config=inner | ({"model": model} if model is not None else {}))


def _same(wrong: list[Detail], name: str, value: Any, other: str, other_value: Any) -> Any:
    """Two names for one thing: either will do, two different values are an error."""
    if value is not None and other_value is not None and value != other_value:
        wrong.append(Detail(name, f"says {value!r} but {other} says {other_value!r}; they are the same thing"))
    return value if value is not None else other_value
