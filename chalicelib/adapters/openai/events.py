"""The events of OpenAI's Responses stream, as provider events.

The stream has about sixty kinds of event (the SDK's `types/responses/response_stream_event.py`).
Those that are not needed are skipped, so that a new kind breaks nothing. A stream is a success only
if its final event was seen, because a stream that is cut off ends like a complete one.

A background response can also be fetched as it is. That is the object in the final event, and read
in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from chalicelib.adapters.openai.errors import from_event
from chalicelib.domain import json_limits
from chalicelib.domain.failures import AttemptFailed, ResponseLost, StreamMalformed
from chalicelib.domain.jobs.job import Usage
from chalicelib.domain.text import repair_surrogates
from chalicelib.ports import FetchedResponse, ProviderEvent, ResponseEnded, ResponseStarted, TextDelta

INCOMPLETE = {"max_output_tokens": "max_tokens"}
FINAL = frozenset({"response.completed", "response.incomplete"})
FAILED = frozenset({"response.failed", "response.cancelled"})
PINGS = frozenset({"ping", "keepalive"})
DONE = b"[DONE]"  # how Chat Completions end; some compatible providers send it here too


class ResponseReader:
    """Reads one response, event by event.

    Text up to sequence number `after` is known already and is skipped. `ended`: the final event was
    seen. `thinking`: the model reasons or has not begun, which may take minutes without an event.
    """

    def __init__(self, after: int = -1) -> None:
        self.ended = False
        self.thinking = False
        self._after = after
        self._has_text = after > 0  # event 0 is the start of the response; later events mean that text was read before

    def read(self, data: bytes) -> list[ProviderEvent] | None:
        """Return the provider events of one event, often none.

        None: it shows only that the connection is open.

        Raises:
            StreamMalformed: it cannot be parsed.
            AttemptFailed: it reports an error.
        """
        if data == DONE:
            return None
        event = _parse(data)
        kind = event.get("type")
        if kind == "response.output_text.delta":
            return self._delta(event, refusal=False)
        if kind == "response.refusal.delta":
            return self._delta(event, refusal=True)
        if kind in PINGS:
            return None
        return self._other(kind, event)

    def _other(self, kind: Any, event: Mapping[str, Any]) -> list[ProviderEvent]:
        if kind == "error":
            raise from_event(_mapping(event.get("error")) or event)
        response = _mapping(event.get("response"))
        if kind in FAILED:
            raise _failure(response)
        if kind in FINAL:
            return list(self._end(response, _sequence(event)))
        if kind == "response.created":
            return [ResponseStarted(str(response.get("id") or ""), str(response.get("model") or ""))]
        if kind in ("response.queued", "response.in_progress"):
            self.thinking = kind == "response.queued"
        elif kind in ("response.output_item.added", "response.output_item.done"):
            self.thinking = kind.endswith("added") and _mapping(event.get("item")).get("type") == "reasoning"
        elif event.get("error"):
            raise from_event(_mapping(event["error"]) or {"message": str(event["error"])})
        return []

    def _delta(self, event: Mapping[str, Any], *, refusal: bool) -> list[ProviderEvent]:
        text = event.get("delta")
        if not isinstance(text, str):
            raise StreamMalformed("OpenAI's stream had a piece of text that is no text.")
        self._has_text = self._has_text or bool(text)
        self.thinking = False
        sequence = _sequence(event)
        if 0 < sequence <= self._after:
            return []
        return [TextDelta(text, sequence, refusal)]

    def _end(self, response: Mapping[str, Any], sequence: int) -> Iterator[ProviderEvent]:
        ended = _ended(response)
        if not self._has_text:  # some compatible providers send the whole text at the end
            yield from _text_parts(response, sequence)
        self.ended = True
        yield ended


def fetched(data: bytes) -> FetchedResponse:
    """Read a response that was fetched.

    Raises:
        StreamMalformed: it cannot be parsed.
        ResponseLost: it was cancelled.
    """
    response = _parse(data)
    status, parts = response.get("status"), list(_text_parts(response))
    if status == "cancelled":
        raise _failure(response)
    ended = _ended(response) if status in ("completed", "incomplete") else None
    failure = _failure(response) if status == "failed" else None
    return FetchedResponse(repair_surrogates("".join(one.text for one in parts)), ended, any(one.refusal for one in parts), failure)


def _ended(response: Mapping[str, Any]) -> ResponseEnded:
    """Return how a response ended, or raise its failure."""
    if response.get("status") in ("failed", "cancelled"):
        raise _failure(response)
    reason = _mapping(response.get("incomplete_details")).get("reason")
    if reason is None and response.get("status") == "incomplete":
        reason = "unknown"
    return ResponseEnded(_usage(response.get("usage")), response.get("model"), INCOMPLETE.get(reason, reason) if reason else None)


def _failure(response: Mapping[str, Any]) -> AttemptFailed:
    """Return the error of a failed response.

    The stream of a cancelled one ends like a failed one, but with that status.
    """
    return ResponseLost() if response.get("status") == "cancelled" else from_event(_mapping(response.get("error")))


def _parse(data: bytes) -> dict[str, Any]:
    try:
        event = json_limits.loads(data, json_limits.MAX_ANSWER_VALUES, unique_names=False)
    except ValueError as exc:
        raise StreamMalformed from exc
    if not isinstance(event, dict):
        raise StreamMalformed
    return event


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sequence(event: Mapping[str, Any]) -> int:
    """Return the sequence number of an event, 0 if it has none."""
    return event.get("sequence_number") or 0


def _text_parts(response: Mapping[str, Any], sequence: int = 0) -> Iterator[TextDelta]:
    for item in response.get("output") or ():
        for part in _mapping(item).get("content") or ():
            part = _mapping(part)
            refusal = part.get("type") == "refusal"
            text = part.get("refusal" if refusal else "text")
            if isinstance(text, str) and text and (refusal or part.get("type") == "output_text"):
                yield TextDelta(text, sequence, refusal)


def _usage(counted: Any) -> Usage | None:
    if not isinstance(counted, Mapping):
        return None
    return Usage(
        input=_count(counted.get("input_tokens")),
        cached=_count(_mapping(counted.get("input_tokens_details")).get("cached_tokens")),
        output=_count(counted.get("output_tokens")),
        reasoning=_count(_mapping(counted.get("output_tokens_details")).get("reasoning_tokens")),
    )


def _count(value: Any) -> int:
    """Return a count, 0 if a compatible provider sends something else."""
    return value if isinstance(value, int) and value > 0 else 0
