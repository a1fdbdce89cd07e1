"""Make the provider request of a job, and parse the answer."""

from __future__ import annotations

from typing import Any

from chalicelib.domain import json_limits
from chalicelib.domain.failures import OutputInvalid
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.domain.jobs.spec import JobConfig, JobSpec
from chalicelib.domain.validation.schema import answer_problems
from chalicelib.domain.validation.schema_cost import TooComplex
from chalicelib.ports import ModelRequest

FINE_TUNED = "ft:"  # such models reject bounds in a schema; answers are still validated against them
UNSUPPORTED_KEYWORDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems"})


def model_request(spec: JobSpec, kind: JobType) -> ModelRequest:
    """Return the request of one attempt."""
    config = spec.config
    schema = _schema(spec, kind)
    if schema is not None and config.model.startswith(FINE_TUNED):
        schema = {**schema, "schema": strip_bounds(schema["schema"])}
    return ModelRequest(
        model=config.model,
        prompt=spec.prompt,
        instructions=instructions(config, kind),
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        schema=schema,
        json=schema is None and config.response_format == "json",
        extra=config.openai,
        timeout=config.timeout,
        background=config.durable,
    )


def parsed_output(text: str, spec: JobSpec, kind: JobType) -> Any:
    """Parse an answer by the requested schema or as any JSON; None if plain text was requested.

    The answer may be large and the schema a caller's, so call it off the event loop.

    Raises:
        OutputInvalid: the answer does not match; the message names up to three places.
    """
    schema = _schema(spec, kind)
    if schema is None and spec.config.response_format != "json":
        return None
    try:
        value = json_limits.loads(text, json_limits.MAX_ANSWER_VALUES, unique_names=False)
        details = answer_problems(schema["schema"] if schema else {}, value, keep=not isinstance(spec.config.response_format, dict))
    except (json_limits.JsonRefused, TooComplex) as exc:
        raise OutputInvalid(f"The answer {exc}; the raw text is kept.") from exc
    except ValueError as exc:
        raise OutputInvalid("The answer is not JSON; the raw text is kept.") from exc
    if details:
        places = "; ".join(f"{detail.path or 'the answer'} {detail.message}" for detail in details[:3])
        raise OutputInvalid(f"The answer does not fit its schema: {places}. The raw text is kept.")
    return value


def instructions(config: JobConfig, kind: JobType) -> str:
    """Return the instructions of a job: the type's, or the caller's system prompt instead.

    A type with a response schema keeps its own in front, because they explain the schema.
    """
    if config.system_prompt is None:
        return kind.instructions
    return f"{kind.instructions}\n\n{config.system_prompt}" if kind.response_schema else config.system_prompt


def _schema(spec: JobSpec, kind: JobType) -> dict[str, Any] | None:
    requested = spec.config.response_format
    if isinstance(requested, dict):
        inner = requested.get("json_schema", requested)
        return {"name": inner.get("name", "answer"), "schema": inner["schema"], "strict": inner.get("strict", True)}
    schema = kind.schema_for(spec.options) if requested != "text" else None
    return {"name": kind.name, "schema": schema, "strict": True} if schema is not None else None


def strip_bounds(schema: Any) -> Any:
    """Return the schema without the bounds of numbers and lists. Keys under `properties` and
    `$defs` are names, so they stay even if they look like bounds.
    """
    if isinstance(schema, list):
        return [strip_bounds(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: part for name, part in schema.items() if name not in UNSUPPORTED_KEYWORDS}
    return {
        name: {field: strip_bounds(rule) for field, rule in part.items()}
        if name in ("properties", "$defs") and isinstance(part, dict)
        else part
        if name in ("enum", "const")
        else strip_bounds(part)
        for name, part in plain.items()
    }
