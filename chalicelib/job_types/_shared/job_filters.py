"""Read the job filters of a job type's input: the same filters as those of `GET /jobs`."""

from __future__ import annotations

from typing import Any

from chalicelib.domain.errors import Detail, InvalidRequest
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.jobs.job_type import Schema
from chalicelib.domain.queues.lanes import LANES
from chalicelib.domain.units import Ms, parse_rfc3339
from chalicelib.services.jobs.list_jobs import Filters

_TEXT: Schema = {"type": "string", "minLength": 1, "maxLength": 255}
_TIME_FIELDS = ("since", "until")

FILTER: Schema = {
    "type": "object",
    "properties": {
        "status": {"enum": [status.value for status in Status]},
        "priority": {"enum": list(LANES)},
        **dict.fromkeys(("type", "batch", "user", "tag", "dedupe_key", "model", "error_code", *_TIME_FIELDS), _TEXT),
    },
    "additionalProperties": False,
}


def parse_filters(given: dict[str, Any]) -> Filters:
    """Return the filters.

    Raises:
        InvalidRequest: `since` or `until` is not a time.
    """
    fields: dict[str, Any] = {name: _parse_time(name, value) if name in _TIME_FIELDS else value for name, value in given.items()}
    return Filters(**fields)


def _parse_time(name: str, text: str) -> Ms:
    try:
        return parse_rfc3339(text)
    except (ValueError, OverflowError) as exc:
        raise InvalidRequest(details=(Detail(f"input.filter.{name}", "must be a time such as 2026-11-22T09:30:00Z"),)) from exc
