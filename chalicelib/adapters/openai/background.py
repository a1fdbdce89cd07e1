"""What OpenAI can be asked about a response in the background, by the official SDK: to stream on, to tell, to stop.

What it does, as its guide (https://developers.openai.com/api/docs/guides/background) and those who met it say:

| asked | OpenAI answers |
|---|---|
| `GET /responses/{id}?stream=true&starting_after=n` | the events above n, as they come; 400 once the response is five minutes old |
| `GET /responses/{id}` | the response as it is; 404 some ten minutes after it ended |
| `POST /responses/{id}/cancel` | the response, cancelled, its output gone; again the same; 400 if it had ended before |
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from chalicelib.adapters.openai.errors import from_exception
from chalicelib.adapters.openai.events import fetched
from chalicelib.domain.failures import ContentRefused, RequestRefused, ResponseLost
from chalicelib.ports import FetchedResponse

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai._legacy_response import LegacyAPIResponse
    from openai._response import AsyncAPIResponse
    from openai.types.responses import Response

CONNECT_TIMEOUT = 5.0
ANSWER_TIMEOUT = 20.0  # of an answer that is no stream


def resumed(client: AsyncOpenAI, response_id: str, after: int, timeout: float) -> AbstractAsyncContextManager[AsyncAPIResponse[Any]]:
    """Ask for the events after `after`, of all if that is negative. Without padding, as when the response was made."""
    import openai

    return client.responses.with_streaming_response.retrieve(
        _known(response_id),
        stream=True,
        starting_after=after if after >= 0 else openai.omit,
        include_obfuscation=False,
        timeout=openai.Timeout(timeout, connect=CONNECT_TIMEOUT),
    )


async def fetch(client: AsyncOpenAI, response_id: str) -> FetchedResponse:
    """The response as it is. A refusal says that it is not kept: nothing else in this request could be wrong."""
    import openai

    timeout = openai.Timeout(ANSWER_TIMEOUT, connect=CONNECT_TIMEOUT)
    try:
        answer = await _answered(client.responses.with_raw_response.retrieve(_known(response_id), timeout=timeout))
    except (RequestRefused, ContentRefused) as exc:
        raise ResponseLost(provider_status=exc.provider_status, provider_request_id=exc.provider_request_id) from exc
    return fetched(answer.http_response.content)


async def cancel(client: AsyncOpenAI, response_id: str) -> None:
    """Stop the response. A refusal says that there is nothing to stop: it ended, or is no longer kept."""
    import openai

    timeout = openai.Timeout(ANSWER_TIMEOUT, connect=CONNECT_TIMEOUT)
    try:
        await _answered(client.responses.with_raw_response.cancel(_known(response_id), timeout=timeout))
    except (RequestRefused, ContentRefused):
        return


def _known(response_id: str) -> str:
    """The id, if there is one: a server that is only like OpenAI may have named none."""
    if not response_id:
        raise RequestRefused
    return response_id


async def _answered(asked: Awaitable[LegacyAPIResponse[Response]]) -> LegacyAPIResponse[Response]:
    import openai

    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            return await asked
    except (openai.OpenAIError, TimeoutError) as exc:
        raise from_exception(exc) from exc
