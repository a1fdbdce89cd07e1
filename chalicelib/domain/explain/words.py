"""Put what a job waits for into words."""

from __future__ import annotations

from datetime import UTC, datetime

from chalicelib.domain.limits.admission import HoldReason
from chalicelib.domain.limits.waiting import LimitKind, WaitLimit
from chalicelib.domain.queues.causes import CauseKind, kind_of, subject_of
from chalicelib.domain.units import Ms

_UNITS = {
    LimitKind.REQUESTS: "requests a minute",
    LimitKind.TOKENS: "tokens a minute",
    LimitKind.STARTS: "starts a minute",
    LimitKind.CONCURRENCY: "at once",
}
# By reason, where no cause says more.
_REASONS: dict[str, str] = {
    HoldReason.CIRCUIT_OPEN: "its model, which OpenAI did not answer for",
    HoldReason.RATE_LIMITED: "OpenAI's rate limit of its model",
    HoldReason.LIMITS_UNKNOWN: "the store of the limits, which did not answer",
    HoldReason.OPENAI_NOT_CONFIGURED: "an OpenAI key to be stored",
    HoldReason.OPENAI_ADDRESS_INVALID: "an OpenAI address that can be used",
    HoldReason.WORKER_MISCONFIGURED: "a worker that can ask OpenAI",
    HoldReason.TYPE_UNKNOWN: "a worker that knows its job type",
    HoldReason.TYPE_RATE: "the limits of its job type",
    HoldReason.TYPE_CONCURRENCY: "the limits of its job type",
    HoldReason.TENANT_CONCURRENCY: "another job of its tenant to end",
    HoldReason.USER_CONCURRENCY: "another job of its user to end",
    HoldReason.PAUSED: "the end of a pause",
    HoldReason.PAUSES_UNKNOWN: "the store of the pauses, which did not answer",
}
_OPENAI = {
    "key": _REASONS[HoldReason.OPENAI_NOT_CONFIGURED],
    "address": _REASONS[HoldReason.OPENAI_ADDRESS_INVALID],
    "worker": _REASONS[HoldReason.WORKER_MISCONFIGURED],
}


def waited_for(reason: str, cause: str | None, limit: WaitLimit | None) -> str:
    """Return what a job waits for, such as `the rate limit of gpt-4o (500 requests a minute)`."""
    named = _by_cause(cause, reason) if cause is not None else None
    text = named or _REASONS.get(reason) or f"the reason {reason}"
    return text if limit is None else f"{text} ({limit_text(limit)})"


def limit_text(limit: WaitLimit) -> str:
    """Return a limit with its unit, such as `500 requests a minute`."""
    return f"{limit.value:,} {_UNITS[limit.kind]}"


def duration_text(duration: Ms) -> str:
    """Return a duration such as `0.4 s`, `12 s`, `3 min 5 s` or `2 h 10 min`."""
    total = max(0, duration) / 1000
    if total < 9.95:
        return f"{total:.1f} s"
    whole = round(total)
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3_600} h {whole % 3_600 // 60} min"


def time_text(at: Ms) -> str:
    """Return a time such as `2026-11-22 09:30:00 UTC`."""
    return f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _by_cause(cause: str, reason: str) -> str | None:
    subject = subject_of(cause)
    match kind_of(cause):
        case CauseKind.RATE:
            return f"the rate limit of {subject}"
        case CauseKind.CIRCUIT:
            return f"{subject}, which OpenAI did not answer for: its circuit is open"
        case CauseKind.TYPE:
            what = "the starts of" if reason == HoldReason.TYPE_RATE else "a running job to end of"
            return f"{what} the job type {subject}"
        case CauseKind.PAUSE:
            return "the end of its own pause" if subject == "job" else f"the end of a pause of {subject}"
        case CauseKind.OPENAI:
            return _OPENAI.get(subject)
        case CauseKind.CODE:
            return f"a worker that knows the job type {subject}"
    return None  # slots: the reason says whose
