"""What is to be done to many jobs, and to which. Every wrong field is named at once."""

from __future__ import annotations

from typing import Any

from chalicelib.domain.errors import Detail, InvalidRequest
from chalicelib.domain.jobs.bulk_operation import ALLOWED, BulkAction
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.validation.schema import problems
from chalicelib.entrypoints.http.requests import schemas
from chalicelib.entrypoints.http.requests.jobs import time_of
from chalicelib.services.jobs.bulk_operations import BulkRequest


def bulk_request(data: dict[str, Any]) -> BulkRequest:
    """A `POST /bulk`.

    Raises:
        InvalidRequest: with every field that cannot be used; or nothing says which jobs.
    """
    wrong = list(problems(schemas.BULK, data))
    if data.get("action") in schemas.NOT_YET_ACTIONS:
        wrong.append(Detail("action", f"{data['action']} is not available in this version"))
    if (data.get("action") == BulkAction.SET_PRIORITY) != ("priority" in data):
        wrong.append(Detail("priority", "must be given for set_priority, and only for it"))
    found = data.get("filter") if isinstance(data.get("filter"), dict) else {}
    _which(wrong, data, found or {})
    filters = _filters(wrong, "filter.", found or {})
    if not wrong:
        _fits(wrong, BulkAction(data["action"]), filters)
    if wrong:
        raise InvalidRequest(details=tuple(wrong))
    return BulkRequest(action=BulkAction(data["action"]), ids=tuple(data.get("ids", ())), filters=filters, lane=data.get("priority"))


def failed_jobs_request(data: dict[str, Any], action: BulkAction) -> BulkRequest:
    """The failed jobs that are meant: by name, or `all`, narrowed by filters.

    Raises:
        InvalidRequest: as above.
    """
    wrong = list(problems(schemas.FAILED, data))
    filters = _filters(wrong, "", {name: data[name] for name in schemas.FAILED_FILTERS if name in data})
    if data.get("ids") and (data.get("all") or filters):
        wrong.append(Detail("ids", "cannot be given together with all or filters"))
    if not data.get("ids") and data.get("all") is not True:
        wrong.append(Detail("all", "must be true, unless ids are named" if action is BulkAction.RETRY else "must be true"))
    if wrong:
        raise InvalidRequest(details=tuple(wrong))
    ids = tuple(data.get("ids", ()))
    return BulkRequest(action=action, ids=ids, filters={} if ids else {**filters, "status": Status.FAILED.value})


def word(text: str) -> Any:
    """A value of a query as JSON would say it."""
    return {"true": True, "false": False}.get(text, text)


def _which(wrong: list[Detail], data: dict[str, Any], found: dict[str, Any]) -> None:
    """Which jobs a bulk action is for must be said, and said once: nobody cancels everything by leaving something out."""
    if data.get("ids") and (found or data.get("all")):
        wrong.append(Detail("ids", "cannot be given together with filter or all"))
    if not data.get("ids") and not found.keys() - {"tenant"} and data.get("all") is not True:
        wrong.append(Detail("all", "must be true, unless ids or a filter say which jobs are meant"))


def _filters(wrong: list[Detail], prefix: str, found: dict[str, Any]) -> dict[str, Any]:
    times = {name: time_of(wrong, prefix + name, found[name]) for name in ("since", "until") if isinstance(found.get(name), str)}
    return {**found, **times}


def _fits(wrong: list[Detail], action: BulkAction, found: dict[str, Any]) -> None:
    status = found.get("status")
    if status is not None and status not in ALLOWED[action]:
        wrong.append(Detail("filter.status", f"must be one of {', '.join(sorted(ALLOWED[action]))} for {action.value}"))
