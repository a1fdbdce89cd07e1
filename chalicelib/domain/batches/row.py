"""One row of a batch, as it was read from JSON, CSV or plain text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`number` is its place in the input, from 0; it stays with the row wherever it goes. `id` is the caller's own name for it.

    `prompt` is its text, or `input` what a type with an input schema takes. `values` are its columns, for the template.
    `depends_on` names other rows of the batch by their `id`, or jobs.
    """

    number: int
    id: str | None = None
    prompt: str | None = None
    input: Any = None
    priority: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    depends_on: tuple[str, ...] = ()
    on_parent_failure: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Without what was not said. An empty input was: some types want nothing else."""
        said = {name: value for name, value in asdict(self).items() if value not in (None, {}, ()) or name == "number"}
        return said if self.input is None else {**said, "input": self.input}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Row:
        known = {name: data[name] for name in (field.name for field in fields(cls)) if name in data}
        return cls(**{**known, "depends_on": tuple(known.get("depends_on", ()))})
