"""Prices of models, in nano-dollars per token."""

from __future__ import annotations

import pytest

from chalicelib.adapters.openai.prices import GenaiPrices
from chalicelib.domain.jobs.job import Usage
from chalicelib.ports import Price


@pytest.mark.parametrize("model", ["gpt-4o-mini", "gpt-4o-mini-2024-07-18", "GPT-4o-mini"])
def test_all_names_of_a_model_have_the_same_price(model: str) -> None:
    assert GenaiPrices().of(model) == Price(input=150, cached=75, output=600)


def test_a_tiered_price_uses_its_lowest_tier() -> None:
    assert GenaiPrices().of("gpt-5.4") == Price(input=2_500, cached=250, output=15_000)


def test_cached_input_costs_the_full_price_if_no_other_is_known() -> None:
    price = GenaiPrices().of("gpt-5-pro")

    assert price is not None
    assert price.cached == price.input == 15_000


@pytest.mark.parametrize("model", ["no-such-model", "", "claude-3-5-sonnet-latest"])
def test_an_unknown_model_has_no_price(model: str) -> None:
    assert GenaiPrices().of(model) is None


def test_cached_input_tokens_are_charged_at_the_cached_price() -> None:
    price = GenaiPrices().of("gpt-4o-mini")

    assert price is not None
    assert price.cost(Usage(input=1_000, cached=400, output=100)) == 600 * 150 + 400 * 75 + 100 * 600
