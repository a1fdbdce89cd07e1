"""Every error that Headrace raises, except the failures of an attempt (`domain/failures.py`).

The docstring of a class is its default message, so it says what happened and what the caller can do
about it. The HTTP status of each class is defined in one place, `entrypoints/http/errors.py`; the
numbers below repeat it for orientation.

HeadraceError
├── InvalidRequest                400  `details` names every wrong field
├── Unauthenticated               401
├── Forbidden                     403
├── NotFound                      404
│   ├── JobNotFound
│   ├── JobTypeNotFound
│   ├── BulkNotFound
│   ├── UploadNotFound
│   ├── BatchNotFound
│   ├── DeliveryNotFound
│   ├── PauseNotFound
│   └── NothingToDownload
├── IdempotencyConflict           409  the key was used for another request
├── JobNotRetryable               409
├── BatchNotRetryable             409
├── JobNotDeletable               409
├── JobNotChangeable              409
├── DependencyCycle               409
├── AlreadyPaused                 409
├── TooManyPauses                 409
├── JobNotPausable                409
├── BatchNotPausable              409
├── DeliveryBusy                  409
├── ResultExpired                 410
├── PreconditionFailed            412  the job has changed since the version named by If-Match
├── TooLarge                      413
├── UnsupportedMediaType          415
├── RateLimited                   429  with `retry_after`
├── QueueFull                     429
├── TooManyWatchers               429  only on WebSockets: the client polls instead
├── TooManyConnections            429
├── UnreadableRecord              503  another version of the code wrote the record
├── Unavailable                   503  a dependency did not answer; nothing was lost
│   └── Throttled
│
│   Internal; these never reach a caller of the API:
│
├── TemplateProblem                    a prompt template cannot be rendered; reported as a detail
├── StaleVersion                       a record has changed since it was read
├── SlotsFull                          all slots of a concurrency limit are taken
├── IdempotencyKeyTaken                a concurrent request used the key first
├── DedupeConflict                     a concurrent request used the dedupe key first
├── ChunkConflict                      different text is stored where a chunk should go
├── ConnectionGone                     a WebSocket is closed
│   └── ConnectionRefused
├── ConnectionBusy                     a WebSocket accepts no frames at the moment
├── InvalidMessage                     a queue message is not a wake-up
├── DeliveryError                      a notification was not delivered
└── AttemptFailed                      an attempt ended without a result: `domain/failures.py`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

MAX_CYCLE_SHOWN = 10


@dataclass(frozen=True)
class Detail:
    """One wrong field of a request."""

    path: str  # dotted, into the request: `config.temperature`, `items.3`
    message: str  # what is wrong with the field, as the rest of a sentence about it


class HeadraceError(Exception):
    """An internal error occurred."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str = "", *, details: tuple[Detail, ...] = (), retry_after: int | None = None) -> None:
        super().__init__(message or " ".join((type(self).__doc__ or "").split()))
        self.details = details
        self.retry_after = retry_after

    @property
    def message(self) -> str:
        return str(self)


# ---- answered to callers of the API


class InvalidRequest(HeadraceError):
    """The request has invalid fields; `details` names each of them."""

    code = "invalid_request"


class Unauthenticated(HeadraceError):
    """The API key is missing, invalid, expired or revoked. Send `Authorization: Bearer hr_...`."""

    code = "unauthenticated"


class Forbidden(HeadraceError):
    """The role of this API key does not allow this."""

    code = "forbidden"


class NotFound(HeadraceError):
    """Not found."""

    code = "not_found"


class JobNotFound(NotFound):
    """This job does not exist, or this key may not see it."""

    code = "job_not_found"

    def __init__(self, job_id: str = "") -> None:
        super().__init__(f"Job {job_id[:80]} does not exist, or this key may not see it.")


class JobTypeNotFound(NotFound):
    """This job type does not exist; `GET /job-types` lists all of them."""

    code = "job_type_not_found"


class BulkNotFound(NotFound):
    """This bulk operation does not exist, or this key may not see it."""

    code = "bulk_not_found"


class UploadNotFound(NotFound):
    """This upload does not exist."""

    code = "upload_not_found"

    def __init__(self, upload_id: str = "") -> None:
        reasons = "No file was uploaded to it, it belongs to another user, or it was removed after two days."
        super().__init__(f"Upload {upload_id[:80]} does not exist. {reasons}")


class BatchNotFound(NotFound):
    """This batch does not exist, or this key may not see it."""

    code = "batch_not_found"


class BatchNotRetryable(HeadraceError):
    """The batch has no failed rows, ten retries of it are pending, or it was cancelled. Retry a
    cancelled batch with `cancelled: true` once all its rows have ended.
    """

    code = "batch_not_retryable"


class IdempotencyConflict(HeadraceError):
    """This Idempotency-Key was used for a different request within 24 hours. Use a new key."""

    code = "idempotency_conflict"


class JobNotRetryable(HeadraceError):
    """Only a failed, cancelled, expired, incomplete, retrying or held job can be retried."""

    code = "job_not_retryable"


class JobNotDeletable(HeadraceError):
    """Only a job that has ended can be deleted. Cancel it first."""

    code = "job_not_deletable"


class JobNotChangeable(HeadraceError):
    """An ended job cannot be changed. A start time can be changed only while the job waits for that
    time.
    """

    code = "job_not_changeable"


class DeliveryNotFound(NotFound):
    """This delivery does not exist."""

    code = "delivery_not_found"


class DeliveryBusy(HeadraceError):
    """A delivery attempt is in progress. Check again in a minute."""

    code = "delivery_busy"


class PauseNotFound(NotFound):
    """This pause does not exist, is over, or this key may not see it."""

    code = "pause_not_found"


class AlreadyPaused(HeadraceError):
    """This is paused with another reason or end. Resume it first, or send `"replace": true`."""

    code = "already_paused"


class TooManyPauses(HeadraceError):
    """As many pauses as there may be at once. End one, or pause a wider scope instead."""

    code = "too_many_pauses"


class JobNotPausable(HeadraceError):
    """Only a job that is not running can be paused. Cancel a running one instead."""

    code = "job_not_pausable"


class BatchNotPausable(HeadraceError):
    """Only a batch that has not ended can be paused."""

    code = "batch_not_pausable"


class PreconditionFailed(HeadraceError):
    """The job has changed since you read it. Read it again and use the new ETag."""

    code = "precondition_failed"


class TemplateProblem(HeadraceError):
    """The template refers to a value that does not exist, or its result is too long."""

    code = "invalid_template"


class DependencyCycle(HeadraceError):
    """The dependencies form a cycle, so none of these jobs could ever start."""

    code = "dependency_cycle"

    def __init__(self, cycle: Sequence[str] = ()) -> None:
        shown = [*cycle[:MAX_CYCLE_SHOWN], "..."] if len(cycle) > MAX_CYCLE_SHOWN + 1 else cycle
        super().__init__(f"The dependencies form a cycle: {' -> '.join(name[:80] for name in shown)}." if cycle else "")
        self.cycle = tuple(cycle)


class ResultExpired(HeadraceError):
    """The result of this job has expired."""

    code = "result_expired"


class NothingToDownload(NotFound):
    """This job has no file to download; read its result at `/result`."""

    code = "nothing_to_download"


class TooLarge(HeadraceError):
    """The request is too large."""

    code = "too_large"


class UnsupportedMediaType(HeadraceError):
    """Send JSON with `Content-Type: application/json`."""

    code = "unsupported_media_type"


class RateLimited(HeadraceError):
    """Too many requests with this API key. Retry after the seconds in the Retry-After header."""

    code = "rate_limited"


class QueueFull(HeadraceError):
    """The queue of the job, or that of its tenant, holds as many jobs as it may. Retry later or use another lane.

    Attributes:
        facts: of a limit of the tenant: `lane` (None: all together), `limit`, and `open`, its jobs that have
            not ended.
    """

    code = "queue_full"

    def __init__(self, message: str = "", *, retry_after: int | None = None, facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(
            message or "The queue of the job, or that of its tenant, holds as many jobs as it may. Retry later or use another lane.",
            retry_after=retry_after,
        )
        self.facts = dict(facts or {})


class TooManyWatchers(HeadraceError):
    """As many clients as may follow this job or batch live. Poll it instead, or use its event stream."""

    code = "too_many_watchers"

    def __init__(self, subject_id: str = "", retry_after: int | None = None) -> None:
        super().__init__(retry_after=retry_after)
        kind = "batches" if subject_id.startswith("batch_") else "jobs"
        self.poll = f"/{kind}/{subject_id}" + ("/text" if kind == "jobs" else "")


class TooManyConnections(HeadraceError):
    """This API key has as many open WebSockets as it may. Close one."""

    code = "too_many_connections"


class Unavailable(HeadraceError):
    """A service that Headrace depends on did not answer. Nothing was lost; retry the request."""

    code = "unavailable"


class Throttled(Unavailable):
    """A service that Headrace depends on is throttling. Nothing was lost; retry in seconds."""


class UnreadableRecord(HeadraceError):
    """Another version of Headrace wrote this record, and the one that got the request cannot read it.
    Nothing was changed; retry in a minute.
    """

    code = "record_unreadable"

    def __init__(self, problems: Mapping[str, str] | None = None) -> None:
        """`problems`: for each record, by its id or key, why it cannot be read; not shown to callers."""
        super().__init__(retry_after=60)
        self.problems = dict(problems or {})


# ---- internal: one part of the system to another


class StaleVersion(HeadraceError):
    """The record has changed since it was read."""

    code = "stale_version"

    def __init__(self, current: Any) -> None:
        """`current` is the stored record, None if there is none."""
        super().__init__()
        self.current = current


class SlotsFull(HeadraceError):
    """All slots of a concurrency limit are taken.

    Attributes:
        scope: what the limit is for, such as `t:acme`.
    """

    def __init__(self, scope: str) -> None:
        super().__init__(f"All slots of {scope} are taken.")
        self.scope = scope


class IdempotencyKeyTaken(HeadraceError):
    """A concurrent request used this Idempotency-Key first."""

    code = "idempotency_conflict"


class DedupeConflict(HeadraceError):
    """A concurrent request used this dedupe key first."""

    code = "conflict"


class ChunkConflict(HeadraceError):
    """Different text is stored where this chunk should go."""

    code = "chunk_conflict"


class ConnectionUnknown(NotFound):
    """This WebSocket connection is unknown or has expired. Connect again."""

    code = "connection_unknown"


class ConnectionGone(HeadraceError):
    """The WebSocket is closed."""

    code = "connection_gone"


class ConnectionRefused(ConnectionGone):
    """API Gateway refuses frames for this WebSocket: a permission is missing or its id is wrong."""


class ConnectionBusy(HeadraceError):
    """The WebSocket accepts no frames at the moment."""

    code = "connection_busy"


class InvalidMessage(HeadraceError):
    """The queue message is not a wake-up."""

    code = "bad_message"


class DeliveryError(HeadraceError):
    """The notification was not delivered."""

    code = "not_sent"

    def __init__(self, message: str = "", *, final: bool = False, forbidden: bool = False) -> None:
        """`final`: a retry cannot succeed, or is not allowed. `forbidden`: the name of the host
        resolved to an address that may not be reached, which may be a fault of its DNS.
        """
        super().__init__(message)
        self.final = final
        self.forbidden = forbidden
