"""Define the job spec: what a job is asked to do.

It is written at the submission and stored apart from the job record, because it is large. Workers never
change it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class JobConfig:
    """How the answer is made, with every default resolved. Durations are seconds."""

    model: str  # `none` for types that call no model
    max_tokens: int  # most output tokens of one attempt
    temperature: float | None = None  # None: the provider's default
    system_prompt: str | None = None  # None: only the instructions of the type
    response_format: Any = "text"  # `text`, `json`, or a dict with a JSON schema
    streaming_mode: str = "realtime"  # how often subscribers get frames: `realtime`, `batched`, `none`
    max_attempts: int = 3  # attempts in a run, the first included
    timeout: float = 300.0  # longest duration of one attempt
    durable: bool = False  # the provider makes a background response, which outlives its worker
    retry_for: float = 86_400.0  # no further attempt starts later than this after the job was queued
    # The first attempt must start within this time of the submission, `run_at` or a manual retry.
    expires_in: float = 86_400.0
    openai: dict[str, Any] = field(default_factory=dict)  # parameters passed on to OpenAI unchanged
    fallback_models: list[str] = field(default_factory=list)  # tried in order while the model's circuit is open
    cache: float | None = None  # age up to which equal requests of the tenant share an answer; None: not cached


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """The content of a submission."""

    prompt: str  # the rendered prompt; with parents, the template before it is filled in
    config: JobConfig
    input: Any = None  # the input, for types with an input schema; otherwise None
    options: dict[str, Any] = field(default_factory=dict)  # options of the type
    metadata: dict[str, Any] = field(default_factory=dict)  # the caller's own, returned unchanged
    depends_on: dict[str, str] = field(default_factory=dict)  # parent job ids by their aliases in the template
    on_parent_failure: str = "cancel"  # `cancel` or `run_anyway`
    # `{"content": prompt or input, "values": values of the batch row}`, filled in when an attempt starts;
    # None without parents.
    template: dict[str, Any] | None = None
    webhook_url: str | None = None  # where the completion webhook is sent; None: nowhere
    notify: list[str] = field(default_factory=list)  # other recipients of the completion notification
    # Role of the submitter: a task that reads or changes other jobs has no more rights. None for model jobs.
    role: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as it is stored."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> JobSpec:
        """Read a stored spec. Unknown fields are ignored: during a deployment two versions of the code read
        each other's jobs.
        """
        return cls(**{**_known(cls, data), "config": JobConfig(**_known(JobConfig, data["config"]))})


def _known(kind: type, data: dict[str, Any]) -> dict[str, Any]:
    return {field.name: data[field.name] for field in fields(kind) if field.name in data}
