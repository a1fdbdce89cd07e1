"""Define the job record: everything that decides what happens to a job next.

The job spec, the text and the result are stored apart from it. Times are milliseconds since 1970
(`Ms`). Money is nano-dollars (`Nano`), because one input token of a small model costs 150 of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from chalicelib.domain.jobs.job_type import NO_MODEL
from chalicelib.domain.units import Ms, Nano


class Status(StrEnum):
    """The status of a job. `docs/states.md` has the diagram."""

    WAITING = "waiting"  # for its parents or its start time; `reason` says which
    QUEUED = "queued"  # a worker may claim it
    PROCESSING = "processing"  # a worker has claimed it
    RETRYING = "retrying"  # an attempt failed; the next may start at `resume_at`
    HELD = "held"  # blocked, for example by an open circuit, until `resume_at`; `reason` says why
    COMPLETED = "completed"  # final, also for a manual retry
    INCOMPLETE = "incomplete"  # ended early with its text kept; `incomplete_reason` says why
    FAILED = "failed"  # no attempt is left, or none would help
    CANCELLED = "cancelled"  # by a user, or because a parent failed
    EXPIRED = "expired"  # not started before `expires_at`

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL


START_LATER = "run_at"  # the reason of a job that waits for its start time, `resume_at`
DEPENDENCIES = "dependencies"  # the reason of a job that waits for its parents, then for `resume_at`

TERMINAL = frozenset({Status.COMPLETED, Status.INCOMPLETE, Status.FAILED, Status.CANCELLED, Status.EXPIRED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The tokens of an attempt, as the provider counted them."""

    input: int = 0
    cached: int = 0  # the part of `input` that came from the provider's prompt cache
    output: int = 0
    reasoning: int = 0  # the part of `output` that was reasoning
    estimated: bool = False  # our own count: the provider's final event was not received

    @property
    def total(self) -> int:
        return self.input + self.output


@dataclass(frozen=True, slots=True, kw_only=True)
class JobError:
    """Why an attempt failed. Safe to show: no internals, no part of the prompt."""

    code: str
    error_class: str
    retryable: bool
    message: str
    suggestion: str  # what the user can do about it
    attempt: int
    provider_status: int | None = None  # HTTP status of the provider; None: no response
    provider_request_id: str | None = None  # request id of the provider; None: no response


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPause:
    """The pause of one job by its user or an operator."""

    by: str  # the user who asked for it
    since: Ms
    reason: str | None = None
    until: Ms | None = None  # when it ends by itself; None: when the job is resumed
    retry_at: Ms | None = None  # when the next attempt of a `retrying` job was due; None: it had no time

    def is_over(self, now: Ms) -> bool:
        """Whether it has ended by itself."""
        return self.until is not None and now >= self.until


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """A time for which a job was held."""

    reason: str
    since: Ms
    until: Ms | None = None  # when it left the line; None: it is held now
    cause: str | None = None  # the line in which it stood; None: it waited for a time of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job record. Immutable: `transitions` makes the next one, which replaces it in the store."""

    id: str  # `job_...`; for a batch row computed from the batch id and the row number
    tenant: str  # the tenant that owns it
    user: str  # the user on whose behalf it runs
    key_id: str  # the API key that submitted it
    type: str  # name of its job type
    lane: str  # priority lane, a key of `LANES`
    model: str  # the configured model; `none` for types that call no model
    status: Status
    created_at: Ms  # when it was submitted
    queued_at: Ms  # when it last became ready for a worker; for a delayed job its start time
    expires_at: Ms  # the first attempt of a run must start before this
    due_at: Ms | None  # when the sweeper checks it next; after its end: see `is_end_due`
    generation: int = 1  # fencing token: grows when older wake-ups and workers must lose the job
    attempt: int = 0  # number of the latest request to the provider, never used twice; 0: none yet
    run: int = 1  # grows with each manual retry of an ended job
    tries: int = 0  # attempts of this run that count against `max_attempts`
    version: int = 1  # grows with each write: the token of the compare-and-swap
    max_attempts: int = 3  # attempts in a run, the first included
    started_at: Ms | None = None  # when the first attempt of this run was claimed; None: not yet
    first_token_at: Ms | None = None  # first text of the last attempt; None: no text, or not ended
    finished_at: Ms | None = None  # when it ended; None: it has not
    updated_at: Ms = 0  # when it was last written
    retry_until: Ms = 0  # no further attempt starts after this; 0: no limit
    owner: str | None = None  # nonce of the latest claim, `<lease>#<random>`; None: never claimed
    crashes: int = 0  # workers that died while they ran this job, in this run
    run_alone: bool = False  # whether the latest attempt is the only work of its worker
    isolated_crashes: int = 0  # crashes while it ran alone; only these can fail the job
    cancel_requested: bool = False  # its owner, or the next worker of its response, must cancel it
    reason: str | None = None  # why it has its status, such as `circuit_open`; None: no reason needed
    resume_at: Ms | None = None  # when it may continue, as users are shown; None: now, or unknown
    error: JobError | None = None  # failure of the last attempt; None: no failure
    invalid_answer: str | None = None  # what was wrong with the last invalid answer of this run; None: there was none
    incomplete_reason: str | None = None  # why it ended early; None: its status is not `incomplete`
    length: int | None = None  # code points of the text of `attempt`; None: it has not ended
    usage: Usage | None = None  # tokens of the attempt that ended it; None: there was none
    cost: Nano | None = None  # nano-dollars of all attempts so far; None: none has a known cost
    estimated_cost: Nano | None = None  # expected at the submission; None: the price is unknown
    max_cost: Nano | None = None  # upper bound over all attempts; None: the price is unknown
    estimated_ms: Ms | None = None  # expected duration without the wait in the queue; None: unknown
    tags: tuple[str, ...] = ()  # the caller's own, for filters
    dedupe_key: str | None = None  # no second unfinished job of the user has this key; None: no key
    batch_id: str | None = None  # the batch of which it is a row; None: it is not part of a batch
    # The provider's background response of a durable attempt: the next worker continues it within
    # the same attempt. None: there is no such response.
    response_id: str | None = None
    response_at: Ms | None = None  # when `response_id` was stored; None: there is no response
    fallback_models: tuple[str, ...] = ()  # may replace `model` while its circuit is open, in order
    attempt_model: str | None = None  # fallback model of the latest attempt; None: it uses `model`
    notifies: bool = False  # whether its spec names recipients of a completion notification
    has_dependents: bool = False  # whether other jobs wait, or have waited, for its end
    # What it waits for in a line while it is held (`queues/causes.py`). None: it stands in no line; a
    # held job waits for `resume_at` then.
    cause: str | None = None
    line_by_user: bool = False  # it stands there among the jobs of its user, because its tenant shares by user
    tokens: int = 0  # what an attempt is charged against a token rate; 0: unknown, or a task
    slots: tuple[str, ...] = ()  # keys of the concurrency limits of which it has a slot
    places: tuple[str, ...] = ()  # keys of the queued-jobs limits that count it, until it has ended
    waits: tuple[Wait, ...] = ()  # the last times for which it was held, the latest last
    pause: JobPause | None = None  # it does not start until it is resumed; None: it was not paused
    shards: int = 1  # in how many shards the indexes had the jobs of its tenant when it was submitted; never changes
    ttl: int | None = None  # seconds since 1970 when DynamoDB may remove it; None: not ended

    @property
    def is_resumable(self) -> bool:
        """Whether the attempt outlives its worker: the provider continues its response."""
        return self.response_id is not None and not self.status.is_terminal

    @property
    def is_in_line(self) -> bool:
        """Whether it is held until a scheduler releases it."""
        return self.status is Status.HELD and self.cause is not None

    @property
    def is_task(self) -> bool:
        """Whether its type had a handler, and so asked no model, when it was submitted."""
        return self.model == NO_MODEL

    @property
    def queue(self) -> str:
        """The logical queue, `type:lane`."""
        return f"{self.type}:{self.lane}"

    @property
    def asked_model(self) -> str:
        """The model of the latest attempt."""
        return self.attempt_model or self.model

    @property
    def is_end_due(self) -> bool:
        """Whether it has ended, and its notifications are not stored or its dependents not released."""
        return self.status.is_terminal and self.due_at is not None

    @property
    def is_deleted(self) -> bool:
        """Whether it was deleted. Only the deletion itself still reads such a record."""
        return self.status.is_terminal and self.ttl is not None and self.ttl <= (self.finished_at or 0) // 1000
