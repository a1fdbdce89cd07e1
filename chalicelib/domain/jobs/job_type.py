"""Define job types. A job type is a value: adding one means adding a file to `job_types/`."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Schema = dict[str, Any]
TaskHandler = Callable[[Any], Awaitable[Any]]  # takes a `TaskRun` of `services.worker`, returns JSON

NO_MODEL = "none"  # the model of a job that sends no request to a provider


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """A pattern in the streamed text that starts a stage or reaches a milestone.

    `milestone` and `description` may use the named groups of the match: `"{severity} finding"`.
    """

    pattern: re.Pattern[str]
    stage: str | None = None  # the stage that starts; None: no stage
    milestone: str | None = None  # the milestone that is reached; None: no milestone
    description: str = ""  # of the milestone
    once: bool = False  # only the first match counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one job type over all tenants; None: no limit."""

    concurrency: int | None = None  # attempts at the same time
    per_minute: int | None = None  # attempts that start within any minute

    @property
    def is_unlimited(self) -> bool:
        return self.concurrency is None and self.per_minute is None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobType:
    """One kind of work: a prompt for a model, or a task that the worker executes (`handler`)."""

    name: str  # as in the API
    title: str  # one line, for people
    description: str  # for people
    instructions: str  # sent to the model with each prompt
    default_model: str = "gpt-4o-mini"
    max_tokens: int = 4_096  # default of `config.max_tokens`
    typical_tokens: int = 600  # usual length of an answer, for estimates and the percentage
    # In order. By convention the first starts with the claim, the second when the provider has
    # answered, `validation` when the text has ended and `finalization` before the terminal write.
    # A type may leave out any of them.
    stages: tuple[str, ...] = ("setup", "generation", "finalization")
    streaming_stage: str = "generation"  # the stage that starts with the first text
    markers: tuple[Marker, ...] = ()  # patterns in the text that start stages and reach milestones
    options_schema: Schema = field(default_factory=lambda: {"type": "object", "properties": {}, "additionalProperties": False})
    input_schema: Schema | None = None  # None: the type takes a prompt, not an input
    # Sent as structured output; the answer is validated against it. None: the answer is plain text.
    response_schema: Schema | None = None
    # Makes the response schema from the options, where they decide what is answered; equal options
    # must give the same object. `response_schema` then describes all answers. None: it always applies.
    schema_of: Callable[[dict[str, Any]], Schema] | None = None
    retry_schedule: tuple[float, ...] = ()  # seconds before attempts 2, 3, ...; empty: backoff
    # Makes the prompt from input, or prompt, and options. None: the prompt is used as it is given.
    render: Callable[[Any, dict[str, Any]], str] | None = None
    # Makes a simpler answer from input and options without a provider, used where no OpenAI key is
    # configured. It must fit `response_schema`. None: the job waits for a key.
    fallback: Callable[[Any, dict[str, Any]], Any] | None = None
    preliminary: bool = False  # the answer to the submission contains the fallback answer
    # Derives a dedupe key from the input where the caller sets none, so that equal work does not run
    # twice at once. None: no key.
    dedupe_key: Callable[[Any], str | None] | None = None
    # The task that the worker executes instead of calling a provider; it returns the parsed output.
    # It must be idempotent: after a crash or a store error it starts again from the beginning.
    # None: the type calls a model.
    handler: TaskHandler | None = None
    # The recipients that an input names, as (path in the input, recipient). The submitter must be
    # allowed to notify each of them. None: inputs name no recipients.
    recipients_of: Callable[[Any], Sequence[tuple[str, str]]] | None = None
    min_role: str = "user"  # the least role that may submit it
    limits: Limits | None = None  # None: no limits

    @property
    def is_task(self) -> bool:
        """Whether its jobs are tasks, which a handler executes without a model."""
        return self.handler is not None

    def schema_for(self, options: dict[str, Any]) -> Schema | None:
        """Return the JSON schema of an answer with these options; None: plain text."""
        return self.schema_of(options) if self.schema_of else self.response_schema
