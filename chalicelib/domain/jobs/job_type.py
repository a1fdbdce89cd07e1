"""What kinds of work there are: a job type is a value, and adding one is adding a file to `job_types/`."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Schema = dict[str, Any]
TaskHandler = Callable[[Any], Awaitable[Any]]  # of a `usecases.do_work.Task`; the answer is JSON

NO_MODEL = "none"  # what the record says where nothing is asked of a provider


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """Something to be seen in the text as it streams: where `pattern` matches, a stage begins or a milestone is reached.

    `milestone` and `description` may use the match's named groups, as in `"{severity} finding"`. `once`: only the first match counts.
    """

    pattern: re.Pattern[str]
    stage: str | None = None
    milestone: str | None = None
    description: str = ""
    once: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one kind of work, over all tenants: so many at once, and so many begun in any minute; None for no limit."""

    concurrency: int | None = None
    per_minute: int | None = None

    @property
    def is_unlimited(self) -> bool:
        return self.concurrency is None and self.per_minute is None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobType:
    """One kind of work.

    `stages` are in order. By convention of the engine: the first begins with the claim, the second when the provider has answered, the one
    named by `streaming_stage` with the first text, `validation` when the text has ended, `finalization` before the terminal write; those
    that a type does not name are skipped.
    `response_schema` is sent as a structured output and the answer is validated against it and kept as `parsed`. Where the options decide
    what is answered, `schema_of` makes the schema of them, always the same object of the same choice, and `response_schema` has all of it.
    `render` makes the prompt of an `input` that fits `input_schema`, with the `options`; None: the prompt is used as it is given.
    `typical_tokens` is the usual length of an answer, for estimates and the percentage.
    `retry_schedule`: seconds before the second, third ... attempt; empty: exponential backoff.
    `fallback` makes a plainer answer of input and options on the spot, without a provider; it fits `response_schema`. It answers where no
    key of OpenAI is configured. `preliminary`: it is in the answer to the submission as well.
    `dedupe_key` names what an input is about, so that it is not worked on twice at once, where the caller has given no key.
    `work` is done by the worker itself instead of asking a provider; what it returns is the parsed output. It must be idempotent: after
    a crash, or a store that did not answer, it is done again from its beginning.
    `recipients`: whom an input names to be written to, each by its place in the input. Whoever submits it has to be allowed to write to
    them, by the rules of `notify`.
    `least_role`: who may submit it. `limits`: how much of it goes on at once, and begins in a minute.
    """

    name: str
    title: str
    description: str
    instructions: str
    default_model: str = "gpt-4o-mini"
    max_tokens: int = 4_096
    typical_tokens: int = 600
    stages: tuple[str, ...] = ("setup", "generation", "finalization")
    streaming_stage: str = "generation"
    markers: tuple[Marker, ...] = ()
    options_schema: Schema = field(default_factory=lambda: {"type": "object", "properties": {}, "additionalProperties": False})
    input_schema: Schema | None = None
    response_schema: Schema | None = None
    schema_of: Callable[[dict[str, Any]], Schema] | None = None
    retry_schedule: tuple[float, ...] = ()
    render: Callable[[Any, dict[str, Any]], str] | None = None
    fallback: Callable[[Any, dict[str, Any]], Any] | None = None
    preliminary: bool = False
    dedupe_key: Callable[[Any], str | None] | None = None
    handler: TaskHandler | None = None
    recipients_of: Callable[[Any], Sequence[tuple[str, str]]] | None = None
    min_role: str = "user"
    limits: Limits | None = None

    def schema_for(self, options: dict[str, Any]) -> Schema | None:
        """What an answer to these options has to fit; None: plain text."""
        return self.schema_of(options) if self.schema_of else self.response_schema
