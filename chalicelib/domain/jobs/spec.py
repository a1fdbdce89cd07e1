"""What a job is asked to do: written once at submit, never changed by the engine, kept apart from the head because it is large."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class JobConfig:
    """How the answer is made, with every default resolved. `timeout`, `retry_for` and `expires_in` are seconds.

    `cache`: for how many seconds the answer may serve equal requests of the tenant, and may itself be another's; None: not at all.
    """

    model: str
    max_tokens: int
    temperature: float | None = None
    system_prompt: str | None = None
    response_format: Any = "text"
    streaming_mode: str = "realtime"
    max_attempts: int = 3
    timeout: float = 300.0
    durable: bool = False
    retry_for: float = 86_400.0
    expires_in: float = 86_400.0
    openai: dict[str, Any] = field(default_factory=dict)
    fallback_models: list[str] = field(default_factory=list)
    cache: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """The content of a submission. `prompt` is the rendered text; `input` is what a type with an input schema was given.

    `depends_on` are the parents, by the name that the template has for each. `template` is what the prompt is made of once they have
    ended, None where there are none: `{"content": a prompt or an input, "values": what a batch's row has}`.
    `role` is that of whoever submitted it: work that reads or changes other jobs may do no more than they may.
    """

    prompt: str
    config: JobConfig
    input: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    depends_on: dict[str, str] = field(default_factory=dict)
    on_parent_failure: str = "cancel"
    template: dict[str, Any] | None = None
    webhook_url: str | None = None
    notify: list[str] = field(default_factory=list)
    role: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> JobSpec:
        """Fields that this version does not know are left out: during a deployment two versions read each other's jobs."""
        return cls(**{**_known(cls, data), "config": JobConfig(**_known(JobConfig, data["config"]))})


def _known(kind: type, data: dict[str, Any]) -> dict[str, Any]:
    return {field.name: data[field.name] for field in fields(kind) if field.name in data}
