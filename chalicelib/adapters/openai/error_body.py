"""What the body of an error says, whoever wrote it.

| shape | from |
|---|---|
| `{"error": {"message", "type", "code", "param"}}`, or the inner object alone | OpenAI and most compatible servers; the SDK unwraps it |
| `{"error": "text"}`, `{"message": "text"}`, `{"errors": [{"message", "code"}]}` | small servers and gateways |
| `{"detail": "text"}`, `{"detail": [{"loc", "msg", "type"}]}` | FastAPI |
| `{"object": "error", "message": {"detail": [...]}}` | Mistral |
| `{"title", "detail", "status"}` | problem details (RFC 9457) |
| `{"fault": {"faultstring", "detail": {"errorcode"}}}` | Apigee |
| `{"error": {"message": "Provider returned error", "metadata": {"raw": ...}}}` | OpenRouter; the words are in `raw` |
| `litellm.BadRequestError: AnthropicException - {...}. Received Model Group=...` | LiteLLM; the inner error counts |
| any of these in a list, or as text in the message of another | gateways that pass on what they got |
| plain text, a page of HTML | servers without such an API, proxies, firewalls |

Codes may be numbers: one that is an HTTP status is read as such, because the status of a stream
that has begun is 200.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from chalicelib.adapters.openai.redaction import MAX_READ, is_page, plain_text
from chalicelib.domain import json_limits

CODES = ("code", "type", "reason", "status", "errorcode", "error_code", "error_type", "__type")  # `status` is a name in Google's errors
NUMBERS = ("status", "status_code", "statusCode", "code", "http_code")
WORDS = ("message", "detail", "msg", "raw", "faultstring", "error_description", "error_message", "errorMessage", "Message", "status_msg")
TITLES = ("title", "reason")  # they count where there are no other words
INNER = ("error", "errors", "message", "fault", "detail", "innererror", "inner_error", "details", "metadata", "base_resp")
MAX_DEPTH = 5
_WRAPPED = re.compile(r"\s*litellm\.\w{1,60}: (?:(?:litellm\.)?\w{0,40}(?:Error|Exception): ){0,4}(?:\w{1,60} (?:\w{1,60} )?- )?")
_WRAPPED_END = re.compile(r"[.\s]*Received Model Group=")
_WORD_ENDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[\s-]+")


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """An error as its body says it."""

    message: str = ""  # one line of plain text, which may quote a key
    codes: frozenset[str] = frozenset()  # codes and types, in small letters with underscores
    status: int | None = None  # an HTTP status that the body names
    param: str = ""  # the field of the request that it names
    fields: Mapping[str, Any] = field(default_factory=dict)
    is_structured: bool = False  # it is an object of an API, and no page or text
    is_page: bool = False  # it is a page of HTML


def read_error(body: object) -> ErrorBody:
    """Read the body of an error; the SDK gives its JSON, or else its text."""
    if isinstance(body, bytes):
        body = body.decode("utf-8", "replace")
    if isinstance(body, str):
        found = _json_in(body.removeprefix("\ufeff"))
        return read_error(found) if found is not None else ErrorBody(plain_text(body), is_page=is_page(body))
    objects = list(_objects(body))
    if not objects:
        return ErrorBody(plain_text(json.dumps(body)) if body else "")
    codes = {code_of(value) for one in objects for name in CODES if isinstance(value := one.get(name), str) and value}
    message, nested = _unwrapped(_message(objects)), None
    if (inner := _json_in(message)) is not None:
        nested = read_error(inner)
    return ErrorBody(
        nested.message if nested and nested.message else plain_text(message),
        frozenset(codes) | (nested.codes if nested else frozenset()),
        next(filter(None, (_status(one) for one in objects)), None) or (nested.status if nested else None),
        next((value for one in objects if isinstance(value := one.get("param"), str)), "") or (nested.param if nested else ""),
        objects[0],
        is_structured=True,
    )


def code_of(text: str) -> str:
    """Return a code as `SIGNS` writes it: `RateLimitReached` and `rate-limit-reached` are `rate_limit_reached`."""
    return _WORD_ENDS.sub("_", text.rpartition("#")[2].strip()[:200]).lower()


def error_in_event(kind: object, event: Mapping[str, Any]) -> object | None:
    """Return the error that an event of a stream reports, nested or flat; None: it reports none.

    Args:
        kind: the event's `type`, which a flat error uses for the name of its class.
    """
    if event.get("error"):
        return event
    if isinstance(kind, str) and kind.startswith("response."):
        return None
    is_named = event.get("object") == "error" or "error" in str(kind or "").lower() or event.get("code") is not None
    is_flat = (is_named and "message" in event) or (kind is None and "detail" in event)
    return event if is_flat else None


def _objects(body: object, depth: int = MAX_DEPTH) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of a body that may describe the error, from the outside inwards."""
    if isinstance(body, list):
        for one in body[:20]:
            yield from _objects(one, depth)
    elif isinstance(body, Mapping):
        yield body
        for name in INNER:
            if depth:
                yield from _objects(body.get(name), depth - 1)


def _message(objects: list[Mapping[str, Any]]) -> str:
    """Return the words of the innermost object that has some, and all that FastAPI complains of."""
    found = [one for one in objects if isinstance(one.get("loc"), list) and one.get("msg")]
    if found:
        return "; ".join(f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in found)
    for names in (WORDS, ("error",), TITLES):
        for one in reversed(objects):
            words = next((value for name in names if isinstance(value := one.get(name), str) and value.strip()), "")
            if words:
                return words[:MAX_READ]
    texts = (value for one in objects for name in INNER for value in _list(one.get(name)) if isinstance(value, str) and value.strip())
    return "; ".join(list(texts)[:5])[:MAX_READ]


def _unwrapped(message: str) -> str:
    """Return a message without what LiteLLM puts around it."""
    if (wrapped := _WRAPPED.match(message)) is None:
        return message
    end = _WRAPPED_END.search(message, wrapped.end())
    return message[wrapped.end() : end.start() if end else None]


def _list(value: object) -> list[object]:
    """Return texts as they are, in a list, or by the names of fields."""
    if isinstance(value, Mapping):
        return [f"{name}: {text}" for name, texts in value.items() for text in _list(texts) if isinstance(text, str)]
    return list(value) if isinstance(value, list) else [value]


def _status(error: Mapping[str, Any]) -> int | None:
    for name in NUMBERS:
        value = error.get(name)
        number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == 3 else value
        if isinstance(number, int) and not isinstance(number, bool) and 400 <= number < 600:
            return number
    return None


def _json_in(text: str) -> object | None:
    """Return the object or list that a text is; None: it is none."""
    start = text.strip()[:1]
    if start not in ("{", "["):
        return None
    try:
        found: object = json_limits.loads(text, unique_names=False)
    except ValueError:
        return None
    return found if isinstance(found, Mapping | list) else None
