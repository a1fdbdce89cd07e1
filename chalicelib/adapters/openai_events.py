"""The events of OpenAI's Responses stream, read as ours.

Of some sixty kinds of event (the SDK's `types/responses/response_stream_event.py`) these say something to us; all others are skipped, so
that a new kind breaks nothing. A stream is a success only if its final event was seen: a stream that is cut off ends like one that is done.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from chalicelib.adapters.openai_errors import of_event
from chalicelib.domain.errors import StreamMalformed
from chalicelib.domain.job import Usage
from chalicelib.ports import Delta, Ended, ProviderEvent, Started

INCOMPLETE = {"max_output_tokens": "max_tokens"}
FINAL = frozenset({"response.completed", "response.incomplete"})
PINGS = frozenset({"ping", "keepalive"})
DONE = b"[DONE]"  # how Chat Completions end; some compatible providers send it here too


class ResponseReader:
    """Reads one response, event by event.

    `ended`: the final event was seen. `thinking`: the model reasons, which may take minutes without a word.
    """

    def __init__(self) -> None:
        self.ended = False
        self.thinking = False
        self._spoken = False

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
            raise of_event(_mapping(event.get("error")) or event)
        if kind == "response.failed":
            raise of_event(_mapping(_mapping(event.get("response")).get("error")))
        if kind in FINAL:
            return list(self._end(_mapping(event.get("response"))))
        if kind == "response.created":
            response = _mapping(event.get("response"))
            return [Started(str(response.get("id") or ""), str(response.get("model") or ""))]
        if kind in ("response.output_item.added", "response.output_item.done"):
            self.thinking = kind.endswith("added") and _mapping(event.get("item")).get("type") == "reasoning"
        elif event.get("error"):
            raise of_event(_mapping(event["error"]) or {"message": str(event["error"])})
        return []

    def _delta(self, event: Mapping[str, Any], *, refusal: bool) -> list[ProviderEvent]:
        text = event.get("delta")
        if not isinstance(text, str):
            raise StreamMalformed("OpenAI's stream had a piece of text that is no text.")
        self._spoken = self._spoken or bool(text)
        self.thinking = False
        return [Delta(text, event.get("sequence_number") or 0, refusal)]

    def _end(self, response: Mapping[str, Any]) -> Iterator[ProviderEvent]:
        if response.get("status") == "failed":
            raise of_event(_mapping(response.get("error")))
        if not self._spoken:  # some compatible providers send an answer whole
            yield from _said(response)
        self.ended = True
        reason = _mapping(response.get("incomplete_details")).get("reason")
        if reason is None and response.get("status") == "incomplete":
            reason = "unknown"
        yield Ended(_usage(response.get("usage")), response.get("model"), INCOMPLETE.get(reason, reason) if reason else None)


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


def _said(response: Mapping[str, Any]) -> Iterator[Delta]:
    for item in response.get("output") or ():
        for part in _mapping(item).get("content") or ():
            part = _mapping(part)
            refusal = part.get("type") == "refusal"
            text = part.get("refusal" if refusal else "text")
            if isinstance(text, str) and text and (refusal or part.get("type") == "output_text"):
                yield Delta(text, refusal=refusal)


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
