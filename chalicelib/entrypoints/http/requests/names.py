"""Names in the path of a request, such as that of a model or a tenant."""

from __future__ import annotations

from urllib.parse import unquote

from chalicelib.domain.errors import Detail, InvalidRequest
from chalicelib.domain.text import REPLACEMENT

MAX_NAME_LENGTH = 128


def name_in_path(value: str, what: str) -> str:
    """Return a name from the path. API Gateway does not decode it: a slash is sent as `%2F`.

    Args:
        what: what it names, as the path parameter is called: `model`.

    Raises:
        InvalidRequest: it cannot be such a name.
    """
    name = unquote(value)
    if REPLACEMENT in name:
        raise InvalidRequest(details=(Detail(what, "is not UTF-8; encode it as UTF-8 before its bytes are written as %.."),))
    if not 1 <= len(name) <= MAX_NAME_LENGTH or not name.isprintable() or name != name.strip():
        raise InvalidRequest(details=(Detail(what, f"must be the name of a {what}, at most {MAX_NAME_LENGTH} characters"),))
    return name
