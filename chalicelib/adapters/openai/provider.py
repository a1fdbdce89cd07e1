"""OpenAI's Responses API, by the official SDK: its client, its requests, its errors; the stream itself we decode.

Why not the SDK's typed events: they cost several times the processor time (`docs/decisions/0003-asynchronous-raw-event-stream.md` has the
numbers), of which a worker with ten streams has a third of a core.

The SDK's own retries are off: there is one retry loop, the engine's, and the SDK would sleep up to two minutes inside a worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from chalicelib.adapters.aws.openai_credentials import Credentials
from chalicelib.adapters.openai import background as openai_background
from chalicelib.adapters.openai.errors import from_exception
from chalicelib.adapters.openai.events import ResponseReader
from chalicelib.adapters.openai.sse_decoder import EventDecoder
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.failures import (
    AttemptFailed,
    AuthenticationFailed,
    ContentRefused,
    NotConfigured,
    ProviderUnavailable,
    ReattachRefused,
    RequestRefused,
    StreamCut,
)
from chalicelib.domain.text import repair_surrogates
from chalicelib.ports import FetchedResponse, ModelRequest, Offload, ProviderEvent

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai._response import AsyncAPIResponse

T = TypeVar("T")

DRAIN_SECONDS = 0.1
RESERVED_FIELDS = frozenset({"model", "input", "stream", "background"})  # what a request's `extra` may not change


class OpenAIResponses:
    """The provider. One for an environment, used on one event loop, because the connections of its client belong to that.

    `idle_timeout` is the longest silence in a stream: the SDK's read timeout counts bytes, and a ping every few seconds would keep
    it content for ever. While a model reasons, the only limit is the request's own timeout.
    `forget` drops credentials that were kept: if OpenAI refuses the key, a newer one is looked for, once.
    """

    def __init__(
        self,
        credentials: Callable[[], Credentials],
        *,
        forget: Callable[[], None] | None = None,
        idle_timeout: float = 60.0,
        offload: Offload | None = None,
    ) -> None:
        self._credentials = credentials
        self._forget = forget
        self._idle_timeout = idle_timeout
        self._offload: Any = offload or asyncio.to_thread
        self._lock = Lock()
        self._built: tuple[Credentials, AsyncOpenAI] | None = None

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncGenerator[AsyncIterator[ProviderEvent]]:
        """Ask, and read the answer as it comes. Leaving closes the connection at once, by which OpenAI stops a plain response."""
        async with AsyncExitStack() as stack:
            response = await self._ask(lambda client: _open(_created(client, request), request, stack))
            events = self._events(response, request, ResponseReader())
            stack.push_async_callback(events.aclose)
            yield events

    @asynccontextmanager
    async def resume(self, response_id: str, after: int, request: ModelRequest) -> AsyncGenerator[AsyncIterator[ProviderEvent]]:
        """Go on reading a background response. What OpenAI will not stream is refused as such: the request itself was accepted once."""
        async with AsyncExitStack() as stack:
            try:
                response = await self._ask(
                    lambda client: _open(openai_background.resumed(client, response_id, after, request.timeout), request, stack)
                )
            except (RequestRefused, ContentRefused) as exc:
                raise ReattachRefused(provider_status=exc.provider_status, provider_request_id=exc.provider_request_id) from exc
            events = self._events(response, request, ResponseReader(after))
            stack.push_async_callback(events.aclose)
            yield events

    async def is_configured(self) -> bool:
        """Whether a key is stored. One that is known costs nothing; where there is none the secret is read each time."""
        try:
            await self._offload(self._credentials)
        except NotConfigured:
            return False
        except Exception:  # noqa: BLE001 - whatever keeps it from being read, the request itself says so
            return True
        return True

    async def fetch(self, response_id: str) -> FetchedResponse:
        """A background response as it is now."""
        return await self._ask(lambda client: openai_background.fetch(client, response_id))

    async def cancel(self, response_id: str) -> None:
        """Stop a background response, unless it has ended."""
        await self._ask(lambda client: openai_background.cancel(client, response_id))

    def client(self) -> AsyncOpenAI:
        """The SDK's client, built when it is first asked for (the import takes half a second) and when the credentials have changed."""
        credentials = self._credentials()
        with self._lock:
            if self._built is None or self._built[0] != credentials:
                self._built = (credentials, _client(credentials))  # streams that run keep the one they began with
            return self._built[1]

    async def _ask(self, call: Callable[[AsyncOpenAI], Awaitable[T]]) -> T:
        """Call with the credentials that are known; if OpenAI refuses them, once more with newer ones."""
        client = await self._current()
        try:
            return await call(client)
        except AuthenticationFailed:
            if self._forget is None:
                raise
            self._forget()
            newer = await self._current()
            if newer is client:
                raise
            return await call(newer)

    async def _current(self) -> AsyncOpenAI:
        try:
            current: AsyncOpenAI = await self._offload(self.client)
        except Unavailable as exc:
            raise ProviderUnavailable("The OpenAI key could not be read just now.") from exc
        return current

    async def _events(
        self, response: AsyncAPIResponse[Any], request: ModelRequest, reader: ResponseReader
    ) -> AsyncGenerator[ProviderEvent]:
        decoder = EventDecoder()
        pieces = response.http_response.aiter_bytes()
        clock, silent = asyncio.get_running_loop().time, 0.0
        try:
            while not reader.ended:
                patience = request.timeout if reader.thinking else self._idle_timeout
                asked = clock()
                piece = await _next(pieces, patience - silent)
                silent += clock() - asked  # only while we wait: a reader of ours that is slow is no silence of theirs
                if piece is None:
                    raise StreamCut
                for data in decoder.feed(piece):
                    read = reader.read(data)
                    if read is not None:
                        silent = 0.0
                    for event in read or ():
                        yield event
            await _drain(pieces)
        except AttemptFailed as exc:
            exc.provider_request_id = exc.provider_request_id or response.headers.get("x-request-id")
            raise


def body(request: ModelRequest) -> dict[str, Any]:
    """What is asked beyond model and prompt. OpenAI sends no padding, and keeps nothing (`store`) unless `extra` says so.

    A response in the background has to be kept: nobody could come back to it.
    """
    extra = {name: value for name, value in request.extra.items() if name not in RESERVED_FIELDS}
    options = {"include_obfuscation": False, **(extra.pop("stream_options", None) or {})}
    asked: dict[str, Any] = {"store": False, **extra, "stream_options": options}
    plain = {
        "instructions": request.instructions and repair_surrogates(request.instructions),
        "max_output_tokens": request.max_tokens,
        "temperature": request.temperature,
    }
    asked |= {name: value for name, value in plain.items() if value is not None}
    if request.background:
        asked |= {"background": True, "store": True}
    if request.schema is not None:
        asked["text"] = {**(extra.get("text") or {}), "format": {"type": "json_schema", **request.schema}}
    elif request.json:
        asked["text"] = {**(extra.get("text") or {}), "format": {"type": "json_object"}}
    return asked


def _created(client: AsyncOpenAI, request: ModelRequest) -> AbstractAsyncContextManager[AsyncAPIResponse[Any]]:
    import openai

    return client.responses.with_streaming_response.create(
        model=request.model,
        input=repair_surrogates(request.prompt),  # half a character cannot be sent
        stream=True,
        extra_body=body(request),
        timeout=openai.Timeout(request.timeout, connect=openai_background.CONNECT_TIMEOUT),
    )


async def _open(
    asked: AbstractAsyncContextManager[AsyncAPIResponse[Any]], request: ModelRequest, stack: AsyncExitStack
) -> AsyncAPIResponse[Any]:
    """The beginning of an answer, whose connection is closed with `stack`."""
    import openai

    try:
        async with asyncio.timeout(request.timeout):
            return await stack.enter_async_context(asked)
    except (openai.OpenAIError, TimeoutError) as exc:
        raise from_exception(exc) from exc


def _client(credentials: Credentials) -> AsyncOpenAI:
    from openai import AsyncOpenAI

    return AsyncOpenAI(
        api_key=credentials.api_key,
        base_url=credentials.base_url,
        organization=credentials.organization,
        project=credentials.project,
        max_retries=0,
    )


async def _next(pieces: AsyncIterator[bytes], seconds: float) -> bytes | None:
    """The next bytes, None at the end, and `ProviderTimeout` if there are none for `seconds`."""
    import httpx2

    try:
        async with asyncio.timeout(seconds):
            return await anext(pieces, None)
    except (httpx2.HTTPError, httpx2.StreamError, TimeoutError) as exc:
        raise from_exception(exc) from exc


async def _drain(pieces: AsyncIterator[bytes]) -> None:
    """Read on to the end of an answer that is complete, so that its connection can serve the next request: a handshake less."""
    with suppress(AttemptFailed):
        while await _next(pieces, DRAIN_SECONDS) is not None:
            continue
