"""Prices of OpenAI's models, from the table in the `genai-prices` package.

Nothing is read from the network. Importing the package takes about 200 ms alone, nearly all of it
pydantic and httpx2, and about 35 ms in a worker, where `openai` has imported those.
`genai_prices.data` can only be reached through the package, which imports its updater. So it is
imported when a price is first needed.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from chalicelib.domain.jobs.spec import PRICED_TIERS
from chalicelib.ports import Price

NANO_DOLLARS = 1_000  # for each token, per dollar for each million tokens


class GenaiPrices:
    """List prices, cached for the life of the environment.

    If a price rises with the length of the request (gpt-5.4 beyond 272,000 tokens), this is the
    lower one, and a longer request costs more than Headrace reports. Tools and stored files are not
    included. Cached input has the full price if no other is known.

    The tiers `flex`, `priority` and `fast` have prices of their own, which the table has for most
    of the models that offer them; where it has none the price is unknown. Any other tier, such as
    one that a compatible server names, has the standard price.
    """

    def of(self, model: str, tier: str | None = None) -> Price | None:
        return _price(model, tier if tier in PRICED_TIERS else None)


@cache
def _price(model: str, tier: str | None) -> Price | None:
    from genai_prices import Usage, calc_price

    context = {"service_tier": tier} if tier else None
    try:
        found = calc_price(Usage(), model, provider_id="openai", price_context=context)
    except LookupError:
        return None
    if tier and not any(variant.when == context for variant in found.model.price_variants or ()):
        return None
    listed = found.model_price
    fresh, output = _per_token(listed.input_mtok), _per_token(listed.output_mtok)
    if fresh is None or output is None:
        return None
    cached = _per_token(listed.cache_read_mtok)
    return Price(input=fresh, cached=fresh if cached is None else cached, output=output)


def _per_token(dollars_per_million: Any) -> float | None:
    """Return nano-dollars for each token; of a price in tiers the lowest."""
    if dollars_per_million is None:
        return None
    return float(getattr(dollars_per_million, "base", dollars_per_million) * NANO_DOLLARS)
