"""What OpenAI's models cost, as the `genai-prices` library knows it; its table is part of the package, and nothing is asked of the network.

Importing it takes about 200 ms alone, nearly all of it pydantic and httpx2, and about 35 ms in a worker, where `openai` has brought those.
There is no lighter way in: `genai_prices.data` is reached only through the package, which imports its updater. So it is imported when a
price is first needed.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from chalicelib.ports import Price

NANO_DOLLARS = 1_000  # a token, for each dollar a million tokens


class GenaiPrices:
    """List prices of today, kept for as long as the environment lives.

    Where a price rises with the length of the request (gpt-5.4 beyond 272,000 tokens), this is the price below that: a longer one costs
    more than Headrace says. Batch, flex and priority tiers, tools and stored files are not counted. Input that was cached costs the full
    price where no other is known.
    """

    def of(self, model: str) -> Price | None:
        return _price(model)


@cache
def _price(model: str) -> Price | None:
    from genai_prices import Usage, calc_price

    try:
        listed = calc_price(Usage(), model, provider_id="openai").model_price
    except LookupError:
        return None
    fresh, output = _a_token(listed.input_mtok), _a_token(listed.output_mtok)
    if fresh is None or output is None:
        return None
    cached = _a_token(listed.cache_read_mtok)
    return Price(input=fresh, cached=fresh if cached is None else cached, output=output)


def _a_token(dollars_a_million: Any) -> float | None:
    """Nano-dollars; of a price in tiers the lowest."""
    if dollars_a_million is None:
        return None
    return float(getattr(dollars_a_million, "base", dollars_a_million) * NANO_DOLLARS)
