"""The decision of the admission gates before a job is claimed: run now or wait."""

from __future__ import annotations

from dataclasses import dataclass
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
    # The version of the code that got it does not know its type; a newer one has accepted it.
    TYPE_UNKNOWN = "type_unknown"
    PAUSED = transitions.PAUSED  # the job, or what it has in common with others, is paused
    PAUSES_UNKNOWN = "pauses_unknown"  # the store of the pauses did not answer
    TYPE_LIMITS_UNKNOWN = "type_limits_unknown"  # the store of the limits did not answer


@dataclass(frozen=True, slots=True)
class RunNow:
    """The job may be claimed."""

    model: str  # the model to use: its own or a fallback model
    # The attempt mark of the circuit's probe; None: the attempt is not a probe.
    probe: str | None = None
    # The holder of its slot in the type limiter; None: the type has no concurrency limit.
    permit: str | None = None


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """The job is held: in the line of a cause, or for a time of its own."""

    when: Ms | None  # when it may probably continue, or continues by itself; None: unknown, only in a line
    reason: HoldReason
    cause: str | None = None  # the line in which it waits for its release; None: it continues at `when`


Admission = RunNow | WaitUntil
