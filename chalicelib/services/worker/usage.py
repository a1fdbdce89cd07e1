"""The token usage and the cost of an attempt, as the provider counted it or estimated."""

from __future__ import annotations

from chalicelib.domain.jobs.job import Usage
from chalicelib.domain.jobs.job_type import NO_MODEL
from chalicelib.domain.metrics.estimate import estimate_tokens
from chalicelib.domain.units import Nano
from chalicelib.ports import Prices, ResponseEnded
from chalicelib.services.worker.attempt import Attempt


def measure_usage(attempt: Attempt, ended: ResponseEnded | None) -> Usage | None:
    """Return the usage of the provider's final event, or an estimate if the response was cut off or
    the provider did not count.

    Returns: zero usage if no provider was asked; None if no response was created.
    """
    if attempt.is_free:
        return Usage()
    text = attempt.output.transcript.text
    if ended is not None and ended.usage is not None and (ended.usage.output or not text):
        return ended.usage
    if not attempt.response_started and attempt.output.first_token_at is None:
        return None
    counted = ended.usage if ended is not None else None
    given = counted.input if counted else attempt.input_tokens
    # A server may put many tokens into one piece, so the pieces alone would be too few.
    return Usage(input=given, output=max(attempt.output.received, estimate_tokens(text)), estimated=True)


def running_usage(attempt: Attempt) -> Usage | None:
    """Return the usage so far of an attempt that is running, by the pieces of text alone: it is asked for often."""
    if attempt.is_free:
        return Usage()
    if not attempt.response_started and attempt.output.first_token_at is None:
        return None
    return Usage(input=attempt.input_tokens, output=attempt.output.received, estimated=True)


def cost_of(prices: Prices, model: str, usage: Usage | None, tier: str | None = None) -> Nano | None:
    """Return the cost of the usage, as the service tier is priced; 0 for a task, which asks no model.

    Returns: None if there is no usage or the model's price is unknown.
    """
    if usage is not None and model == NO_MODEL:
        return 0
    price = prices.of(model, tier) if usage else None
    return price.cost(usage) if price and usage else None
