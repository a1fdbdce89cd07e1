"""Read what the scheduler has to know about the causes: circuits, pauses, rate limits, whether there is a key."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from functools import partial

from chalicelib.domain.errors import Unavailable, UnreadableRecord
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker
from chalicelib.domain.limits.pauses import Pause, PauseBoard
from chalicelib.domain.limits.rate_limit import RateLimit
from chalicelib.domain.queues.causes import MISSING_KEY, CauseKind, kind_of
from chalicelib.domain.units import Ms
from chalicelib.services.scheduling.context import SchedulingContext
from chalicelib.services.scheduling.openings import Facts

FACTS_MS = 1_000  # how often the facts are read
KEY_MS = 15_000  # how often it is looked whether there is an OpenAI key
MAX_READS = 32  # pauses of tenants that are read at once


class FactReader:
    """Keeps the facts of one loop, which are at most a second old."""

    def __init__(self, ctx: SchedulingContext) -> None:
        self._ctx = ctx
        self.facts = Facts()
        self._read_at, self._key_at = 0, 0
        self._board: PauseBoard | None = None  # None: not read yet
        self._pauses: dict[str, tuple[int, tuple[Pause, ...]]] = {}  # by tenant, with the version of the board

    async def read(self, tenants: Mapping[str, Collection[str]], now: Ms, *, again: bool = False) -> None:
        """Read the facts, unless they were read a moment ago.

        Args:
            tenants: those that have lines, by cause. Only what concerns these causes is read.
            again: read them in any case.
        """
        if not again and now - self._read_at < FACTS_MS:
            return
        await self._read_circuits()
        if any(kind_of(cause) is CauseKind.RATE for cause in tenants):
            await self._read_rates()
        if MISSING_KEY in tenants and not self.facts.has_key and now - self._key_at >= KEY_MS:
            self.facts.has_key, self._key_at = await self._ctx.provider.is_configured(), now
            if not self.facts.has_key:
                self._ctx.log("openai_not_configured")
        await self._read_pauses({one for cause, those in tenants.items() if kind_of(cause) is CauseKind.PAUSE for one in those}, now)
        self._read_at = now

    async def _read_rates(self) -> None:
        """Read the rate limits of all models. If they cannot be read none is known: attempts must tell."""
        limits: list[RateLimit] = []
        try:
            limits = await self._ctx.offload(self._ctx.rates.limits)
        except Exception as exc:  # noqa: BLE001 - no fault of the store may stop jobs
            self._ctx.log("rate_limits_unavailable", error=exc)
        self.facts.rates = {limit.model: limit for limit in limits}

    async def _read_circuits(self) -> None:
        """Read the circuits of all models, and the board of the pauses with them.

        If they cannot be read, circuits count as closed (protocol: if in doubt the circuit is
        closed), and the last board stays.
        """
        circuits: list[CircuitBreaker] = []
        try:
            circuits, board = await self._ctx.offload(self._ctx.circuit_breakers.all_with_board)
            self._board = board or self._board
        except Exception as exc:  # noqa: BLE001 - no fault of the store may stop jobs
            self._ctx.log("circuit_breakers_unavailable", error=exc)
        self.facts.circuits = {circuit.model: circuit for circuit in circuits}

    async def _read_pauses(self, tenants: Collection[str], now: Ms) -> None:
        """Read the pauses of the tenants that have lines of pauses, again when the board has changed:
        both change together.
        """
        ctx, board = self._ctx, self._board
        if board is None:
            return
        self._pauses = {tenant: known for tenant, known in self._pauses.items() if tenant in tenants and known[0] == board.version}
        unread = sorted(tenant for tenant in set(tenants) - set(self._pauses) if board.may_concern(tenant, now))
        for start in range(0, len(unread), MAX_READS):
            read = [partial(ctx.pauses.of_tenant, tenant, consistent=True) for tenant in unread[start : start + MAX_READS]]
            try:
                for record in await asyncio.gather(*map(ctx.offload, read)):
                    self._pauses[record.tenant] = board.version, record.pauses
            except (Unavailable, UnreadableRecord) as exc:  # the lines of tenants whose pauses are unknown stay closed
                ctx.log("pauses_unavailable", tenants=len(unread), error=exc)
        unconcerned = {tenant: () for tenant in tenants if not board.may_concern(tenant, now)}
        self.facts.pauses = board.pauses
        self.facts.tenant_pauses = {**{tenant: pauses for tenant, (_, pauses) in self._pauses.items()}, **unconcerned}
