"""What the provider is asked for a job, and how its answer is read."""

from __future__ import annotations

import json
from typing import Any

from chalicelib.domain.failures import OutputInvalid
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.domain.jobs.spec import JobConfig, JobSpec
from chalicelib.domain.validation.schema import problems
from chalicelib.ports import ModelRequest

FINE_TUNED = "ft:"  # models that take no bounds in a schema: the answer is checked against them all the same
UNSUPPORTED_KEYWORDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems"})


def model_request(body: JobSpec, kind: JobType) -> ModelRequest:
    """The request of one attempt."""
    config = body.config
    schema = _schema(body, kind)
    if schema is not None and config.model.startswith(FINE_TUNED):
        schema = {**schema, "schema": strip_bounds(schema["schema"])}
    return ModelRequest(
        model=config.model,
        prompt=body.prompt,
        instructions=instructions(body.config, kind),
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        schema=schema,
        json=schema is None and config.response_format == "json",
        extra=config.openai,
        timeout=config.timeout,
        background=config.durable,
    )


def parsed_output(text: str, body: JobSpec, kind: JobType) -> Any:
    """The answer read by what was asked for: the type's schema, the caller's own, any JSON, or None for plain text.

    Raises:
        OutputInvalid: it does not fit; the message names the first places.
    """
    schema = _schema(body, kind)
    if schema is None and body.config.response_format != "json":
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise OutputInvalid("The answer is not JSON; the raw text is kept.") from exc
    wrong = problems(schema["schema"] if schema else {}, value)
    if wrong:
        places = "; ".join(f"{detail.path or 'the answer'} {detail.message}" for detail in wrong[:3])
        raise OutputInvalid(f"The answer does not fit its schema: {places}. The raw text is kept.")
    return value


def instructions(config: JobConfig, kind: JobType) -> str:
    """The caller's system prompt; behind the type's own where an answer has a form, because that would be lost with them."""
    if config.system_prompt is None:
        return kind.instructions
    return f"{kind.instructions}\n\n{config.system_prompt}" if kind.response_schema else config.system_prompt


def _schema(body: JobSpec, kind: JobType) -> dict[str, Any] | None:
    asked = body.config.response_format
    if isinstance(asked, dict):
        inner = asked.get("json_schema", asked)
        return {"name": inner.get("name", "answer"), "schema": inner["schema"], "strict": inner.get("strict", True)}
    own = kind.schema_for(body.options) if asked != "text" else None
    return {"name": kind.name, "schema": own, "strict": True} if own is not None else None


def strip_bounds(schema: Any) -> Any:
    """The schema without the bounds of numbers and lists. What stands under `properties` is a name, whatever it is called."""
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
