"""Parse the options of a batch: what applies to all of its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

from chalicelib.domain import json_limits
from chalicelib.domain.errors import Detail, InvalidRequest
from chalicelib.domain.notifications.recipients import MAX_RECIPIENTS
from chalicelib.domain.notifications.webhook_url import MAX_URL_LENGTH
from chalicelib.domain.queues.lanes import LANES, LOW
from chalicelib.domain.template import names
from chalicelib.domain.validation.schema import Schema, problems
from chalicelib.domain.validation.schema_messages import shortened
from chalicelib.domain.validation.whole_numbers import whole_numbers

MAX_ROWS = 10_000
MAX_DELAY = 3_600  # seconds
DEFAULT_GROUP_SIZE = 100  # the batch size if only `delay` is given
MAX_RELEASE_DAYS = 60  # within which the last group must be released; the rows are stored for ten days more
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
DELIMITER_RULE = f"must be one character, but not a quote or a line end, or one of {', '.join(DELIMITERS)}"

_NAME: Schema = {"type": ["string", "null"], "minLength": 1, "maxLength": 128}
_ROW_COUNT: Schema = {"type": ["integer", "null"], "minimum": 1, "maximum": MAX_ROWS}

# The options as they are sent: in a JSON body beside `items`, or in the query. The contents of
# `config` and `options` are validated when the rows are planned as jobs.
PROPERTIES: dict[str, Schema] = {
    "name": _NAME,
    "type": _NAME,
    "job_type": _NAME,
    "model": _NAME,
    "priority": {"enum": [*LANES, None]},
    "config": {"type": ["object", "null"]},
    "options": {"type": ["object", "null"]},
    "prompt_template": {"type": ["string", "null"], "minLength": 1, "maxLength": 100_000},
    "batch_size": _ROW_COUNT,
    "delay": {"type": ["number", "null"], "minimum": 0, "maximum": MAX_DELAY},
    "parallel_limit": _ROW_COUNT,
    "failure_tolerance": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
    "dry_run": {"type": ["boolean", "null"]},
    "webhook_url": {"type": ["string", "null"], "minLength": 1, "maxLength": MAX_URL_LENGTH},
    "notify": {"type": ["array", "null"], "maxItems": MAX_RECIPIENTS, "items": {"type": "string", "minLength": 1, "maxLength": 320}},
    "delimiter": {"type": ["string", "null"], "pattern": f'^({"|".join(DELIMITERS)}|[^"\\r\\n\0])$'},
}
OPTIONS_SCHEMA: Schema = {"type": "object", "properties": PROPERTIES, "additionalProperties": False}
_COPIED_OPTIONS = (  # taken over unchanged, apart from types
    *("name", "options", "prompt_template", "batch_size", "delay", "parallel_limit", "failure_tolerance", "dry_run", "delimiter"),
    *("webhook_url", "notify"),
)
_JSON_OPTIONS = (  # written as JSON in a query, because their values are not text
    "config",
    "options",
    "batch_size",
    "delay",
    "parallel_limit",
    "failure_tolerance",
    "dry_run",
    "notify",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """The parsed options of a batch."""

    name: str | None = None
    type: str = "general"  # job type of the rows
    priority: str = LOW.name  # lane of the rows
    # Only what was given, with the model and without the priority.
    config: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)  # of the job type
    prompt_template: str | None = None  # None: the content of each row is its prompt
    batch_size: int | None = None  # rows released as one group; None: all at once
    delay: float = 0.0  # seconds between two groups
    parallel_limit: int | None = None  # rows that may be unfinished at once; None: no limit
    # Share of rows that may fail before the rest is cancelled; None: all may.
    failure_tolerance: float | None = None
    dry_run: bool = False  # estimate the cost and create nothing
    webhook_url: str | None = None  # is sent `batch.completed` at the end
    notify: tuple[str, ...] = ()  # recipients of the same: `email:<address>`, `slack:<name>`
    delimiter: str | None = None  # of CSV; None: detected from the header

    @property
    def group_size(self) -> int | None:
        """How many rows are released as one group; None: all rows are one group."""
        return self.batch_size if self.batch_size is not None or not self.delay else DEFAULT_GROUP_SIZE

    def release_seconds(self, rows: int) -> float:
        """Return the time from the release of the first group to that of the last one, in seconds."""
        groups = ceil(rows / self.group_size) if self.group_size is not None else 1
        return (groups - 1) * self.delay


def options_from_query(query: Mapping[str, str]) -> dict[str, Any]:
    """Return the options in a query as they would be in a JSON body.

    Raises:
        InvalidRequest: the value of an option that must be JSON is not.
    """
    given: dict[str, Any] = dict(query)
    details = []
    for name in _JSON_OPTIONS:
        if name in query:
            try:
                given[name] = json_limits.loads(query[name])
            except json_limits.JsonRefused as exc:
                details.append(Detail(name, str(exc)))
            except ValueError:
                details.append(Detail(name, 'must be JSON, such as true, 20, ["..."] or {...}'))
    if details:
        raise InvalidRequest(details=tuple(details))
    return given


def merge_options(given: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Combine options from two places: the query, the body, or an uploaded JSON file.

    Raises:
        InvalidRequest: both have an option, with different values.
    """
    differing = [name for name in given if given[name] is not None and other.get(name) not in (None, given[name])]
    if differing:
        message = "has two different values in the query, the body or the file"
        raise InvalidRequest(details=tuple(Detail(name, message) for name in differing))
    return {**other, **{name: value for name, value in given.items() if value is not None}}


def parse_options(given: Mapping[str, Any]) -> BatchOptions:
    """Validate the options and resolve the short forms (`model`, `priority`, `job_type`).

    Raises:
        InvalidRequest: with every invalid field.
    """
    details = [_readable(detail) for detail in problems(OPTIONS_SCHEMA, dict(given))]
    config: dict[str, Any] = dict(given["config"]) if isinstance(given.get("config"), dict) else {}
    job_type = _resolve_alias(details, "type", given.get("type"), "job_type", given.get("job_type"))
    model = _resolve_alias(details, "model", given.get("model"), "config.model", config.pop("model", None))
    priority = _resolve_alias(details, "priority", given.get("priority"), "config.priority", config.pop("priority", None))
    if priority is not None and priority not in tuple(LANES) and given.get("priority") is None:
        details.append(Detail("config.priority", f"must be one of {', '.join(LANES)}"))
    if details:
        raise InvalidRequest(details=tuple(details))
    given = whole_numbers(OPTIONS_SCHEMA, dict(given))
    template = given.get("prompt_template")
    if template is not None and not names(template):
        message = "has no placeholder such as {{input}}, so every prompt would be the same"
        raise InvalidRequest(details=(Detail("prompt_template", message),))
    options = {name: given[name] for name in _COPIED_OPTIONS if given.get(name) is not None}
    if "notify" in options:
        options["notify"] = tuple(dict.fromkeys(options["notify"]))
    if job_type is not None:
        options["type"] = job_type
    if priority is not None:
        options["priority"] = priority
    if "delimiter" in options:
        options["delimiter"] = DELIMITERS.get(options["delimiter"], options["delimiter"])
    return BatchOptions(**options, config=config | ({"model": model} if model is not None else {}))


def parse_delimiter(text: str) -> str | None:
    """Return the character that a delimiter's name or the character itself stands for; None if it is neither."""
    delimiter = DELIMITERS.get(text, text)
    return delimiter if len(delimiter) == 1 and delimiter not in '"\r\n\0' else None


def _readable(detail: Detail) -> Detail:
    """Return the problem of a delimiter in words instead of as a pattern."""
    return replace(detail, message=DELIMITER_RULE) if detail.path == "delimiter" else detail


def check_release_time(options: BatchOptions, rows: int) -> None:
    """Refuse a batch whose rows would no longer be stored when the last of them are released.

    Raises:
        InvalidRequest: with the numbers.
    """
    days = options.release_seconds(rows) / 86_400
    if days > MAX_RELEASE_DAYS:
        message = (
            f"is too long: {rows:,} rows in groups of {options.group_size:,}, with {options.delay:,g} s between two groups, are released "
            f"over {days:,.1f} days, and a batch must be released within {MAX_RELEASE_DAYS}; use larger groups or a shorter delay"
        )
        raise InvalidRequest(details=(Detail("delay", message),))


def _resolve_alias(details: list[Detail], name: str, value: Any, alias: str, alias_value: Any) -> Any:
    """Return the value of an option that has two names.

    Two different values are an error, which is added to `details`.
    """
    if value is not None and alias_value is not None and value != alias_value:
        details.append(Detail(name, f"is {shortened(value)} but {alias} is {shortened(alias_value)}; they are the same option"))
    return value if value is not None else alias_value
