"""The decision of the admission gates on a woken job before it is claimed: run now, or wait until a time for a reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from chalicelib.domain.units import Ms


class HoldReason(StrEnum):
    """Why a job is `held`."""

    CIRCUIT_OPEN = "circuit_open"  # the circuits of its model and of all fallback models are open
    OPENAI_NOT_CONFIGURED = "openai_not_configured"  # no OpenAI key is stored, and the type has no fallback
    TYPE_RATE = "type_rate"  # the maximum number of jobs of its type has started in this minute
    TYPE_CONCURRENCY = "type_concurrency"  # the maximum number of jobs of its type is running
    TYPE_LIMITS_UNKNOWN = "type_limits_unknown"  # the store of the limits did not answer


@dataclass(frozen=True, slots=True)
class RunNow:
    """The job may be claimed."""

    model: str  # the model to use: its own or a fallback model
    probe: str | None = None  # the attempt mark of the circuit's probe; None: the attempt is not a probe
    permit: str | None = None  # the holder of its slot in the type limiter; None: the type has no concurrency limit


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """The job is held and checked again at `when`."""

    when: Ms
    reason: HoldReason


Admission = RunNow | WaitUntil
