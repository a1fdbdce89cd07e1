"""Requests about a background response: resume its stream, fetch it, cancel it, delete it.

Uses the official SDK. What OpenAI does, by its guide
(https://developers.openai.com/api/docs/guides/background) and by reports of users:

| request | response |
|---|---|
| `GET /responses/{id}?stream=true&starting_after=n` | the events after n, as they come; 400 once the response is five minutes old |
| `GET /responses/{id}` | the response as it is; 404 about ten minutes after it ended |
| `DELETE /responses/{id}` | 200; 404 if it is gone. Without it OpenAI keeps a stored response for thirty days |
| `POST /responses/{id}/cancel` | the cancelled response, without output; the same again; 400 if it had ended before |
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, TypeVar

from chalicelib.adapters.openai.errors import from_exception
from chalicelib.adapters.openai.events import fetched
from chalicelib.domain.failures import AddressInvalid, ContentRefused, RequestRefused, ResponseLost
from chalicelib.ports import FetchedResponse

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai._legacy_response import LegacyAPIResponse
    from openai._response import AsyncAPIResponse

T = TypeVar("T")
CONNECT_TIMEOUT = 5.0  # seconds
# Of a request for a response that was accepted before: a 404 in any words is about the response, not about the address.
REFUSALS = (RequestRefused, ContentRefused, AddressInvalid)
RESPONSE_TIMEOUT = 20.0  # seconds; of a response that is no stream


def open_stream(client: AsyncOpenAI, response_id: str, after: int, timeout: float) -> AbstractAsyncContextManager[AsyncAPIResponse[Any]]:
    """Request the events after sequence number `after`; all events if that is negative.

    They come without padding, as in the stream of the first request.
    """
    import openai

    return client.responses.with_streaming_response.retrieve(
        _require_id(response_id),
        stream=True,
        starting_after=after if after >= 0 else openai.omit,
        include_obfuscation=False,
        timeout=openai.Timeout(timeout, connect=CONNECT_TIMEOUT),
    )


async def fetch(client: AsyncOpenAI, response_id: str) -> FetchedResponse:
    """Return the response as it is now.

    Raises:
        ResponseLost: OpenAI refused the request. It has nothing but the id, so the response is no
            longer kept.
    """
    import openai

    timeout = openai.Timeout(RESPONSE_TIMEOUT, connect=CONNECT_TIMEOUT)
    try:
        response = await _await_response(client.responses.with_raw_response.retrieve(_require_id(response_id), timeout=timeout))
    except REFUSALS as exc:
        raise ResponseLost(provider_status=exc.provider_status, provider_request_id=exc.provider_request_id) from exc
    return fetched(response.http_response.content)


async def cancel(client: AsyncOpenAI, response_id: str) -> None:
    """Stop the response.

    If OpenAI refuses the request, the response has ended or is no longer kept.
    """
    import openai

    timeout = openai.Timeout(RESPONSE_TIMEOUT, connect=CONNECT_TIMEOUT)
    try:
        await _await_response(client.responses.with_raw_response.cancel(_require_id(response_id), timeout=timeout))
    except REFUSALS:
        return


async def delete(client: AsyncOpenAI, response_id: str) -> None:
    """Delete the response.

    If OpenAI refuses the request, the response is gone.
    """
    import openai

    timeout = openai.Timeout(RESPONSE_TIMEOUT, connect=CONNECT_TIMEOUT)
    try:
        await _await_response(client.responses.with_raw_response.delete(_require_id(response_id), timeout=timeout))
    except REFUSALS:
        return


def _require_id(response_id: str) -> str:
    """Return the id, or raise if it is empty: a compatible server may not have sent one."""
    if not response_id:
        raise RequestRefused
    return response_id


async def _await_response(request: Awaitable[LegacyAPIResponse[T]]) -> LegacyAPIResponse[T]:
    import openai

    try:
        async with asyncio.timeout(RESPONSE_TIMEOUT):
            return await request
    except (openai.OpenAIError, TimeoutError) as exc:
        raise from_exception(exc) from exc
