"""Work out what a submission means: its type, its model, every default, and what it may cost. Nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.errors import Detail, Forbidden, InvalidRequest
from chalicelib.domain.execution.response_cache import parse_ttl
from chalicelib.domain.jobs.dependencies import template_problems
from chalicelib.domain.jobs.job_type import NO_MODEL, JobType
from chalicelib.domain.jobs.spec import JobConfig, JobSpec
from chalicelib.domain.jobs.submission import Submission
from chalicelib.domain.metrics.estimate import Estimate, estimate, estimate_task
from chalicelib.domain.metrics.throughput import UNMEASURED, Throughput
from chalicelib.domain.queues.lanes import LANES, Lane
from chalicelib.domain.template import names_within
from chalicelib.domain.validation.schema import problems, schema_problems
from chalicelib.ports import Prices
from chalicelib.services.prompts.model_request import instructions
from chalicelib.services.prompts.render import MAX_PROMPT_BYTES, render_prompt

MODEL_ONLY_OPTIONS = (
    "model",
    "max_tokens",
    "temperature",
    "system_prompt",
    "response_format",
    "durable",
    "fallback_models",
    "openai",
    "cache",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A submission with every default filled in. `dedupe_key`: the caller's own, else what the type makes of the input."""

    kind: JobType
    user: str
    body: JobSpec
    estimate: Estimate
    dedupe_key: str | None = None


def plan_job(
    job_type: Callable[[str], JobType],
    prices: Prices,
    caller: Caller,
    submission: Submission,
    depth: int,
    speed_of: Callable[[str, str], Throughput] = lambda _type, _model: UNMEASURED,
) -> Plan:
    """Resolve a submission, with `depth` jobs waiting in its lane. `speed_of` a job type and a model is what was measured of them.

    Raises:
        Forbidden: the type needs a greater role.
        InvalidRequest: with every field that cannot be used.
        JobTypeNotFound: there is no such type.
    """
    kind = job_type(submission.job_type)
    _check_role(kind, caller)
    wrong = [
        *problems(kind.options_schema, submission.options, "options"),
        *_content_problems(kind, submission),
        *_template_problems(submission),
        *_format_problems(submission.config.get("response_format")),
        *_work_problems(kind, submission),
    ]
    if submission.user not in (None, caller.user) and caller.role < Role.OPERATOR:
        wrong.append(Detail("user", "only an operator may submit on behalf of somebody else"))
    if wrong:
        raise InvalidRequest(details=tuple(wrong))
    body = JobSpec(
        prompt=render_prompt(kind, _content(submission), submission.options),
        config=resolve_config(kind, submission),
        input=submission.input,
        options=submission.options,
        metadata=submission.metadata,
        depends_on=submission.depends_on,
        on_parent_failure=submission.on_parent_failure,
        template={"content": _content(submission), "values": submission.values} if submission.depends_on else None,
        webhook_url=submission.webhook_url,
        notify=list(submission.notify),
        role=_role(kind, caller, submission),
    )
    if len(body.prompt.encode()) > MAX_PROMPT_BYTES:
        raise InvalidRequest(details=(Detail("prompt", "is longer than 1 MB"),))
    return Plan(
        kind=kind,
        user=submission.user or caller.user,
        body=body,
        dedupe_key=submission.dedupe_key or _own_dedupe_key(kind, submission),
        estimate=_estimate(kind, body, prices, speed_of(kind.name, body.config.model), LANES[submission.priority], depth),
    )


def _estimate(kind: JobType, body: JobSpec, prices: Prices, speed: Throughput, lane: Lane, depth: int) -> Estimate:
    if kind.handler is not None:
        return estimate_task(lane, depth)
    config = body.config
    return estimate(
        prompt=body.prompt,
        instructions=instructions(config, kind) + json.dumps(kind.schema_for(body.options) or ""),
        answer_tokens=round(speed.expected_output(kind.typical_tokens, config.max_tokens).p50),
        first_token_ms=round(speed.first_token_ms.p50),
        tokens_per_second=speed.tokens_per_second.p50,
        max_tokens=config.max_tokens,
        max_attempts=config.max_attempts,
        price=prices.of(config.model),
        others=[prices.of(model) for model in config.fallback_models],
        lane=lane,
        depth=depth,
    )


def resolve_config(kind: JobType, submission: Submission) -> JobConfig:
    """Every default filled in: the type's, else the system's."""
    said: dict[str, Any] = {name: value for name, value in submission.config.items() if value is not None and name != "priority"}
    if kind.handler is not None:
        said |= {"model": NO_MODEL, "max_tokens": 0, "response_format": "json"}
    said.setdefault("model", kind.default_model)
    said.setdefault("max_tokens", kind.max_tokens)
    said.setdefault("response_format", "json" if kind.response_schema else "text")
    said["cache"] = parse_ttl(said.get("cache"))
    others = [model for model in dict.fromkeys(said.pop("fallback_models", ())) if model != said["model"]]
    return JobConfig(**said, fallback_models=others, expires_in=submission.expires_in)


def _check_role(kind: JobType, caller: Caller) -> None:
    if caller.role < Role.named(kind.min_role):
        raise Forbidden(f"Jobs of the type {kind.name} need the role {kind.min_role}; this key is a {caller.role.label}.")


def _role(kind: JobType, caller: Caller, submission: Submission) -> str | None:
    """With whose rights work reads and changes other jobs: the caller's own, or a user's where it is on behalf of somebody else."""
    if kind.handler is None:
        return None
    return caller.role.label if submission.user in (None, caller.user) else Role.USER.label


def _work_problems(kind: JobType, submission: Submission) -> list[Detail]:
    """What means something for answers of a model only."""
    if kind.handler is None:
        return []
    said = [name for name in MODEL_ONLY_OPTIONS if submission.config.get(name)]
    return [Detail(f"config.{name}", f"means nothing for {kind.name}, which asks no model") for name in said]


def _content_problems(kind: JobType, submission: Submission) -> list[Detail]:
    if submission.input is not None:
        if kind.input_schema is None:
            return [Detail("input", f"{kind.name} takes a prompt, not an input")]
        return list(problems(kind.input_schema, submission.input, "input"))
    if kind.input_schema is not None:
        return [Detail("input", f"is required: {kind.name} takes an input, see `GET /job-types/{kind.name}`")]
    if submission.prompt is None or not submission.prompt.strip():
        return [Detail("prompt", "is required and must not be empty")]
    return []


def _format_problems(asked: Any) -> tuple[Detail, ...]:
    """A schema that cannot be one is refused before an attempt is paid for."""
    if not isinstance(asked, dict):
        return ()
    inner = asked.get("json_schema", asked)
    return schema_problems(inner["schema"], "config.response_format.schema")


def _template_problems(submission: Submission) -> list[Detail]:
    """Braces mean something only where there are parents to be named."""
    if not submission.depends_on:
        return []
    path = "prompt" if submission.input is None else "input"
    content = _content(submission)
    others = [name for name in names_within(content) if name.partition(".")[0] in submission.values or name in submission.values]
    return [Detail(path, wrong) for wrong in template_problems(content, submission.depends_on, others)]


def _own_dedupe_key(kind: JobType, submission: Submission) -> str | None:
    """What the type takes an input for; of a template nobody knows that yet."""
    return kind.dedupe_key(submission.input) if kind.dedupe_key and not submission.depends_on else None


def _content(submission: Submission) -> Any:
    return submission.prompt if submission.input is None else submission.input
