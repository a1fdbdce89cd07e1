"""OpenAI's Responses API, with the official SDK for requests and errors and our own stream decoder.

The SDK's typed events cost several times the processor time
(`docs/decisions/0003-asynchronous-raw-event-stream.md` has the numbers), and a worker with ten
streams has a third of a core.

The SDK's own retries are off. Only the worker retries, and the SDK would sleep up to two minutes
inside it.

A provider that refuses a parameter which Headrace adds by itself (`parameters.py`) is asked again
without it, at once and within the same call: a refused request makes no response and costs nothing.
The environment remembers it for that address and model, for an hour: an account may be verified
meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from chalicelib.adapters.aws.openai_credentials import Credentials
from chalicelib.adapters.openai import background as openai_background
from chalicelib.adapters.openai.address import problem_of
from chalicelib.adapters.openai.errors import from_exception, misconfigured
from chalicelib.adapters.openai.events import ResponseReader, whole
from chalicelib.adapters.openai.parameters import OUR_NAMES, optional_parameters, param_of, refused_parameters
from chalicelib.adapters.openai.rate_headers import rate_headers_of
from chalicelib.adapters.openai.sse_decoder import MAX_EVENT_BYTES, EventDecoder
from chalicelib.adapters.openai.unexpected_answer import check_answer
from chalicelib.domain.bounded_cache import BoundedCache
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.failures import (
    AddressInvalid,
    AttemptFailed,
    AuthenticationFailed,
    NotConfigured,
    ProviderConnectionLost,
    ProviderTimeout,
    ProviderUnavailable,
    ReattachRefused,
    RequestRefused,
    StreamCut,
    StreamMalformed,
)
from chalicelib.domain.text import repair_surrogates
from chalicelib.ports import FetchedResponse, ModelRequest, Offload, ProviderEvent, ResponseStarted

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai._response import AsyncAPIResponse

T = TypeVar("T")

DRAIN_SECONDS = 0.1
MAX_REMEMBERED = 500  # addresses and models whose refusals are remembered
REMEMBERED_SECONDS = 3_600.0
EVENT_BEGINNINGS = (b"data:", b"event:", b"id:", b":")
RESERVED_FIELDS = frozenset({"model", "input", "stream", "background"})  # `extra` of a request may not set these


class OpenAIResponses:
    """The provider.

    There is one in an environment, and it is used on one event loop, to which its connections
    belong.

    Args:
        credentials: returns the credentials, perhaps cached.
        forget: drops cached credentials. If OpenAI refuses the key or cannot be reached at the
            address, the request is made once more with newer ones, if there are any.
        idle_timeout: seconds without an event while an answer is being written. The SDK's read
            timeout counts bytes, and a ping every few seconds would satisfy it for ever. Before the
            first text, while a model reasons, and for the service tier `flex`, which waits for
            capacity, only the request's timeout applies.
        offload: runs a synchronous call on a thread.
        omits: parameters of `parameters.py` that are never sent.
    """

    def __init__(
        self,
        credentials: Callable[[], Credentials],
        *,
        forget: Callable[[], None] | None = None,
        idle_timeout: float = 60.0,
        offload: Offload | None = None,
        omits: Collection[str] = (),
    ) -> None:
        self._credentials = credentials
        self._forget = forget
        self._idle_timeout = idle_timeout
        self._offload: Any = offload or asyncio.to_thread
        self._lock = Lock()
        self._built: tuple[Credentials, AsyncOpenAI] | None = None
        self._omits = frozenset(omits)
        self._refused: BoundedCache[tuple[str, str], tuple[frozenset[str], float]] = BoundedCache(MAX_REMEMBERED)

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncGenerator[AsyncIterator[ProviderEvent]]:
        """Send a request and read the response as it is written, or at once where it is not streamed.

        Leaving the context closes the connection at once, and OpenAI stops a plain response.
        """
        async with AsyncExitStack() as stack:
            response = await self._call(lambda client: self._ask(client, request, stack))
            events = _whole(response, request) if _is_whole(response) else self._events(response, request, ResponseReader())
            stack.push_async_callback(events.aclose)
            yield events

    @asynccontextmanager
    async def resume(self, response_id: str, after: int, request: ModelRequest) -> AsyncGenerator[AsyncIterator[ProviderEvent]]:
        """Read on a background response.

        Raises:
            ReattachRefused: OpenAI refused to stream it. The request itself was accepted before.
        """
        async with AsyncExitStack() as stack:
            try:
                response = await self._call(
                    lambda client: _open(openai_background.open_stream(client, response_id, after, request.timeout), request, stack)
                )
            except openai_background.REFUSALS as exc:
                raise ReattachRefused(provider_status=exc.provider_status, provider_request_id=exc.provider_request_id) from exc
            events = self._events(response, request, ResponseReader(after))
            stack.push_async_callback(events.aclose)
            yield events

    async def is_configured(self) -> bool:
        """Return whether a key is stored.

        Cached credentials cost no call; without a key the secret is read each time.
        """
        try:
            await self._offload(self._credentials)
        except NotConfigured:
            return False
        except Exception:  # noqa: BLE001 - the request itself will raise what keeps the secret from being read
            return True
        return True

    async def fetch(self, response_id: str) -> FetchedResponse:
        """Fetch a background response as it is now."""
        return await self._call(lambda client: openai_background.fetch(client, response_id))

    async def cancel(self, response_id: str) -> None:
        """Stop a background response, unless it has ended."""
        await self._call(lambda client: openai_background.cancel(client, response_id))

    async def delete(self, response_id: str) -> None:
        """Delete a background response, which OpenAI would keep for thirty days."""
        await self._call(lambda client: openai_background.delete(client, response_id))

    def left_out(self, model: str) -> frozenset[str]:
        """Return the parameters that the provider has refused for this model."""
        return self._known_refusals((str(self.client().base_url), model))

    def client(self) -> AsyncOpenAI:
        """Return the SDK's client.

        It is built at the first use (the import takes half a second) and for new credentials.
        """
        credentials = self._credentials()
        with self._lock:
            if self._built is None or self._built[0] != credentials:
                self._built = (credentials, _client(credentials))  # running streams keep their client
            return self._built[1]

    async def _call(self, call: Callable[[AsyncOpenAI], Awaitable[T]]) -> T:
        """Call with the cached credentials; once more with newer ones, if OpenAI refuses them or is not at their address.

        A request that was sent may have made a response although the connection broke. It is not
        repeated here; the next attempt uses the newer credentials.
        """
        client = await self._current_client()
        try:
            return await call(client)
        except (AuthenticationFailed, AddressInvalid, ProviderConnectionLost) as exc:
            if self._forget is None:
                raise
            self._forget()
            if isinstance(exc, ProviderConnectionLost) and not _never_sent(exc):
                raise
            newer = await self._current_client()
            if newer is client:
                raise
            return await call(newer)

    async def _ask(self, client: AsyncOpenAI, request: ModelRequest, stack: AsyncExitStack) -> AsyncAPIResponse[Any]:
        """Send a request, and again without those parameters of ours that the provider refuses.

        Each repetition leaves out one more, so it ends.
        """
        place = str(client.base_url), request.model
        while True:
            optional = optional_parameters(request)
            omitted = self._omits | (self._known_refusals(place) & optional)
            try:
                return await _open(_create(client, request, omitted), request, stack)
            except AttemptFailed as exc:
                refused = refused_parameters(exc.__cause__, optional - omitted)
                if not refused:
                    raise _named_as_ours(exc) from exc.__cause__
                self._refused.put(place, (self._known_refusals(place) | refused, time.monotonic()))

    def _known_refusals(self, place: tuple[str, str]) -> frozenset[str]:
        refused, learned_at = self._refused.get(place) or (frozenset[str](), 0.0)
        return refused if time.monotonic() - learned_at < REMEMBERED_SECONDS else frozenset()

    async def _current_client(self) -> AsyncOpenAI:
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
                idle_limit = request.timeout if reader.thinking or request.is_flex else self._idle_timeout
                started = clock()
                piece = await _next(pieces, idle_limit - silent, idle_limit)
                silent += clock() - started  # only while waiting: a slow consumer of the events is not the provider's silence
                if piece is None:
                    raise StreamCut
                for data in decoder.feed(piece):
                    read = reader.read(data)
                    if read is not None:
                        silent = 0.0
                    for event in read or ():
                        yield _with_rate(event, response)
            await _drain(pieces)
        except AttemptFailed as exc:
            exc.provider_request_id = exc.provider_request_id or response.headers.get("x-request-id")
            raise


def request_fields(request: ModelRequest, omitted: Collection[str] = ()) -> dict[str, Any]:
    """Build the fields of a request beyond model and prompt.

    OpenAI sends no padding, and stores no response unless `extra` asks for it. A background
    response is stored, because it can only be resumed then.

    Args:
        omitted: the parameters of `parameters.py` to leave out.
    """
    extra = {name: value for name, value in request.extra.items() if name not in RESERVED_FIELDS}
    options = {"include_obfuscation": False, **(extra.pop("stream_options", None) or {})}
    fields: dict[str, Any] = {"store": False, **extra}
    if _is_streamed(request, omitted):
        fields["stream_options"] = options
    plain = {
        "instructions": request.instructions and repair_surrogates(request.instructions),
        "max_output_tokens": request.max_tokens,
        "temperature": request.temperature,
    }
    fields |= {name: value for name, value in plain.items() if value is not None}
    if request.background:
        fields |= {"background": True, "store": True}
    if request.schema is not None:
        fields["text"] = {**(extra.get("text") or {}), "format": {"type": "json_schema", **request.schema}}
    elif request.json:
        fields["text"] = {**(extra.get("text") or {}), "format": {"type": "json_object"}}
    stays = set() if "store" in optional_parameters(request) else {"store"}
    return {name: value for name, value in fields.items() if name not in omitted or name in stays}


def _is_streamed(request: ModelRequest, omitted: Collection[str]) -> bool:
    return request.stream and "stream" not in omitted


def _create(client: AsyncOpenAI, request: ModelRequest, omitted: Collection[str]) -> AbstractAsyncContextManager[AsyncAPIResponse[Any]]:
    import openai

    return client.responses.with_streaming_response.create(
        model=request.model,
        input=repair_surrogates(request.prompt),  # a lone surrogate cannot be sent
        stream=True if _is_streamed(request, omitted) else openai.omit,
        extra_body=request_fields(request, omitted),
        timeout=openai.Timeout(request.timeout, connect=openai_background.CONNECT_TIMEOUT),
    )


def _never_sent(error: AttemptFailed) -> bool:
    """Whether the connection was not made, so that the request never left."""
    import httpx2

    return error.__cause__ is not None and isinstance(error.__cause__.__cause__, (httpx2.ConnectError, httpx2.ConnectTimeout))


def _named_as_ours(error: AttemptFailed) -> AttemptFailed:
    """Add to a refusal how the parameter that it names is called in a submission."""
    ours = OUR_NAMES.get(param_of(error.__cause__) or "")
    if ours is not None and isinstance(error, RequestRefused) and ours not in error.message:
        error.args = (f"{error.message} (Here that is {ours}.)",)
    return error


def _is_whole(response: AsyncAPIResponse[Any]) -> bool:
    """Whether the response is one JSON document and no stream, whatever was asked for."""
    return "event-stream" not in (kind := response.headers.get("content-type", "").lower()) and "json" in kind


async def _whole(response: AsyncAPIResponse[Any], request: ModelRequest) -> AsyncGenerator[ProviderEvent]:
    """Read a response that is not streamed."""
    pieces, clock = response.http_response.aiter_bytes(), asyncio.get_running_loop().time
    began, read, size = clock(), [], 0
    try:
        while (piece := await _next(pieces, request.timeout - (clock() - began), request.timeout)) is not None:
            read.append(piece)
            size += len(piece)
            if size > MAX_EVENT_BYTES:
                raise StreamMalformed(f"OpenAI's answer was larger than {MAX_EVENT_BYTES} bytes.")
        data = b"".join(read)
        events = _events_in(data) if data.lstrip().startswith(EVENT_BEGINNINGS) else whole(data, background=request.background)
        for event in events:
            yield _with_rate(event, response)
    except AttemptFailed as exc:
        exc.provider_request_id = exc.provider_request_id or response.headers.get("x-request-id")
        raise


def _with_rate(event: ProviderEvent, response: AsyncAPIResponse[Any]) -> ProviderEvent:
    """Add to the first event of a response what its headers say about the rate limits."""
    return replace(event, rate=rate_headers_of(response.headers)) if isinstance(event, ResponseStarted) else event


async def _open(
    stream: AbstractAsyncContextManager[AsyncAPIResponse[Any]], request: ModelRequest, stack: AsyncExitStack
) -> AsyncAPIResponse[Any]:
    """Wait for the head of the response. Its connection is closed with `stack`."""
    import openai

    try:
        async with asyncio.timeout(request.timeout):
            response = await stack.enter_async_context(stream)
            await check_answer(response)
            return response
    except (openai.OpenAIError, TimeoutError) as exc:
        raise from_exception(exc) from exc


def _client(credentials: Credentials) -> AsyncOpenAI:
    """Build the SDK's client.

    Raises:
        AddressInvalid: the configured address cannot be one of an API.
        WorkerMisconfigured: the environment's proxy cannot be used, such as one of SOCKS without its package.
    """
    if credentials.base_url and (problem := problem_of(credentials.base_url)):
        raise AddressInvalid(problem)
    try:
        from openai import AsyncOpenAI

        return AsyncOpenAI(
            api_key=credentials.api_key,
            base_url=credentials.base_url,
            organization=credentials.organization,
            project=credentials.project,
            max_retries=0,
        )
    except (ImportError, ValueError) as exc:
        raise misconfigured(exc) from exc


def _events_in(data: bytes) -> Iterator[ProviderEvent]:
    """Read a stream that was sent under the type of a JSON document."""
    reader = ResponseReader()
    for event in EventDecoder().feed(data + b"\n\n"):
        yield from reader.read(event) or ()
    if not reader.ended:
        raise StreamCut


async def _next(pieces: AsyncIterator[bytes], seconds: float, limit: float) -> bytes | None:
    """Return the next bytes, None at the end.

    Raises:
        ProviderTimeout: no bytes came within `seconds`, so there was silence for `limit` seconds.
    """
    import httpx2

    try:
        async with asyncio.timeout(seconds):
            return await anext(pieces, None)
    except TimeoutError as exc:
        raise ProviderTimeout(f"OpenAI sent nothing more for {limit:g} s.") from exc
    except (httpx2.HTTPError, httpx2.StreamError) as exc:
        raise from_exception(exc) from exc


async def _drain(pieces: AsyncIterator[bytes]) -> None:
    """Read to the end of a complete response, so that the next request can reuse its connection."""
    with suppress(AttemptFailed):
        while await _next(pieces, DRAIN_SECONDS, DRAIN_SECONDS) is not None:
            continue
