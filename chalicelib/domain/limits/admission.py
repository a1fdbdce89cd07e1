"""What a job that has been woken is told at the gates, before it is claimed: run now, with this model, or wait, and why."""

from __future__ import annotations

from dataclasses import dataclass

from chalicelib.domain.units import Ms

CIRCUIT_OPEN = "circuit_open"  # why a job is held: the circuit of its model, and those of all that may stand in for it, are open
OPENAI_NOT_CONFIGURED = "openai_not_configured"  # no key of OpenAI is stored, and nothing else can answer it
TYPE_RATE = "type_rate"  # as many of its kind as may have begun in this minute
TYPE_CONCURRENCY = "type_concurrency"  # as many of its kind as may are at work
TYPE_LIMITS_UNKNOWN = "type_limits_unknown"  # whether it may begin could not be found out


@dataclass(frozen=True, slots=True)
class RunNow:
    """`model` makes the attempt. `probe` is the mark under which it tries an open circuit out, None for all others. `turn` is that of the
    slot which it has among those of its type, None where the type has no such limit.
    """

    model: str
    probe: str | None = None
    permit: str | None = None


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Look again at `when`; `why` is the reason that the record shows."""

    when: Ms
    reason: str


Admission = RunNow | WaitUntil
