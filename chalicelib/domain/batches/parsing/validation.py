"""What a row of a batch must be, wherever it was read from, and its prompt filled in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from chalicelib.domain.batches.parsing.problems import OF_THE_PROMPT, ParsedRow, ProblemCollector, UnreadableInput
from chalicelib.domain.batches.row import Row
from chalicelib.domain.errors import Detail, TemplateProblem
from chalicelib.domain.ids import is_job_id
from chalicelib.domain.jobs.dependencies import ROOT, template_problems
from chalicelib.domain.jobs.topological_order import topological_order
from chalicelib.domain.template import fill, names_within, rename_placeholders
from chalicelib.domain.validation.schema_messages import shortened

MAX_PROMPT_BYTES = 1_000_000
MAX_BATCH_BYTES = 64_000_000  # of all prompts, filled in: more than an upload has, so that only templates come to it
MAX_METADATA_BYTES = 16_000
LONGEST_ID = 128


class RowValidator:
    """One reading's memory: which ids were seen, and which rows wait for which."""

    def __init__(self, template: str | None, flaws: ProblemCollector) -> None:
        self._template, self._flaws, self._bytes = template, flaws, 0
        self._ids: dict[str, str] = {}  # each id, and where it was seen
        self._waiting: dict[str, tuple[str | None, tuple[str, ...]]] = {}  # by place: the id of a row and its parents

    def validate(self, found: ParsedRow, number: int) -> Row | None:
        """The row with its number and its prompt; None where something is wrong with it, which is noted."""
        before = len(self._flaws.details)
        self._check_id(found)
        self._check_metadata(found)
        row = self._dependent(found) if found.row.depends_on else self._filled(found)
        if row is None or len(self._flaws.details) > before:
            return None
        return replace(row, number=number)

    def check_dependencies(self) -> None:
        """What can be said only at the end: whether all parents are there, and no row waits for itself.

        Raises:
            DependencyCycle: some do, and nothing else is wrong.
        """
        for place, (_, parents) in self._waiting.items():
            for parent in parents:
                if parent not in self._ids and not is_job_id(parent):
                    self._flaws.add(f"{place}.depends_on", f"{shortened(parent)} is neither the id of a row of this batch nor a job")
        if not self._flaws:
            topological_order({row_id: parents for row_id, parents in self._waiting.values() if row_id is not None})

    def _check_id(self, found: ParsedRow) -> None:
        name, place = found.row.id, found.location
        if name is None:
            return
        if len(name) > LONGEST_ID:
            self._flaws.add(f"{place}.id", f"has {len(name)} characters; {LONGEST_ID} are the most")
        elif name in self._ids:
            self._flaws.add(f"{place}.id", f"{shortened(name)} is the id of {self._ids[name]} too")
        else:
            self._ids[name] = place

    def _check_metadata(self, found: ParsedRow) -> None:
        size = len(json.dumps(found.row.metadata).encode())
        if size > MAX_METADATA_BYTES:
            self._flaws.add(f"{found.location}.metadata", f"is larger than 16 KB ({size:,} bytes): it is all but id, prompt and priority")

    def _filled(self, found: ParsedRow) -> Row | None:
        row = found.row
        if self._template is None:
            return self._bounded(found, replace(row, values={}))
        try:
            prompt = fill(self._template, row.values)
        except TemplateProblem as wrong:
            self._flaws.add(found.location, str(wrong))
            return None
        return self._bounded(found, replace(row, prompt=prompt, input=None, values={}))

    def _dependent(self, found: ParsedRow) -> Row | None:
        """A row that waits for others keeps its places, for what they will have answered, and the values for the rest of them."""
        row, place = found.row, found.location
        self._waiting[place] = row.id, row.depends_on
        try:
            content, values = self._open_content(row)
        except TemplateProblem as wrong:
            self._flaws.add(place, str(wrong))
            return None
        for name in names_within(content):
            if name.partition(".")[0] == ROOT:
                self._flaws.extend([Detail(place, wrong) for wrong in template_problems(f"{{{{{name}}}}}", row.depends_on)])
            elif not _is_there(name, values):
                known = ", ".join(f"{{{{{value}}}}}" for value in [*values, ROOT][:20])
                self._flaws.add(place, f"asks for {{{{{name[:80]}}}}}; there is {known}")
        text = isinstance(content, str)
        return self._bounded(found, replace(row, prompt=content if text else None, input=None if text else content, values=values))

    def _open_content(self, row: Row) -> tuple[Any, Mapping[str, Any]]:
        """What it asks, with the places that are still open, and the values for them. A text is a template too, within the batch's."""
        if self._template is not None and row.prompt is None:
            return self._template, row.values
        values = {name: value for name, value in row.values.items() if name not in OF_THE_PROMPT}
        if row.prompt is None:
            return row.input, values
        return row.prompt if self._template is None else rename_placeholders(self._template, OF_THE_PROMPT, row.prompt), values

    def _bounded(self, found: ParsedRow, row: Row) -> Row | None:
        at = f"{found.location}.{found.content}".rstrip(".")
        text = row.prompt if row.input is None else json.dumps(row.input)
        if text is None or not text.strip():
            self._flaws.add(at, "is missing: what is to be done with this row?" if text is None else "is empty")
            return None
        if (size := len(text.encode())) > MAX_PROMPT_BYTES:
            self._flaws.add(at, f"is longer than 1 MB ({size:,} bytes)")
            return None
        self._bytes += size
        if self._bytes > MAX_BATCH_BYTES:
            raise UnreadableInput(
                found.location, "is where the prompts come to more than 64 MB, all together: send fewer rows, or a shorter template"
            )
        return row


def _is_there(name: str, values: Mapping[str, Any]) -> bool:
    try:
        fill(f"{{{{{name}}}}}", values)
    except TemplateProblem:
        return False
    return True
