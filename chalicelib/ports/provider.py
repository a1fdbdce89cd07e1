"""The provider of model responses, and its prices."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from chalicelib.domain.failures import AttemptFailed
from chalicelib.domain.jobs.job import Usage
from chalicelib.domain.jobs.spec import is_flex
from chalicelib.domain.rate_headers import RateHeaders
from chalicelib.domain.units import Nano


@dataclass(frozen=True, slots=True)
class Price:
    """Nano-dollars for each token. `cached` is input that the provider had cached."""

    input: float
    cached: float
    output: float

    def cost(self, usage: Usage) -> Nano:
        fresh = usage.input - usage.cached
        return round(fresh * self.input + usage.cached * self.cached + usage.output * self.output)


class Prices(Protocol):
    """The list prices of models."""

    def of(self, model: str, tier: str | None = None) -> Price | None:
        """Return the price of a model; None if it is not known.

        Args:
            tier: the service tier that was served or asked for, such as `flex`. None: the standard.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """A request to a provider."""

    model: str
    prompt: str
    instructions: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    schema: dict[str, Any] | None = None  # structured output: {"name", "schema", "strict"}
    json: bool = False  # any JSON
    extra: dict[str, Any] = field(default_factory=dict)
    timeout: float = 300.0  # seconds
    background: bool = False  # the provider continues without a listener and keeps the response for some minutes
    stream: bool = True  # read the answer as it is written; otherwise at once, when it is complete

    @property
    def is_flex(self) -> bool:
        """Whether it may wait for capacity, as long as `timeout` allows."""
        return is_flex(self.extra)


@dataclass(frozen=True, slots=True)
class ResponseStarted:
    """The provider has created a response.

    `rate`: what the headers say about the rate limits of the model; None: nothing.
    """

    response_id: str
    model: str
    rate: RateHeaders | None = None


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of text. `refusal`: the model refuses.

    `sequence` is the number of the event, to resume after it. `message`: another message of the
    response begins here; `text` begins with the blank line that sets it apart. `tokens`: how many
    tokens the piece stands for.
    """

    text: str
    sequence: int = 0
    refusal: bool = False
    message: bool = False
    tokens: int = 1


@dataclass(frozen=True, slots=True)
class ResponseEnded:
    """The provider's final event.

    `incomplete_reason` is `max_tokens` or `content_filter` if the response was cut. `usage` is None
    if the provider did not count, or what it sent cannot be a count. `tier` is the service tier
    that was served, None if the provider does not say.
    """

    usage: Usage | None
    model: str | None = None
    incomplete_reason: str | None = None
    tier: str | None = None


ProviderEvent = ResponseStarted | TextDelta | ResponseEnded


@dataclass(frozen=True, slots=True)
class FetchedResponse:
    """A background response as it is now.

    `text` is complete once `ended` is set; before that it may be shorter than what was streamed.
    `failure` is the error of the response itself.
    """

    text: str
    ended: ResponseEnded | None
    refusal: bool = False
    failure: AttemptFailed | None = None


class Provider(Protocol):
    """Runs requests on models. Every exception is an `AttemptFailed`."""

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[ProviderEvent]]:
        """Send a request and read the response as it is written, or at once if `request.stream` is
        false or the provider refuses to stream it. The last event is `ResponseEnded`.

        Leaving the context closes the stream, which stops a plain response but not one in the
        background.

            async with provider.stream(request) as events:
                async for event in events:
                    ...

        Raises:
            StreamCut: from the iterator, if the stream ended without `ResponseEnded`.
            ReattachRefused: from the iterator, after `ResponseStarted`: the response in the
                background is not streamed, `fetch` returns it.
        """

    def resume(self, response_id: str, after: int, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[ProviderEvent]]:
        """Read on a background response after the event with number `after` (-1: all events).

        `request` is the one that created it. Leaving the context leaves the response running.

        Raises:
            ReattachRefused: it can no longer be streamed; `fetch` may still return it.
        """

    async def is_configured(self) -> bool:
        """Return whether there are credentials for the provider.

        True if that cannot be told; then the request fails. Never raises.
        """

    async def fetch(self, response_id: str) -> FetchedResponse:
        """Return a background response as it is now.

        Raises:
            ResponseLost: it is no longer kept, or it was cancelled elsewhere.
        """

    async def cancel(self, response_id: str) -> None:
        """Stop a background response. Repeatable; a response that has ended or is gone is no error."""

    async def delete(self, response_id: str) -> None:
        """Delete a background response, with its prompt. Repeatable; one that is gone is no error."""
