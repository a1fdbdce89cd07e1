"""The events of OpenAI's Responses stream, as provider events.

The stream has about sixty kinds of event (the SDK's `types/responses/response_stream_event.py`).
Those that are not needed are skipped, so that a new kind breaks nothing. A stream is a success only
if its final event was seen, because a stream that is cut off ends like a complete one.

A background response can also be fetched as it is. That is the object in the final event, and read
in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from chalicelib.adapters.openai.error_body import error_in_event, read_error
from chalicelib.adapters.openai.errors import from_event, other_api
from chalicelib.adapters.openai.output import OutputReader, mapping, pieces
from chalicelib.domain import json_limits
from chalicelib.domain.failures import AttemptFailed, ReattachRefused, ResponseLost, StreamCut, StreamMalformed
from chalicelib.domain.jobs.job import Usage
from chalicelib.domain.text import repair_surrogates
from chalicelib.ports import FetchedResponse, ProviderEvent, ResponseEnded, ResponseStarted

INCOMPLETE = {"max_output_tokens": "max_tokens"}
FINAL = frozenset({"response.completed", "response.incomplete"})
FAILED = frozenset({"response.failed", "response.cancelled"})
WHOLE_TEXTS = frozenset({"response.output_text.done", "response.content_part.done", "response.refusal.done"})
PINGS = frozenset({"ping", "keepalive"})
DONE = b"[DONE]"  # how Chat Completions end; some compatible providers send it here too
RUNNING = frozenset({"queued", "in_progress"})
MAX_COUNT = 10**9  # tokens; what is beyond it is no count


class ResponseReader:
    """Reads one response, event by event.

    Text up to sequence number `after` is known already and is skipped. `ended`: the final event was
    seen. `thinking`: no answer is being written. The model has not begun, reasons, or is between
    two items, which may take minutes without an event.
    """

    def __init__(self, after: int = -1) -> None:
        self.ended = False
        self.thinking = True
        self._after = after
        self._output = OutputReader(continues=after > 0)  # event 0 is the start of the response; text was read before later ones

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
        if kind is None and isinstance(event.get("choices"), list):
            raise other_api()
        if kind == "response.output_text.delta":
            return self._delta(event, refusal=False)
        if kind == "response.refusal.delta":
            return self._delta(event, refusal=True)
        if kind in PINGS:
            return None
        if kind in WHOLE_TEXTS:
            return list(self._output.end_text(event, _sequence(event)))
        return self._other(kind, event)

    def _other(self, kind: Any, event: Mapping[str, Any]) -> list[ProviderEvent]:
        if kind == "error":
            raise from_event(event)
        response = mapping(event.get("response"))
        if kind in FAILED:
            raise _failure(response)
        if kind in FINAL:
            return list(self._end({"usage": event.get("usage"), **response}, _sequence(event)))
        if kind == "response.created":
            return [ResponseStarted(str(response.get("id") or ""), str(response.get("model") or ""))]
        if kind == "response.output_item.added":
            self.thinking = True
            self._output.begin_item(event)
        elif kind == "response.output_item.done":
            self.thinking = self.thinking or not self._output.is_answer(event)
            return list(self._output.end_item(event, _sequence(event)))
        elif (error := error_in_event(kind, event)) is not None:
            raise from_event(error)
        return []

    def _delta(self, event: Mapping[str, Any], *, refusal: bool) -> list[ProviderEvent]:
        text = event.get("delta")
        if text is None:
            return []
        if not isinstance(text, str):
            raise StreamMalformed("OpenAI's stream had a piece of text that is no text.")
        self.thinking = False
        sequence = _sequence(event)
        delta = self._output.delta(event, text, sequence, refusal=refusal)
        return [] if delta is None or 0 < sequence <= self._after else [delta]

    def _end(self, response: Mapping[str, Any], sequence: int) -> Iterator[ProviderEvent]:
        ended = _ended(response)
        yield from self._output.rest(response, sequence)  # some compatible providers send the whole text at the end
        self.ended = True
        yield _with_text(ended) if self._output.has_text else ended


def whole(data: bytes, *, background: bool = False) -> Iterator[ProviderEvent]:
    """Read the answer to a request that was not streamed.

    Args:
        background: the request was for a response in the background.

    Raises:
        StreamMalformed: it cannot be parsed, or is no response.
        AttemptFailed: it reports an error.
        ReattachRefused: the response runs in the background and has not ended.
        StreamCut: it has not ended, and nothing will return its end.
    """
    try:
        response = _parse(data)
    except StreamMalformed as exc:
        raise StreamMalformed("OpenAI's answer was no response.") from exc
    if response.get("error") and not response.get("output"):
        raise from_event(mapping(response["error"]) or {"message": str(response["error"])})
    if isinstance(response.get("choices"), list):
        raise other_api()
    if not (response.get("output") or response.get("output_text") or response.get("status")):
        raise from_event(response) if read_error(response).message else StreamMalformed("OpenAI's answer was no response.")
    ended = None if response.get("status") in RUNNING else _ended(response)
    yield ResponseStarted(str(response.get("id") or ""), str(response.get("model") or ""))
    if ended is None:
        raise ReattachRefused if background and response.get("id") else StreamCut
    texts = list(pieces(response))
    ended = _with_text(ended) if texts else ended
    written = ended.usage.output - ended.usage.reasoning if ended.usage else len(texts)
    for number, piece in enumerate(texts):
        yield replace(piece, tokens=max(1, written - len(texts) + 1) if number == 0 else 1)
    yield ended


def fetched(data: bytes) -> FetchedResponse:
    """Read a response that was fetched.

    Raises:
        StreamMalformed: it cannot be parsed.
        ResponseLost: it was cancelled.
    """
    response = _parse(data)
    status, parts = response.get("status"), list(pieces(response))
    if status == "cancelled":
        raise _failure(response)
    ended = _ended(response) if status in ("completed", "incomplete") else None
    ended = _with_text(ended) if ended is not None and parts else ended
    failure = _failure(response) if status == "failed" else None
    return FetchedResponse(repair_surrogates("".join(one.text for one in parts)), ended, any(one.refusal for one in parts), failure)


def _ended(response: Mapping[str, Any]) -> ResponseEnded:
    """Return how a response ended, or raise its failure."""
    if response.get("status") in ("failed", "cancelled"):
        raise _failure(response)
    reason = mapping(response.get("incomplete_details")).get("reason")
    if response.get("status") == "incomplete" and not isinstance(reason, str):
        reason = "unknown"
    cut = INCOMPLETE.get(reason, reason) if isinstance(reason, str) and reason else None
    model, tier = (value if isinstance(value := response.get(name), str) and value else None for name in ("model", "service_tier"))
    return ResponseEnded(_usage(response.get("usage")), model, cut, tier and tier.lower())


def _with_text(ended: ResponseEnded) -> ResponseEnded:
    """Return the end of a response that has text: a count of no output is none, and is never booked as exact."""
    return replace(ended, usage=None) if ended.usage is not None and not ended.usage.output else ended


def _failure(response: Mapping[str, Any]) -> AttemptFailed:
    """Return the error of a failed response.

    The stream of a cancelled one ends like a failed one, but with that status.
    """
    return ResponseLost() if response.get("status") == "cancelled" else from_event(mapping(response.get("error")))


def _parse(data: bytes) -> dict[str, Any]:
    try:
        event = json_limits.loads(data, json_limits.MAX_ANSWER_VALUES, unique_names=False)
    except ValueError as exc:
        raise StreamMalformed from exc
    if not isinstance(event, dict):
        raise StreamMalformed
    return event


def _sequence(event: Mapping[str, Any]) -> int:
    """Return the sequence number of an event, 0 if it has none."""
    number = event.get("sequence_number")
    return number if isinstance(number, int) else 0


def _usage(counted: Any) -> Usage | None:
    """Return the token counts, by the names of the Responses API or those of Chat Completions.

    None if input or output is not there or cannot be a count; a request has at least one token of
    input. What is missing is never taken for zero, because zero would be booked as exact.
    """
    counted = mapping(counted)
    total, given, written = (
        _first_count(counted, *names)
        for names in (("total_tokens",), ("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens"))
    )
    if total is not None and written is None and given is not None:
        written = total - given
    if total is not None and given is None and written is not None:
        given = total - written
    if not given or written is None or given < 0 or written < 0:
        return None
    cached = _detail(counted, "cached_tokens", "input_tokens_details", "prompt_tokens_details")
    cached = cached or _first_count(counted, "cached_tokens", "prompt_cache_hit_tokens") or 0
    reasoning = _detail(counted, "reasoning_tokens", "output_tokens_details", "completion_tokens_details")
    return Usage(input=given, cached=min(cached, given), output=written, reasoning=min(reasoning, written))


def _detail(counted: Mapping[str, Any], name: str, *groups: str) -> int:
    """Return a count within a group, 0 if there is none."""
    counts = (_first_count(mapping(counted.get(group)), name) for group in groups)
    return next((count for count in counts if count is not None), 0)


def _first_count(counted: Mapping[str, Any], *names: str) -> int | None:
    """Return the first of these fields that is a count."""
    for name in names:
        value = counted.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT:
            return value
    return None
