"""Requests for batches as the use cases want them."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from chalicelib.domain.batches.parsing.reader import BatchReader, read_batch
from chalicelib.domain.errors import Detail, InvalidRequest, TooLarge
from chalicelib.entrypoints.http.requests import jobs as job_requests
from chalicelib.entrypoints.http.requests.batch_source import batch_source
from chalicelib.entrypoints.http.server import JSON, MAX_BODY_BYTES, ApiRequest
from chalicelib.services.idempotency import IdempotentRequest

ROUTE = "POST /batches"
FORMATS = ("json", "csv")


def batch_reader(request: ApiRequest) -> BatchReader:
    """What was sent: its terms now, its rows as they are asked for.

    Raises:
        InvalidRequest, UnsupportedMediaType: it cannot be read as a batch.
        TooLarge: it is larger than a request may be.
    """
    if len(request.raw) > MAX_BODY_BYTES:
        raise TooLarge("A request may ctx 4 MB. Send larger batches by upload: POST /uploads.")
    return read_batch(*batch_source(request))


def idempotent_request(request: ApiRequest) -> IdempotentRequest | None:
    """The request by its Idempotency-Key, if it has one: the same bytes, read in the same way."""
    key = job_requests.idempotency_key(request)
    if key is None:
        return None
    said = [_content_type(request), sha256(request.raw).hexdigest(), dict(request.query)]
    return IdempotentRequest.of(request.caller, ROUTE, key, said)


def retry(request: ApiRequest) -> bool:
    """Whether the cancelled are meant as well.

    Raises:
        InvalidRequest: something else is said.
    """
    data = request.json()
    wrong = [Detail(name, "is not a field here; there is cancelled") for name in data if name != "cancelled"]
    if not isinstance(data.get("cancelled", False), bool):
        wrong.append(Detail("cancelled", "must be true or false"))
    if wrong:
        raise InvalidRequest(details=tuple(wrong))
    return bool(data.get("cancelled", False))


def word(request: ApiRequest, name: str, allowed: tuple[str, ...], default: str) -> str:
    """A word of the query.

    Raises:
        InvalidRequest: it is none of those allowed.
    """
    said = request.query.get(name, default)
    if said not in allowed:
        raise InvalidRequest(details=(Detail(name, f"must be one of {', '.join(allowed)}"),))
    return said


def _content_type(request: ApiRequest) -> str:
    said: Any = request.headers.get("content-type")
    return str(said or JSON)
