"""The parameters that Headrace adds to each request, and how providers say that they refuse them.

| parameter | why it is sent | without it |
|---|---|---|
| `stream` | the answer is read as it is written | the answer is read at once, when it is complete |
| `stream_options` | OpenAI leaves out padding | each event is some bytes larger |
| `store` (false) | OpenAI keeps no copy of the answer | the server does what it does by default |
| `prompt_cache_key` | equal prompts of a tenant meet the same cache | fewer cached input tokens |
| `max_output_tokens` | an answer has an upper bound | the server's bound |

None of them changes what is asked, so a provider that refuses one is asked again without it. This
is not true of `max_output_tokens`, which bounds the cost: only an operator leaves that out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from chalicelib.adapters.openai.error_body import MAX_DEPTH
from chalicelib.ports import ModelRequest

REFUSING_STATUSES = frozenset({400, 403, 404, 422, 501})
MAX_EXAMINED = 4_000  # characters of the texts in a body
MAX_TEXTS = 100

_REFUSING = re.compile(
    r"un(?:known|supported|recogni[sz]ed|expected)|not (?:be )?(?:supported|permitted|allowed|known|recogni[sz]ed|available)"
    r"|(?:isn't|doesn't|does not) support|extra (?:inputs?|fields?)|extra_forbidden|additional propert"
    r"|invalid (?:parameter|argument|field|property)|not in (?:the )?schema|cannot unmarshal|value must be",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"['\"`]([A-Za-z_][\w.]*)['\"`]")
_NAMED = re.compile(r"(?:parameter|argument|field|property|input|key)s?(?: supplied| name)?\s*:?\s+([A-Za-z_][\w.]*)", re.IGNORECASE)
# Without quotes: `store: Extra inputs are not permitted`, or a name that is no word of English.
_PLAIN = re.compile(r"(?<![\w.])(?:body\.)?(store|stream):\s|\b(stream_options|prompt_cache_key)\b")
_NO_STREAM = re.compile(
    r"verified to (?:use )?stream|(?<![\w'\"`.])stream(?:ing|ed)?(?![\w.]).{0,60}\b(?:not|isn't|disabled|unsupported|unavailable)\b"
    r"|\b(?:not|n't|unsupported|disabled|without)\b.{0,40}(?<![\w'\"`.])stream(?:ing)?(?![\w.])",
    re.IGNORECASE,
)

# How our users name what OpenAI's messages name.
OUR_NAMES = {
    "input": "`prompt`",
    "instructions": "`config.system_prompt`",
    "max_output_tokens": "`config.max_tokens`",
    "model": "`config.model`",
    "temperature": "`config.temperature`",
    "text": "`config.response_format`",
    "background": "`config.durable`",
    "response_format": "`config.response_format`",
    "max_tokens": "`config.max_tokens`",
    **{
        name: f"`config.openai.{name}`"
        for name in ("top_p", "reasoning", "service_tier", "store", "safety_identifier", "prompt_cache_key", "truncation", "metadata")
    },
}


def optional_parameters(request: ModelRequest) -> frozenset[str]:
    """Return the parameters that Headrace adds to this request and may leave out.

    What the caller asked for stays, except the key of the prompt cache, which changes no answer.
    """
    stays = {"store"} if request.background or "store" in request.extra else set()
    return frozenset({"stream", "stream_options", "store", "prompt_cache_key"} - stays)


def refused_parameters(error: BaseException | None, candidates: frozenset[str]) -> frozenset[str]:
    """Return those of the candidates that an error response refuses.

    Args:
        error: what the SDK raised.
    """
    import openai

    if not isinstance(error, openai.APIStatusError) or error.status_code not in REFUSING_STATUSES:
        return frozenset()
    param = param_of(error)
    if param is not None and param not in ("body", "query"):
        return frozenset({param}) & candidates
    body = error.body if error.body is not None else error.response.text
    located = frozenset(_located(body))
    if located:
        return located & candidates
    text = " ".join(islice(_texts(body), MAX_TEXTS))[:MAX_EXAMINED]
    named = set(_named(text)) if _REFUSING.search(text) else set()
    return candidates & (named | ({"stream"} if _NO_STREAM.search(text) else set()))


def param_of(error: BaseException | None) -> str | None:
    """Return the first step of the path in the `param` of an error response; None if it has none."""
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, Mapping) else None
    param = inner.get("param") if isinstance(inner, Mapping) else None
    return re.split(r"[.\[]", param, maxsplit=1)[0] if isinstance(param, str) and param else None


def _named(text: str) -> Iterator[str]:
    """Yield what a message may call a parameter."""
    for pattern in (_QUOTED, _NAMED):
        yield from (found.split(".")[0] for found in pattern.findall(text))
    for found in _PLAIN.finditer(text):
        yield found[1] or found[2]


def _located(body: Any) -> Iterator[str]:
    """Yield the fields that FastAPI's `detail` names, also within a message."""
    inner = body.get("message") if isinstance(body, Mapping) else None
    details = (inner if isinstance(inner, Mapping) else body).get("detail") if isinstance(body, Mapping) else None
    for detail in details if isinstance(details, list) else ():
        where = detail.get("loc") if isinstance(detail, Mapping) else None
        path = [step for step in where if isinstance(step, str)] if isinstance(where, list) else []
        path = path[1:] if path[:1] == ["body"] else path
        if path:
            yield path[0]


def _texts(body: Any, depth: int = MAX_DEPTH) -> Iterator[str]:
    if isinstance(body, str):
        yield body
    elif isinstance(body, Mapping | list) and depth:
        for value in body.values() if isinstance(body, Mapping) else body:
            yield from _texts(value, depth - 1)
