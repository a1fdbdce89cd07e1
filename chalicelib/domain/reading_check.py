"""What a row of a batch must be, wherever it was read from, and its prompt filled in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from chalicelib.domain.errors import TemplateProblem
from chalicelib.domain.ids import is_job_id
from chalicelib.domain.reading_flaws import OF_THE_PROMPT, Flaws, Found
from chalicelib.domain.row import Row
from chalicelib.domain.schema_words import shortened
from chalicelib.domain.template import fill, names_within, replaced

MAX_PROMPT_BYTES = 1_000_000
MAX_METADATA_BYTES = 16_000
LONGEST_ID = 128
PARENTS = "parents"


class Check:
    """One reading's memory: which ids were seen, and which rows wait for which."""

    def __init__(self, template: str | None, flaws: Flaws) -> None:
        self._template, self._flaws = template, flaws
        self._ids: dict[str, str] = {}  # each id, and where it was seen
        self._waiting: dict[str, tuple[str | None, tuple[str, ...]]] = {}  # by place: the id of a row and its parents

    def finished(self, found: Found, number: int) -> Row | None:
        """The row with its number and its prompt; None where something is wrong with it, which is noted."""
        before = len(self._flaws.details)
        self._check_id(found)
        self._check_metadata(found)
        row = self._dependent(found) if found.row.depends_on else self._filled(found)
        if row is None or len(self._flaws.details) > before:
            return None
        return replace(row, number=number)

    def parents(self) -> None:
        """What can be said only at the end: whether all parents are there, and none waits for itself."""
        for place, (_, parents) in self._waiting.items():
            for parent in parents:
                if parent not in self._ids and not is_job_id(parent):
                    self._flaws.add(f"{place}.depends_on", f"{shortened(parent)} is neither the id of a row of this batch nor a job")
        graph = {row_id: parents for row_id, parents in self._waiting.values() if row_id is not None}
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as wrong:
            around = [shortened(name, 40) for name in wrong.args[1][:10]]
            place = self._ids[wrong.args[1][0]]
            self._flaws.add(f"{place}.depends_on", f"waits for itself: {' <- '.join(around)}")

    def _check_id(self, found: Found) -> None:
        name, place = found.row.id, found.place
        if name is None:
            return
        if len(name) > LONGEST_ID:
            self._flaws.add(f"{place}.id", f"has {len(name)} characters; {LONGEST_ID} are the most")
        elif name in self._ids:
            self._flaws.add(f"{place}.id", f"{shortened(name)} is the id of {self._ids[name]} too")
        else:
            self._ids[name] = place

    def _check_metadata(self, found: Found) -> None:
        size = len(json.dumps(found.row.metadata).encode())
        if size > MAX_METADATA_BYTES:
            self._flaws.add(f"{found.place}.metadata", f"is larger than 16 KB ({size:,} bytes): it is all but id, prompt and priority")

    def _filled(self, found: Found) -> Row | None:
        row = found.row
        if self._template is None:
            return self._bounded(found, replace(row, values={}))
        try:
            prompt = fill(self._template, row.values)
        except TemplateProblem as wrong:
            self._flaws.add(found.place, str(wrong))
            return None
        return self._bounded(found, replace(row, prompt=prompt, input=None, values={}))

    def _dependent(self, found: Found) -> Row | None:
        """A row that waits for others keeps its places, for what they will have answered, and the values for the rest of them."""
        row, place = found.row, found.place
        self._waiting[place] = row.id, row.depends_on
        content: Any = row.input if row.prompt is None else row.prompt
        values = row.values
        if self._template is not None and row.input is None:
            content = replaced(self._template, OF_THE_PROMPT, row.prompt or "")
        elif self._template is not None:
            content = self._template
        if row.input is None:
            values = {name: value for name, value in values.items() if name not in OF_THE_PROMPT}
        for name in _missing(names_within(content), values, row.depends_on):
            self._flaws.add(place, f"asks for {{{{{name[:80]}}}}}; there is {_known(values, row.depends_on)}")
        text = isinstance(content, str)
        return self._bounded(found, replace(row, prompt=content if text else None, input=None if text else content, values=values))

    def _bounded(self, found: Found, row: Row) -> Row | None:
        at = f"{found.place}.{found.content}".rstrip(".")
        text = row.prompt if row.input is None else json.dumps(row.input)
        if text is None or not text.strip():
            self._flaws.add(at, "is missing: what is to be done with this row?" if text is None else "is empty")
            return None
        if (size := len(text.encode())) > MAX_PROMPT_BYTES:
            self._flaws.add(at, f"is longer than 1 MB ({size:,} bytes)")
            return None
        return row


def _missing(asked: Iterable[str], values: Mapping[str, Any], parents: tuple[str, ...]) -> list[str]:
    """What a template asks for that will never be there."""
    return [name for name in asked if not (_is_parent(name, parents) or _is_there(name, values))]


def _is_parent(name: str, parents: tuple[str, ...]) -> bool:
    return name == PARENTS or any(name == f"{PARENTS}.{parent}" or name.startswith(f"{PARENTS}.{parent}.") for parent in parents)


def _is_there(name: str, values: Mapping[str, Any]) -> bool:
    try:
        fill(f"{{{{{name}}}}}", values)
    except TemplateProblem:
        return False
    return True


def _known(values: Mapping[str, Any], parents: tuple[str, ...]) -> str:
    return ", ".join(f"{{{{{name}}}}}" for name in [*values, *(f"{PARENTS}.{parent}" for parent in parents)][:20])
