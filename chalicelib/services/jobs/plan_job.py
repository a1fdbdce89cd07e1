"""Plan a submission: resolve its type, model and defaults, and estimate its cost. Writes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.errors import Detail, Forbidden, InvalidRequest
from chalicelib.domain.execution.response_cache import parse_ttl
from chalicelib.domain.jobs.dependencies import template_problems
from chalicelib.domain.jobs.job_type import NO_MODEL, JobType
from chalicelib.domain.jobs.queue_routing import queue_for
from chalicelib.domain.jobs.spec import JobConfig, JobSpec, is_flex, requested_tier
from chalicelib.domain.jobs.submission import Submission
from chalicelib.domain.metrics.estimate import Estimate, estimate, estimate_task
from chalicelib.domain.metrics.throughput import UNMEASURED, Throughput
from chalicelib.domain.queues.lanes import JOB_QUEUES, JobQueue
from chalicelib.domain.template import names_within
from chalicelib.domain.validation.config_schema import MAX_TIMEOUT
from chalicelib.domain.validation.schema import problems, schema_problems
from chalicelib.domain.validation.strict_schema import strict_problems
from chalicelib.domain.validation.whole_numbers import whole_numbers
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
    """A submission with every default filled in."""

    kind: JobType
    user: str  # the user on whose behalf the job runs
    spec: JobSpec
    estimate: Estimate
    dedupe_key: str | None = None  # the caller's, or the one that the type derives from the input


def plan_job(
    job_type: Callable[[str], JobType],
    prices: Prices,
    caller: Caller,
    submission: Submission,
    depth: int,
    throughput_of: Callable[[str, str], Throughput] = lambda _type, _model: UNMEASURED,
) -> Plan:
    """Resolve a submission.

    Args:
        depth: messages in its queue, for the estimate.
        throughput_of: the measured throughput of (job type, model), for the estimate.

    Raises:
        Forbidden: the type needs a higher role.
        InvalidRequest: with every invalid field.
        JobTypeNotFound: there is no such type.
    """
    kind = job_type(submission.job_type)
    _check_role(kind, caller)
    details = [
        *problems(kind.options_schema, submission.options, "options"),
        *_content_problems(kind, submission),
        *_template_problems(submission),
        *_format_problems(submission.config.get("response_format")),
        *_model_problems(kind, submission),
    ]
    if submission.user not in (None, caller.user) and caller.role < Role.OPERATOR:
        details.append(Detail("user", "only an operator may submit on behalf of another user"))
    if details:
        raise InvalidRequest(details=tuple(details))
    submission = _with_whole_numbers(kind, submission)
    spec = JobSpec(
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
        role=_task_role(kind, caller, submission),
    )
    if len(spec.prompt.encode()) > MAX_PROMPT_BYTES:
        raise InvalidRequest(details=(Detail("prompt", "is longer than 1 MB"),))
    return Plan(
        kind=kind,
        user=submission.user or caller.user,
        spec=spec,
        dedupe_key=submission.dedupe_key or _derived_dedupe_key(kind, submission),
        estimate=_estimate(kind, spec, prices, throughput_of(kind.name, spec.config.model), _queue(kind, submission), depth),
    )


def _with_whole_numbers(kind: JobType, submission: Submission) -> Submission:
    content = whole_numbers(kind.input_schema, submission.input) if kind.input_schema is not None else submission.input
    return replace(submission, options=whole_numbers(kind.options_schema, submission.options), input=content)


def _queue(kind: JobType, submission: Submission) -> JobQueue:
    return JOB_QUEUES[queue_for(submission.priority, is_task=kind.is_task)]


def _estimate(kind: JobType, spec: JobSpec, prices: Prices, throughput: Throughput, queue: JobQueue, depth: int) -> Estimate:
    if kind.is_task:
        return estimate_task(queue, depth)
    config = spec.config
    return estimate(
        prompt=spec.prompt,
        instructions=instructions(config, kind) + json.dumps(kind.schema_for(spec.options) or ""),
        answer_tokens=round(throughput.expected_output(kind.typical_tokens, config.max_tokens).p50),
        first_token_ms=round(throughput.first_token_ms.p50),
        tokens_per_second=throughput.tokens_per_second.p50,
        max_tokens=config.max_tokens,
        max_attempts=config.max_attempts,
        price=prices.of(config.model, tier := requested_tier(config.openai)),
        others=[prices.of(model, tier) for model in config.fallback_models],
        queue=queue,
        depth=depth,
    )


def resolve_config(kind: JobType, submission: Submission) -> JobConfig:
    """Return the config with every default filled in: the type's, else the system's."""
    config: dict[str, Any] = {name: value for name, value in submission.config.items() if value is not None and name != "priority"}
    if kind.is_task:
        config |= {"model": NO_MODEL, "max_tokens": 0, "response_format": "json"}
    config.setdefault("model", kind.default_model)
    config.setdefault("max_tokens", kind.max_tokens)
    if is_flex(config.get("openai") or {}):
        config.setdefault("timeout", float(MAX_TIMEOUT))  # such a request waits for capacity
    config.setdefault("response_format", "json" if kind.response_schema else "text")
    config["cache"] = parse_ttl(config.get("cache"))
    fallbacks = [model for model in dict.fromkeys(config.pop("fallback_models", ())) if model != config["model"]]
    return JobConfig(**config, fallback_models=fallbacks, expires_in=submission.expires_in)


def _check_role(kind: JobType, caller: Caller) -> None:
    if caller.role < Role.named(kind.min_role):
        raise Forbidden(f"Jobs of the type {kind.name} need the role {kind.min_role}; this key is a {caller.role.label}.")


def _task_role(kind: JobType, caller: Caller, submission: Submission) -> str | None:
    """Return the role with which a task reads and changes other jobs: the caller's, or that of a
    user if it is submitted on behalf of another user. None for types that call a model.
    """
    if not kind.is_task:
        return None
    return caller.role.label if submission.user in (None, caller.user) else Role.USER.label


def _model_problems(kind: JobType, submission: Submission) -> list[Detail]:
    """Refuse options of a model for a task, which would ignore them, and the model of tasks for a
    job that asks a model: the record's model decides which worker runs the job.
    """
    if not kind.is_task:
        named = submission.config.get("model")
        return [Detail("config.model", f"must name a model; `{NO_MODEL}` is none")] if named == NO_MODEL else []
    unused = [name for name in MODEL_ONLY_OPTIONS if submission.config.get(name)]
    return [Detail(f"config.{name}", f"means nothing for {kind.name}, which asks no model") for name in unused]


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


def _format_problems(response_format: Any) -> tuple[Detail, ...]:
    """Refuse an invalid schema here, before an attempt is paid for."""
    if not isinstance(response_format, dict):
        return ()
    nested = "json_schema" in response_format
    inner, at = (response_format["json_schema"] if nested else response_format), "config.response_format" + ".json_schema" * nested
    found = schema_problems(inner["schema"], f"{at}.schema")
    return found or (tuple(strict_problems(inner["schema"], f"{at}.schema")) if inner.get("strict") else ())


def _template_problems(submission: Submission) -> list[Detail]:
    """Check the template. Only a job with parents has one; otherwise braces are plain text."""
    if not submission.depends_on:
        return []
    path = "prompt" if submission.input is None else "input"
    content = _content(submission)
    others = [name for name in names_within(content) if name.partition(".")[0] in submission.values or name in submission.values]
    return [Detail(path, message) for message in template_problems(content, submission.depends_on, others)]


def _derived_dedupe_key(kind: JobType, submission: Submission) -> str | None:
    """Return the key that the type derives from the input; None for a template."""
    return kind.dedupe_key(submission.input) if kind.dedupe_key and not submission.depends_on else None


def _content(submission: Submission) -> Any:
    return submission.prompt if submission.input is None else submission.input
