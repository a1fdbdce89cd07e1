"""Reading of error responses."""

from __future__ import annotations

from tests.kit.http import Reply


def field_errors(reply: Reply) -> dict[str, str]:
    """Return the message for each invalid field of a 400 response, by path."""
    assert reply.status == 400, reply.text
    return {detail["path"]: detail["message"] for detail in reply.json["error"]["details"]}
