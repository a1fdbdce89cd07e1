"""Requests for batches as the use cases want them."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from chalicelib.domain.errors import Detail, InvalidRequest, TooLarge
from chalicelib.domain.reading import Reading, read
from chalicelib.routes import parse
from chalicelib.routes.http import JSON, MAX_BODY_BYTES, Request
from chalicelib.routes.uploads import sent
from chalicelib.usecases.once import Once

ROUTE = "POST /batches"
FORMATS = ("json", "csv")


def reading(request: Request) -> Reading:
    """What was sent: its terms now, its rows as they are asked for.

    Raises:
        InvalidRequest, UnsupportedMediaType: it cannot be read as a batch.
        TooLarge: it is larger than a request may be.
    """
    if len(request.raw) > MAX_BODY_BYTES:
        raise TooLarge("A request may have 4 MB. Send larger batches by upload: POST /uploads.")
    return read(*sent(request))


def once(request: Request) -> Once | None:
    """The request by its Idempotency-Key, if it has one: the same bytes, read in the same way."""
    key = parse.idempotency_key(request)
    if key is None:
        return None
    said = [_content_type(request), sha256(request.raw).hexdigest(), dict(request.query)]
    return Once.of(request.caller, ROUTE, key, said)


def retry(request: Request) -> bool:
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


def word(request: Request, name: str, allowed: tuple[str, ...], default: str) -> str:
    """A word of the query.

    Raises:
        InvalidRequest: it is none of those allowed.
    """
    said = request.query.get(name, default)
    if said not in allowed:
        raise InvalidRequest(details=(Detail(name, f"must be one of {', '.join(allowed)}"),))
    return said


def _content_type(request: Request) -> str:
    said: Any = request.headers.get("content-type")
    return str(said or JSON)
