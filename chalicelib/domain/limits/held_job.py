"""A job in a line, as the index has it: enough to release it without reading its record."""

from __future__ import annotations

from dataclasses import dataclass

from chalicelib.domain.units import Ms


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldJob:
    """One held job of a line."""

    job_id: str
    generation: int
    tenant: str
    user: str
    type: str
    lane: str
    model: str  # `none` for a task
    queued_at: Ms
    tokens: int  # what an attempt is charged against a token rate
    crashes: int
    place: str  # its sort key in the line
    by_user: bool = False  # it stands in a line by user, so its place begins with `user_mark`
