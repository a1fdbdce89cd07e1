"""Parse requests to `/batches`."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from chalicelib.domain.batches.options import DELIMITER_RULE, parse_delimiter
from chalicelib.domain.batches.parsing.reader import BatchReader, read_batch
from chalicelib.domain.errors import Detail, InvalidRequest, TooLarge
from chalicelib.domain.files.export_formats import CsvStyle
from chalicelib.entrypoints.http.request_body import JSON, MAX_BODY_BYTES
from chalicelib.entrypoints.http.requests import jobs as job_requests
from chalicelib.entrypoints.http.requests.batch_source import batch_source
from chalicelib.entrypoints.http.server import ApiRequest
from chalicelib.services.idempotency import IdempotentRequest

ROUTE = "POST /batches"
FORMATS = ("json", "csv")


def batch_reader(request: ApiRequest) -> BatchReader:
    """A reader of the submission: its options are parsed now, its rows when they are iterated.

    Raises:
        InvalidRequest, UnsupportedMediaType: the submission is not a valid batch.
        TooLarge: the request is too large.
    """
    if len(request.raw) > MAX_BODY_BYTES:
        raise TooLarge("A request may have at most 4 MB. Use an upload for larger batches: POST /uploads.")
    return read_batch(*batch_source(request))


def idempotent_request(request: ApiRequest) -> IdempotentRequest | None:
    """The request as identified by its Idempotency-Key, None without one.

    A repeated request must have the same content type, body and query.
    """
    key = job_requests.idempotency_key(request)
    if key is None:
        return None
    content = [_content_type(request), sha256(request.raw).hexdigest(), dict(request.query)]
    return IdempotentRequest.of(request.caller, ROUTE, key, content)


def retry(request: ApiRequest) -> bool:
    """Parse a `POST /batches/{batch_id}/retry-failed`: whether cancelled rows are retried as well.

    Raises:
        InvalidRequest: the body has other fields, or `cancelled` is not a boolean.
    """
    data = request.json()
    problems = [Detail(name, "is not a known field; known is cancelled") for name in data if name != "cancelled"]
    if not isinstance(data.get("cancelled", False), bool):
        problems.append(Detail("cancelled", "must be true or false"))
    if problems:
        raise InvalidRequest(details=tuple(problems))
    return bool(data.get("cancelled", False))


def choice(request: ApiRequest, name: str, allowed: tuple[str, ...], default: str) -> str:
    """A query parameter with a fixed set of values.

    Raises:
        InvalidRequest: the value is not allowed.
    """
    value = request.query.get(name, default)
    if value not in allowed:
        raise InvalidRequest(details=(Detail(name, f"must be one of {', '.join(allowed)}"),))
    return value


def csv_style(request: ApiRequest) -> CsvStyle:
    """How an export is written as CSV: `delimiter` and `bom` in the query.

    Raises:
        InvalidRequest: a value is not allowed, or the export is not CSV.
    """
    given = [name for name in ("delimiter", "bom") if name in request.query]
    if given and choice(request, "format", FORMATS, "json") != "csv":
        raise InvalidRequest(details=tuple(Detail(name, "is only of CSV: ask for format=csv") for name in given))
    delimiter = parse_delimiter(request.query.get("delimiter", "comma"))
    if delimiter is None:
        raise InvalidRequest(details=(Detail("delimiter", DELIMITER_RULE),))
    return CsvStyle(delimiter, job_requests.flag(request, "bom"))


def _content_type(request: ApiRequest) -> str:
    header: Any = request.headers.get("content-type")
    return str(header or JSON)
