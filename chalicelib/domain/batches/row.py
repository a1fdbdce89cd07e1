"""One row of a batch, as it was read from JSON, CSV or plain text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row with the fields that its source gave."""

    number: int  # position in the input, from 0; never changes
    id: str | None = None  # the caller's name for the row
    prompt: str | None = None
    input: Any = None  # instead of a prompt, for a type with an input schema
    priority: str | None = None  # lane of this row; None: that of the batch
    metadata: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)  # what the prompt template may refer to
    depends_on: tuple[str, ...] = ()  # ids of other rows of the batch, or of jobs
    on_parent_failure: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are set. An empty `input` counts: some types accept only that."""
        fields_set = {name: value for name, value in asdict(self).items() if value not in (None, {}, ()) or name == "number"}
        return fields_set if self.input is None else {**fields_set, "input": self.input}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Row:
        """Read what `to_dict` wrote; unknown fields are ignored."""
        known = {name: data[name] for name in (field.name for field in fields(cls)) if name in data}
        return cls(**{**known, "depends_on": tuple(known.get("depends_on", ()))})
