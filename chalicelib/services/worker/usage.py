"""The token usage and the cost of an attempt, as the provider counted it or estimated."""

from __future__ import annotations

from chalicelib.domain.jobs.job import Usage
from chalicelib.domain.jobs.job_type import NO_MODEL
from chalicelib.domain.units import Nano
from chalicelib.ports import Prices, ResponseEnded
from chalicelib.services.worker.attempt import Attempt


def measure_usage(attempt: Attempt, ended: ResponseEnded | None) -> Usage | None:
    """Return the usage of the provider's final event, or an estimate if the response was cut off.

    Returns: zero usage if no provider was asked; None if no response was created.
    """
    if attempt.is_free:
        return Usage()
    if ended is not None and ended.usage is not None:
        return ended.usage
    if not attempt.response_started and attempt.output.first_token_at is None:
        return None
    return Usage(input=attempt.input_tokens, output=attempt.output.received, estimated=True)


def cost_of(prices: Prices, model: str, usage: Usage | None) -> Nano | None:
    """Return the cost of the usage; 0 for a task, which asks no model.

    Returns: None if there is no usage or the model's price is unknown.
    """
    if usage is not None and model == NO_MODEL:
        return 0
    price = prices.of(model) if usage else None
    return price.cost(usage) if price and usage else None
