"""Everything that can be refused or can go wrong, as one tree.

HeadraceError
├── InvalidRequest             400  every wrong field at once, in `details`
├── Unauthenticated            401
├── Forbidden                  403
├── NotFound                   404
├── IdempotencyConflict        409  the key was used with another body
├── JobNotRetryable            409
├── BatchNotRetryable          409
├── JobNotDeletable            409
├── JobNotChangeable           409
├── DependencyCycle            409  jobs that depend on each other
├── DeliveryBusy               409
├── ResultExpired              410
├── PreconditionFailed         412  with If-Match: the job moved on
├── TooLarge                   413
├── UnsupportedMediaType       415
├── RateLimited                429  with `retry_after`
├── QueueFull                  429
├── Unavailable                503  a dependency did not answer; nothing was lost
│   └── Throttled
├── StaleVersion                    a record moved on since it was read
├── AlreadyRemembered, AlreadyPointed   somebody else created it first
├── ChunkConflict                   another text is where a chunk should go
├── ConnectionGone                  a WebSocket that is no longer there
├── ConnectionBusy                  a WebSocket that cannot take more just now
├── BadMessage                      a queue message that is no wake-up call
├── NotSent                         a message to somebody outside did not get there
└── AttemptFailed                   an attempt ended without a result; see the table at the end

The docstring of a class is its default message: it says what happened and what to do. Which HTTP status it has is said once, in
`entrypoints/http/errors.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import cleandoc
from typing import Any, ClassVar

LONGEST_CYCLE_SHOWN = 10


@dataclass(frozen=True)
class Detail:
    """One wrong field: a dotted `path` into the request (`config.temperature`, `items.3`), and what is wrong with it."""

    path: str
    message: str


class HeadraceError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str = "", *, details: tuple[Detail, ...] = (), retry_after: int | None = None) -> None:
        super().__init__(message or cleandoc(type(self).__doc__ or ""))
        self.details = details
        self.retry_after = retry_after

    @property
    def message(self) -> str:
        return str(self)


# ---- what a caller is told


class InvalidRequest(HeadraceError):
    """The request has fields that cannot be used; `details` names each of them."""

    code = "invalid_request"


class Unauthenticated(HeadraceError):
    """Send a valid key: `Authorization: Bearer hr_...`. This one is missing, unknown, expired or revoked."""

    code = "unauthenticated"


class Forbidden(HeadraceError):
    """The role of this key may not do that."""

    code = "forbidden"


class NotFound(HeadraceError):
    """There is nothing here."""

    code = "not_found"


class JobNotFound(NotFound):
    """There is no such job here."""

    code = "job_not_found"

    def __init__(self, job_id: str = "") -> None:
        super().__init__(f"No job {job_id[:80]} here.")


class JobTypeNotFound(NotFound):
    """There is no such job type; `GET /job-types` lists them."""

    code = "job_type_not_found"


class BulkNotFound(NotFound):
    """There is no such bulk action here."""

    code = "bulk_not_found"


class UploadNotFound(NotFound):
    """There is no such upload here."""

    code = "upload_not_found"

    def __init__(self, upload_id: str = "") -> None:
        message = "Nothing was put there, it is another user's, or it was removed: uploads are kept for two days."
        super().__init__(f"No upload {upload_id[:80]} here. {message}")


class BatchNotFound(NotFound):
    """There is no such batch here."""

    code = "batch_not_found"


class BatchNotRetryable(HeadraceError):
    """Nothing of this batch has failed; or it was cancelled, and is taken up again only with `cancelled: true`, once all of it is; or ten
    retries of it wait already.
    """

    code = "batch_not_retryable"


class IdempotencyConflict(HeadraceError):
    """This Idempotency-Key was used for another request within the last 24 hours. Use a new key for a new request."""

    code = "idempotency_conflict"


class JobNotRetryable(HeadraceError):
    """Only a failed, cancelled, expired, incomplete, retrying or held job can be retried."""

    code = "job_not_retryable"


class JobNotDeletable(HeadraceError):
    """Only a job that has ended can be deleted; cancel it first."""

    code = "job_not_deletable"


class JobNotChangeable(HeadraceError):
    """A job that has ended cannot be changed, and its start can be moved only while it waits for its time."""

    code = "job_not_changeable"


class DeliveryNotFound(NotFound):
    """There is no such delivery here."""

    code = "delivery_not_found"


class DeliveryBusy(HeadraceError):
    """This delivery is being tried at this moment. Look at it again in a minute."""

    code = "delivery_busy"


class PreconditionFailed(HeadraceError):
    """The job has changed since you read it. Read it again, and repeat the change with its new ETag."""

    code = "precondition_failed"


class TemplateProblem(HeadraceError):
    """The template asks for something that is not there, or for far too much."""

    code = "invalid_template"


class DependencyCycle(HeadraceError):
    """Some of these depend on each other in a circle, so that none of them could ever begin."""

    code = "dependency_cycle"

    def __init__(self, cycle: Sequence[str] = ()) -> None:
        shown = [*cycle[:LONGEST_CYCLE_SHOWN], "..."] if len(cycle) > LONGEST_CYCLE_SHOWN + 1 else cycle
        super().__init__(f"These depend on each other in a circle: {' -> '.join(one[:80] for one in shown)}." if cycle else "")
        self.cycle = tuple(cycle)


class ResultExpired(HeadraceError):
    """The result of this job is no longer kept."""

    code = "result_expired"


class NothingToDownload(NotFound):
    """This job makes nothing that could be downloaded; its result is at `/result`."""

    code = "nothing_to_download"


class TooLarge(HeadraceError):
    """The request is too large."""

    code = "too_large"


class UnsupportedMediaType(HeadraceError):
    """Send JSON with `Content-Type: application/json`."""

    code = "unsupported_media_type"


class RateLimited(HeadraceError):
    """Too many requests with this key. Wait as long as Retry-After says."""

    code = "rate_limited"


class QueueFull(HeadraceError):
    """The lane holds as many messages as it may, of all tenants together. Try again later, or in another lane."""

    code = "queue_full"


class Unavailable(HeadraceError):
    """Something that Headrace needs did not answer. Nothing was lost; try again."""

    code = "unavailable"


class Throttled(Unavailable):
    """Something that Headrace needs is busy. Nothing was lost; try again in a moment."""


# ---- what one part of the engine tells another


class StaleVersion(HeadraceError):
    """The record moved on since it was read. `current` is what is there now, None if nothing is."""

    code = "stale_version"

    def __init__(self, current: Any) -> None:
        super().__init__()
        self.current = current


class IdempotencyKeyTaken(HeadraceError):
    """This Idempotency-Key stands for another creation."""

    code = "idempotency_conflict"


class DedupeConflict(HeadraceError):
    """This dedupe key points at another job by now."""

    code = "conflict"


class ChunkConflict(HeadraceError):
    """Another text is where this chunk should go."""

    code = "chunk_conflict"


class ConnectionGone(HeadraceError):
    """That WebSocket is closed."""

    code = "connection_gone"


class ConnectionRefused(ConnectionGone):
    """Frames for that WebSocket are refused, though it may be open: a permission is missing, or its id is wrong."""


class ConnectionBusy(HeadraceError):
    """That WebSocket cannot take more just now."""

    code = "connection_busy"


class InvalidMessage(HeadraceError):
    """A queue message that is no wake-up call."""

    code = "bad_message"


class DeliveryError(HeadraceError):
    """The message did not get there. `final`: sending it again would be in vain, or must not be done."""

    code = "not_sent"

    def __init__(self, message: str = "", *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final
