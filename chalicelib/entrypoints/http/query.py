"""Parse the query of a request: every parameter is known to its route and given once."""

from __future__ import annotations

from typing import Any

from chalicelib.domain.errors import Detail, InvalidRequest
from chalicelib.domain.text import REPLACEMENT
from chalicelib.domain.validation.schema_messages import shortened
from chalicelib.services.jobs.list_jobs import Filters

LISTS = frozenset(["include"])  # may be repeated; the values are joined by commas
MAX_SHOWN = 60
SELECTING = frozenset(Filters.__dataclass_fields__)  # an empty one would select everything
MAX_LENGTH = 255  # of these


def parse_query(given: Any, known: tuple[str, ...]) -> dict[str, str]:
    """Return the parameters by name.

    Args:
        given: Chalice's mapping of all values, None without a query.
        known: the parameters of the route.

    Raises:
        InvalidRequest: a parameter is unknown, repeated or not UTF-8; the details name each.
    """
    values = {name: given.getlist(name) for name in given or ()}
    details = [
        Detail(shortened(name, MAX_SHOWN, quoted=False), problem)
        for name, texts in values.items()
        if (problem := _problem(name, texts, known))
    ]
    if details:
        raise InvalidRequest(details=tuple(details))
    return {name: ",".join(texts) for name, texts in values.items()}


def _problem(name: str, texts: list[str], known: tuple[str, ...]) -> str | None:
    if name not in known:
        return f"is not a known parameter; known are {', '.join(sorted(known))}" if known else "is not a known parameter; there are none"
    if any(REPLACEMENT in text for text in texts):  # API Gateway puts it in the place of bytes that are not UTF-8
        return "is not UTF-8; encode it as UTF-8 before its bytes are written as %.."
    if name in SELECTING and not all(1 <= len(text) <= MAX_LENGTH for text in texts):
        return f"must have 1 to {MAX_LENGTH} characters"
    if len(texts) > 1 and name not in LISTS:
        return f"is given twice: {', '.join(shortened(text) for text in texts[:3])}"
    return None
