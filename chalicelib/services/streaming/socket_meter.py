"""Count what each WebSocket connection asks for, and refuse what is too much."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

from chalicelib.domain.errors import ConnectionGone, RateLimited
from chalicelib.domain.streaming.socket_budget import (
    CLOSE_AT_UNITS,
    MESSAGE_UNITS,
    UNITS_PER_WINDOW,
    UNWRITTEN_UNITS,
    seconds_left,
    window_of,
)
from chalicelib.domain.streaming.subscriptions import Connection
from chalicelib.ports import Connections, Sockets, Subscriptions
from chalicelib.services.context import Context
from chalicelib.services.streaming.drop_connection import drop_connection

MAX_CONNECTIONS = 10_000  # that one environment remembers


@dataclass(slots=True)
class _Counted:
    window: int
    unwritten: int = 0  # units that the row does not have yet
    told: bool = False  # the client knows that it has sent too much in this window


class SocketMeter:
    """What one environment has counted and not written yet. A unit that is lost with it is free."""

    def __init__(self) -> None:
        self._counted: OrderedDict[str, _Counted] = OrderedDict()

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
