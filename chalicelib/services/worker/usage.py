"""What an attempt used: as the provider counted it, or our own count where it never said."""

from __future__ import annotations

from chalicelib.domain.jobs.job import Usage
from chalicelib.domain.jobs.job_type import NO_MODEL
from chalicelib.domain.units import Nano
from chalicelib.ports import Prices, ResponseEnded
from chalicelib.services.worker.attempt import Attempt


def measure_usage(attempt: Attempt, ended: ResponseEnded | None) -> Usage | None:
    """The usage of the final event. Without one: nothing if no response was begun, else an estimate that is marked as such.

    What no provider was asked for uses nothing.
    """
    if attempt.is_free:
        return Usage()
    if ended is not None and ended.usage is not None:
        return ended.usage
    if not attempt.response_started and attempt.output.first_token_at is None:
        return None
    return Usage(input=attempt.input_tokens, output=attempt.output.received, estimated=True)


def cost_of(prices: Prices, model: str, usage: Usage | None) -> Nano | None:
    """None: nothing was used, or the price of the model is not known. Work that asks no model costs nothing."""
    if usage is not None and model == NO_MODEL:
        return 0
    price = prices.of(model) if usage else None
    return price.cost(usage) if price and usage else None
