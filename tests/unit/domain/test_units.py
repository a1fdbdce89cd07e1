"""Times and amounts of money in their public formats."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.units import dollars, parse_rfc3339, rfc3339, seconds


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (None, None),
        (0, "1970-01-01T00:00:00.000Z"),
        (1_800_000_000_125, "2027-01-15T08:00:00.125Z"),
        (1_800_000_000_999, "2027-01-15T08:00:00.999Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
    ],
)
def test_rfc3339_formats_utc_with_milliseconds(at: int | None, text: str | None) -> None:
    assert rfc3339(at) == text


@given(at=st.integers(0, 253_402_300_799_999))
def test_rfc3339_round_trips_up_to_the_year_9999(at: int) -> None:
    text = rfc3339(at)

    assert text is not None
    assert parse_rfc3339(text) == at


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2027-01-15T08:00:00Z", 1_800_000_000_000),
        ("2027-01-15T09:00:00+01:00", 1_800_000_000_000),
        ("2027-01-15T08:00:00.1255Z", 1_800_000_000_126),
    ],
)
def test_parse_rfc3339_accepts_any_offset_and_fraction(text: str, at: int) -> None:
    """Fractions are rounded to milliseconds."""
    assert parse_rfc3339(text) == at


@pytest.mark.parametrize("text", ["", "tomorrow", "2027-01-15", "2027-01-15T08:00:00", "2027-02-30T08:00:00Z", "1800000000", "x" * 10_000])
def test_parse_rfc3339_rejects_malformed_times(text: str) -> None:
    """A time without an offset is ambiguous."""
    with pytest.raises(ValueError):  # noqa: PT011 - the message is the standard library's
        parse_rfc3339(text)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, None),
        (0, "0.000000"),
        (150, "0.00000015"),
        (150_000, "0.000150"),
        (1, "0.000000001"),
        (1_500_000_000, "1.500000"),
        (10**18, "1000000000.000000"),
        (-150_000, "-0.000150"),
    ],
)
def test_dollars_formats_plain_decimals_with_at_least_six_places(amount: int | None, text: str | None) -> None:
    assert dollars(amount) == text


@given(amount=st.integers(-(10**18), 10**18))
def test_dollars_is_exact_for_any_amount(amount: int) -> None:
    text = dollars(amount)

    assert text is not None
    assert Decimal(text).scaleb(9) == amount
    assert "e" not in text.lower()


def test_seconds_converts_milliseconds() -> None:
    assert seconds(1_250) == 1.25
    assert seconds(None) is None
