"""The head of a job: everything that decides what happens to it next, and nothing else.

Text lives elsewhere (`body`, `chunk`, `result`). Times are whole milliseconds since 1970 (`Ms`), money is whole nano-dollars (`Nano`):
one input token of a small model costs 150 of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from chalicelib.domain.units import Ms, Nano


class Status(StrEnum):
    """Where a job is. `docs/states.md` has the picture."""

    WAITING = "waiting"  # for its parents or its time; `reason` says which
    QUEUED = "queued"  # a worker may claim it
    PROCESSING = "processing"  # a worker has claimed it
    RETRYING = "retrying"  # an attempt failed; the next may start at `due_at`
    HELD = "held"  # something does not let it through, such as an open circuit; `reason` says what, `until` when it looks again
    COMPLETED = "completed"  # final for ever
    INCOMPLETE = "incomplete"  # ended early with its text kept; `incomplete_reason` says why
    FAILED = "failed"  # no attempt is left, or none would help
    CANCELLED = "cancelled"
    EXPIRED = "expired"  # not started before `expires_at`

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL


START_LATER = "run_at"  # the reason of a job that waits for its time
DEPENDENCIES = "dependencies"  # the reason of a job that waits for its parents; `until` is the time that it waits for as well, if any

TERMINAL = frozenset({Status.COMPLETED, Status.INCOMPLETE, Status.FAILED, Status.CANCELLED, Status.EXPIRED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens as the provider counted them. `estimated` when no final event was seen, so that they are our own count."""

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0
    estimated: bool = False

    @property
    def total(self) -> int:
        return self.input + self.output


@dataclass(frozen=True, slots=True, kw_only=True)
class JobError:
    """Why an attempt failed, safe to show: nothing internal, no part of the prompt."""

    code: str
    error_class: str
    retryable: bool
    message: str
    suggestion: str
    attempt: int
    provider_status: int | None = None
    provider_request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job's head. Frozen: `transitions` makes the next one, and the store swaps it in if `version` is still the one that was read.

    `generation` grows each time the job is queued anew: it is the fencing token that a wake-up and a worker carry.
    `attempt` grows with each request to the provider and is never used twice; one attempt is one text.
    `tries` counts the attempts of this `run` against `max_attempts`; a manual retry begins a new run.
    `owner` is the nonce of the claim that holds the job, `<lease>#<random>`; it stays on the record after the end.
    `due_at` is when somebody must look at the job again: every head that is not terminal has one. `until` is when it may go on, as far as
    that is known: what people are told.
    `crashes` counts the workers that died with the job; after one it runs alone, and only `isolated_crashes` are held against it.
    `fallback_models` may stand in for `model` while its circuit is open; `attempt_model` is the one that does, None for the job's own.
    `notifies`: its body names somebody who is sent word of its end.
    `length` is the exact length, in code points, of the text of `attempt`; known once that attempt is over.
    `response_id` is the provider's background response of a durable attempt, from `response_at` on: whoever has the job next goes on with
    it, and the attempt is the same.
    """

    id: str
    tenant: str
    user: str
    key_id: str
    type: str
    lane: str
    model: str
    status: Status
    created_at: Ms
    queued_at: Ms
    expires_at: Ms
    due_at: Ms | None
    generation: int = 1
    attempt: int = 0
    run: int = 1
    tries: int = 0
    version: int = 1
    max_attempts: int = 3
    started_at: Ms | None = None
    first_token_at: Ms | None = None
    finished_at: Ms | None = None
    updated_at: Ms = 0
    retry_until: Ms = 0
    owner: str | None = None
    crashes: int = 0
    run_alone: bool = False
    isolated_crashes: int = 0
    cancel_requested: bool = False
    reason: str | None = None
    resume_at: Ms | None = None
    error: JobError | None = None
    incomplete_reason: str | None = None
    length: int | None = None
    usage: Usage | None = None
    cost: Nano | None = None
    estimated_cost: Nano | None = None
    max_cost: Nano | None = None
    estimated_ms: Ms | None = None
    tags: tuple[str, ...] = ()
    dedupe_key: str | None = None
    batch_id: str | None = None
    response_id: str | None = None
    response_at: Ms | None = None
    fallback_models: tuple[str, ...] = ()
    attempt_model: str | None = None
    notifies: bool = False
    ttl: int | None = None  # seconds since 1970, as DynamoDB's TTL wants it; set at the terminal write

    @property
    def is_resumable(self) -> bool:
        """Whether the attempt outlives its worker: its text may still grow, whoever works on the job just now."""
        return self.response_id is not None and not self.status.is_terminal

    @property
    def queue(self) -> str:
        """The logical queue, `type:lane`."""
        return f"{self.type}:{self.lane}"

    @property
    def asked_model(self) -> str:
        """The model that makes, or made, the attempt."""
        return self.attempt_model or self.model

    @property
    def is_deleted(self) -> bool:
        """Whether somebody deleted it: it is kept no longer than to its end, so to everybody but who cleans up it is gone already."""
        return self.status.is_terminal and self.ttl is not None and self.ttl <= (self.finished_at or 0) // 1000
