"""Define a request for a job, before any default is filled in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from chalicelib.domain.jobs.dependencies import CANCEL
from chalicelib.domain.units import Ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a caller requested: the fields of the API, with aliases resolved."""

    prompt: str | None = None  # for types without an input schema; otherwise None
    input: Any = None  # for types with an input schema; otherwise None
    job_type: str = "general"
    priority: str = "normal"  # the lane
    options: dict[str, Any] = field(default_factory=dict)  # options of the type
    config: dict[str, Any] = field(default_factory=dict)  # only the fields that the caller set
    metadata: dict[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    user: str | None = None  # user on whose behalf it is submitted; None: the caller
    dedupe_key: str | None = None  # None: the type may derive one from the input
    expires_in: float = 86_400.0  # it must start within these seconds after `run_at`, or after now
    run_at: Ms | None = None  # earliest start; None: now
    depends_on: dict[str, str] = field(default_factory=dict)  # parent job ids by alias
    on_parent_failure: str = CANCEL  # `cancel` or `run_anyway`
    webhook_url: str | None = None  # where the completion webhook is sent
    notify: tuple[str, ...] = ()  # recipients, `email:<address>` or `slack:<name>`
    values: dict[str, Any] = field(default_factory=dict)  # other values that the template may use
