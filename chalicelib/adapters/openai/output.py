"""The text of a response: which of its output items are the answer, and how they are joined.

A response may have several messages. One that is marked as commentary (`phase: commentary`) is not
part of the answer, unless there is nothing else. Other messages are joined with a blank line, so
that their texts never run together; so is a refusal that follows text. The same rule joins the
deltas of a stream and the items of a whole response, because a reader that changes from one to the
other compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from chalicelib.ports import TextDelta

SEPARATOR = "\n\n"
COMMENTARY = "commentary"
TEXT_PARTS = frozenset({"output_text", "text"})  # the second by some compatible servers
Place = Any  # identifies an output item within its response


class OutputReader:
    """Joins the deltas of one stream.

    Args:
        continues: text of this response was read before, in another stream.
    """

    def __init__(self, *, continues: bool = False) -> None:
        self._continues = continues
        self._indexes: dict[str, int] = {}  # by the id of the item
        self._commentary: set[Place] = set()
        self._announced: set[Place] = set()
        self._current: tuple[Place, bool] | None = None  # item and whether it is a refusal, of the last text
        self._parts: list[str] = []  # what was returned
        self._written: set[Place] = set()  # items whose text was returned

    @property
    def has_text(self) -> bool:
        return self._continues or bool(self._parts)

    def begin_item(self, event: Mapping[str, Any]) -> None:
        """Take note of an item that begins."""
        item = mapping(event.get("item"))
        if isinstance(item.get("id"), str) and isinstance(event.get("output_index"), int):
            self._indexes[item["id"]] = event["output_index"]
        place = self._place(event)
        self._announced.add(place)
        if item.get("phase") == COMMENTARY:
            self._commentary.add(place)

    def is_answer(self, event: Mapping[str, Any]) -> bool:
        """Whether the item of this event is part of the answer."""
        return self._place(event) not in self._commentary

    def delta(self, event: Mapping[str, Any], text: str, sequence: int, *, refusal: bool) -> TextDelta | None:
        """Return the delta as the next piece of the text; None if it is commentary."""
        place = self._place(event)
        if place in self._commentary or not text:
            return None
        self._written |= {place, event.get("item_id")}
        return self._next(place, text, sequence, refusal=refusal)

    def end_item(self, event: Mapping[str, Any], sequence: int) -> Iterator[TextDelta]:
        """Yield the text of an item that ends and had no deltas: some servers send only the whole."""
        place, item = self._place(event), mapping(event.get("item"))
        known = {place, item.get("id")} & (self._written - {None}) or (self._continues and place not in self._announced)
        if known or item.get("phase") == COMMENTARY or place in self._commentary:
            return
        for text, refusal in _texts(item):
            self._written.add(place)
            yield self._next(place, text, sequence, refusal=refusal)

    def end_text(self, event: Mapping[str, Any], sequence: int) -> Iterator[TextDelta]:
        """Yield the whole text of a part of an item, if the item had no deltas."""
        if self._place(event) is None:
            return
        part = mapping(event.get("part")) or {"type": "output_text", "text": event.get("text")}
        if isinstance(event.get("refusal"), str):
            part = {"type": "refusal", "refusal": event["refusal"]}
        item = {"id": event.get("item_id"), "content": [part]}
        yield from self.end_item({**event, "item": item}, sequence)

    def rest(self, response: Mapping[str, Any], sequence: int) -> Iterator[TextDelta]:
        """Yield what the whole response has beyond the text that was returned."""
        if self._continues:
            return
        streamed, whole = "".join(self._parts), list(pieces(response, sequence))
        if not "".join(piece.text for piece in whole).startswith(streamed):
            return
        skipped = len(streamed)
        for piece in whole:
            if skipped < len(piece.text):
                yield TextDelta(piece.text[skipped:], sequence, piece.refusal, piece.message and not skipped)
            skipped = max(0, skipped - len(piece.text))

    def _place(self, event: Mapping[str, Any]) -> Place:
        """Return what identifies the item: its index, because some proxies change its id on the way."""
        index, given = event.get("output_index"), event.get("item_id") or mapping(event.get("item")).get("id")
        if isinstance(index, int):
            return index
        return self._indexes.get(given, given) if isinstance(given, str) else None

    def _next(self, place: Place, text: str, sequence: int, *, refusal: bool) -> TextDelta:
        begins = self._current != (place, refusal) and self.has_text
        if self._current is None and place not in self._announced:
            begins = False  # the item that an earlier stream was reading, or the server announces none
        self._current = (place, refusal)
        text = SEPARATOR + text if begins else text
        self._parts.append(text)
        return TextDelta(text, sequence, refusal, begins)


def pieces(response: Mapping[str, Any], sequence: int = 0) -> Iterator[TextDelta]:
    """Yield the text of a whole response, in one piece for each message."""
    items = _messages(response)
    answer = [item for item in items if item.get("phase") != COMMENTARY and any(_texts(item))] or items[-1:]
    found = [piece for item in answer for piece in _joined(item)]
    if not items and isinstance(plain := response.get("output_text"), str) and plain:
        found = [(plain, False)]
    for number, (text, refusal) in enumerate(found):
        yield TextDelta(SEPARATOR + text if number else text, sequence, refusal, bool(number))


def mapping(value: Any) -> Mapping[str, Any]:
    """Return the value if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def _messages(response: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the messages of a response. An item that is repeated counts once."""
    output = response.get("output")
    found: list[Mapping[str, Any]] = []
    for item in output if isinstance(output, list) else ():
        if mapping(item).get("type", "message") != "message" or not isinstance(item, Mapping):
            continue
        if not any(item.get("id") is not None and (item["id"], list(_texts(item))) == (one.get("id"), list(_texts(one))) for one in found):
            found.append(item)
    return found


def _joined(item: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Return the parts of a message, neighbours of one kind joined: (text, whether it is a refusal)."""
    joined: list[tuple[str, bool]] = []
    for text, refusal in _texts(item):
        if joined and joined[-1][1] == refusal:
            joined[-1] = (joined[-1][0] + text, refusal)
        else:
            joined.append((text, refusal))
    return joined


def _texts(item: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a message that have text: (text, whether it is a refusal)."""
    content = item.get("content")
    if isinstance(content, str) and content:
        yield content, False
    for part in content if isinstance(content, list) else ():
        part = mapping(part)
        refusal = part.get("type") == "refusal"
        text = part.get("refusal" if refusal else "text")
        if isinstance(text, str) and text and (refusal or part.get("type") in TEXT_PARTS):
            yield text, refusal
