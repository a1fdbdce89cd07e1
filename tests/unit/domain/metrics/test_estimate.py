"""Estimates: tokens by a heuristic, and the cost and time that follow from them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.metrics.estimate import estimate, estimate_tokens, waiting_ms, working_ms
from chalicelib.domain.queues.lanes import HIGH, LOW, URGENT
from chalicelib.ports import Price

PRICE = Price(input=150, cached=75, output=600)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("", 0, 0),
        ("The quick brown fox jumps over the lazy dog.", 10, 11),
        ("internationalization", 3, 4),
        ("1234567", 3, 3),
        ("function withdraw(uint256 amount) external {\n    balances[msg.sender] -= amount;\n}", 22, 32),
        ("これは短い文章です。", 7, 11),
        ("今天天气很好", 4, 6),
        ("Съешь ещё этих мягких булок", 8, 15),
        ("🎉🎉", 2, 6),
        ("a" * 60, 8, 12),
        (" " * 400, 1, 4),
        ("\ud800", 1, 1),
    ],
)
def test_estimate_tokens_is_near_the_true_count(text: str, low: int, high: int) -> None:
    """Covers prose, code, numbers and several scripts."""
    assert low <= estimate_tokens(text) <= high


def test_code_has_more_tokens_than_prose_of_the_same_length() -> None:
    prose, code = "some words of plain English prose ", "if(a[i]!=b[j]){x+=f(y)->z;}//!!--"

    assert estimate_tokens(code * 50) > 1.5 * estimate_tokens(prose * 50)


def test_long_texts_are_sampled_with_small_error() -> None:
    """Without sampling a megabyte would take too long in a request."""
    page = "The owner calls withdraw(amount); it reverts. 第三条 says so.\n"
    whole = estimate_tokens(page) * (1_000_000 // len(page))
    start = time.process_time()

    sampled = estimate_tokens(page * (1_000_000 // len(page)))

    assert sampled == pytest.approx(whole, rel=0.05)
    assert time.process_time() - start < 0.5


@given(text=st.text(st.characters(codec=None)), more=st.text())
def test_estimate_tokens_is_bounded_for_any_text(text: str, more: str) -> None:
    """The estimate of a joined text is at most one above the sum of its parts."""
    assert 0 <= estimate_tokens(text) <= 2 * len(text)
    assert estimate_tokens(text + "\n" + more) <= estimate_tokens(text) + estimate_tokens(more) + 1


def _estimate(*, price: Price | None = PRICE, max_tokens: int = 1_000, depth: int = 0, max_attempts: int = 3) -> tuple[int | None, ...]:
    shape = estimate(
        prompt="word " * 90,
        instructions="",
        answer_tokens=600,
        max_tokens=max_tokens,
        max_attempts=max_attempts,
        price=price,
        queue=HIGH,
        depth=depth,
    )
    return shape.input_tokens, shape.output_tokens, shape.expected_cost, shape.max_cost, shape.wait_ms, shape.duration_ms


@pytest.mark.parametrize(
    ("estimated", "figures"),
    [
        (_estimate(), (100, 600, 375_000, 3 * 618_750, 0, 11_300)),
        (_estimate(max_attempts=1), (100, 600, 375_000, 618_750, 0, 11_300)),
        (_estimate(max_tokens=60), (100, 60, 51_000, 3 * 54_750, 0, 2_300)),  # an answer is never longer than `max_tokens`
        (_estimate(price=None), (100, 600, None, None, 0, 11_300)),  # an unknown price is not zero
        (_estimate(depth=625), (100, 600, 375_000, 3 * 618_750, 15_000, 26_300)),
    ],
)
def test_estimate_gives_expected_and_maximum_cost(estimated: tuple[int | None, ...], figures: tuple[int | None, ...]) -> None:
    """Expected: the prompt and a typical answer once. Maximum: every attempt at its token limit."""
    assert estimated == figures


@given(depth=st.integers(-5, 10**7), more=st.integers(0, 10**6))
def test_wait_never_shrinks_with_queue_depth(depth: int, more: int) -> None:
    """A negative depth counts as an empty queue."""
    assert 0 <= waiting_ms(URGENT, depth) <= waiting_ms(URGENT, depth + more)


def test_wait_includes_the_batching_window_of_the_lane() -> None:
    """Lane `low` collects messages, so even an empty queue means some seconds of wait."""
    assert waiting_ms(LOW, 0) == 5_000
    assert working_ms(0) == 1_300
