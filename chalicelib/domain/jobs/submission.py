"""A request for a job, with every default still open."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from chalicelib.domain.jobs.dependencies import CANCEL
from chalicelib.domain.units import Ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a caller asked for: fields as in the API, aliases already resolved. `config` holds only what was said.
    `depends_on` are its parents, by the names that its template has for them; `values` is what else the template may ask for.

    `expires_in` seconds after `run_at`, or after now, it must have started."""

    prompt: str | None = None
    input: Any = None
    job_type: str = "general"
    priority: str = "normal"
    options: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    user: str | None = None
    dedupe_key: str | None = None
    expires_in: float = 86_400.0
    run_at: Ms | None = None
    depends_on: dict[str, str] = field(default_factory=dict)
    on_parent_failure: str = CANCEL
    webhook_url: str | None = None
    notify: tuple[str, ...] = ()
    values: dict[str, Any] = field(default_factory=dict)
