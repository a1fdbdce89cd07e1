"""Render the page on job types from their definitions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from chalicelib import job_types
from chalicelib.domain.jobs.job_type import JobType, Limits, Schema
from chalicelib.domain.queues.lanes import WORK
from chalicelib.domain.validation.schema_messages import describe_expected
from infra.examples import EXAMPLES, EXAMPLES_WITHOUT_MODEL

Table = Any  # a function that renders a Markdown table

TOP = """\
Each type has instructions for the model, schemas and stages; `GET /job-types/{name}` returns the
same as JSON. All options are optional. `config.model`, `max_tokens` and `system_prompt` can be set
per job; a system prompt is added after the instructions of the type.

For a type with response fields, the content from the caller is put between delimiters that it
cannot contain, and the instructions say that nothing between them is an order. The answer is JSON.
It is validated against its schema and stored as `parsed`, next to the raw text; an invalid one
fails with `output_invalid` and is retried. `config.response_format: "text"` asks for prose instead.

Types that run alone ask no model. All of them share the queue `work` and its worker, which has one
job in an environment, so that a large file harms no other job. Their priority counts for lists and
filters only.

The input files of the commands are in [examples](../examples/README.md)."""


def page(note: str, table: Table) -> str:
    kinds = job_types.all_types()
    rows = ((f"[`{kind.name}`](#{kind.name})", "an input" if kind.input_schema else "a prompt", kind.description) for kind in kinds)
    parts = [f"# Job types\n\n{note}\n\n{TOP}", table(("type", "takes", "description"), rows), *(_section(kind, table) for kind in kinds)]
    return "\n\n".join(parts) + "\n"


def _section(kind: JobType, table: Table) -> str:
    parts = [f"## {kind.name}", kind.description, table(("", ""), _facts(kind))]
    if kind.input_schema:
        parts += ["Input:", table(("field", "takes", "meaning"), _fields(kind.input_schema, kind.input_schema.get("required", [])))]
    if kind.options_schema.get("properties"):
        parts += ["Options:", table(("option", "takes", "meaning"), _fields(kind.options_schema, ()))]
    if kind.response_schema:
        chosen = " It contains only the fields that the options select." if kind.schema_of else ""
        parts += [f"Response, in the order of generation.{chosen}", table(("field", "content"), _paths(kind.response_schema))]
    example = EXAMPLES.get(kind.name) or EXAMPLES_WITHOUT_MODEL.get(kind.name)
    if example:
        parts.append(f"```sh\n{example.command(kind.name)}\n```")
    return "\n\n".join(parts)


def _facts(kind: JobType) -> Iterator[tuple[str, str]]:
    if kind.min_role != "user":
        yield "Minimum role", f"`{kind.min_role}`"
    if kind.limits and not kind.limits.is_unlimited:
        yield "Limits, for all tenants together", _limits(kind.limits)
    if kind.is_task:
        yield "Runs", f"alone, in an environment of {WORK.memory:,} MB"
    yield "Stages", " → ".join(f"`{stage}`" for stage in kind.stages)
    milestones = dict.fromkeys(marker.milestone for marker in kind.markers if marker.milestone)
    if milestones:
        yield "Milestones", ", ".join(f"`{name.replace('{', '<').replace('}', '>')}`" for name in milestones)
    if kind.instructions:
        yield "Default model", f"`{kind.default_model}`, at most {kind.max_tokens:,} tokens, usually about {kind.typical_tokens:,}"
    if kind.retry_schedule:
        yield "Delays between attempts", ", then ".join(f"{delay:g} s" for delay in kind.retry_schedule)
    if kind.fallback:
        yield "Without an OpenAI key", "answered at once by local rules; the result has `fallback: true`"
    if kind.preliminary:
        yield "In the 202 response", "`preliminary`: the answer of the local rules"
    if kind.dedupe_key:
        yield "Repeated input", "returns the unfinished job of the same user with the same input, unless a `dedupe_key` is given"


def _limits(limits: Limits) -> str:
    parts = (
        f"{limits.concurrency} at the same time" if limits.concurrency else "",
        f"{limits.per_minute} starts per minute" if limits.per_minute else "",
    )
    return ", ".join(limit for limit in parts if limit)


def _fields(schema: Schema, required: Sequence[str], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Path, type and description of each field of an object and of the objects in its arrays."""
    for name, rule in schema["properties"].items():
        suffix = ", required" if name in required else ""
        yield f"`{prefix}{name}`", _type_text(rule) + suffix, rule.get("description", "")
        items = rule.get("items", {})
        if items.get("type") == "object":
            yield from _fields(items, items.get("required", []), f"{prefix}{name}[].")


def _paths(schema: Schema, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Path and description of each leaf field."""
    for name, rule in schema["properties"].items():
        path, inner = (f"{prefix}{name}[]", rule["items"]) if rule.get("type") == "array" else (f"{prefix}{name}", rule)
        if inner.get("type") == "object" and "properties" in inner:
            yield from _paths(inner, f"{path}.")
        else:
            description = inner.get("description", "")
            yield f"`{path}`", _type_text(inner) + (f". {description}" if description else "")


def _type_text(rule: Schema) -> str:
    """The allowed values as text. A `pattern` is left out, because the description explains it."""
    if "anyOf" in rule:
        return " or ".join(dict.fromkeys(_type_text(option) for option in rule["anyOf"]))
    if "enum" in rule:
        return ", ".join(f"`{value}`" for value in rule["enum"])
    if isinstance(rule.get("type"), list):
        return " or ".join(_type_text({**rule, "type": kind}) for kind in rule["type"])
    items = rule.get("items", {})
    if items.get("enum") or items.get("type") == "string":
        return f"{describe_expected({name: value for name, value in rule.items() if name != 'items'})} of: {_type_text(items)}"
    if rule.get("type") == "null":
        return "null"
    return describe_expected({name: value for name, value in rule.items() if name != "pattern"})
