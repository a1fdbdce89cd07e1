"""Who answers prompts, and what that costs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from chalicelib.domain.failures import AttemptFailed
from chalicelib.domain.jobs.job import Usage
from chalicelib.domain.units import Nano


@dataclass(frozen=True, slots=True)
class Price:
    """Nano-dollars a token."""

    input: float
    cached: float
    output: float

    def cost(self, usage: Usage) -> Nano:
        fresh = usage.input - usage.cached
        return round(fresh * self.input + usage.cached * self.cached + usage.output * self.output)


class Prices(Protocol):
    def of(self, model: str) -> Price | None:
        """None: this model's price is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """What a provider is asked. `schema` asks for structured output: `{"name", "schema", "strict"}`; `json` for any JSON.

    `background`: the provider is to go on when nobody listens, and to keep the response for some minutes.
    """

    model: str
    prompt: str
    instructions: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    schema: dict[str, Any] | None = None
    json: bool = False
    extra: dict[str, Any] = field(default_factory=dict)
    timeout: float = 300.0
    background: bool = False


@dataclass(frozen=True, slots=True)
class ResponseStarted:
    """The provider has made a response."""

    response_id: str
    model: str


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Some more text. `refusal` when the model is refusing; `sequence` is the number of its event, to resume after."""

    text: str
    sequence: int = 0
    refusal: bool = False


@dataclass(frozen=True, slots=True)
class ResponseEnded:
    """The provider's final event. `incomplete_reason` is `max_tokens` or `content_filter` when the answer was cut."""

    usage: Usage | None
    model: str | None = None
    incomplete_reason: str | None = None


ProviderEvent = ResponseStarted | TextDelta | ResponseEnded


@dataclass(frozen=True, slots=True)
class FetchedResponse:
    """A background response as it is now. `text` is all of it once `ended` is set; until then it may be less than was streamed.

    `failure` is what the response itself failed of.
    """

    text: str
    ended: ResponseEnded | None
    refusal: bool = False
    failure: AttemptFailed | None = None


class Provider(Protocol):
    """Who answers. Everything raised is an `AttemptFailed`."""

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[ProviderEvent]]:
        """Ask, and read the answer as it comes. Leaving the context closes the stream, which stops a plain response, not one in background.

        The last event is `Ended`; if it was not seen, iteration raises `StreamCut`.
        """

    def resume(self, response_id: str, after: int, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[ProviderEvent]]:
        """Go on reading a background response with the events whose sequence is greater than `after`; -1 for all.

        `request` is the one it was made by. Leaving the context leaves the response running.

        Raises:
            ReattachRefused: it cannot be streamed any more; it may still be there to `fetch`.
        """

    async def is_configured(self) -> bool:
        """Whether it could be asked at all. Never raises: where that cannot be told it could, and the request says what is wrong."""

    async def fetch(self, response_id: str) -> FetchedResponse:
        """A background response as it is now.

        Raises:
            ResponseLost: it is no longer kept, or somebody else has cancelled it.
        """

    async def cancel(self, response_id: str) -> None:
        """Stop a background response. One that has ended or is gone is fine, and so is a repetition."""
