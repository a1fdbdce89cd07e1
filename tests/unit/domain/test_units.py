"""Times and money as people read them."""

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
def test_rfc3339(at: int | None, text: str | None) -> None:
    """Times are UTC with three decimals; unknown stays unknown."""
    assert rfc3339(at) == text


@given(at=st.integers(0, 253_402_300_799_999))
def test_times_come_back(at: int) -> None:
    """A time that was written is read as the same millisecond, up to the year 9999."""
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
def test_parse(text: str, at: int) -> None:
    """Any zone and any number of decimals will do."""
    assert parse_rfc3339(text) == at


@pytest.mark.parametrize("text", ["", "tomorrow", "2027-01-15", "2027-01-15T08:00:00", "2027-02-30T08:00:00Z", "1800000000", "x" * 10_000])
def test_what_is_no_time(text: str) -> None:
    """A time without a zone could be any of twenty-four."""
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
def test_dollars(amount: int | None, text: str | None) -> None:
    """Money is a decimal string with at least six places, never an exponent."""
    assert dollars(amount) == text


@given(amount=st.integers(-(10**18), 10**18))
def test_no_money_is_lost(amount: int) -> None:
    """The string is the exact amount."""
    text = dollars(amount)

    assert text is not None
    assert Decimal(text).scaleb(9) == amount
    assert "e" not in text.lower()


def test_seconds() -> None:
    """Durations are seconds as numbers."""
    assert seconds(1_250) == 1.25
    assert seconds(None) is None
