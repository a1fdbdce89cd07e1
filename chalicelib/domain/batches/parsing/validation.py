"""Validate the rows of a batch, whatever format they were read from, and render their prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from chalicelib.domain.batches.parsing.problems import PROMPT_NAMES, ParsedRow, ProblemCollector, UnreadableInput
from chalicelib.domain.batches.row import Row
from chalicelib.domain.errors import Detail, TemplateProblem
from chalicelib.domain.ids import is_job_id
from chalicelib.domain.jobs.dependencies import ROOT, template_problems
from chalicelib.domain.jobs.topological_order import topological_order
from chalicelib.domain.json_limits import MAX_BATCH_VALUES, count_values
from chalicelib.domain.template import fill, match_names, match_names_within, names_within, rename_placeholders
from chalicelib.domain.validation.schema_messages import shortened

MAX_PROMPT_BYTES = 1_000_000
# Of all rendered prompts; larger than any upload, so only templates can exceed it.
MAX_BATCH_BYTES = 64_000_000
MAX_METADATA_BYTES = 16_000
MAX_ID_LENGTH = 128


class RowValidator:
    """Validates the rows of one batch, including ids and dependencies between rows."""

    def __init__(self, template: str | None, found: ProblemCollector) -> None:
        self._template, self._found = template, found
        self._bytes = self._values = 0  # of all rows so far
        self._locations: dict[str, str] = {}  # of each row id
        # By location: the id of a row and its parents.
        self._parents: dict[str, tuple[str | None, tuple[str, ...]]] = {}
        # The template with its names written as the values of the last row are; rows mostly have the same ones.
        self._matched: tuple[tuple[str, ...], str] = (), template or ""

    def validate(self, parsed: ParsedRow, number: int) -> Row | None:
        """Return the row with its number and prompt, or None after adding its problems."""
        problems_before = len(self._found.details)
        self._check_id(parsed)
        self._check_metadata(parsed)
        self._count_values(parsed)
        row = self._prepare_dependent(parsed) if parsed.row.depends_on else self._render(parsed)
        if row is None or len(self._found.details) > problems_before:
            return None
        return replace(row, number=number)

    def check_dependencies(self) -> None:
        """Check, after the last row, that all parents exist and that no row depends on itself.

        Raises:
            DependencyCycle: rows depend on each other in a cycle, and there are no other problems.
        """
        for location, (_, parents) in self._parents.items():
            for parent in parents:
                if parent not in self._locations and not is_job_id(parent):
                    message = f"{shortened(parent)} is neither the id of a row of this batch nor a job id"
                    self._found.add(f"{location}.depends_on", message)
        if not self._found:
            topological_order({row_id: parents for row_id, parents in self._parents.values() if row_id is not None})

    def _check_id(self, parsed: ParsedRow) -> None:
        row_id, location = parsed.row.id, parsed.location
        if row_id is None:
            return
        if len(row_id) > MAX_ID_LENGTH:
            self._found.add(f"{location}.id", f"has {len(row_id)} characters; the maximum is {MAX_ID_LENGTH}")
        elif row_id in self._locations:
            self._found.add(f"{location}.id", f"{shortened(row_id)} is already the id of {self._locations[row_id]}")
        else:
            self._locations[row_id] = location

    def _check_metadata(self, parsed: ParsedRow) -> None:
        size = len(json.dumps(parsed.row.metadata).encode())
        if size > MAX_METADATA_BYTES:
            message = f"is larger than 16 KB ({size:,} bytes): in CSV it is every column except id, prompt and priority"
            self._found.add(f"{parsed.location}.metadata", message)

    def _count_values(self, parsed: ParsedRow) -> None:
        """Bound what all rows become in memory: of an empty list, twenty times its bytes."""
        self._values += count_values(parsed.row.input) + count_values(parsed.row.metadata)
        if self._values > MAX_BATCH_VALUES:
            message = f"exceeds the maximum of {MAX_BATCH_VALUES:,} values in the inputs and metadata of all rows together"
            raise UnreadableInput(parsed.location, message)

    def _render(self, parsed: ParsedRow) -> Row | None:
        row = parsed.row
        if self._template is None:
            return self._check_size(parsed, replace(row, values={}))
        try:
            prompt = fill(self._template_for(row.values), row.values)
        except TemplateProblem as exc:
            self._found.add(parsed.location, str(exc))
            return None
        return self._check_size(parsed, replace(row, prompt=prompt, input=None, values={}))

    def _template_for(self, values: Mapping[str, Any]) -> str:
        """Return the template of the batch with its names written as in `values`."""
        names = tuple(values)
        if self._matched[0] != names:
            self._matched = names, match_names(self._template or "", names)
        return self._matched[1]

    def _prepare_dependent(self, parsed: ParsedRow) -> Row | None:
        """Return a dependent row unrendered: its placeholders need the results of its parents."""
        row, location = parsed.row, parsed.location
        self._parents[location] = row.id, row.depends_on
        try:
            content, values = self._template_and_values(row)
        except TemplateProblem as exc:
            self._found.add(location, str(exc))
            return None
        for name in names_within(content):
            if name.partition(".")[0] == ROOT:
                self._found.extend([Detail(location, problem) for problem in template_problems(f"{{{{{name}}}}}", row.depends_on)])
            elif not _resolves(name, values):
                known = ", ".join(f"{{{{{value}}}}}" for value in [*values, ROOT][:20])
                self._found.add(location, f"refers to {{{{{name[:80]}}}}}, which does not exist; known are {known}")
        prompt, row_input = (content, None) if isinstance(content, str) else (None, content)
        return self._check_size(parsed, replace(row, prompt=prompt, input=row_input, values=values))

    def _template_and_values(self, row: Row) -> tuple[Any, Mapping[str, Any]]:
        """Return the row's content as a template, and the values for it.

        The prompt of a row with dependencies is a template itself; it is inserted into the template
        of the batch.
        """
        if self._template is not None and row.prompt is None:
            return self._template_for(row.values), row.values
        values = {name: value for name, value in row.values.items() if name not in PROMPT_NAMES}
        if row.prompt is None:
            return match_names_within(row.input, values), values
        if self._template is None:
            return match_names(row.prompt, values), values
        return match_names(rename_placeholders(self._template_for(row.values), PROMPT_NAMES, row.prompt), values), values

    def _check_size(self, parsed: ParsedRow, row: Row) -> Row | None:
        path = f"{parsed.location}.{parsed.content}".rstrip(".")
        text = row.prompt if row.input is None else json.dumps(row.input)
        if text is None or not text.strip():
            self._found.add(path, "is missing: each row needs a prompt or an input" if text is None else "is empty")
            return None
        if (size := len(text.encode())) > MAX_PROMPT_BYTES:
            self._found.add(path, f"is longer than 1 MB ({size:,} bytes)")
            return None
        self._bytes += size
        if self._bytes > MAX_BATCH_BYTES:
            message = "exceeds the maximum of 64 MB for all prompts together: send fewer rows or use a shorter template"
            raise UnreadableInput(parsed.location, message)
        return row


def _resolves(name: str, values: Mapping[str, Any]) -> bool:
    try:
        fill(f"{{{{{name}}}}}", values)
    except TemplateProblem:
        return False
    return True
