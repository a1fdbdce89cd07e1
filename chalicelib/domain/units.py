"""Convert times and amounts of money between internal integers and public strings."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

Ms = int  # milliseconds since 1970, or a duration in milliseconds
Nano = int  # billionths of a US dollar

DAY_MS = 86_400_000


def rfc3339(at: Ms | None) -> str | None:
    """Format a time as `2026-11-22T09:30:00.125Z`; None stays None."""
    if at is None:
        return None
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at % 1000:03d}Z"


def parse_rfc3339(text: str) -> Ms:
    """Parse a time that names its zone.

    Raises:
        ValueError: `text` is not such a time, or has no zone.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("the time has no zone; end it with Z")
    return round(moment.timestamp() * 1000)


def dollars(amount: Nano | None) -> str | None:
    """Format nano-dollars as a decimal string of dollars with at least six places: `"0.000150"`."""
    if amount is None:
        return None
    exact = Decimal(amount).scaleb(-9)
    places = max(6, -int(exact.normalize().as_tuple().exponent))
    return f"{exact:.{places}f}"


def seconds(duration: Ms | None) -> float | None:
    return None if duration is None else duration / 1000
