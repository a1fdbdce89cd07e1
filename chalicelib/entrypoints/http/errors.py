"""The HTTP status of each error class, and the JSON shape of an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chalicelib.domain import errors
from chalicelib.domain.errors import HeadraceError

STATUS: tuple[tuple[type[HeadraceError], int], ...] = (
    (errors.InvalidRequest, 400),
    (errors.Unauthenticated, 401),
    (errors.Forbidden, 403),
    (errors.NotFound, 404),
    (errors.IdempotencyConflict, 409),
    (errors.JobNotRetryable, 409),
    (errors.BatchNotRetryable, 409),
    (errors.JobNotDeletable, 409),
    (errors.JobNotChangeable, 409),
    (errors.DependencyCycle, 409),
    (errors.AlreadyPaused, 409),
    (errors.TooManyPauses, 409),
    (errors.JobNotPausable, 409),
    (errors.BatchNotPausable, 409),
    (errors.DeliveryBusy, 409),
    (errors.ResultExpired, 410),
    (errors.PreconditionFailed, 412),
    (errors.TooLarge, 413),
    (errors.UnsupportedMediaType, 415),
    (errors.RateLimited, 429),
    (errors.QueueFull, 429),
    (errors.TooManyWatchers, 429),
    (errors.TooManyConnections, 429),
    (errors.UnreadableRecord, 503),
    (errors.Unavailable, 503),
)


def status_of(error: HeadraceError) -> int:
    """The HTTP status of an error; 500 for classes that are not in `STATUS`."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def shape(
    code: str, message: str, request_id: str, details: tuple[errors.Detail, ...] = (), facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The JSON of an error: `{"success": false, "error": {...}}`.

    Args:
        facts: more fields, which only some errors have.
    """
    problems = [{"path": detail.path, "message": detail.message} for detail in details]
    return {"success": False, "error": {"code": code, "message": message, "request_id": request_id, "details": problems, **(facts or {})}}
