"""Parse requests to `/bulk` and `/failed-jobs`. All invalid fields are reported at once."""

from __future__ import annotations

from typing import Any

from chalicelib.domain.errors import Detail, InvalidRequest
from chalicelib.domain.jobs.bulk_operation import ALLOWED, BulkAction
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.units import Ms
from chalicelib.domain.validation.schema import problems
from chalicelib.entrypoints.http.requests import pauses, schemas
from chalicelib.entrypoints.http.requests.jobs import time_of
from chalicelib.services.jobs.bulk_operations import BulkRequest


def bulk_request(data: dict[str, Any], now: Ms) -> BulkRequest:
    """Parse a `POST /bulk`.

    Raises:
        InvalidRequest: fields are invalid, or the request does not select jobs.
    """
    details = list(problems(schemas.BULK, data))
    details += [
        Detail(name, "is only for pause")
        for name in ("reason", "pause_until")
        if data.get(name) is not None and data.get("action") != BulkAction.PAUSE
    ]
    until = pauses.end_of_pause(details, "pause_until", data.get("pause_until"), now)
    if (data.get("action") == BulkAction.SET_PRIORITY) != ("priority" in data):
        details.append(Detail("priority", "must be given for set_priority, and only for it"))
    raw_filter = data.get("filter") if isinstance(data.get("filter"), dict) else {}
    if data.get("ids"):
        details += [Detail(name, "cannot be given together with ids") for name in ("before", "limit") if name in data]
    _check_selection(details, data, {**(raw_filter or {}), **({"until": data["before"]} if "before" in data else {})})
    filters = _filters(details, "filter.", raw_filter or {})
    if isinstance(data.get("before"), str) and (before := time_of(details, "before", data["before"])) is not None:
        filters["until"] = min(before, filters.get("until") or before)
    if not details:
        _check_status(details, BulkAction(data["action"]), filters)
    if details:
        raise InvalidRequest(details=tuple(details))
    return BulkRequest(
        action=BulkAction(data["action"]),
        ids=tuple(data.get("ids", ())),
        filters=filters,
        lane=data.get("priority"),
        reason=data.get("reason"),
        until=until,
        limit=int(data["limit"]) if "limit" in data else None,
    )


def failed_jobs_request(data: dict[str, Any], action: BulkAction) -> BulkRequest:
    """Parse a retry or delete of failed jobs: by `ids`, or `all` narrowed by filters.

    Raises:
        InvalidRequest: fields are invalid, or the request does not select jobs.
    """
    details = list(problems(schemas.FAILED, data))
    filters = _filters(details, "", {name: data[name] for name in schemas.FAILED_FILTERS if name in data})
    if data.get("ids") and (data.get("all") or filters):
        details.append(Detail("ids", "cannot be given together with all or filters"))
    if not data.get("ids") and data.get("all") is not True:
        details.append(Detail("all", "must be true, unless ids are given" if action is BulkAction.RETRY else "must be true"))
    if details:
        raise InvalidRequest(details=tuple(details))
    ids = tuple(data.get("ids", ()))
    return BulkRequest(action=action, ids=ids, filters={} if ids else {**filters, "status": Status.FAILED.value})


def query_value(text: str) -> Any:
    """A query parameter as JSON: `true` and `false` become booleans."""
    return {"true": True, "false": False}.get(text, text)


def _check_selection(details: list[Detail], data: dict[str, Any], filters: dict[str, Any]) -> None:
    """Require one selection of jobs, so that a forgotten field never selects all of them."""
    if data.get("ids") and (filters or data.get("all")):
        details.append(Detail("ids", "cannot be given together with filter or all"))
    if not data.get("ids") and not filters.keys() - {"tenant"} and data.get("all") is not True:
        details.append(Detail("all", "must be true, unless ids or a filter select the jobs"))


def _filters(details: list[Detail], prefix: str, filters: dict[str, Any]) -> dict[str, Any]:
    times = {name: time_of(details, prefix + name, filters[name]) for name in ("since", "until") if isinstance(filters.get(name), str)}
    return {**filters, **times}


def _check_status(details: list[Detail], action: BulkAction, filters: dict[str, Any]) -> None:
    status = filters.get("status")
    if status is not None and status not in ALLOWED[action]:
        details.append(Detail("filter.status", f"must be one of {', '.join(sorted(ALLOWED[action]))} for {action.value}"))
