"""The decision of the admission gates before a job is claimed: run now or wait."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from chalicelib.domain.jobs import transitions
from chalicelib.domain.units import Ms


class HoldReason(StrEnum):
    """Why a job is `held`."""

    CIRCUIT_OPEN = "circuit_open"  # the circuits of its model and of all fallback models are open
    RATE_LIMITED = "rate_limited"  # its model is paused, because OpenAI's rate limit was reached
    # No OpenAI key is stored, and the type has no fallback.
    OPENAI_NOT_CONFIGURED = "openai_not_configured"
    OPENAI_ADDRESS_INVALID = "openai_address_invalid"  # the configured address is not that of a Responses API
    WORKER_MISCONFIGURED = "worker_misconfigured"  # the worker lacks a package, or its proxy cannot be used
    TYPE_RATE = "type_rate"  # the maximum number of jobs of its type has started in this minute
    TYPE_CONCURRENCY = "type_concurrency"  # the maximum number of jobs of its type is running
    TENANT_CONCURRENCY = "tenant_concurrency"  # as many jobs of its tenant run as the tenant may have at once
    USER_CONCURRENCY = "user_concurrency"  # the same for its user
    # The version of the code that got it does not know its type; a newer one has accepted it.
    TYPE_UNKNOWN = "type_unknown"
    PAUSED = transitions.PAUSED  # the job, or what it has in common with others, is paused
    PAUSES_UNKNOWN = "pauses_unknown"  # the store of the pauses did not answer
    LIMITS_UNKNOWN = "limits_unknown"  # the store of the limits did not answer


@dataclass(frozen=True, slots=True)
class RateTaken:
    """What was taken of the rate limits of a model."""

    model: str
    tokens: int
    at: Ms


@dataclass(frozen=True, slots=True)
class RunNow:
    """The job may be claimed."""

    model: str  # the model to use: its own or a fallback model
    # The attempt mark of the circuit's probe; None: the attempt is not a probe.
    probe: str | None = None
    rate: RateTaken | None = None  # what was taken for it of its model's limits; None: no limit of the model is known
    refusal: str | None = None  # why no attempt can ever start: the claim ends the job; None: one can
    # When its start was counted against the rate of its type; None: the type has no rate limit.
    counted_at: Ms | None = None
    # The slots that its claim takes, with how many slots each key has; empty: no concurrency limit concerns it.
    slots: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """The job is held: in the line of a cause, or for a time of its own."""

    when: Ms | None  # when it may probably continue, or continues by itself; None: unknown, only in a line
    reason: HoldReason
    cause: str | None = None  # the line in which it waits for its release; None: it continues at `when`


Admission = RunNow | WaitUntil
