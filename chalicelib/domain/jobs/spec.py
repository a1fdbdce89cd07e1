"""Define the job spec: what a job is asked to do.

It is written at the submission and stored apart from the job record, because it is large. Workers
never change it.
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
    streaming_mode: str = "realtime"  # pace of the frames: `realtime`, `batched` or `none`
    max_attempts: int = 3  # attempts in a run, the first included
    timeout: float = 300.0  # longest duration of one attempt
    durable: bool = False  # the provider makes a background response, which outlives its worker
    retry_for: float = 86_400.0  # no further attempt starts later than this after the queueing
    # The first attempt must start within this time of the submission, `run_at` or a manual retry.
    expires_in: float = 86_400.0
    openai: dict[str, Any] = field(default_factory=dict)  # parameters passed on to OpenAI unchanged
    fallback_models: list[str] = field(default_factory=list)  # in order, while its circuit is open
    cache: float | None = None  # equal requests share answers up to this age; None: not cached


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """The content of a submission."""

    prompt: str  # the rendered prompt; with parents, the template before it is filled in
    config: JobConfig
    input: Any = None  # the input, for types with an input schema; otherwise None
    options: dict[str, Any] = field(default_factory=dict)  # options of the type
    metadata: dict[str, Any] = field(default_factory=dict)  # the caller's own, returned unchanged
    depends_on: dict[str, str] = field(default_factory=dict)  # parent job ids by alias
    on_parent_failure: str = "cancel"  # `cancel` or `run_anyway`
    # `{"content": prompt or input, "values": values of the batch row}`, filled in when an attempt
    # starts; None without parents.
    template: dict[str, Any] | None = None
    webhook_url: str | None = None  # where the completion webhook is sent; None: nowhere
    notify: list[str] = field(default_factory=list)  # other recipients of that notification
    # Role of the submitter, with which a task reads and changes other jobs. None for model jobs.
    role: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as it is stored."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> JobSpec:
        """Read a stored spec; ignore unknown fields, which a newer version of the code may have
        written.
        """
        return cls(**{**_known(cls, data), "config": JobConfig(**_known(JobConfig, data["config"]))})


def _known(kind: type, data: dict[str, Any]) -> dict[str, Any]:
    return {field.name: data[field.name] for field in fields(kind) if field.name in data}


PRICED_TIERS = frozenset({"flex", "priority", "fast"})  # service tiers with prices of their own


def requested_tier(openai: dict[str, Any]) -> str | None:
    """Return the service tier that these parameters ask for; None: what the project has set."""
    tier = openai.get("service_tier")
    return tier if isinstance(tier, str) and tier not in ("auto", "default") else None


def is_flex(openai: dict[str, Any]) -> bool:
    """Whether these parameters ask for the service tier `flex`, which may be silent for minutes."""
    return openai.get("service_tier") == "flex"
