"""The events of OpenAI's Responses stream, read as ours.

Of some sixty kinds of event (the SDK's `types/responses/response_stream_event.py`) these say something to us; all others are skipped, so
that a new kind breaks nothing. A stream is a success only if its final event was seen: a stream that is cut off ends like one that is done.

A response in the background can also be asked for as it is: the object that the final event carries, read in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from chalicelib.adapters.openai.errors import from_event
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
    """Reads one response, event by event; text up to the event numbered `after` is known already, and is not said again.

    `ended`: the final event was seen. `thinking`: the model reasons, or has not begun: that may take minutes without a word.
    """

    def __init__(self, after: int = -1) -> None:
        self.ended = False
        self.thinking = False
        self._after = after
        self._spoken = after > 0  # event 0 is the beginning of the response: whoever knows more has heard of its text

    def read(self, data: bytes) -> list[ProviderEvent] | None:
        """What one event says to us, often nothing. None: it was not even a sign of progress, only of an open connection.

        Raises:
            StreamMalformed: it cannot be read.
            AttemptFailed: it tells of an error.
        """
        if data == DONE:
            return None
        event = _parsed(data)
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
        self._spoken = self._spoken or bool(text)
        self.thinking = False
        sequence = _sequence(event)
        if 0 < sequence <= self._after:
            return []
        return [TextDelta(text, sequence, refusal)]

    def _end(self, response: Mapping[str, Any], sequence: int) -> Iterator[ProviderEvent]:
        ended = _outcome(response)
        if not self._spoken:  # some compatible providers send an answer whole
            yield from _said(response, sequence)
        self.ended = True
        yield ended


def fetched(data: bytes) -> FetchedResponse:
    """A response that was asked for as it is.

    Raises:
        StreamMalformed: it cannot be read.
        ResponseLost: it was cancelled.
    """
    response = _parsed(data)
    status, said = response.get("status"), list(_said(response))
    if status == "cancelled":
        raise _failure(response)
    ended = _outcome(response) if status in ("completed", "incomplete") else None
    failure = _failure(response) if status == "failed" else None
    return FetchedResponse(repair_surrogates("".join(one.text for one in said)), ended, any(one.refusal for one in said), failure)


def _outcome(response: Mapping[str, Any]) -> ResponseEnded:
    """How a response ended that says it has."""
    if response.get("status") in ("failed", "cancelled"):
        raise _failure(response)
    reason = _mapping(response.get("incomplete_details")).get("reason")
    if reason is None and response.get("status") == "incomplete":
        reason = "unknown"
    return ResponseEnded(_usage(response.get("usage")), response.get("model"), INCOMPLETE.get(reason, reason) if reason else None)


def _failure(response: Mapping[str, Any]) -> AttemptFailed:
    """What a response failed of. The stream of one that was cancelled ends as if it had failed, but with that status."""
    return ResponseLost() if response.get("status") == "cancelled" else from_event(_mapping(response.get("error")))


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise StreamMalformed from exc
    if not isinstance(event, dict):
        raise StreamMalformed
    return event


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sequence(event: Mapping[str, Any]) -> int:
    """The number of an event; 0 where there is none."""
    return event.get("sequence_number") or 0


def _said(response: Mapping[str, Any], sequence: int = 0) -> Iterator[TextDelta]:
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
    """A count, 0 where a provider that is only like OpenAI says something else."""
    return value if isinstance(value, int) and value > 0 else 0
