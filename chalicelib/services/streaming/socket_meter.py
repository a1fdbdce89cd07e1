"""Count WebSocket connections and what each asks for, and refuse what is too much."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.errors import ConnectionGone, RateLimited, TooManyConnections, Unavailable
from chalicelib.domain.streaming.socket_budget import (
    CLOSE_AT_UNITS,
    FULL_MS,
    MESSAGE_UNITS,
    SLOT_SAMPLE,
    UNITS_PER_WINDOW,
    UNWRITTEN_CONNECTS,
    UNWRITTEN_UNITS,
    WINDOW_MS,
    holds_slot,
    seconds_left,
    window_of,
)
from chalicelib.domain.streaming.subscriptions import Connection, slots_of
from chalicelib.domain.units import Ms
from chalicelib.ports import Connections, RequestCounters, Semaphores, Sockets, Subscriptions
from chalicelib.services.context import Context
from chalicelib.services.streaming.drop_connection import drop_connection

MAX_CONNECTIONS = 10_000  # that one environment remembers


@dataclass(slots=True)
class _Counted:
    window: int
    written: int = 0  # as the store said last
    unwritten: int = 0  # that the store does not have yet
    told: bool = False  # the client knows that it has sent too much in this window


class SocketMeter:
    """What one environment has counted and not written yet. A unit that is lost with it is free.

    The same is counted of connections (units of messages) and of API keys (connects).

    Attributes:
        full_until: by key, until when it is known to have no slot left.
    """

    def __init__(self) -> None:
        self._counted: OrderedDict[str, _Counted] = OrderedDict()
        self.full_until: dict[str, Ms] = {}

    def count(self, connection_id: str, window: int, units: int) -> int:
        """Add units of a message, and return all that are not written yet."""
        counted = self._of(connection_id, window)
        counted.unwritten += units
        return counted.unwritten

    def take(self, connection_id: str, window: int) -> int:
        """Return the units that are not written yet; the caller writes them."""
        counted = self._of(connection_id, window)
        units, counted.unwritten = counted.unwritten, 0
        return units

    def know(self, name: str, window: int, written: int) -> None:
        """Note how many the store has."""
        self._of(name, window).written = written

    def total(self, name: str, window: int) -> int:
        """Return how many there are in this window, as far as this environment knows."""
        counted = self._of(name, window)
        return counted.written + counted.unwritten

    def tell(self, connection_id: str, window: int) -> bool:
        """Whether the client has to be told of the refusal: once in each window."""
        counted = self._of(connection_id, window)
        is_first, counted.told = not counted.told, True
        return is_first

    def _of(self, connection_id: str, window: int) -> _Counted:
        counted = self._counted.get(connection_id)
        if counted is None or counted.window != window:
            counted = self._counted[connection_id] = _Counted(window)
        self._counted.move_to_end(connection_id)
        while len(self._counted) > MAX_CONNECTIONS:
            self._counted.popitem(last=False)
        return counted


class MeterContext(Context, Protocol):
    """What counting needs."""

    @property
    def socket_meter(self) -> SocketMeter: ...
    @property
    def semaphores(self) -> Semaphores: ...
    @property
    def request_counters(self) -> RequestCounters: ...
    @property
    def max_connections(self) -> int: ...
    @property
    def requests_per_minute(self) -> int: ...
    @property
    def connections(self) -> Connections: ...
    @property
    def subscriptions(self) -> Subscriptions: ...
    @property
    def sockets(self) -> Sockets: ...


def meter_message(ctx: MeterContext, connection: Connection) -> None:
    """Count one message of a connection.

    Raises:
        RateLimited: the connection has used up its minute. Raised once in each minute and
            environment, so that the client is told.
        ConnectionGone: it goes on: the message is dropped, or the connection has been closed.
    """
    now = ctx.clock.now()
    window, meter = window_of(now), ctx.socket_meter
    unwritten = meter.count(connection.id, window, MESSAGE_UNITS)
    used = connection.used_in(window) + unwritten
    if unwritten >= UNWRITTEN_UNITS:
        used = ctx.connections.charge(connection, window, meter.take(connection.id, window))
    if used <= UNITS_PER_WINDOW:
        return
    if used > CLOSE_AT_UNITS:
        ctx.log("connection_closed_for_flooding", connection_id=connection.id, tenant=connection.caller.tenant, used=used)
        ctx.sockets.close(connection.endpoint, connection.id)
        drop_connection(ctx.connections, ctx.subscriptions, connection.id)
        raise ConnectionGone
    if not meter.tell(connection.id, window):
        raise ConnectionGone("It sends more than it may, and knows it.")
    seconds = seconds_left(now)
    raise RateLimited(f"This connection has sent too much in this minute. Wait {seconds} s.", retry_after=seconds)


def admit_connection(ctx: MeterContext, connection: Connection) -> Connection:
    """Return the new connection, with a slot of its API key if it is one that needs one.

    One connection in eight holds a slot until it is closed or expires. So the count cannot drift,
    and most connections cost nothing. While a key has no slot left, an environment refuses its
    other connections too, and asks again for each one that needs a slot.

    Raises:
        TooManyConnections: the key has about as many open ones as it may.
        RateLimited: it has opened too many in this minute.
    """
    now, caller, meter = ctx.clock.now(), connection.caller, ctx.socket_meter
    _count_connect(ctx, caller, now)
    if not holds_slot(connection.id):
        if meter.full_until.get(caller.key_id, 0) > now:
            meter.full_until[caller.key_id] = now + FULL_MS
            raise TooManyConnections
        return connection
    slots = range(max(1, ctx.max_connections // SLOT_SAMPLE))
    slot = ctx.semaphores.acquire(slots_of(caller), slots, connection.expires_at, now, connection.id)
    if slot is None:
        meter.full_until[caller.key_id] = now + FULL_MS
        raise TooManyConnections
    meter.full_until.pop(caller.key_id, None)
    return replace(connection, slot=slot)


def _count_connect(ctx: MeterContext, caller: Caller, now: Ms) -> None:
    """Count a connect of a key; the counter is written once for some of them.

    Raises:
        RateLimited: the key has connected too often in this minute.
    """
    window, meter, name = window_of(now), ctx.socket_meter, f"socket#{caller.key_id}"
    if meter.count(name, window, 1) >= UNWRITTEN_CONNECTS:
        with suppress(Unavailable):  # the limit protects against load, not against intruders
            ttl = (now + 2 * WINDOW_MS) // 1000
            meter.know(name, window, ctx.request_counters.increment(name, window, ttl, meter.take(name, window)))
    if meter.total(name, window) > ctx.requests_per_minute:
        raise RateLimited(retry_after=seconds_left(now))
