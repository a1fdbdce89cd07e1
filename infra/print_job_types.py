"""The page on job types, as the types themselves say it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from chalicelib import job_types
from chalicelib.domain.jobs.job_type import JobType, Limits, Schema
from chalicelib.domain.validation.schema_messages import describe_expected
from infra.examples import EXAMPLES, EXAMPLES_OF_WORK

Table = Any  # how the printer draws one

TOP = """\
Each type has its instructions, its schemas and its stages; `GET /job-types/{name}` answers the same as JSON. Where a type has response
fields, what the caller sends is put between marks that it cannot contain, and the instructions say that nothing between them is an order;
the answer is JSON, checked against its schema and kept as `parsed` beside the raw text. One that does not fit is `output_invalid`, and is
tried again. All options may be left out. `config.model`, `max_tokens` and `system_prompt` can be changed for each job: a system prompt goes
behind the type's own instructions. `config.response_format: "text"` asks for prose instead.

The files of the commands are in [examples](../examples/README.md)."""


def page(note: str, table: Table) -> str:
    kinds = job_types.all_types()
    rows = ((f"[`{kind.name}`](#{kind.name})", "an input" if kind.input_schema else "a prompt", kind.description) for kind in kinds)
    parts = [f"# Job types\n\n{note}\n\n{TOP}", table(("type", "takes", "what it does"), rows), *(_section(kind, table) for kind in kinds)]
    return "\n\n".join(parts) + "\n"


def _section(kind: JobType, table: Table) -> str:
    parts = [f"## {kind.name}", kind.description, table(("", ""), _facts(kind))]
    if kind.input_schema:
        parts += ["Input:", table(("field", "takes", "meaning"), _fields(kind.input_schema, kind.input_schema.get("required", [])))]
    if kind.options_schema.get("properties"):
        parts += ["Options:", table(("option", "takes", "meaning"), _fields(kind.options_schema, ()))]
    if kind.response_schema:
        chosen = " Only what the options choose is there." if kind.schema_of else ""
        parts += [f"Response, in the order in which it is written.{chosen}", table(("field", "holds"), _paths(kind.response_schema))]
    example = EXAMPLES.get(kind.name) or EXAMPLES_OF_WORK.get(kind.name)
    if example:
        parts.append(f"```sh\n{example.command(kind.name)}\n```")
    return "\n\n".join(parts)


def _facts(kind: JobType) -> Iterator[tuple[str, str]]:
    if kind.min_role != "user":
        yield "Who may submit it", f"keys with the role `{kind.min_role}` or a greater one"
    if kind.limits and not kind.limits.is_unlimited:
        yield "Limits, of all tenants together", _limits(kind.limits)
    yield "Stages", " → ".join(f"`{stage}`" for stage in kind.stages)
    milestones = dict.fromkeys(marker.milestone for marker in kind.markers if marker.milestone)
    if milestones:
        yield "Milestones", ", ".join(f"`{name.replace('{', '<').replace('}', '>')}`" for name in milestones)
    if kind.instructions:
        yield "Default model", f"`{kind.default_model}`, at most {kind.max_tokens:,} tokens, usually about {kind.typical_tokens:,}"
    if kind.retry_schedule:
        yield "Pauses before another attempt", ", then ".join(f"{pause:g} s" for pause in kind.retry_schedule)
    if kind.fallback:
        yield "Without a key of OpenAI", "answered at once by plain local rules; the result has `fallback: true`"
    if kind.preliminary:
        yield "In the 202 answer", "`preliminary`: the answer of those rules"
    if kind.dedupe_key:
        yield "The same input again", "while its job has not ended, the same user is answered with that job, unless a `dedupe_key` is given"


def _limits(limits: Limits) -> str:
    said = (
        f"{limits.concurrency} at once" if limits.concurrency else "",
        f"{limits.per_minute} begun in any minute" if limits.per_minute else "",
    )
    return ", ".join(limit for limit in said if limit)


def _fields(schema: Schema, required: Sequence[str], at: str = "") -> Iterator[tuple[str, str, str]]:
    for name, rule in schema["properties"].items():
        must = ", required" if name in required else ""
        yield f"`{at}{name}`", _takes(rule) + must, rule.get("description", "")
        items = rule.get("items", {})
        if items.get("type") == "object":
            yield from _fields(items, items.get("required", []), f"{at}{name}[].")


def _paths(schema: Schema, at: str = "") -> Iterator[tuple[str, str]]:
    """Every field that holds no other, by its path."""
    for name, rule in schema["properties"].items():
        path, inner = (f"{at}{name}[]", rule["items"]) if rule.get("type") == "array" else (f"{at}{name}", rule)
        if inner.get("type") == "object" and "properties" in inner:
            yield from _paths(inner, f"{path}.")
        else:
            means = inner.get("description", "")
            yield f"`{path}`", _takes(inner) + (f". {means}" if means else "")


def _takes(rule: Schema) -> str:
    """What a value may be; a pattern is what the description says."""
    if "anyOf" in rule:
        return " or ".join(dict.fromkeys(_takes(one) for one in rule["anyOf"]))
    if "enum" in rule:
        return ", ".join(f"`{word}`" for word in rule["enum"])
    if isinstance(rule.get("type"), list):
        return " or ".join(_takes({**rule, "type": kind}) for kind in rule["type"])
    items = rule.get("items", {})
    if items.get("enum") or items.get("type") == "string":
        return f"{describe_expected({name: value for name, value in rule.items() if name != 'items'})} of: {_takes(items)}"
    if rule.get("type") == "null":
        return "null"
    return describe_expected({name: value for name, value in rule.items() if name != "pattern"})
