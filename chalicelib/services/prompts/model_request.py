"""Make the provider request of a job, and parse the answer."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from chalicelib.domain import json_limits
from chalicelib.domain.failures import OutputInvalid
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.domain.jobs.spec import JobConfig, JobSpec
from chalicelib.domain.streaming.pacing import StreamingMode
from chalicelib.domain.validation.embedded_json import MAX_CANDIDATES, candidates, unwrapped
from chalicelib.domain.validation.schema import answer_problems
from chalicelib.domain.validation.schema_cost import TooComplex
from chalicelib.ports import ModelRequest

FINE_TUNED = "ft:"  # such models reject bounds in a schema; answers are still validated against them
# OpenAI's JSON mode demands the word in the input; the instructions do not count. Within a name, such as `json-tools`, it
# is no request.
JSON_WORD, JSON_REQUEST = re.compile(r"(?<![\w\[-])json(?![\w\]-])", re.IGNORECASE), "Answer in JSON."
UNSUPPORTED_KEYWORDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems"})


def model_request(spec: JobSpec, kind: JobType) -> ModelRequest:
    """Return the request of one attempt."""
    config = spec.config
    schema = _schema(spec, kind)
    if schema is not None and config.model.startswith(FINE_TUNED):
        schema = {**schema, "schema": strip_bounds(schema["schema"])}
    as_json = schema is None and config.response_format == "json"
    return ModelRequest(
        model=config.model,
        prompt=f"{spec.prompt}\n\n{JSON_REQUEST}" if as_json and not JSON_WORD.search(spec.prompt) else spec.prompt,
        instructions=instructions(config, kind),
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        schema=schema,
        json=as_json,
        extra=config.openai,
        timeout=config.timeout,
        background=config.durable,
        stream=config.streaming_mode != StreamingMode.NONE,
    )


def corrected(request: ModelRequest, problem: str) -> ModelRequest:
    """Return the request with what was wrong with the previous answer to it.

    The same request would very likely be answered in the same way. The words come last, so that the
    provider's prompt cache still knows the rest.
    """
    hint = f"Your previous answer to this could not be used: {problem} Answer again, completely, and avoid that."
    return replace(request, prompt=f"{request.prompt}\n\n{hint}")


def parsed_output(text: str, spec: JobSpec, kind: JobType, last_message_at: int = 0) -> Any:
    """Parse an answer by the requested schema or as any JSON; None if plain text was requested.

    JSON that is fenced, or has words around it, counts if there is only one document that can be
    meant. The answer may be large and the schema a caller's, so call it off the event loop.

    Args:
        last_message_at: where the last message of the response begins in the text. It is tried
            first.

    Raises:
        OutputInvalid: the answer does not match; the message names up to three places.
    """
    schema = _schema(spec, kind)
    if schema is None and spec.config.response_format != "json":
        return None
    rules, keep = schema["schema"] if schema else {}, not isinstance(spec.config.response_format, dict)
    try:
        value = _json_of(text, last_message_at, rules, keep=keep)
        details = answer_problems(rules, value, keep=keep)
        if details and (inner := _fitting(list(unwrapped(value)), rules, keep=keep)):
            return inner[0]
    except (json_limits.JsonRefused, TooComplex) as exc:
        raise OutputInvalid(f"The answer {exc}; the raw text is kept.") from exc
    if details:
        places = "; ".join(f"{detail.path or 'the answer'} {detail.message}" for detail in details[:3])
        raise OutputInvalid(f"The answer does not fit its schema: {places}. The raw text is kept.")
    return value


def _json_of(text: str, last_message_at: int, rules: dict[str, Any], *, keep: bool) -> Any:
    """Return the JSON of an answer.

    Raises:
        OutputInvalid: there is none, or several documents could be meant.
        JsonRefused: it is beyond a limit.
        TooComplex: it is unclear which of several is meant, and they cannot be validated in time.
    """
    for part in dict.fromkeys((text[last_message_at:].strip(), text)):
        try:
            return json_limits.loads(part, json_limits.MAX_ANSWER_VALUES, unique_names=False)
        except json_limits.JsonRefused:
            raise
        except ValueError:
            found = candidates(part)
        if len(found) == 1:
            return found[0]
        if 1 < len(found) <= MAX_CANDIDATES and len(fitting := _fitting(found, rules, keep=keep)) == 1 and rules:
            return fitting[0]
    if not text.strip():
        raise OutputInvalid("The answer is empty.")
    if found:
        raise OutputInvalid("The answer has several JSON documents, and it is unclear which is meant; the raw text is kept.")
    raise OutputInvalid("The answer is not JSON; the raw text is kept.")


def _fitting(values: list[Any], rules: dict[str, Any], *, keep: bool) -> list[Any]:
    return [value for value in values if not answer_problems(rules, value, keep=keep)]


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
        return {"name": inner.get("name", "answer"), "schema": inner["schema"], "strict": inner.get("strict", False)}
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
